//! What exactly is wrong with a request head: asked once the parser has refused it, so that the
//! client and the journal are told in words.
//!
//! The first fault in order counts, and each is told from the bytes up to it, so the answer does
//! not depend on how many more have arrived.

use super::head::HeadError;

/// The one fault that httparse lets pass.
pub(super) const BARE_LINE_FEED: &str = "a line feed without a carriage return before it";
const BARE_RETURN: &str = "a carriage return without a line feed behind it";
const CUT_START_LINE: &str = "a request line that is not METHOD TARGET VERSION";

/// The first fault of `input`, which begins with a malformed request head.
pub(super) fn of_request(input: &[u8]) -> HeadError {
    let found = find(&mut Cursor { rest: input });
    HeadError::Malformed(found.err().unwrap_or("not an HTTP/1.1 request"))
}

type Found = Result<(), &'static str>;

/// Bytes yet to be looked at.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl Cursor<'_> {
    /// The next byte; where there is none, nothing more can be found.
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
    }

    /// Goes to the first byte that is not `allowed`, and returns how many were.
    fn skip_while(&mut self, allowed: impl Fn(u8) -> bool) -> usize {
        let length = self.rest.iter().position(|&b| !allowed(b)).unwrap_or(self.rest.len());
        self.skip(length);
        length
    }

    /// A line end, if the next bytes are meant as one.
    fn line_end(&mut self) -> Result<bool, &'static str> {
        match self.rest {
            [b'\n', ..] => Err(BARE_LINE_FEED),
            [b'\r', b'\n', ..] => {
                self.skip(2);
                Ok(true)
            }
            [b'\r', _, ..] => Err(BARE_RETURN),
            _ => Ok(false),
        }
    }
}

fn find(cursor: &mut Cursor<'_>) -> Found {
    while cursor.line_end()? {}
    start_line(cursor)?;
    let mut first = true;
    while cursor.peek().is_some() && !cursor.line_end()? {
        field(cursor, first)?;
        first = false;
    }
    Ok(())
}

fn start_line(cursor: &mut Cursor<'_>) -> Found {
    let length = cursor.skip_while(is_token);
    match cursor.peek() {
        Some(b' ') if length == 0 => return Err("white space before the method"),
        Some(b' ') => cursor.skip(1),
        Some(b'\r' | b'\n') => return Err(CUT_START_LINE),
        Some(_) => return Err("a byte in the method that is not allowed there"),
        None => return Ok(()),
    }
    let target = cursor.rest;
    let length = cursor.skip_while(|b| b > b' ' && b != 0x7f);
    match cursor.peek() {
        Some(b' ') if length == 0 => return Err("two spaces before the request target"),
        Some(b' ') if std::str::from_utf8(&target[..length]).is_err() => {
            return Err("bytes in the request target that are not UTF-8");
        }
        Some(b' ') => cursor.skip(1),
        Some(b'\r' | b'\n') => return Err(CUT_START_LINE),
        Some(_) => return Err("a control byte in the request target"),
        None => return Ok(()),
    }
    for expected in *b"HTTP/1." {
        match cursor.peek() {
            Some(byte) if byte == expected => cursor.skip(1),
            Some(_) => return Err("something other than HTTP/1.x behind the request target"),
            None => return Ok(()),
        }
    }
    match cursor.peek() {
        Some(b'0' | b'1') => cursor.skip(1),
        Some(_) => return Err("a version other than HTTP/1.0 and HTTP/1.1"),
        None => return Ok(()),
    }
    match cursor.line_end()? {
        false if !matches!(cursor.peek(), None | Some(b'\r')) => Err("bytes behind the version"),
        _ => Ok(()),
    }
}

fn field(cursor: &mut Cursor<'_>, first: bool) -> Found {
    match cursor.peek() {
        Some(b' ' | b'\t') if first => return Err("white space before the first field"),
        Some(b' ' | b'\t') => return Err("a folded field line"),
        Some(b':') => return Err("an empty field name"),
        _ => {}
    }
    cursor.skip_while(is_token);
    match cursor.peek() {
        Some(b':') => cursor.skip(1),
        Some(b' ' | b'\t') => return Err("white space in a field name or before its colon"),
        Some(b'\r' | b'\n') => return Err("a field line without a colon"),
        Some(_) => return Err("a byte in a field name that is not allowed there"),
        None => return Ok(()),
    }
    cursor.skip_while(|b| (b >= b' ' && b != 0x7f) || b == b'\t');
    match cursor.peek() {
        Some(0) => Err("a NUL byte in a field value"),
        Some(b'\r' | b'\n') => cursor.line_end().map(drop),
        Some(_) => Err("a control byte in a field value"),
        None => Ok(()),
    }
}

/// RFC 9110, section 5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::head::RequestHead;

    /// Each head is refused with this reason, whole and at every cut that shows the fault.
    #[test]
    fn each_fault_has_its_reason_however_it_is_cut() {
        for (text, reason) in [
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", BARE_LINE_FEED),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", BARE_LINE_FEED),
            ("GET / HTTP/1.1\r\nHost: a\r\nB: c\n\r\n", BARE_LINE_FEED),
            ("GET / HTTP/1.1\r\nHost: a\r\n\n", BARE_LINE_FEED),
            ("GET / HTTP/1.1\n\n", BARE_LINE_FEED),
            ("GET / HTTP/1.1\r\nA:\nB: c\r\n\r\n", BARE_LINE_FEED),
            ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BARE_LINE_FEED),
            ("\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BARE_LINE_FEED),
            ("\rGET / HTTP/1.1\r\n\r\n", BARE_RETURN),
            ("GET / HTTP/1.1\rHost: a\r\n\r\n", BARE_RETURN),
            ("GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", BARE_RETURN),
            ("GET / HTTP/1.1\r\nA: b\r\r\n\r\n", BARE_RETURN),
            ("GET / HTTP/1.1\r\nA: b\r\n\rB: c\r\n\r\n", BARE_RETURN),
            ("GET / HTTP/1.1\r\nA: \rb\r\n\r\n", BARE_RETURN),
            ("GET / HTTP/1.1\r\n A: b\r\n\r\n", "white space before the first field"),
            ("GET / HTTP/1.1\r\n\tA: b\r\n\r\n", "white space before the first field"),
            ("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", "a folded field line"),
            ("GET / HTTP/1.1\r\nA: b\r\n\tc\r\n\r\n", "a folded field line"),
            ("GET / HTTP/1.1\r\nA:\r\n \r\n\r\n", "a folded field line"),
            ("GET / HTTP/1.1\r\n: b\r\n\r\n", "an empty field name"),
            (
                "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
                "white space in a field name or before its colon",
            ),
            (
                "GET / HTTP/1.1\r\nA\tB: a\r\n\r\n",
                "white space in a field name or before its colon",
            ),
            ("GET / HTTP/1.1\r\nHost\r\n\r\n", "a field line without a colon"),
            ("GET / HTTP/1.1\r\nHo\rst: a\r\n\r\n", "a field line without a colon"),
            (
                "GET / HTTP/1.1\r\nA(B): c\r\n\r\n",
                "a byte in a field name that is not allowed there",
            ),
            (
                "GET / HTTP/1.1\r\nA\0: c\r\n\r\n",
                "a byte in a field name that is not allowed there",
            ),
            ("GET / HTTP/1.1\r\nAé: c\r\n\r\n", "a byte in a field name that is not allowed there"),
            ("GET / HTTP/1.1\r\nA: b\0c\r\n\r\n", "a NUL byte in a field value"),
            ("GET / HTTP/1.1\r\nA: \0\r\n\r\n", "a NUL byte in a field value"),
            ("GET / HTTP/1.1\r\nA: b\u{b}chunked\r\n\r\n", "a control byte in a field value"),
            ("GET / HTTP/1.1\r\nA:\u{b}chunked\r\n\r\n", "a control byte in a field value"),
            ("GET / HTTP/1.1\r\nA: b\u{7f}\r\n\r\n", "a control byte in a field value"),
            ("GET /\u{1} HTTP/1.1\r\n\r\n", "a control byte in the request target"),
            ("GET /\0 HTTP/1.1\r\n\r\n", "a control byte in the request target"),
            ("GET /\ta HTTP/1.1\r\n\r\n", "a control byte in the request target"),
            ("GET /\u{7f} HTTP/1.1\r\n\r\n", "a control byte in the request target"),
            ("GET  / HTTP/1.1\r\n\r\n", "two spaces before the request target"),
            ("GET /\r\n\r\n", CUT_START_LINE),
            ("GET\r\n\r\n", CUT_START_LINE),
            ("GET /\n", CUT_START_LINE),
            ("GET / a HTTP/1.1\r\n\r\n", "something other than HTTP/1.x behind the request target"),
            ("GET /  HTTP/1.1\r\n\r\n", "something other than HTTP/1.x behind the request target"),
            ("GET / http/1.1\r\n\r\n", "something other than HTTP/1.x behind the request target"),
            ("GET / HTTP/3.1\r\n\r\n", "something other than HTTP/1.x behind the request target"),
            ("GET / HTTP/1.2\r\n\r\n", "a version other than HTTP/1.0 and HTTP/1.1"),
            ("GET / HTTP/1.1 \r\n\r\n", "bytes behind the version"),
            ("GET / HTTP/1.10\r\n\r\n", "bytes behind the version"),
            ("G\u{1}T / HTTP/1.1\r\n\r\n", "a byte in the method that is not allowed there"),
            ("GET\t/ HTTP/1.1\r\n\r\n", "a byte in the method that is not allowed there"),
            (" GET / HTTP/1.1\r\n\r\n", "white space before the method"),
            ("\u{16}\u{3}\u{1}\u{2}", "a byte in the method that is not allowed there"),
        ] {
            check(text.as_bytes(), &HeadError::Malformed(reason));
        }
        let not_utf8 = b"GET /\xfc HTTP/1.1\r\n\r\n";
        let reason = "bytes in the request target that are not UTF-8";
        check(not_utf8, &HeadError::Malformed(reason));
    }

    fn check(text: &[u8], error: &HeadError) {
        let whole = RequestHead::parse(text);
        assert_eq!(whole.as_ref().unwrap_err(), error, "{:?}", String::from_utf8_lossy(text));
        let mut refused = false;
        for cut in 0..text.len() {
            match RequestHead::parse(&text[..cut]) {
                Ok(None) => assert!(!refused, "cut at {cut}: {:?}", String::from_utf8_lossy(text)),
                Ok(Some(_)) => panic!("cut at {cut}: {:?}", String::from_utf8_lossy(text)),
                Err(e) => {
                    refused = true;
                    assert_eq!(&e, error, "cut at {cut}: {:?}", String::from_utf8_lossy(text));
                }
            }
        }
    }
}
