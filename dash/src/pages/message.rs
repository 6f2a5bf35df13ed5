//! A page with nothing but a sentence: not found, records unreadable.

use super::frame;
use crate::html::Html;
use crate::notices::Notices;

/// The page.
pub(crate) fn page(title: &str, text: &str, notices: &Notices) -> String {
    let main = Html::of(
        "<div class=\"empty\"><h1>{}</h1><p>{}</p><p><a href=\"/\">All exchanges</a></p></div>",
        &[&title, &text],
    );
    frame(title, &main, notices)
}
