//! The pages in a real browser: by keyboard, by mouse, by thumb, live, and against hostile text. Pictures of what
//! people see are kept in `target/tmp/screens`.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::browser::{Browser, DESKTOP, PHONE, Page, Screen};
use crate::support::visitor::{Visitor, link};
use crate::support::{App, app, eventually, example_email};
use crate::web::{letter, letters};

/// Signs in as a person does: opens the link and presses the button.
async fn sign_in(app: &App, page: &Page) {
    page.open(&link(app).await).await;
    page.click("form[action='/sign-in'] button").await;
    page.until("the inbox", "location.pathname === '/' && document.readyState === 'complete'").await;
}

async fn signed_in(app: &App, screen: Screen) -> (Browser, Page) {
    let browser = Browser::start().await;
    let page = browser.page(screen).await;
    sign_in(app, &page).await;
    (browser, page)
}

fn path(review: &Value) -> String {
    format!("/reviews/{}", review["id"].as_str().unwrap())
}

async fn becomes(app: &App, review: &Value, status: &str) {
    eventually(&format!("the review becoming {status}"), || async {
        (app.get(&format!("/api/v1{}", path(review))).await["status"] == status).then_some(())
    })
    .await;
}

/// The text whose contrast to its ground is below 4.5 (3 when it is large), as WCAG 2.2 computes it (1.4.3).
const PALE: &str = r"(() => {
  const parse = (text) => { const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number); return [r, g, b, a]; };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour[3] === 1) return colour;
    }
    return [255, 255, 255, 1];
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !element.checkVisibility() || element.closest('.skip')) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(parse(style.color)), light(ground(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < (parseFloat(style.fontSize) >= 24 ? 3 : 4.5)) found.push(`${ratio.toFixed(2)}: ${walk.currentNode.data.trim().slice(0, 40)}`);
  }
  return found;
})()";

/// Fields without a label, buttons and links without a name, and what should be there once.
const UNNAMED: &str = r"(() => {
  const found = [];
  for (const field of document.querySelectorAll('input:not([type=hidden]), textarea:not([hidden]), select')) {
    if (!field.labels.length) found.push(field.outerHTML.slice(0, 80));
  }
  for (const named of document.querySelectorAll('a, button, summary')) {
    if (!named.innerText.trim() && named.checkVisibility()) found.push(named.outerHTML.slice(0, 80));
  }
  for (const once of ['main', 'h1', 'title', '.top']) {
    if (document.querySelectorAll(once).length !== 1) found.push(once);
  }
  const ids = [...document.querySelectorAll('[id]')].map((element) => element.id);
  if (new Set(ids).size !== ids.length) found.push('an id stands there twice');
  if (!document.documentElement.lang) found.push('no language');
  return found;
})()";

/// Looks at a page on both screens, in both lights: readable, named, no wider than the screen.
async fn looks_right(page: &mut Page, name: &str) {
    for screen in [DESKTOP, PHONE] {
        for screen in [screen, screen.dark()] {
            page.on(screen).await;
            page.picture(name).await;
            assert_eq!(page.eval(PALE).await, json!([]), "{name}, {} {}", screen.name, screen.dark);
            let wide = page.eval("document.scrollingElement.scrollWidth - innerWidth").await;
            assert_eq!(wide, 0, "{name} is wider than the {}", screen.name);
        }
    }
    assert_eq!(page.eval(UNNAMED).await, json!([]), "{name}");
}

#[tokio::test]
async fn the_owner_decides_by_keyboard_alone() {
    let app = app().await;
    let run = app.deliver(example_email("01-lead-bakery.eml")).await;
    let review = app.open_review(&run).await;
    let (browser, mut page) = signed_in(&app, DESKTOP).await;
    page.sees(".card").await;
    looks_right(&mut page, "home").await;
    page.on(DESKTOP).await;
    page.key("j").await;
    page.until("the card having the focus", "document.activeElement.matches('.card')").await;
    let ring = page.eval("getComputedStyle(document.activeElement).outlineStyle").await;
    assert_eq!(ring, "solid", "what has the focus is seen");
    page.key("Enter").await;
    page.until(
        "the review",
        &format!("location.pathname === '{}' && document.readyState === 'complete'", path(&review)),
    )
    .await;
    looks_right(&mut page, "review").await;
    page.on(DESKTOP).await;
    // One key alone decides nothing.
    page.key("a").await;
    page.until("the button having the focus", "document.activeElement.value === 'approve'").await;
    assert_eq!(app.get(&format!("/api/v1{}", path(&review))).await["status"], "open");
    page.key("Enter").await;
    page.sees(".outcome.approved").await;
    assert!(page.text(".outcome").await.contains("owner via web"));
    becomes(&app, &review, "approved").await;
    app.run_that_is(&run, &["succeeded"]).await;
    page.key("u").await;
    page.sees(".waterfall").await;
    page.until(
        "the run having ended",
        "document.querySelector('.title .dot').classList.contains('succeeded')",
    )
    .await;
    looks_right(&mut page, "run").await;
    // Waiting for the owner is drawn differently from working.
    assert!(page.eval("document.querySelectorAll('.lane rect.work').length").await.as_u64() > Some(2));
    assert_eq!(page.eval("document.querySelectorAll('.lane rect.owner').length").await, 1);
    page.key("h").await;
    page.until("the inbox", "location.pathname === '/' && document.readyState === 'complete'").await;
    assert!(page.text("h1").await.contains("Nothing waits"));
    looks_right(&mut page, "home-empty").await;
    assert_eq!(browser.complaints(), [""; 0]);
    app.stop().await;
}

#[tokio::test]
async fn an_edit_is_made_by_mouse_and_seen_word_by_word_before_it_is_approved() {
    let app = letters().await;
    let review = letter(&app, "s", "Dear Nora,\n\nsee you on Thursday.\n\nMara").await;
    let (browser, mut page) = signed_in(&app, DESKTOP).await;
    page.open(&format!("{}{}", app.url, path(&review))).await;
    page.click(".bar a[href='#edit']").await;
    page.until("the form being open", "document.getElementById('edit').open").await;
    page.click("#edit [name='p.body']").await;
    page.eval("document.activeElement.setSelectionRange(...(() => { const at = document.activeElement.value.indexOf('Thursday'); return [at, at + 8]; })())").await;
    page.write("Friday").await;
    page.click("#edit button[value=preview]").await;
    page.sees(".changes del").await;
    assert_eq!(
        (page.text(".changes del").await, page.text(".changes ins").await),
        ("Thursday".into(), "Friday".into())
    );
    looks_right(&mut page, "edit").await;
    page.on(DESKTOP).await;
    assert_eq!(app.get(&format!("/api/v1{}", path(&review))).await["status"], "open");
    // Beside an edit there is no way to approve the draft by mistake.
    assert_eq!(page.eval("document.querySelectorAll('button[value=approve]').length").await, 0);
    page.click(".bar button[value=edit]").await;
    page.sees(".outcome.edited").await;
    let row = app.get(&format!("/api/v1{}", path(&review))).await;
    assert_eq!(row["verdict"]["params"]["body"], "Dear Nora,\n\nsee you on Friday.\n\nMara");
    assert_eq!(browser.complaints(), [""; 0]);
    app.stop().await;
}

#[tokio::test]
async fn on_a_phone_without_scripts_the_decision_is_under_the_thumb() {
    let app = letters().await;
    let review = letter(&app, "a phone", &"A long letter.\n".repeat(80)).await;
    let browser = Browser::start().await;
    let page = browser.page(PHONE).await;
    page.without_scripts().await;
    page.open(&format!("{}/", app.url)).await;
    page.until("the way in", "location.pathname === '/sign-in'").await;
    page.picture("sign-in").await;
    sign_in(&app, &page).await;
    page.click(".card").await;
    page.until(
        "the review",
        &format!("location.pathname === '{}' && document.readyState === 'complete'", path(&review)),
    )
    .await;
    // Wherever the page is scrolled to, every button of the bar is in the last 100 px and large enough.
    for top in ["0", "document.scrollingElement.scrollHeight / 3"] {
        let places = page
            .eval(&format!(
                "scrollTo(0, {top}); [...document.querySelectorAll('.bar button, .bar a')].map((b) => {{ \
                 const r = b.getBoundingClientRect(); return [r.top, r.bottom, r.height, r.width]; }})"
            ))
            .await;
        let places = places.as_array().unwrap();
        assert_eq!(places.len(), 3);
        for place in places {
            let at = |n: usize| place[n].as_f64().unwrap();
            assert!(at(0) > 640.0 && at(1) <= 740.0 && at(2) >= 44.0 && at(3) >= 44.0, "{place}");
        }
    }
    page.eval("scrollTo(0, 0)").await;
    page.picture("review-thumb").await;
    page.click("#reject > summary").await;
    page.click("#reason").await;
    page.write("Not this week.").await;
    page.click("#reject button[value=reject]").await;
    page.sees(".outcome.rejected").await;
    assert!(page.text(".outcome").await.contains("Not this week."));
    becomes(&app, &review, "rejected").await;
    app.stop().await;
}

#[tokio::test]
async fn pages_move_by_themselves_while_they_are_looked_at() {
    let app = letters().await;
    let (browser, home) = signed_in(&app, DESKTOP).await;
    let headline = |says: &str| format!("document.querySelector('h1').innerText.includes({})", json!(says));
    home.until("an empty inbox", &headline("Nothing waits")).await;
    home.eval("window.same = true").await;
    let review = letter(&app, "news", "b").await;
    home.until("the review coming by itself", &headline("One thing waits")).await;
    // The page of a review says when it was decided elsewhere, and so does that of its run.
    let asked = browser.page(DESKTOP).await;
    asked.open(&format!("{}{}", app.url, path(&review))).await;
    let run = browser.page(DESKTOP).await;
    run.open(&format!("{}/runs/{}", app.url, review["run"].as_str().unwrap())).await;
    run.until("the run waiting", "document.querySelector('.waits') !== null").await;
    run.click(".step:last-child summary").await;
    run.until("the step being open", "document.querySelector('.step:last-child details').open").await;
    let yes = json!({"verdict": "approved", "digest": review["digest"]});
    app.post(&format!("/api/v1{}/decision", path(&review)), yes).await;
    asked
        .until(
            "being told",
            "document.querySelector('.notice.late')?.innerText.includes('owner via api') === true",
        )
        .await;
    run.until("the run ending", "document.querySelector('.title .dot').classList.contains('succeeded')")
        .await;
    let open = run.eval("document.querySelector('.step:last-child details').open").await;
    assert_eq!(open, true, "what was opened stays open");
    home.until("the review going", &headline("Nothing waits")).await;
    home.until("what was done", "document.body.innerText.includes('nora@bergflowers.example')").await;
    assert_eq!(home.eval("window.same").await, true, "the page was never loaded again");
    // Who is signed out elsewhere sees nothing new, and is shown the way in.
    let ended = app.client.delete(format!("{}/api/v1/sessions", app.url)).bearer_auth(&app.token);
    assert!(ended.send().await.unwrap().status().is_success());
    home.open(&format!("{}/", app.url)).await;
    home.until("the way in", "location.pathname === '/sign-in'").await;
    assert_eq!(browser.complaints(), [""; 0]);
    app.stop().await;
}

#[tokio::test]
async fn a_page_that_could_not_be_watched_at_first_stays_as_it_is_and_moves_once_it_can() {
    let app = letters().await;
    let (browser, _other) = signed_in(&app, DESKTOP).await;
    // Others watch already, as many as can be served.
    let others = Visitor::signed_in(&app).await;
    let mut watching = Vec::new();
    loop {
        let response = others.request(Method::GET, "/live").send().await.unwrap();
        if !response.status().is_success() {
            break;
        }
        watching.push(response);
    }
    let home = browser.page(DESKTOP).await;
    home.open(&format!("{}/", app.url)).await;
    home.until(
        "being refused",
        "performance.getEntriesByType('resource').some((one) => one.responseStatus === 429)",
    )
    .await;
    let headline =
        |says: &str| format!("document.querySelector('h1')?.innerText.includes({}) === true", json!(says));
    home.until("the page as it was", &headline("Nothing waits")).await;
    drop(watching);
    letter(&app, "news", "b").await;
    home.until("the review coming by itself", &headline("One thing waits")).await;
    drop(browser);
    app.stop().await;
}

#[tokio::test]
async fn hostile_text_runs_nothing_loads_nothing_and_breaks_no_page() {
    let app = letters().await;
    let evil = "<img src=x onerror=\"window.pwned=1\"><script>window.pwned=1</script></textarea></title><svg onload=window.pwned=1> \
                <a href=\"javascript:window.pwned=1\" hx-get=\"/\" hx-trigger=\"load\">x</a> <!channel> \u{202e}lluf ni yap\u{202c}";
    let review = letter(&app, evil, &format!("{evil}\n{}", "x".repeat(100_000))).await;
    let (browser, mut page) = signed_in(&app, DESKTOP).await;
    let run = format!("/runs/{}", review["run"].as_str().unwrap());
    for (path, name) in
        [("/".to_owned(), "hostile-home"), (path(&review), "hostile-review"), (run, "hostile-run")]
    {
        page.open(&format!("{}{path}", app.url)).await;
        page.until("the page", "document.body.innerText.includes('<img src=x onerror=')").await;
        page.eval("document.querySelectorAll('details').forEach((one) => { one.open = true; })").await;
        looks_right(&mut page, name).await;
        let found = "[window.pwned ?? null, document.querySelectorAll('main img, main script, main [hx-get], main a[href^=javascript]').length]";
        assert_eq!(page.eval(found).await, json!([null, 0]), "{path}");
        let loaded = page.eval("performance.getEntriesByType('resource').map((one) => new URL(one.name)).filter((url) => url.origin !== location.origin).length").await;
        assert_eq!(loaded, 0);
    }
    assert_eq!(browser.complaints(), [""; 0]);
    app.stop().await;
}

#[tokio::test]
async fn beside_yes_and_no_a_page_takes_words_a_pause_and_second_thoughts() {
    let (app, _model) = crate::web_aside::letters().await;
    let run = crate::agents::open(&app, "Write to Ann.").await;
    let review = app.open_review(&run).await;
    let (browser, mut page) = signed_in(&app, DESKTOP).await;
    page.open(&format!("{}{}", app.url, path(&review))).await;
    // By keyboard: a comment.
    page.key("c").await;
    page.until("the field having the focus", "document.activeElement.id === 'text'").await;
    page.write("Is Ann back from her holidays?").await;
    page.click("#comment button[value=comment]").await;
    page.sees(".said").await;
    assert!(page.text(".said").await.contains("Is Ann back"));
    page.click("#snooze > summary").await;
    page.click("#snooze button[value=morning]").await;
    page.sees(".notice.snoozed").await;
    page.eval("document.querySelectorAll('details.panel').forEach((one) => { one.open = true; })").await;
    looks_right(&mut page, "aside").await;
    for screen in [PHONE.dark(), DESKTOP] {
        page.on(screen).await;
        page.eval("document.querySelector('.artifacts').scrollIntoView()").await;
        page.picture("aside-known").await;
        page.eval("document.getElementById('respond').scrollIntoView()").await;
        page.picture("aside-panels").await;
    }
    page.click("#words").await;
    page.write("Shorter, please.").await;
    page.click("#respond button[value=respond]").await;
    page.sees(".outcome.superseded").await;
    let second = eventually("the next draft", || async {
        let reviews = app.get(&format!("/api/v1/reviews?run={run}&status=open")).await;
        reviews["reviews"].as_array()?.first().cloned()
    })
    .await;
    page.open(&format!("{}{}", app.url, path(&second))).await;
    page.click(".bar button[value=approve]").await;
    page.sees(".outcome.approved").await;
    eventually("it being held", || async {
        page.open(&format!("{}{}", app.url, path(&second))).await;
        (page.eval("document.querySelector('.goes button') !== null").await == true).then_some(())
    })
    .await;
    looks_right(&mut page, "held").await;
    page.on(DESKTOP).await;
    let run_page = browser.page(DESKTOP).await;
    run_page.open(&format!("{}/runs/{run}", app.url)).await;
    run_page.sees(".waits button[value=call-back]").await;
    run_page.picture("held-run").await;
    page.click(".goes button").await;
    page.until(
        "it being called back",
        "document.querySelector('.goes') === null && document.querySelector('.outcome') !== null",
    )
    .await;
    app.open_review(&run).await;
    assert_eq!(browser.complaints(), [""; 0]);
    app.stop().await;
}

#[tokio::test]
async fn the_link_of_a_mail_opens_the_page_and_decides_without_a_session_or_a_script() {
    let post = crate::support::letters::post().await;
    let (run, _, mail) = post.lead("01-lead-bakery.eml").await;
    let browser = Browser::start().await;
    let mut page = browser.page(DESKTOP).await;
    page.open(&mail.link()).await;
    page.sees(".bar button[value=approve]").await;
    looks_right(&mut page, "link").await;
    page.on(PHONE).await;
    page.without_scripts().await;
    page.open(&mail.link()).await;
    page.sees(".bar button[value=approve]").await;
    // A real browser sends what real browsers send from a page without a referrer.
    page.click(".bar button[value=approve]").await;
    page.sees(".outcome.approved").await;
    page.picture("link-over").await;
    assert!(page.text(".outcome").await.contains("owner via email link"));
    post.app.run_that_is(&run, &["succeeded"]).await;
    assert_eq!(browser.complaints(), [""; 0]);
    post.app.stop().await;
}
