//! What whoever serves the pages wants to be seen on each of them: something is wrong, and what to
//! do about it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::html::Html;

/// The notices that stand on every page now. Clones show and change the same ones.
#[derive(Debug, Clone, Default)]
pub struct Notices(Arc<Mutex<Vec<String>>>);

impl Notices {
    /// Puts these in place of those that stood before.
    pub fn set(&self, notices: Vec<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = notices;
    }

    /// As markup, one paragraph each.
    pub(crate) fn html(&self) -> Html {
        let mut html = Html::new();
        for notice in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            html.put("<p class=\"notice\" role=\"status\">{}</p>", &[notice]);
        }
        html
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_show_the_same_and_text_stays_text() {
        let notices = Notices::default();
        assert_eq!(notices.clone().html().into_string(), "");
        notices.clone().set(vec!["denylist.txt:2: `<b>`".to_owned()]);
        let shown = notices.html().into_string();
        assert!(shown.contains("denylist.txt:2: `&lt;b&gt;`"), "{shown}");
        notices.set(Vec::new());
        assert_eq!(notices.html().into_string(), "");
    }
}
