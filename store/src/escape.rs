//! Text as the inside of a JSON string (RFC 8259, section 7), eight bytes at a time.
//!
//! Bodies are most of what is written. In JSON about one byte in thirty needs an escape, so what
//! counts is finding the next one and copying what lies before it.

/// Text is escaped in blocks of so many bytes.
const BLOCK_BYTES: usize = 512;
/// `\u00xx`.
const ESCAPE_BYTES_MAX: usize = 6;
const WORD_BYTES: usize = 8;
/// Room for a block of nothing but escapes, and for the word that is copied before it is looked at.
type Buffer = [u8; BLOCK_BYTES * ESCAPE_BYTES_MAX + WORD_BYTES];

/// A text up to this length is looked through first: most field names and values need no escape,
/// and the buffer below costs more than they do.
const SHORT_BYTES_MAX: usize = 256;

/// Appends `text`, escaped, to `out`.
pub(crate) fn push(out: &mut Vec<u8>, text: &str) {
    if text.len() <= SHORT_BYTES_MAX && is_plain(text.as_bytes()) {
        return out.extend_from_slice(text.as_bytes());
    }
    let mut buffer: Buffer = [0; _];
    for block in text.as_bytes().chunks(BLOCK_BYTES) {
        let length = escape(block, &mut buffer);
        out.extend_from_slice(&buffer[..length]);
    }
}

/// Whether nothing in it needs an escape.
fn is_plain(text: &[u8]) -> bool {
    let (words, rest) = text.as_chunks::<WORD_BYTES>();
    words.iter().all(|word| special(u64::from_le_bytes(*word)) == 0)
        && rest.iter().all(|&byte| byte >= 0x20 && !matches!(byte, b'"' | b'\\'))
}

/// Writes a block to the front of `buffer` and returns its length there. Words are copied whole
/// and as far as they are plain count; a copy of fixed size is one instruction, a search before
/// it would be a call.
fn escape(block: &[u8], buffer: &mut Buffer) -> usize {
    let (mut from, mut to) = (0, 0);
    while let Some(word) = block[from..].first_chunk::<WORD_BYTES>() {
        buffer[to..to + WORD_BYTES].copy_from_slice(word);
        let marks = special(u64::from_le_bytes(*word));
        if marks == 0 {
            from += WORD_BYTES;
            to += WORD_BYTES;
        } else {
            let plain = (marks.trailing_zeros() / 8) as usize;
            from += plain + 1;
            to += plain;
            to += escape_byte(word[plain], &mut buffer[to..]);
        }
    }
    for &byte in &block[from..] {
        if byte < 0x20 || matches!(byte, b'"' | b'\\') {
            to += escape_byte(byte, &mut buffer[to..]);
        } else {
            buffer[to] = byte;
            to += 1;
        }
    }
    to
}

/// Writes the escape of `byte` and returns its length.
fn escape_byte(byte: u8, buffer: &mut [u8]) -> usize {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => {
            let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
            buffer[..4].copy_from_slice(b"\\u00");
            buffer[4..ESCAPE_BYTES_MAX].copy_from_slice(&digits);
            return ESCAPE_BYTES_MAX;
        }
    };
    buffer[..2].copy_from_slice(&[b'\\', short]);
    2
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
        for text in ["\u{1}".repeat(2000), "\"".repeat(513), "x".repeat(511) + "\n\n"] {
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
