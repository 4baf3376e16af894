use std::collections::BTreeSet;

use jiff::ToSpan;
use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;

/// Zones with every habit of clocks: none, an hour in either half of the year, half an hour, months of
/// Ramadan, a change at midnight.
const ZONES: [&str; 9] = [
    "UTC",
    "Europe/Oslo",
    "America/New_York",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "America/Santiago",
    "Asia/Kathmandu",
    "Asia/Beirut",
    "America/St_Johns",
];

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

fn cron(pattern: &str, zone_name: &str) -> Timetable {
    Timetable::new(&When::Cron(pattern.into()), zone(zone_name)).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn next(table: &Timetable, after: &str, count: usize) -> Vec<String> {
    let all = std::iter::successors(table.next(at(after)), |at| table.next(*at));
    all.take(count).map(|at| at.to_zoned(table.zone.clone()).strftime("%d %H:%M%:z").to_string()).collect()
}

#[test]
fn a_time_of_day_that_spring_skips_happens_when_the_gap_ends() {
    let daily = cron("30 2 * * *", "Europe/Oslo");
    assert_eq!(
        next(&daily, "2026-03-27T12:00:00Z", 3),
        ["28 02:30+01:00", "29 03:00+02:00", "30 02:30+02:00"]
    );
    let several = cron("0,30 2,3 * * *", "Europe/Oslo");
    // 02:00, 02:30 and 03:00 are the same moment on that day: it happens once.
    assert_eq!(
        next(&several, "2026-03-28T12:00:00Z", 3),
        ["29 03:00+02:00", "29 03:30+02:00", "30 02:00+02:00"]
    );
}

#[test]
fn a_time_of_day_that_autumn_repeats_happens_once() {
    let daily = cron("30 2 * * *", "Europe/Oslo");
    assert_eq!(next(&daily, "2026-10-24T12:00:00Z", 2), ["25 02:30+02:00", "26 02:30+01:00"]);
    let after_the_first = cron("30 2,14 * * *", "Europe/Oslo");
    assert_eq!(next(&after_the_first, "2026-10-25T00:45:00Z", 1), ["25 14:30+01:00"]);
}

#[test]
fn a_rhythm_goes_on_through_a_repeated_hour_and_skips_a_skipped_one() {
    let rhythm = cron("*/30 * * * *", "Europe/Oslo");
    assert_eq!(
        next(&rhythm, "2026-10-24T23:59:00Z", 5),
        ["25 02:00+02:00", "25 02:30+02:00", "25 02:00+01:00", "25 02:30+01:00", "25 03:00+01:00"]
    );
    assert_eq!(
        next(&rhythm, "2026-03-29T00:29:00Z", 3),
        ["29 01:30+01:00", "29 03:00+02:00", "29 03:30+02:00"]
    );
}

#[test]
fn a_day_that_a_zone_skipped_is_made_up_for_at_its_end() {
    // Samoa had no 30 December 2011.
    let daily = cron("0 9 * * *", "Pacific/Apia");
    assert_eq!(
        next(&daily, "2011-12-29T12:00:00-10:00", 3),
        ["31 00:00+14:00", "31 09:00+14:00", "01 09:00+14:00"]
    );
}

#[test]
fn an_interval_is_elapsed_time_from_a_fixed_moment() {
    let every = |span: &str, from: Option<&str>| {
        let from = from.map(|from| from.parse().unwrap());
        let when = When::Every { span: span.parse().unwrap(), from };
        Timetable::new(&when, zone("Europe/Oslo")).unwrap()
    };
    // Across the end of summer time, still every six hours.
    assert_eq!(
        next(&every("6h", None), "2026-10-24T23:00:00Z", 3),
        ["25 02:00+02:00", "25 07:00+01:00", "25 13:00+01:00"]
    );
    let from = every("1d", Some("2026-05-01T08:00"));
    assert_eq!(next(&from, "2020-01-01T00:00:00Z", 2), ["01 08:00+02:00", "02 08:00+02:00"]);
    let short = When::Every { span: "999ms".parse().unwrap(), from: None };
    assert!(matches!(Timetable::new(&short, TimeZone::UTC), Err(BadWhen::TooShort(_))));
}

#[test]
fn a_single_moment_happens_once() {
    let when = When::At("2026-12-24T09:00".parse().unwrap());
    assert_eq!(when.in_words(), "2026-12-24T09:00");
    let once = Timetable::new(&when, zone("Europe/Oslo")).unwrap();
    let moment = at("2026-12-24T08:00:00Z");
    assert_eq!(once.next(at("2026-01-01T00:00:00Z")), Some(moment));
    assert_eq!(once.next(moment), None);
    let due = once.due(moment, at("2027-01-01T00:00:00Z"), Missed::Once);
    assert_eq!(due, Due { open: vec![moment], missed: 0, next: None });
}

#[test]
fn a_pattern_that_never_comes_or_does_not_read_is_refused() {
    let refused = |pattern: &str| Timetable::new(&When::Cron(pattern.into()), TimeZone::UTC).unwrap_err();
    for never in ["0 0 30 2 *", "0 0 31 4,6,9,11 *"] {
        assert_eq!(refused(never), BadWhen::Never(never.into()));
    }
    for unreadable in ["", "* * * *", "61 * * * *", "0 9 * * fry", "0 0 0 1 1 * 2030", "@reboot"] {
        assert!(matches!(refused(unreadable), BadWhen::Pattern(_)), "{unreadable}");
    }
    for rare in ["0 0 29 2 *", "0 9 * * mon-fri", "0 9 L * *", "0 9 * * fri#1", "@daily", "*/10 * * * * *"] {
        assert!(Timetable::new(&When::Cron(rare.into()), TimeZone::UTC).is_ok(), "{rare}");
    }
}

#[test]
fn what_was_missed_is_skipped_made_up_for_once_or_made_up_for_whole() {
    let daily = cron("0 9 * * *", "UTC");
    let (row, now) = (at("2026-05-01T09:00:00Z"), at("2026-05-04T12:00:00Z"));
    let days = |days: &[i8]| -> Vec<Timestamp> {
        days.iter()
            .map(|day| date(2026, 5, *day).at(9, 0, 0, 0).to_zoned(TimeZone::UTC).unwrap().timestamp())
            .collect()
    };
    let next = Some(at("2026-05-05T09:00:00Z"));
    assert_eq!(daily.due(row, now, Missed::Skip), Due { open: vec![], missed: 4, next });
    assert_eq!(daily.due(row, now, Missed::Once), Due { open: days(&[4]), missed: 3, next });
    assert_eq!(daily.due(row, now, Missed::All), Due { open: days(&[1, 2, 3, 4]), missed: 0, next });
    // A little late is not missed.
    let late = at("2026-05-01T09:00:30Z");
    assert_eq!(daily.due(row, late, Missed::Skip).open, [row]);
}

#[test]
fn a_long_past_is_made_up_for_up_to_a_bound_and_quickly() {
    let second = cron("* * * * * *", "Europe/Oslo");
    let due = second.due(at("2025-01-01T00:00:00Z"), at("2026-01-01T00:00:00Z"), Missed::All);
    assert_eq!((due.open.len(), due.missed), (MAX_CATCH_UP, MAX_COUNTED));
    assert_eq!(due.open.first(), Some(&at("2025-12-31T23:58:21Z")));
    assert_eq!(due.open.last(), Some(&at("2026-01-01T00:00:00Z")));
    assert_eq!(due.next, Some(at("2026-01-01T00:00:01Z")));
}

/// One field: what is written, and the numbers it stands for.
#[derive(Clone, Debug)]
struct Field {
    text: String,
    values: BTreeSet<u8>,
    stepped: bool,
}

fn field(low: u8, high: u8, likely: u8) -> impl Strategy<Value = Field> {
    let plain = |text: String, values: BTreeSet<u8>| Field { text, values, stepped: false };
    let all = Field { text: "*".into(), values: (low..=high).collect(), stepped: true };
    prop_oneof![
        Just(all),
        (low..=high).prop_map(move |v| plain(v.to_string(), BTreeSet::from([v]))),
        prop::collection::btree_set(low..=likely, 1..4).prop_map(move |values| {
            plain(values.iter().map(u8::to_string).collect::<Vec<_>>().join(","), values)
        }),
        (low..=likely, 0u8..6).prop_map(move |(from, more)| {
            let to = (from + more).min(high);
            plain(format!("{from}-{to}"), (from..=to).collect())
        }),
        (2u8..=12).prop_map(move |step| Field {
            text: format!("*/{step}"),
            values: (low..=high).filter(|v| (v - low).is_multiple_of(step)).collect(),
            stepped: true,
        }),
    ]
}

#[derive(Clone, Debug)]
struct Pattern {
    minute: Field,
    hour: Field,
    day: Field,
    weekday: Field,
}

fn pattern() -> impl Strategy<Value = Pattern> {
    (field(0, 59, 40), field(0, 23, 4), field(1, 31, 31), field(0, 6, 6))
        .prop_map(|(minute, hour, day, weekday)| Pattern { minute, hour, day, weekday })
}

impl Pattern {
    fn text(&self) -> String {
        format!("{} {} {} * {}", self.minute.text, self.hour.text, self.day.text, self.weekday.text)
    }

    /// As cron has it: of a day of the month and a weekday that are both given, either is enough.
    fn matches(&self, civil: DateTime) -> bool {
        let day = self.day.values.contains(&(civil.day() as u8));
        let weekday = self.weekday.values.contains(&(civil.weekday().to_sunday_zero_offset() as u8));
        let date = match (self.day.text == "*", self.weekday.text == "*") {
            (false, false) => day || weekday,
            _ => day && weekday,
        };
        date && self.hour.values.contains(&(civil.hour() as u8))
            && self.minute.values.contains(&(civil.minute() as u8))
    }

    /// Looks at the clock on the wall every minute, `minutes` long.
    fn watch(&self, zone: &TimeZone, after: Timestamp, minutes: i64) -> Option<Timestamp> {
        let start = after.as_second().div_euclid(60);
        let shown = |minute: i64| zone.to_datetime(Timestamp::from_second(minute * 60).unwrap());
        let rhythm = self.minute.stepped || self.hour.stepped;
        let mut before = shown(start);
        for minute in start + 1..=start + minutes {
            let now = shown(minute);
            let hit = if rhythm {
                self.matches(now)
            } else if now == before + 1.minute() {
                self.matches(now) && !(minute - 180..minute).any(|earlier| shown(earlier) == now)
            } else if now < before {
                false // the clock went back: this has been shown before
            } else {
                // The clock jumped: whatever it left out happens now.
                let left_out = std::iter::successors(Some(before + 1.minute()), |c| Some(*c + 1.minute()));
                left_out.take_while(|c| *c <= now).any(|c| self.matches(c))
            };
            if hit {
                return Timestamp::from_second(minute * 60).ok();
            }
            before = now;
        }
        None
    }
}

/// Moments of twenty years, most of them within two days before a clock is changed.
fn moments() -> impl Strategy<Value = (&'static str, Timestamp)> {
    let span = at("2016-01-01T00:00:00Z").as_second()..at("2036-01-01T00:00:00Z").as_second();
    (prop::sample::select(&ZONES[..]), span, 0i64..2 * 86_400, 0u8..4).prop_map(
        |(name, second, back, which)| {
            let any = Timestamp::from_second(second).unwrap();
            let change = zone(name).following(any).next().map(|change| change.timestamp().as_second() - back);
            match (which, change) {
                (1.., Some(near)) => (name, Timestamp::from_second(near).unwrap()),
                _ => (name, any),
            }
        },
    )
}

/// Two and a half days: past any change that `moments` aims at.
const WATCHED: i64 = 60 * 60;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_next_occurrence_is_the_one_a_watcher_of_the_clock_would_see(
        pattern in pattern(), (name, after) in moments(),
    ) {
        let table = match Timetable::new(&When::Cron(pattern.text()), zone(name)) {
            Ok(table) => table,
            Err(error) => return Err(TestCaseError::fail(format!("{}: {error}", pattern.text()))),
        };
        let horizon = after + WATCHED.minutes();
        let found = table.next(after);
        match pattern.watch(&zone(name), after, WATCHED) {
            Some(seen) => prop_assert_eq!(found, Some(seen), "{} in {}", pattern.text(), name),
            None => prop_assert!(found.is_none_or(|found| found > horizon - 1.minute()), "{} in {}", pattern.text(), name),
        }
    }

    #[test]
    fn whatever_the_ticks_and_crashes_no_occurrence_is_lost_or_doubled(
        pattern in pattern(),
        (name, start) in moments(),
        ticks in prop::collection::vec((1i64..20_000, any::<bool>()), 1..20),
    ) {
        let Ok(table) = Timetable::new(&When::Cron(pattern.text()), zone(name)) else { return Ok(()) };
        for missed in [Missed::All, Missed::Once, Missed::Skip] {
            let (mut row, mut now) = (table.next(start), start);
            // The database's unique key.
            let mut opened: BTreeSet<Timestamp> = BTreeSet::new();
            for (seconds, crash) in &ticks {
                now += seconds.seconds();
                let Some(next_at) = row else { break };
                let due = table.due(next_at, now, missed);
                // The naive model: every occurrence since the row's, one after the other.
                let all = std::iter::successors(Some(next_at), |at| table.next(*at));
                let all: Vec<_> = all.take_while(|at| *at <= now).collect();
                let wanted: Vec<_> = match missed {
                    Missed::All => all.iter().rev().take(MAX_CATCH_UP).rev().copied().collect(),
                    Missed::Once => all.last().copied().into_iter().collect(),
                    Missed::Skip => all.iter().filter(|at| now.duration_since(**at) <= ON_TIME).copied().collect(),
                };
                prop_assert_eq!(&due.open, &wanted, "{} in {}, {:?}", pattern.text(), name, missed);
                prop_assert_eq!(due.missed, ((all.len() - wanted.len()) as u64).min(MAX_COUNTED));
                prop_assert_eq!(due.next, if all.is_empty() { Some(next_at) } else { table.next(now) });
                opened.extend(&due.open);
                if !crash {
                    row = due.next; // only what did not crash advances the row
                }
            }
            if let (Missed::All, Some(row)) = (missed, row) {
                let all = std::iter::successors(table.next(start), |at| table.next(*at));
                let past: Vec<_> = all.take_while(|at| *at < row).collect();
                if past.len() <= MAX_CATCH_UP {
                    let held = past.iter().filter(|at| !opened.contains(*at)).count();
                    prop_assert_eq!(held, 0, "everything before the row's moment has been opened");
                }
            }
        }
    }

    #[test]
    fn an_interval_never_drifts(
        secs in 1u64..100_000, (name, after) in moments(), from in prop::option::of(0i16..40),
    ) {
        let from_civil = from.map(|year| date(2000 + year, 3, 29).at(2, 30, 0, 0));
        let table = Timetable::new(&When::Every { span: Span::secs(secs), from: from_civil }, zone(name)).unwrap();
        let anchor = from_civil.and_then(|civil| instant(&zone(name), civil)).unwrap_or(Timestamp::UNIX_EPOCH);
        let found = table.next(after).unwrap();
        prop_assert!(found > after);
        prop_assert!(found == anchor || found.duration_since(after).as_secs() <= secs as i64);
        prop_assert_eq!(found.duration_since(anchor).as_secs().rem_euclid(secs as i64), 0);
    }
}
