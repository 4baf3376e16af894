//! The page behind a mailed link: the same facts as the mail, the whole of them, and the buttons. It needs no
//! script, fetches nothing, and shows texts of others as inert as the mail does.

use jiff::tz::TimeZone;
use serde_json::Value;

use crate::domain::event::{Question, Verdict};
use crate::domain::risk::RiskClass;
use crate::reviews::email::link::Behind;
use crate::reviews::email::show::{escape, line, lines_to, words};
use crate::reviews::email::write::moment;
use crate::store::reviews::ReviewRow;

/// Nothing is loaded, nothing runs, nobody frames it; its own style stands in it under its hash.
pub(super) const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; \
                                 base-uri 'none'; frame-ancestors 'none'";

/// Lines of one thing: more than anybody reads, few enough for a phone to show.
const LINES: usize = 5_000;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:1rem auto;padding:0 1rem}\
    pre{white-space:pre-wrap;word-break:break-word;background:#f4f4f4;padding:.6rem;border-left:3px solid #999}\
    button{font:inherit;padding:.5rem 1.2rem;margin:.3rem .6rem .3rem 0}textarea,select{font:inherit;width:100%}\
    .told{background:#fff3cd;padding:.6rem}";

/// What is behind a link. `may` is whether its holder may decide; `told` what came of his try.
pub(super) fn review(behind: &Behind, may: bool, told: Option<&str>, zone: &TimeZone) -> String {
    let told = told
        .map(|told| format!("<p class=\"told\" role=\"alert\">{}</p>", escape(&line(told))))
        .unwrap_or_default();
    let body = match behind {
        Behind::Nothing => {
            "<h1>This link opens nothing</h1><p>It may be mistyped, or too old. What waits for you \
                            is in the inbox.</p>"
                .to_owned()
        }
        Behind::Expired => {
            "<h1>This link has expired</h1><p>What waits for you is in the inbox.</p>".to_owned()
        }
        Behind::Changed => {
            "<h1>This has changed</h1><p>What this link was about is not what is asked any more. \
                            A newer message has a link to it, and so has the inbox.</p>"
                .to_owned()
        }
        Behind::Open(row) => open(row, may, zone),
        Behind::Over(row) => over(row, zone),
    };
    document("A decision", &format!("{told}{body}"))
}

/// Whether the digest is sent, and the button that changes it.
pub(super) fn digest(wanted: bool, here: &str) -> String {
    let (says, value, button) = match wanted {
        true => ("The daily digest is sent to you.", "off", "Send no more digests"),
        false => ("The daily digest is not sent to you any more.", "on", "Send them again"),
    };
    let here = escape(here);
    let form = format!(
        "<form method=\"post\" action=\"{here}\"><button name=\"digest\" value=\"{value}\">{button}</button></form>"
    );
    document("The digest", &format!("<h1>{says}</h1>{form}"))
}

/// Whether an answer of this form is plain text, rather than JSON.
pub(super) fn takes_text(form: &Value) -> bool {
    form["type"] == "string" && form["enum"].is_null()
}

fn open(row: &ReviewRow, may: bool, zone: &TimeZone) -> String {
    let question = &row.question;
    let mut page = facts(row, zone);
    if !may {
        page.push_str(
            "<p class=\"told\">The risk is high: a link alone does not decide it. \
             <a href=\"/\">Sign in</a> and decide in the inbox.</p>",
        );
        return page;
    }
    let digest = format!("<input type=\"hidden\" name=\"digest\" value=\"{}\">", row.digest);
    let fitting = crate::reviews::decide::fitting(question.ask, question.form.is_some());
    let form = |inner: &str| format!("<form method=\"post\">{digest}{inner}</form>");
    if fitting.contains(&"approved") {
        page.push_str(&form("<button name=\"verdict\" value=\"approved\">Approve exactly this</button>"));
    }
    if let Some(schema) = question.form.as_ref().filter(|_| fitting.contains(&"answered")) {
        let field = answer_field(schema);
        page.push_str(&form(&format!("{field}<button name=\"verdict\" value=\"answered\">Answer</button>")));
    }
    if fitting.contains(&"rejected") {
        page.push_str(&form(
            "<label>Why not<textarea name=\"reason\" rows=\"3\" maxlength=\"4000\"></textarea></label>\
             <button name=\"verdict\" value=\"rejected\">Reject</button>",
        ));
    }
    page
}

fn answer_field(schema: &Value) -> String {
    let Some(choices) = schema["enum"].as_array() else {
        let hint = if takes_text(schema) { String::new() } else { format!("<pre>{}</pre>", block(schema)) };
        return format!("{hint}<label>Your answer<textarea name=\"answer\" rows=\"5\"></textarea></label>");
    };
    let option = |choice: &Value| {
        format!(
            "<option value=\"{}\">{}</option>",
            escape(&choice.to_string()),
            escape(&line(&words(choice)))
        )
    };
    let options: String = choices.iter().map(option).collect();
    format!("<label>Your answer<select name=\"answer\">{options}</select></label>")
}

fn over(row: &ReviewRow, zone: &TimeZone) -> String {
    let by = row.decided_by.as_deref().map(|by| format!(" by {}", escape(&line(by)))).unwrap_or_default();
    let at = row.decided_at.map(|at| format!(" at {}", moment(at, zone))).unwrap_or_default();
    let reason = match &row.verdict {
        Some(Verdict::Rejected { reason }) if !reason.is_empty() => {
            format!("<pre>{}</pre>", block(&Value::String(reason.clone())))
        }
        _ => String::new(),
    };
    let status = escape(&line(&row.status));
    format!(
        "<h1>This is {status}</h1><p>Decided{by}{at}. The link decides nothing any more.</p>{reason}{}",
        facts(row, zone)
    )
}

fn facts(row: &ReviewRow, zone: &TimeZone) -> String {
    let Question { reasons, artifacts, action, .. } = &row.question;
    let risk = row.question.class();
    let mut page = format!(
        "<h2>{}</h2><p>Risk: {}. Asked at {}.",
        escape(&line(&row.title)),
        risk.as_str(),
        moment(row.opened_at, zone)
    );
    if let Some(due) = row.due_at {
        page.push_str(&format!(
            " Without a decision it expires at {}, which is never a yes.",
            moment(due, zone)
        ));
    }
    page.push_str("</p>");
    if risk == RiskClass::High {
        page.push_str("<p><b>The risk is high.</b></p>");
    }
    if !reasons.is_empty() {
        let all: String =
            reasons.iter().map(|reason| format!("<li>{}</li>", escape(&line(reason)))).collect();
        page.push_str(&format!("<h3>Why you are asked</h3><ul>{all}</ul>"));
    }
    if let Some(action) = action {
        page.push_str(&format!("<h3>What will happen: {}</h3>", escape(&line(&action.action))));
        for (name, value) in action.params.as_object().into_iter().flatten() {
            page.push_str(&format!("<b>{}</b><pre dir=\"auto\">{}</pre>", escape(&line(name)), block(value)));
        }
    }
    if !artifacts.is_empty() {
        page.push_str("<h3>What it rests on</h3>");
        for artifact in artifacts {
            let (title, label) = (escape(&line(&artifact.title)), artifact.label.as_str());
            page.push_str(&format!(
                "<b>{title}</b> ({label})<pre dir=\"auto\">{}</pre>",
                block(&artifact.value)
            ));
        }
    }
    page
}

fn block(value: &Value) -> String {
    escape(&lines_to(&words(value), LINES).join("\n"))
}

fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title} · Steward</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><meta name=\"robots\" content=\"noindex\">\
         <style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )
}
