//! Building HTML from fixed templates and captured text: the one place where text is escaped.
//!
//! A template is a literal of the source; whatever fills its `{}` is escaped unless it is [`Html`]
//! already. So captured text cannot become markup, and it cannot hide either: control characters,
//! direction overrides and invisible characters are shown as what they are.

use std::borrow::Cow;

/// Finished markup.
#[derive(Debug, Default, Clone)]
pub(crate) struct Html(String);

/// What may stand in a template's `{}`.
pub(crate) trait Fill {
    fn fill(&self, out: &mut String);
}

impl Html {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The template with each `{}` filled, in order. Attribute values stand in double quotes.
    pub(crate) fn of(template: &'static str, values: &[&dyn Fill]) -> Self {
        let mut html = Self::new();
        html.put(template, values);
        html
    }

    /// Appends the filled template.
    pub(crate) fn put(&mut self, template: &'static str, values: &[&dyn Fill]) {
        let mut pieces = template.split("{}");
        self.0.push_str(pieces.next().unwrap_or_default());
        let mut filled = 0;
        for (piece, value) in pieces.zip(values) {
            value.fill(&mut self.0);
            self.0.push_str(piece);
            filled += 1;
        }
        assert_eq!(filled, values.len(), "a value without its place in {template}");
        assert_eq!(filled, template.matches("{}").count(), "a place without its value");
    }

    /// Appends captured text.
    pub(crate) fn text(&mut self, text: &str) {
        escape(text, &mut self.0);
    }

    /// Length so far, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn into_string(self) -> String {
        self.0
    }
}

impl Fill for Html {
    fn fill(&self, out: &mut String) {
        out.push_str(&self.0);
    }
}

impl Fill for &str {
    fn fill(&self, out: &mut String) {
        escape(self, out);
    }
}

impl Fill for String {
    fn fill(&self, out: &mut String) {
        escape(self, out);
    }
}

impl Fill for Cow<'_, str> {
    fn fill(&self, out: &mut String) {
        escape(self, out);
    }
}

impl Fill for u64 {
    fn fill(&self, out: &mut String) {
        out.push_str(&self.to_string());
    }
}

fn escape(text: &str, out: &mut String) {
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(character),
            '\r' if characters.peek() == Some(&'\n') => {}
            '\0'..='\x1f' => out.push(control_picture(character)),
            '\x7f' => out.push('\u{2421}'),
            _ if is_deceptive(character) => {
                out.push_str(&format!("\u{27e8}U+{:04X}\u{27e9}", u32::from(character)));
            }
            _ => out.push(character),
        }
    }
}

/// U+2400 and on picture the C0 controls in their order.
fn control_picture(control: char) -> char {
    char::from_u32(0x2400 + u32::from(control)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// Characters that show nothing or reorder what is around them: C1 controls, direction marks and
/// overrides (the "Trojan Source" set), invisible separators, and the tag block, which smuggles
/// whole sentences past a reader. The zero-width joiners stay: emoji and scripts need them.
fn is_deceptive(character: char) -> bool {
    matches!(character,
        '\u{80}'..='\u{9f}' | '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}'
        | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(text: &str) -> String {
        Html::of("{}", &[&text]).into_string()
    }

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escaped("<script>"), "&lt;script&gt;");
        assert_eq!(
            Html::of("<a title=\"{}\">", &[&"\"' onclick=x&"]).into_string(),
            "<a title=\"&quot;&#39; onclick=x&amp;\">"
        );
        assert_eq!(escaped("{}"), "{}");
    }

    #[test]
    fn text_cannot_hide() {
        assert_eq!(escaped("a\0b\x1b[2J\x7f"), "a\u{2400}b\u{241b}[2J\u{2421}");
        assert_eq!(escaped("user\u{202e}gnp.exe"), "user\u{27e8}U+202E\u{27e9}gnp.exe");
        assert_eq!(escaped("\u{e0041}\u{85}"), "\u{27e8}U+E0041\u{27e9}\u{27e8}U+0085\u{27e9}");
        assert_eq!(escaped("a\r\nb\rc"), "a\nb\u{240d}c");
        assert_eq!(escaped("Grüße 你好 👩\u{200d}💻"), "Grüße 你好 👩\u{200d}💻");
    }
}
