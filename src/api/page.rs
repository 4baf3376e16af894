//! Pages of lists: a cursor is the place of the last row, opaque to clients so that it may change.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use uuid::Uuid;

use crate::api::problem::{Kind, Problem};

/// Rows on a page when nobody says how many.
const USUAL: u32 = 50;

/// The most rows on a page: a few hundred kilobytes.
const MOST: u32 = 200;

/// The place of a row in a list ordered by time and id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Its moment, exact to the microsecond.
    pub at: Timestamp,
    /// Its id, for rows of the same moment.
    pub id: Uuid,
}

impl Place {
    /// The cursor that names this place.
    #[must_use]
    pub fn cursor(self) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}:{}", self.at.as_microsecond(), self.id.simple()))
    }

    /// The place that a cursor names.
    ///
    /// # Errors
    /// 400 when it was not made by [`Place::cursor`].
    pub fn parse(cursor: &str) -> Result<Self, Problem> {
        let place = || {
            let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
            let (at, id) = text.split_once(':')?;
            Some(Self { at: Timestamp::from_microsecond(at.parse().ok()?).ok()?, id: id.parse().ok()? })
        };
        place().ok_or_else(|| {
            Problem::new(Kind::BadRequest, "the cursor is none: take the `next` of a page as it is")
        })
    }
}

/// How many rows a page has.
///
/// # Errors
/// 400 for a number out of bounds: silently giving fewer would look like the end of the list.
pub fn size(limit: Option<u32>) -> Result<usize, Problem> {
    match limit.unwrap_or(USUAL) {
        size @ 1..=MOST => Ok(size as usize),
        _ => Err(Problem::new(Kind::BadRequest, format!("`limit` is 1 to {MOST}"))),
    }
}

/// Cuts a list that was asked for with one row more than a page has; gives the next page's cursor.
pub fn cut<T>(rows: &mut Vec<T>, size: usize, place: impl Fn(&T) -> Place) -> Option<String> {
    let more = rows.len() > size;
    rows.truncate(size);
    rows.last().filter(|_| more).map(|last| place(last).cursor())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Place {
        Place { at: Timestamp::from_microsecond(micros).unwrap(), id: Uuid::from_u128(7) }
    }

    #[test]
    fn a_cursor_gives_back_its_place_to_the_microsecond() {
        let place = at(1_700_000_000_123_456);
        assert_eq!(Place::parse(&place.cursor()).unwrap(), place);
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        let far = URL_SAFE_NO_PAD.encode(format!("{}:{}", i64::MAX, Uuid::nil()));
        for cursor in ["", "x", "!!", "MTIz", &far] {
            assert_eq!(Place::parse(cursor).unwrap_err().kind, Kind::BadRequest, "{cursor}");
        }
    }

    #[test]
    fn the_last_page_has_no_next() {
        let mut rows = vec![1, 2, 3];
        assert_eq!(cut(&mut rows, 2, |n| at(*n)), Some(at(2).cursor()));
        assert_eq!(rows, [1, 2]);
        assert_eq!(cut(&mut rows, 2, |n| at(*n)), None);
    }

    #[test]
    fn a_page_has_one_to_two_hundred_rows() {
        assert_eq!(size(None).unwrap(), 50);
        assert!(size(Some(0)).is_err() && size(Some(201)).is_err());
    }
}
