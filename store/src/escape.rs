//! Text as the inside of a JSON string (RFC 8259, section 7), eight bytes at a time.
//!
//! Bodies are most of what is written. In JSON about one byte in thirty needs an escape, so what
//! counts is finding the next one and copying what lies before it.

/// Appends `text`, escaped, to `out`.
pub(crate) fn push(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    loop {
        let plain = plain_bytes(rest);
        out.extend_from_slice(&rest[..plain]);
        let Some(&byte) = rest.get(plain) else { return };
        push_escape(out, byte);
        rest = &rest[plain + 1..];
    }
}

fn push_escape(out: &mut Vec<u8>, byte: u8) {
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        _ => {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&digits);
        }
    }
}

/// How many bytes at the front need no escape.
fn plain_bytes(bytes: &[u8]) -> usize {
    let mut words = bytes.chunks_exact(8);
    for (index, word) in words.by_ref().enumerate() {
        let word = u64::from_le_bytes(word.try_into().expect("chunks of eight"));
        let marks = special(word);
        if marks != 0 {
            return index * 8 + (marks.trailing_zeros() / 8) as usize;
        }
    }
    let tail = words.remainder();
    let in_tail = tail.iter().position(|b| *b < 0x20 || matches!(b, b'"' | b'\\'));
    bytes.len() - tail.len() + in_tail.unwrap_or(tail.len())
}

/// Marks bytes under 0x20, quotes and backslashes in their top bit. Borrows may mark bytes above
/// the lowest marked one wrongly; only that one is used. (Bit Twiddling Hacks, "determine if a
/// word has a byte less than n".)
fn special(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = ONES << 7;
    let less = |word: u64, n: u64| word.wrapping_sub(ONES * n) & !word;
    let equal = |byte: u8| less(word ^ (ONES * u64::from(byte)), 1);
    (less(word, 0x20) | equal(b'"') | equal(b'\\')) & TOPS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(text: &str) -> String {
        let mut out = b"\"".to_vec();
        push(&mut out, text);
        out.push(b'"');
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_character_reads_back_at_every_place() {
        let all: String = (0..=0x24f_u32).filter_map(char::from_u32).collect();
        for start in 0..9 {
            let text = format!("{}{all}\u{1f600}\u{2028}", "x".repeat(start));
            let read: String = serde_json::from_str(&escaped(&text)).unwrap();
            assert_eq!(read, text);
        }
        for special in ["\"", "\\", "\n", "\u{0}", "\u{1f}", "\u{7f}", "\u{80}", "é", " ", "!", "]"]
        {
            for before in 0..20 {
                for after in 0..20 {
                    let text = format!("{}{special}{}", "a".repeat(before), "b".repeat(after));
                    let read: String = serde_json::from_str(&escaped(&text)).unwrap();
                    assert_eq!(read, text);
                }
            }
        }
    }
}
