//! JSON set out over lines, token by token.
//!
//! A lexer, not a parser: it works on a body that was cut anywhere, keeps every token as it was sent
//! (numbers, escapes, repeated keys), and does not recurse however deep the nesting.

use crate::html::Html;

/// Deeper levels are not moved further in; also bounds what nesting alone can make us write.
const INDENT_MAX: usize = 24;

/// The most HTML written for one text, in bytes. Set out, JSON grows about threefold; only a text
/// made of brackets grows without measure.
const HTML_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Whether `text` is JSON, or looks like it as far as a cut text can.
pub(crate) fn is_json(text: &str, whole: bool) -> bool {
    if whole {
        serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
    } else {
        text.trim_start().starts_with(['{', '['])
    }
}

/// Writes `text` set out over lines; false when it was left off for length.
pub(crate) fn put(text: &str, out: &mut Html) -> bool {
    let end = out.len() + HTML_BYTES_MAX;
    let mut rest = text.trim_ascii_start();
    let mut depth = 0_usize;
    while let Some(&first) = rest.as_bytes().first() {
        if out.len() > end {
            return false;
        }
        let (token, after) = rest.split_at(token_length(rest));
        rest = after.trim_ascii_start();
        match first {
            b'{' | b'[' if rest.starts_with(closing(first)) => {
                out.text(token);
                out.text(&rest[..1]);
                rest = rest[1..].trim_ascii_start();
            }
            b'{' | b'[' => {
                depth += 1;
                out.text(token);
                new_line(depth, out);
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                new_line(depth, out);
                out.text(token);
            }
            b',' => {
                out.text(token);
                new_line(depth, out);
            }
            b':' => out.text(": "),
            b'"' if rest.starts_with(':') => out.put("<b>{}</b>", &[&token]),
            b'"' => out.text(token),
            _ => out.put("<i>{}</i>", &[&token]),
        }
    }
    true
}

fn closing(opening: u8) -> char {
    if opening == b'{' { '}' } else { ']' }
}

fn new_line(depth: usize, out: &mut Html) {
    const SPACES: &str = "                                                ";
    const _: () = assert!(SPACES.len() == 2 * INDENT_MAX);
    out.text("\n");
    out.text(&SPACES[..2 * depth.min(INDENT_MAX)]);
}

/// Length of the token at the start of `text`; it ends next to an ASCII byte or at the end, so it
/// never cuts a character.
fn token_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    match bytes[0] {
        b'{' | b'}' | b'[' | b']' | b',' | b':' => 1,
        b'"' => string_length(bytes),
        _ => bytes.iter().position(|byte| b"{}[],:\" \t\r\n".contains(byte)).unwrap_or(bytes.len()),
    }
}

fn string_length(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_out(text: &str) -> String {
        let mut html = Html::new();
        assert!(put(text, &mut html));
        html.into_string()
    }

    #[test]
    fn tokens_keep_their_spelling() {
        assert_eq!(
            set_out(r#"{"a":1.50e3 ,"b":[],"c":["x\"}",null],"ü":{"d":{}}}"#),
            "{\n  <b>&quot;a&quot;</b>: <i>1.50e3</i>,\n  <b>&quot;b&quot;</b>: [],\n  \
             <b>&quot;c&quot;</b>: [\n    &quot;x\\&quot;}&quot;,\n    <i>null</i>\n  ],\n  \
             <b>&quot;ü&quot;</b>: {\n    <b>&quot;d&quot;</b>: {}\n  }\n}"
        );
    }

    #[test]
    fn a_text_cut_anywhere_is_shown_as_far_as_it_goes() {
        let text = r#"{"häß":"\\\"ü","list":[1,true,{"x":"𝄞"}],"<b>":""}"#;
        for (end, _) in text.char_indices() {
            let shown = set_out(&text[..end]);
            let plain = shown
                .replace("<b>", "")
                .replace("</b>", "")
                .replace("<i>", "")
                .replace("</i>", "")
                .replace("&quot;", "\"")
                .replace("&lt;", "<")
                .replace("&gt;", ">");
            let packed: String = plain.split_whitespace().collect();
            assert_eq!(packed, text[..end].replace(' ', ""));
        }
    }

    #[test]
    fn nesting_costs_neither_stack_nor_measureless_space() {
        let mut html = Html::new();
        assert!(!put(&"[".repeat(256 * 1024), &mut html));
        assert!(html.len() < HTML_BYTES_MAX + 1024);
        assert!(put(&"]".repeat(1000), &mut Html::new()));
    }

    #[test]
    fn only_json_is_set_out() {
        assert!(is_json(r#"{"a":1}"#, true));
        assert!(!is_json("{\"a\":1}\n{\"a\":2}", true));
        assert!(!is_json("plain words", true));
        assert!(is_json(r#"{"a":"#, false));
        assert!(!is_json("plain", false));
    }
}
