//! A page with nothing but a sentence: not found, records unreadable.

use super::frame;
use crate::html::Html;

/// The page.
pub(crate) fn page(title: &str, text: &str) -> String {
    let main = Html::of(
        "<div class=\"empty\"><h1>{}</h1><p>{}</p><p><a href=\"/\">All exchanges</a></p></div>",
        &[&title, &text],
    );
    frame(title, &main)
}
