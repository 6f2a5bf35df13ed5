//! The pages, one file a page, and the frame they share.

pub(crate) mod exchange;
pub(crate) mod index;
pub(crate) mod message;
pub(crate) mod websocket;

use agent_gate_store::Timestamp;
use agent_gate_store::record::Flag;

use crate::html::Html;
use crate::notices::Notices;
use crate::words;

/// A whole page around `main`.
fn frame(title: &str, main: &Html, notices: &Notices) -> String {
    Html::of(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <title>{} · agent-gate</title>\
         <link rel=\"icon\" href=\"/assets/icon.svg\" type=\"image/svg+xml\">\
         <link rel=\"stylesheet\" href=\"/assets/style.css\">\
         <script src=\"/assets/app.js\" defer></script></head><body>\
         <header><a class=\"brand\" href=\"/\">agent-gate</a>\
         <span id=\"live\" hidden><i></i><span>live</span></span></header>\
         <main>{}{}</main></body></html>\n",
        &[&title, &notices.html(), main],
    )
    .into_string()
}

/// What is odd about something, a small label each.
fn flags(flags: &[Flag]) -> Html {
    let mut html = Html::new();
    for &flag in flags {
        let (label, meaning) = words::flag(flag);
        html.put("<span class=\"flag\" title=\"{}\">{}</span>", &[&meaning, &label]);
    }
    html
}

/// A moment, short to read and whole for the script and the pointer.
fn time(at: Timestamp, now: Timestamp) -> Html {
    let whole = at.to_string();
    Html::of(
        "<time datetime=\"{}\" title=\"{}\">{}</time>",
        &[&whole, &whole, &words::time(at, now)],
    )
}
