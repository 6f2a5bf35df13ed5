//! The head of a CONNECT request (RFC 9110, section 9.3.6), read leniently: nothing of it is
//! forwarded, so there is no second reader who could understand it differently.
//!
//! Clients send it as HTTP/1.0 without any field, with a `Host` that differs from the target, or
//! with `Connection: close` that means the proxy's connection and not the tunnel.

use crate::limits::HEAD_BYTES_MAX;

/// What the first bytes of a proxy connection are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Connect<'a> {
    /// More bytes are needed.
    Partial,
    /// Another request, or none.
    Other,
    /// A CONNECT.
    Head {
        /// The second word of its first line: what should be `host:port`.
        authority: &'a str,
        /// How many bytes the head has; what follows is the tunnel's.
        length: usize,
        /// How many field lines it has.
        fields: usize,
    },
    /// A CONNECT whose head has no end, or whose first line is not text.
    Malformed,
}

const METHOD: &[u8] = b"CONNECT";

/// Tells what `input`, the first bytes of a proxy connection, is.
pub(crate) fn read(input: &[u8]) -> Connect<'_> {
    // RFC 9112, section 2.2: empty lines before a request are to be passed over.
    let start = input.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    let rest = &input[start..];
    match rest.get(METHOD.len()) {
        None if METHOD.starts_with(rest) => return partial(input),
        Some(b' ' | b'\t') if rest.starts_with(METHOD) => {}
        _ => return Connect::Other,
    }
    let Some(length) = head_length(rest) else { return partial(input) };
    let lines = memchr::memchr_iter(b'\n', &rest[..length]).count();
    let line = rest[..length].split(|&b| b == b'\n').next().unwrap_or_default();
    let Ok(line) = std::str::from_utf8(line) else { return Connect::Malformed };
    let authority = line.split_ascii_whitespace().nth(1).unwrap_or_default();
    // All but the first and the empty one.
    Connect::Head { authority, length: start + length, fields: lines.saturating_sub(2) }
}

fn partial(input: &[u8]) -> Connect<'static> {
    if input.len() > HEAD_BYTES_MAX { Connect::Malformed } else { Connect::Partial }
}

/// Up to and including the first empty line.
fn head_length(head: &[u8]) -> Option<usize> {
    let mut line_start = 0;
    for end in memchr::memchr_iter(b'\n', head) {
        if matches!(&head[line_start..end], b"" | b"\r") {
            return Some(end + 1);
        }
        line_start = end + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_as_clients_send_them() {
        for (text, expected, fields) in [
            ("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n", "a.example:443", 1),
            ("CONNECT a.example:443 HTTP/1.0\r\n\r\n", "a.example:443", 0),
            ("CONNECT a.example:443\r\n\r\n", "a.example:443", 0),
            ("CONNECT   a.example:443 \t HTTP/1.1\r\nHost:\r\n\r\n", "a.example:443", 1),
            ("CONNECT a.example:443 HTTP/1.1\nHost: b.example\nhost: c\n\n", "a.example:443", 2),
            ("\r\nCONNECT [::1]:443 HTTP/1.1\r\nConnection: close\r\n\r\n", "[::1]:443", 1),
            ("CONNECT  HTTP/1.1\r\n\r\n", "HTTP/1.1", 0),
            ("CONNECT \r\n\r\n", "", 0),
        ] {
            for cut in 0..text.len() {
                assert_eq!(read(&text.as_bytes()[..cut]), Connect::Partial, "{text:?} at {cut}");
            }
            let with_more = format!("{text}\x16\x03\x01");
            let head = Connect::Head { authority: expected, length: text.len(), fields };
            assert_eq!(read(with_more.as_bytes()), head, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_connect() {
        for text in ["GET / HTTP/1.1\r\n", "CONNECTED x", "connect a:1", "\x16\x03\x01", "COM"] {
            assert_eq!(read(text.as_bytes()), Connect::Other, "{text:?}");
        }
        assert_eq!(read(b"CONNECT \xff:443 HTTP/1.1\r\n\r\n"), Connect::Malformed);
        let endless = [b"CONNECT a.example:443 HTTP/1.1\r\n".as_slice(), &[b'x'; HEAD_BYTES_MAX]];
        assert_eq!(read(&endless.concat()), Connect::Malformed);
    }
}
