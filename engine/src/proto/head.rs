//! Request and response heads (RFC 9112, sections 2–5): found, checked, and kept as they came.
//!
//! A head is forwarded as the bytes that arrived. Parsing only finds where its parts lie.

use std::borrow::Cow;
use std::mem::MaybeUninit;
use std::ops::Range;

use agent_gate_store::record;

use crate::limits::{FIELDS_INLINE, FIELDS_MAX, HEAD_BYTES_MAX};

/// Why bytes are not a head.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    /// Not HTTP/1.
    #[error("malformed head: {0}")]
    Malformed(&'static str),
    /// Over [`HEAD_BYTES_MAX`] or [`FIELDS_MAX`].
    #[error("head too large (over {HEAD_BYTES_MAX} bytes or {FIELDS_MAX} fields)")]
    TooLarge,
}

/// Field lines of a head: where names and values lie in `bytes`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Head {
    /// The whole head as it arrived, with the empty line that ends it.
    pub(crate) bytes: Vec<u8>,
    fields: Vec<(Range<u32>, Range<u32>)>,
    /// HTTP/1.`minor`.
    pub(crate) minor: u8,
}

impl Head {
    /// Names and values in order.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> + Clone {
        self.fields.iter().map(|(name, value)| {
            // httparse lets only token characters through, which are ASCII.
            let name = std::str::from_utf8(self.slice(name)).unwrap_or_default();
            (name, self.slice(value))
        })
    }

    /// How many field lines there are.
    pub(crate) fn field_count(&self) -> usize {
        self.fields.len()
    }

    /// Values of the field `name`, in order.
    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
    }

    /// The members of the comma-separated lists in all lines of the field `name`.
    pub(crate) fn members<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.values(name)
            .flat_map(|v| v.split(|&b| b == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|m| !m.is_empty())
    }

    /// Whether a list field has a member, case aside.
    pub(crate) fn has_member(&self, name: &str, member: &str) -> bool {
        self.members(name).any(|m| m.eq_ignore_ascii_case(member.as_bytes()))
    }

    /// Whether the connection stays open after this message (RFC 9112, section 9.3).
    pub(crate) fn keeps_alive(&self) -> bool {
        if self.has_member("connection", "close") {
            false
        } else {
            self.minor >= 1 || self.has_member("connection", "keep-alive")
        }
    }

    /// The version as written in start lines.
    pub(crate) fn version(&self) -> &'static str {
        if self.minor == 0 { "HTTP/1.0" } else { "HTTP/1.1" }
    }

    /// The fields as a record keeps them.
    pub(crate) fn record_fields(&self) -> Vec<record::Field<'_>> {
        self.fields()
            .map(|(name, value)| record::Field {
                name: Cow::Borrowed(name),
                value: Cow::Borrowed(value),
            })
            .collect()
    }

    fn slice(&self, range: &Range<u32>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }

    fn text(&self, range: &Range<u32>) -> Cow<'_, str> {
        String::from_utf8_lossy(self.slice(range))
    }

    fn new(bytes: &[u8], fields: &[httparse::Header<'_>], minor: u8) -> Self {
        let fields = fields
            .iter()
            .map(|f| (range_in(bytes, f.name.as_bytes()), range_in(bytes, f.value)))
            .collect();
        Self { bytes: bytes.to_vec(), fields, minor }
    }
}

/// A request's start line and fields.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestHead {
    /// Fields and raw bytes.
    pub(crate) head: Head,
    method: Range<u32>,
    target: Range<u32>,
}

impl RequestHead {
    /// Reads a head from the front of `input`: the head and its length, or `None` when more is
    /// needed.
    pub(crate) fn parse(input: &[u8]) -> Result<Option<(Self, usize)>, HeadError> {
        parse_with(input, |fields, input| {
            let mut request = httparse::Request::new(&mut []);
            let status = request.parse_with_uninit_headers(input, fields)?;
            Ok(match status {
                httparse::Status::Partial => None,
                httparse::Status::Complete(length) => {
                    let bytes = &input[..length];
                    let method = request.method.unwrap_or_default();
                    let target = request.path.unwrap_or_default();
                    let head = Head::new(bytes, request.headers, request.version.unwrap_or(1));
                    let method = range_in(bytes, method.as_bytes());
                    let target = range_in(bytes, target.as_bytes());
                    Some((Self { head, method, target }, length))
                }
            })
        })
        .and_then(|found| match found {
            Some((request, length)) => {
                strict_lines(&request.head.bytes)?;
                Ok(Some((request, length)))
            }
            None => Ok(None),
        })
    }

    /// The method, case kept.
    pub(crate) fn method(&self) -> Cow<'_, str> {
        self.head.text(&self.method)
    }

    /// The request target as sent.
    pub(crate) fn target(&self) -> Cow<'_, str> {
        self.head.text(&self.target)
    }

    /// Whether the method is `name`.
    pub(crate) fn is_method(&self, name: &str) -> bool {
        self.head.slice(&self.method) == name.as_bytes()
    }

    /// Whether the request may be sent a second time unasked (RFC 9110, section 9.2.2).
    pub(crate) fn is_idempotent(&self) -> bool {
        ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"].iter().any(|m| self.is_method(m))
    }

    /// The one `Host` value (RFC 9112, section 3.2: more than one is an error, absent is for
    /// HTTP/1.0).
    pub(crate) fn host(&self) -> Result<Option<&str>, HeadError> {
        let mut hosts = self.head.values("host");
        let first = hosts.next();
        if hosts.next().is_some() {
            return Err(HeadError::Malformed("more than one Host field"));
        }
        first
            .map(|h| std::str::from_utf8(h).map_err(|_| HeadError::Malformed("Host is not text")))
            .transpose()
    }

    /// The head with another request target and without the fields meant for a proxy, as it goes
    /// to the origin when the client sent absolute form (RFC 9112, section 3.2.2).
    pub(crate) fn for_origin(&self, target: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.head.bytes.len());
        out.extend_from_slice(self.head.slice(&self.method));
        out.push(b' ');
        out.extend_from_slice(target.as_bytes());
        out.extend_from_slice(&self.head.bytes[self.target.end as usize..self.fields_start()]);
        let mut rest = self.fields_start();
        for (name, value) in &self.head.fields {
            let line_end = end_of_line(&self.head.bytes, value.end as usize);
            let of_proxy = [&b"proxy-connection"[..], b"proxy-authorization"]
                .iter()
                .any(|p| self.head.slice(name).eq_ignore_ascii_case(p));
            if !of_proxy {
                out.extend_from_slice(&self.head.bytes[rest..line_end]);
            }
            rest = line_end;
        }
        out.extend_from_slice(&self.head.bytes[rest..]);
        out
    }

    /// The head as a record keeps it.
    pub(crate) fn record(&self) -> record::RequestHead<'_> {
        record::RequestHead {
            method: self.method(),
            target: self.target(),
            version: Cow::Borrowed(self.head.version()),
            fields: self.head.record_fields(),
        }
    }

    fn fields_start(&self) -> usize {
        end_of_line(&self.head.bytes, self.target.end as usize)
    }
}

/// A response's status line and fields.
#[derive(Debug, Clone, Default)]
pub(crate) struct ResponseHead {
    /// Fields and raw bytes.
    pub(crate) head: Head,
    /// Three digits.
    pub(crate) status: u16,
    reason: Range<u32>,
}

impl ResponseHead {
    /// Reads a head from the front of `input`: the head and its length, or `None` when more is
    /// needed.
    pub(crate) fn parse(input: &[u8]) -> Result<Option<(Self, usize)>, HeadError> {
        parse_with(input, |fields, input| {
            let mut response = httparse::Response::new(&mut []);
            let config = httparse::ParserConfig::default();
            let status = config.parse_response_with_uninit_headers(&mut response, input, fields)?;
            Ok(match status {
                httparse::Status::Partial => None,
                httparse::Status::Complete(length) => {
                    let bytes = &input[..length];
                    let reason = response.reason.unwrap_or_default();
                    let head = Head::new(bytes, response.headers, response.version.unwrap_or(1));
                    let reason = range_in(bytes, reason.as_bytes());
                    let status = response.code.unwrap_or_default();
                    Some((Self { head, status, reason }, length))
                }
            })
        })
    }

    /// Whether another head follows (1xx but 101).
    pub(crate) fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }

    /// The head as a record keeps it.
    pub(crate) fn record(&self) -> record::ResponseHead<'_> {
        record::ResponseHead {
            version: Cow::Borrowed(self.head.version()),
            status: self.status,
            reason: self.head.text(&self.reason),
            fields: self.head.record_fields(),
        }
    }
}

/// Reads trailer fields from a whole trailer section, the empty line included.
pub(crate) fn trailers(section: &[u8]) -> Vec<record::Field<'static>> {
    let mut fields = vec![httparse::EMPTY_HEADER; FIELDS_INLINE];
    match httparse::parse_headers(section, &mut fields) {
        Ok(httparse::Status::Complete((_, fields))) => fields
            .iter()
            .map(|f| record::Field {
                name: Cow::Owned(f.name.to_owned()),
                value: Cow::Owned(f.value.to_vec()),
            })
            .collect(),
        _ => Vec::new(),
    }
}

type Fields<'h, 'b> = &'h mut [MaybeUninit<httparse::Header<'b>>];

/// Runs `parse` with room for few fields, then for many.
fn parse_with<T>(
    input: &[u8],
    parse: impl for<'h, 'b> Fn(Fields<'h, 'b>, &'b [u8]) -> Result<Option<(T, usize)>, httparse::Error>,
) -> Result<Option<(T, usize)>, HeadError> {
    let window = &input[..input.len().min(HEAD_BYTES_MAX)];
    let mut few = [const { MaybeUninit::uninit() }; FIELDS_INLINE];
    let found = match parse(&mut few, window) {
        Err(httparse::Error::TooManyHeaders) => {
            let mut many = vec![MaybeUninit::uninit(); FIELDS_MAX];
            parse(&mut many, window)
        }
        found => found,
    };
    match found {
        Ok(None) if window.len() == HEAD_BYTES_MAX => Err(HeadError::TooLarge),
        Ok(found) => Ok(found),
        Err(httparse::Error::TooManyHeaders) => Err(HeadError::TooLarge),
        Err(error) => Err(HeadError::Malformed(reason_of(error))),
    }
}

fn reason_of(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "field name",
        httparse::Error::HeaderValue => "field value",
        httparse::Error::NewLine => "line end",
        httparse::Error::Status => "status",
        httparse::Error::Token => "start line",
        httparse::Error::Version => "version",
        httparse::Error::TooManyHeaders => "too many fields",
    }
}

/// Two parsers that disagree on what ends a line can be played against each other, so a request
/// head with a line feed that no carriage return precedes goes nowhere (RFC 9112, section 2.2).
fn strict_lines(head: &[u8]) -> Result<(), HeadError> {
    let bare = memchr::memchr_iter(b'\n', head).any(|at| at == 0 || head[at - 1] != b'\r');
    if bare { Err(HeadError::Malformed("bare line feed")) } else { Ok(()) }
}

/// Where the line that `from` lies in ends, line feed included.
fn end_of_line(bytes: &[u8], from: usize) -> usize {
    memchr::memchr(b'\n', &bytes[from..]).map_or(bytes.len(), |at| from + at + 1)
}

/// Where `part`, a slice of `whole`, lies in it. An empty part that lies elsewhere is at 0.
#[allow(clippy::cast_possible_truncation)] // heads are bounded by HEAD_BYTES_MAX
fn range_in(whole: &[u8], part: &[u8]) -> Range<u32> {
    let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
    if start > whole.len() {
        return 0..0;
    }
    start as u32..(start + part.len()) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> RequestHead {
        RequestHead::parse(text.as_bytes()).unwrap().unwrap().0
    }

    #[test]
    fn a_request_head_is_found_however_it_is_cut() {
        let text = b"POST /v1/messages HTTP/1.1\r\nHost: a.example\r\nX-Odd:  two  \r\nx-odd: 3\r\n\r\nbody";
        let length = text.len() - 4;
        for cut in 0..length {
            assert!(RequestHead::parse(&text[..cut]).unwrap().is_none(), "cut at {cut}");
        }
        let (head, found) = RequestHead::parse(text).unwrap().unwrap();
        assert_eq!(found, length);
        assert_eq!(head.head.bytes, &text[..length]);
        assert_eq!((&*head.method(), &*head.target()), ("POST", "/v1/messages"));
        let fields: Vec<_> = head.head.fields().collect();
        assert_eq!(fields, [("Host", &b"a.example"[..]), ("X-Odd", b"two"), ("x-odd", b"3")]);
    }

    #[test]
    fn malformed_requests_are_errors() {
        for text in [
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
            "GET / HTTP/3.1\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            "\u{16}\u{3}\u{1}",
        ] {
            assert!(RequestHead::parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn heads_are_bounded() {
        let mut text = b"GET / HTTP/1.1\r\nA: ".to_vec();
        text.resize(HEAD_BYTES_MAX + 1, b'a');
        assert_eq!(RequestHead::parse(&text).unwrap_err(), HeadError::TooLarge);
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(FIELDS_MAX + 1));
        assert_eq!(RequestHead::parse(many.as_bytes()).unwrap_err(), HeadError::TooLarge);
        let most = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(FIELDS_MAX));
        assert_eq!(request(&most).head.fields().count(), FIELDS_MAX);
    }

    #[test]
    fn the_origins_form_drops_what_was_meant_for_a_proxy() {
        let head = request(
            "GET http://a.example/x?y HTTP/1.1\r\nHost: a.example\r\nProxy-Connection: x\r\n\
             Accept: */*\r\nproxy-authorization: Basic eA==\r\n\r\n",
        );
        assert_eq!(
            String::from_utf8(head.for_origin("/x?y")).unwrap(),
            "GET /x?y HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\n\r\n"
        );
    }

    #[test]
    fn persistence_follows_version_and_connection_field() {
        for (text, keeps) in [
            ("GET / HTTP/1.1\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n", false),
            ("GET / HTTP/1.0\r\n\r\n", false),
            ("GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n", true),
        ] {
            assert_eq!(request(text).head.keeps_alive(), keeps, "{text:?}");
        }
    }

    #[test]
    fn a_response_head_keeps_an_empty_or_odd_reason() {
        for (text, reason) in [
            ("HTTP/1.1 200 OK\r\n\r\n", "OK"),
            ("HTTP/1.1 200 \r\n\r\n", ""),
            ("HTTP/1.1 200\r\n\r\n", ""),
            ("HTTP/1.0 404 Not Here\r\nA: b\r\n\r\n", "Not Here"),
        ] {
            let (head, length) = ResponseHead::parse(text.as_bytes()).unwrap().unwrap();
            assert_eq!((head.record().reason.as_ref(), length), (reason, text.len()), "{text:?}");
        }
    }

    #[test]
    fn two_hosts_are_one_too_many() {
        assert!(request("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n").host().is_err());
        assert_eq!(request("GET / HTTP/1.0\r\n\r\n").host().unwrap(), None);
    }
}
