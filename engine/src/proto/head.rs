//! Request and response heads (RFC 9112, sections 2–5): found, checked, and kept as they came.
//!
//! A head is forwarded as the bytes that arrived; parsing only finds where its parts lie. What
//! has to change on its way is in `rewrite`. A request is taken to the letter: whatever two
//! readers could understand differently is an error. A response that is not to the letter is read
//! once more, as the standard lets a recipient read it (`tolerant`).

use std::borrow::Cow;
use std::mem::MaybeUninit;
use std::ops::Range;

use agent_gate_store::record;

use super::diagnosis;
use super::tolerant;
use crate::limits::{FIELDS_INLINE, FIELDS_MAX, HEAD_BYTES_MAX};

/// Why bytes are not a head.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    /// What is wrong with it, in words.
    #[error("{0}")]
    Malformed(&'static str),
    /// Over [`HEAD_BYTES_MAX`].
    #[error("the head is longer than {HEAD_BYTES_MAX} bytes")]
    TooLong,
    /// Over [`FIELDS_MAX`].
    #[error("the head has more than {FIELDS_MAX} fields")]
    TooManyFields,
}

/// Field lines of a head: where names and values lie in `bytes`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Head {
    /// The whole head as it arrived, from its start line to the empty line that ends it.
    pub(crate) bytes: Vec<u8>,
    fields: Vec<FieldRange>,
    /// HTTP/1.`minor`.
    pub(crate) minor: u8,
}

/// Where one field lies in the bytes of its head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FieldRange {
    /// The name, which begins at the start of its line; empty where the line has none.
    pub(super) name: Range<u32>,
    /// The value, without white space around it.
    pub(super) value: Range<u32>,
}

impl Head {
    /// Names and values in order. A name that is no text, which only an odd response has, is
    /// empty here.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> + Clone {
        self.parts().map(|(name, value)| (std::str::from_utf8(name).unwrap_or_default(), value))
    }

    /// How many field lines there are.
    pub(crate) fn field_count(&self) -> usize {
        self.fields.len()
    }

    /// Values of the field `name`, in order.
    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.parts().filter(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, v)| v)
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
        self.parts()
            .map(|(name, value)| record::Field { name: text(name), value: Cow::Borrowed(value) })
            .collect()
    }

    /// The field lines in order: where each begins and ends in the bytes, and its field.
    pub(super) fn lines(&self) -> impl Iterator<Item = (Range<usize>, &FieldRange)> {
        // A line begins with its name, also where that is empty.
        let start = |field: &FieldRange| field.name.start as usize;
        self.fields.iter().enumerate().map(move |(at, field)| {
            let end = self.fields.get(at + 1).map_or_else(|| self.empty_line(), start);
            (start(field)..end, field)
        })
    }

    /// Where the start line ends, line end included.
    pub(super) fn start_line_end(&self) -> usize {
        memchr::memchr(b'\n', &self.bytes).map_or(self.bytes.len(), |at| at + 1)
    }

    /// Where the empty line begins that ends the head.
    pub(super) fn empty_line(&self) -> usize {
        self.bytes.len() - if self.bytes.ends_with(b"\r\n") { 2 } else { 1 }
    }

    pub(super) fn slice(&self, range: &Range<u32>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }

    fn parts(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        self.fields.iter().map(|field| (self.slice(&field.name), self.slice(&field.value)))
    }

    fn text(&self, range: &Range<u32>) -> Cow<'_, str> {
        text(self.slice(range))
    }

    /// `bytes`: the head alone, in which `fields` lie.
    fn new(bytes: &[u8], fields: &[httparse::Header<'_>], minor: u8) -> Self {
        let fields = fields
            .iter()
            .map(|f| FieldRange {
                name: range_in(bytes, f.name.as_bytes()),
                value: range_in(bytes, f.value),
            })
            .collect();
        Self { bytes: bytes.to_vec(), fields, minor }
    }

    /// Whether a line feed ends a line without a carriage return. httparse lets that pass; two
    /// readers that disagree on it can be played against each other (RFC 9112, section 2.2). Where
    /// lines end follows from where fields begin, so the bytes need not be searched.
    fn has_bare_line_feed(&self) -> bool {
        let before = |field: &FieldRange| &self.bytes[..field.name.start as usize];
        !self.bytes.ends_with(b"\r\n\r\n")
            || !self.fields.iter().all(|f| before(f).ends_with(b"\r\n"))
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
    /// Reads a head from the front of `input`: the head and how many bytes it took, empty lines
    /// before it included (RFC 9112, section 2.2), or `None` when more is needed.
    pub(crate) fn parse(input: &[u8]) -> Result<Option<(Self, usize)>, HeadError> {
        let window = window(input);
        match tokenize(window, Self::tokenize) {
            Ok(None) if window.len() == HEAD_BYTES_MAX => Err(HeadError::TooLong),
            Ok(None) => Ok(None),
            Ok(Some((request, length))) => {
                let before = &window[..length - request.head.bytes.len()];
                if request.head.has_bare_line_feed() || !before.chunks(2).all(|l| l == b"\r\n") {
                    return Err(HeadError::Malformed(diagnosis::BARE_LINE_FEED));
                }
                Ok(Some((request, length)))
            }
            Err(httparse::Error::TooManyHeaders) => Err(HeadError::TooManyFields),
            Err(_) => Err(diagnosis::of_request(window)),
        }
    }

    fn tokenize<'b>(
        fields: Fields<'_, 'b>,
        input: &'b [u8],
    ) -> Result<Option<(Self, usize)>, httparse::Error> {
        let mut request = httparse::Request::new(&mut []);
        let httparse::Status::Complete(length) =
            request.parse_with_uninit_headers(input, fields)?
        else {
            return Ok(None);
        };
        let method = request.method.unwrap_or_default();
        let bytes = &input[range_in(input, method.as_bytes()).start as usize..length];
        let method = range_in(bytes, method.as_bytes());
        let target = range_in(bytes, request.path.unwrap_or_default().as_bytes());
        let head = Head::new(bytes, request.headers, request.version.unwrap_or(1));
        Ok(Some((Self { head, method, target }, length)))
    }

    /// The method, case kept.
    pub(crate) fn method(&self) -> Cow<'_, str> {
        self.head.text(&self.method)
    }

    /// The request target as sent. It may hold bytes that no URI has, but for white space and
    /// control bytes: `curl https://a.example/ü` sends what was typed, servers take it, and no two
    /// readers differ on where it ends. It is UTF-8, because a record could not keep other bytes.
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

    /// The head as a record keeps it.
    pub(crate) fn record(&self) -> record::RequestHead<'_> {
        record::RequestHead {
            method: self.method(),
            target: self.target(),
            version: Cow::Borrowed(self.head.version()),
            fields: self.head.record_fields(),
        }
    }

    /// The target, which is UTF-8 by [`Self::parse`].
    pub(super) fn target_text(&self) -> &str {
        std::str::from_utf8(self.head.slice(&self.target)).unwrap_or_default()
    }

    /// Where the target lies in the head's bytes.
    pub(super) fn target_range(&self) -> Range<usize> {
        self.target.start as usize..self.target.end as usize
    }
}

/// A response's status line and fields.
#[derive(Debug, Clone, Default)]
pub(crate) struct ResponseHead {
    /// Fields and raw bytes.
    pub(crate) head: Head,
    /// Three digits.
    pub(crate) status: u16,
    /// If it had to be read with tolerance: the head as it goes on, of the same length and with its
    /// fields in the same places.
    pub(super) flat: Option<Head>,
    reason: Range<u32>,
}

impl ResponseHead {
    /// Reads a head from the front of `input`: the head and how many bytes it took, empty lines
    /// before it included, or `None` when more is needed.
    pub(crate) fn parse(input: &[u8]) -> Result<Option<(Self, usize)>, HeadError> {
        let window = window(input);
        let found = match tokenize(window, Self::tokenize) {
            Ok(found) => found,
            Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyFields),
            Err(_) => Self::with_tolerance(window)?,
        };
        match found {
            None if window.len() == HEAD_BYTES_MAX => Err(HeadError::TooLong),
            Some((response, _)) if response.status < 100 => {
                Err(HeadError::Malformed("a status below 100"))
            }
            found => Ok(found),
        }
    }

    fn tokenize<'b>(
        fields: Fields<'_, 'b>,
        input: &'b [u8],
    ) -> Result<Option<(Self, usize)>, httparse::Error> {
        let mut response = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let httparse::Status::Complete(length) =
            config.parse_response_with_uninit_headers(&mut response, input, fields)?
        else {
            return Ok(None);
        };
        let bytes = &input[tolerant::empty_lines(input)..length];
        let head = Head::new(bytes, response.headers, response.version.unwrap_or(1));
        // httparse leaves a reason out that is not ASCII.
        let reason = reason_in(bytes, "HTTP/1.1 200".len());
        let status = response.code.unwrap_or_default();
        Ok(Some((Self { head, status, flat: None, reason }, length)))
    }

    fn with_tolerance(input: &[u8]) -> Result<Option<(Self, usize)>, HeadError> {
        let before = tolerant::empty_lines(input);
        let Some(found) = tolerant::response(&input[before..])? else { return Ok(None) };
        let bytes = input[before..before + found.length].to_vec();
        // What counts is what will be read by the client, to whom the flat head goes.
        let flat = tolerant::flattened(&bytes);
        let Some((fields, _)) = tolerant::fields(&flat, found.fields_start, FIELDS_MAX)? else {
            return Err(HeadError::Malformed("a head without end"));
        };
        let reason = reason_in(&bytes, found.status_end);
        let head = Head { bytes, fields, minor: found.minor };
        let flat = Some(Head { bytes: flat, ..head.clone() });
        Ok(Some((Self { head, status: found.status, flat, reason }, before + found.length)))
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

/// As text, nearly all of which is UTF-8: whether it is, is found out faster than where it is not.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// As much of `input` as may be a head.
fn window(input: &[u8]) -> &[u8] {
    &input[..input.len().min(HEAD_BYTES_MAX)]
}

type Fields<'h, 'b> = &'h mut [MaybeUninit<httparse::Header<'b>>];

/// Runs `parse` with room for few fields, then for many.
fn tokenize<T>(
    input: &[u8],
    parse: impl for<'h, 'b> Fn(Fields<'h, 'b>, &'b [u8]) -> Result<Option<(T, usize)>, httparse::Error>,
) -> Result<Option<(T, usize)>, httparse::Error> {
    let mut few = [const { MaybeUninit::uninit() }; FIELDS_INLINE];
    match parse(&mut few, input) {
        Err(httparse::Error::TooManyHeaders) => {
            let mut many = vec![MaybeUninit::uninit(); FIELDS_MAX];
            parse(&mut many, input)
        }
        found => found,
    }
}

/// The reason phrase of the status line at the front of `bytes`, whose status ends at `from`.
#[allow(clippy::cast_possible_truncation)] // heads are bounded by HEAD_BYTES_MAX
fn reason_in(bytes: &[u8], from: usize) -> Range<u32> {
    let end = memchr::memchr(b'\n', bytes).unwrap_or(bytes.len());
    let end = if bytes[..end].ends_with(b"\r") { end - 1 } else { end };
    let start = (from + usize::from(from < end)).min(end);
    start as u32..end as u32
}

/// Where `part`, a slice of `whole`, lies in it.
#[allow(clippy::cast_possible_truncation)] // heads are bounded by HEAD_BYTES_MAX
fn range_in(whole: &[u8], part: &[u8]) -> Range<u32> {
    let start = (part.as_ptr() as usize) - (whole.as_ptr() as usize);
    start as u32..(start + part.len()) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> RequestHead {
        RequestHead::parse(text.as_bytes()).unwrap().unwrap().0
    }

    fn response(text: &str) -> ResponseHead {
        ResponseHead::parse(text.as_bytes()).unwrap().unwrap().0
    }

    fn fields(head: &Head) -> Vec<(String, String)> {
        let text = |value| String::from_utf8_lossy(value).into_owned();
        head.fields().map(|(name, value)| (name.to_owned(), text(value))).collect()
    }

    #[test]
    fn a_request_head_is_found_however_it_is_cut() {
        for (lead, text, rest) in [
            (
                "",
                "POST /v1/messages HTTP/1.1\r\nHost: a.example\r\nX-Odd:  two  \r\nx-odd: 3\r\n\r\n",
                "body",
            ),
            (
                "\r\n\r\n",
                "get /ü?\"{|}`<> HTTP/1.1\r\nHost: a\r\nA:\r\nB:\té\t\r\n!#$%&'*+-.^_`|~: c\r\n\r\n",
                "\r\n",
            ),
            ("", "M-SEARCH * HTTP/1.0\r\n\r\n", ""),
            ("", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "\n"),
        ] {
            let input = format!("{lead}{text}{rest}");
            let length = lead.len() + text.len();
            for cut in 0..length {
                let found = RequestHead::parse(&input.as_bytes()[..cut]).unwrap();
                assert!(found.is_none(), "{text:?} cut at {cut}");
            }
            for cut in length..=input.len() {
                let (head, found) = RequestHead::parse(&input.as_bytes()[..cut]).unwrap().unwrap();
                assert_eq!((found, &head.head.bytes[..]), (length, text.as_bytes()));
                let line = text.lines().next().unwrap();
                let version = head.head.version();
                assert_eq!(format!("{} {} {version}", head.method(), head.target()), line);
            }
        }
        let head = request(
            "POST /v1/messages HTTP/1.1\r\nHost: a.example\r\nX-Odd:  two  \r\nx-odd:\r\n\r\n",
        );
        let expected = [("Host", "a.example"), ("X-Odd", "two"), ("x-odd", "")];
        assert_eq!(fields(&head.head), expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    #[test]
    fn heads_are_bounded_however_they_are_cut() {
        for start in ["GET / HTTP/1.1\r\n", "HTTP/1.1 200 OK\r\n", "HTTP/1.1  200 OK\r\n"] {
            let parse = |text: &[u8]| {
                if start.starts_with('G') {
                    RequestHead::parse(text).map(|f| f.map(|(head, _)| head.head))
                } else {
                    ResponseHead::parse(text).map(|f| f.map(|(head, _)| head.head))
                }
            };
            let long = |bytes: usize| {
                let filler = "a".repeat(bytes - start.len() - "A: \r\n\r\n".len());
                format!("{start}A: {filler}\r\n\r\n").into_bytes()
            };
            assert!(parse(&long(HEAD_BYTES_MAX)).unwrap().is_some(), "{start}");
            let over = long(HEAD_BYTES_MAX + 1);
            for cut in [HEAD_BYTES_MAX, over.len()] {
                assert_eq!(parse(&over[..cut]).unwrap_err(), HeadError::TooLong, "{start} {cut}");
            }
            assert!(parse(&over[..HEAD_BYTES_MAX - 1]).unwrap().is_none(), "{start}");
            let many = |n: usize| format!("{start}{}\r\n", "A: b\r\n".repeat(n)).into_bytes();
            assert_eq!(parse(&many(FIELDS_MAX)).unwrap().unwrap().fields().count(), FIELDS_MAX);
            let over = many(FIELDS_MAX + 1);
            let last = over.len() - 2;
            for cut in 0..over.len() {
                match parse(&over[..cut]) {
                    Ok(found) => assert!(found.is_none() && cut < last, "{start} {cut}"),
                    Err(error) => {
                        assert_eq!(
                            (error, cut >= last),
                            (HeadError::TooManyFields, true),
                            "{start}"
                        );
                    }
                }
            }
            assert_eq!(parse(&over).unwrap_err(), HeadError::TooManyFields, "{start}");
        }
        let words = [HeadError::TooLong, HeadError::TooManyFields].map(|e| e.to_string());
        assert!(words[0].contains(&HEAD_BYTES_MAX.to_string()), "{words:?}");
        assert!(words[1].contains(&FIELDS_MAX.to_string()), "{words:?}");
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
    fn a_response_head_is_found_however_it_is_cut() {
        // (text, status, reason, fields, to the letter)
        for (text, status, reason, expected, to_the_letter) in [
            ("HTTP/1.1 200 OK\r\n\r\n", 200, "OK", &[][..], true),
            ("HTTP/1.1 200 \r\n\r\n", 200, "", &[], true),
            ("HTTP/1.1 200\r\n\r\n", 200, "", &[], true),
            ("HTTP/1.0 404 Not  Here \r\nA: b\r\n\r\n", 404, "Not  Here ", &[("A", "b")], true),
            ("HTTP/1.1 999 Größe\t\r\nA:  é \r\n\r\n", 999, "Größe\t", &[("A", "é")], true),
            ("HTTP/1.1 100\n\n", 100, "", &[], true),
            ("HTTP/1.1 200 OK\nA: b\r\na: c\n\n", 200, "OK", &[("A", "b"), ("a", "c")], true),
            ("HTTP/1.1  200\tOK\r\n\r\n", 200, "OK", &[], false),
            (
                "HTTP/1.1 200 O\u{1}K\r\nA: \u{1b}\r\n\r\n",
                200,
                "O\u{1}K",
                &[("A", "\u{1b}")],
                false,
            ),
            ("HTTP/1.1 200 OK\r\nA: b\r\n  c\r\n\r\n", 200, "OK", &[("A", "b\r\n  c")], false),
            ("HTTP/1.1 200 OK\r\nA:\r\n \r\n\tb\r\n\r\n", 200, "OK", &[("A", "b")], false),
            (
                "HTTP/1.1 200 OK\r\nA:\r\n \r\nB: c\r\n\r\n",
                200,
                "OK",
                &[("A", ""), ("B", "c")],
                false,
            ),
            ("HTTP/1.1 200 OK\r\nA \t: b\r\n\r\n", 200, "OK", &[("A", "b")], false),
            (
                "HTTP/1.1 200 OK\r\n A: b\r\nC: d\r\n\r\n",
                200,
                "OK",
                &[("", "A: b"), ("C", "d")],
                false,
            ),
            (
                "HTTP/1.1 200 OK\r\n: b\r\nA B: c\r\n\r\n",
                200,
                "OK",
                &[("", "b"), ("A B", "c")],
                false,
            ),
            (
                "HTTP/1.1 200 OK\r\nodd\r\nA(: \0\r\n\r\n",
                200,
                "OK",
                &[("odd", ""), ("A(", "")],
                false,
            ),
            ("HTTP/1.1 200 OK\nA: b\rc\r\r\n\n", 200, "OK", &[("A", "b\rc")], false),
            ("HTTP/1.1 200 OK\nA\r: b\n\rC: d\n\n", 200, "OK", &[("A", "b\n\rC: d")], false),
            ("HTTP/1.1 200 OK\r\nA\r\n : b\0\r\n\r\n", 200, "OK", &[("A", "b")], false),
        ] {
            for lead in ["", "\r\n", "\n\r\n"] {
                let input = format!("{lead}{text}next");
                let length = lead.len() + text.len();
                for cut in 0..length {
                    let found = ResponseHead::parse(&input.as_bytes()[..cut]).unwrap();
                    assert!(found.is_none(), "{text:?} cut at {cut}");
                }
                for cut in length..=input.len() {
                    let found = ResponseHead::parse(&input.as_bytes()[..cut]).unwrap();
                    let (head, found) = found.unwrap();
                    assert_eq!((found, &head.head.bytes[..]), (length, text.as_bytes()));
                    assert_eq!(
                        (head.status, head.flat.is_some()),
                        (status, !to_the_letter),
                        "{text:?}"
                    );
                    assert_eq!(head.record().reason, reason, "{text:?}");
                    let expected = expected.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
                    assert_eq!(fields(&head.head), expected.collect::<Vec<_>>(), "{text:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_response_is_an_error_however_it_is_cut() {
        for (text, reason) in [
            ("rubbish\r\n\r\n", "not an HTTP/1 response"),
            ("HTTP/2 200 OK\r\n\r\n", "not an HTTP/1 response"),
            ("http/1.1 200 OK\r\n\r\n", "not an HTTP/1 response"),
            ("ICY 200 OK\r\n\r\n", "not an HTTP/1 response"),
            (" HTTP/1.1 200 OK\r\n\r\n", "not an HTTP/1 response"),
            ("\rHTTP/1.1 200 OK\r\n\r\n", "not an HTTP/1 response"),
            ("HTTP/1.2 200 OK\r\n\r\n", "a status line that is not HTTP/1.x STATUS"),
            ("HTTP/1.1200 OK\r\n\r\n", "a status line that is not HTTP/1.x STATUS"),
            ("HTTP/1.1 20 OK\r\n\r\n", "a status line that is not HTTP/1.x STATUS"),
            ("HTTP/1.1 2000 OK\r\n\r\n", "a status line that is not HTTP/1.x STATUS"),
            ("HTTP/1.1 200OK\r\n\r\n", "a status line that is not HTTP/1.x STATUS"),
            ("HTTP/1.1 OK\r\n\r\n", "a status line that is not HTTP/1.x STATUS"),
            ("HTTP/1.1\r\n\r\n", "a status line that is not HTTP/1.x STATUS"),
            ("HTTP/1.1 099 OK\r\n\r\n", "a status below 100"),
        ] {
            let error = HeadError::Malformed(reason);
            assert_eq!(ResponseHead::parse(text.as_bytes()).unwrap_err(), error, "{text:?}");
            for cut in 0..text.len() {
                match ResponseHead::parse(&text.as_bytes()[..cut]) {
                    Ok(found) => assert!(found.is_none(), "{text:?} cut at {cut}"),
                    Err(found) => assert_eq!(found, error, "{text:?} cut at {cut}"),
                }
            }
        }
    }

    #[test]
    fn lists_are_read_over_all_their_lines() {
        let head = response("HTTP/1.1 200 OK\r\nA: b, c,,\r\na:\r\nA: D\r\n\r\n").head;
        assert_eq!(head.members("a").collect::<Vec<_>>(), [&b"b"[..], b"c", b"D"]);
        assert!(head.has_member("A", "d") && !head.has_member("a", "e"));
    }
}
