//! Heads: what is found, what is forwarded, and how long the body behind it is.

use super::cuts::Cuts;
use crate::proto::framing::{Framing, FramingError};
use crate::proto::head::{Head, HeadError, RequestHead, ResponseHead};
use crate::proto::rewrite;

/// Reads the input as the head of a request, and as that of a response.
pub fn head(data: &[u8]) {
    let cuts = Cuts::read(data);
    if let Some(Ok(found)) = cuts.first(request) {
        check_request(&found, cuts.input);
    }
    if let Some(Ok(found)) = cuts.first(response) {
        check_response(&found, cuts.input);
    }
}

/// Everything that is known of a head.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    /// How many bytes of the input it took.
    length: usize,
    bytes: Vec<u8>,
    minor: u8,
    /// Method and target, or the status.
    start: Vec<String>,
    fields: Vec<(String, Vec<u8>)>,
    framing: Result<Framing, FramingError>,
}

fn request(input: &[u8]) -> Option<Result<Found, HeadError>> {
    let found = RequestHead::parse(input).transpose()?;
    Some(found.map(|(request, length)| {
        let start = vec![request.method().into_owned(), request.target().into_owned()];
        Found::of(&request.head, length, start, Framing::of_request(&request))
    }))
}

fn response(input: &[u8]) -> Option<Result<Found, HeadError>> {
    let found = ResponseHead::parse(input).transpose()?;
    Some(found.map(|(response, length)| {
        let framing = Framing::of_response(&response, false);
        Found::of(&response.head, length, vec![response.status.to_string()], framing)
    }))
}

impl Found {
    fn of(
        head: &Head,
        length: usize,
        start: Vec<String>,
        framing: Result<Framing, FramingError>,
    ) -> Self {
        let fields = head.record_fields().into_iter();
        let fields = fields.map(|it| (it.name.into_owned(), it.value.into_owned())).collect();
        Self { length, bytes: head.bytes.clone(), minor: head.minor, start, fields, framing }
    }

    fn values(&self, name: &str) -> Vec<&[u8]> {
        let named = self.fields.iter().filter(|(it, _)| it.eq_ignore_ascii_case(name));
        named.map(|(_, value)| &value[..]).collect()
    }

    /// The fields that have none of these names.
    fn without(&self, names: &[&str]) -> Vec<&(String, Vec<u8>)> {
        let is_other =
            |field: &&(String, _)| !names.iter().any(|it| field.0.eq_ignore_ascii_case(it));
        self.fields.iter().filter(is_other).collect()
    }

    /// The head is what arrived, behind nothing but line ends, and is the same read by itself.
    fn check_bytes(&self, input: &[u8], parse: fn(&[u8]) -> Option<Result<Self, HeadError>>) {
        let (before, bytes) = input[..self.length].split_at(self.length - self.bytes.len());
        assert_eq!(self.bytes, bytes);
        assert!(before.iter().all(|byte| b"\r\n".contains(byte)), "{before:?}");
        let again = Self { length: bytes.len(), ..self.clone() };
        assert_eq!(parse(bytes), Some(Ok(again)), "read by itself");
    }
}

fn check_request(found: &Found, input: &[u8]) {
    found.check_bytes(input, request);
    check_lines(found);
    check_length(found);
    for to_proxy in [false, true] {
        check_forwarded_request(found, to_proxy);
    }
}

/// No other reader can see other lines than ours: there is one way to end a line, and cut there the
/// head says what we found in it (RFC 9112, sections 2.2 and 5).
fn check_lines(found: &Found) {
    let head = String::from_utf8_lossy(&found.bytes);
    let lines = head.strip_suffix("\r\n\r\n").expect("an empty line at the end");
    let mut lines = lines.split("\r\n");
    let start = format!("{} {} HTTP/1.{}", found.start[0], found.start[1], found.minor);
    assert_eq!(lines.next(), Some(&start[..]));
    let fields: Vec<_> = lines.map(|line| line.split_once(':').expect("a colon")).collect();
    assert_eq!(fields.len(), found.fields.len(), "as many lines as fields");
    for ((name, value), field) in fields.into_iter().zip(&found.fields) {
        assert_eq!(name, field.0);
        assert!(!name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control()));
        assert_eq!(value.trim_matches([' ', '\t']), String::from_utf8_lossy(&field.1));
        assert!(!value.contains(['\r', '\n', '\0']), "a control byte in {value:?}");
    }
}

/// A length that is believed is said once and by one field (RFC 9112, section 6.3).
fn check_length(found: &Found) {
    let coding = found.values("transfer-encoding");
    let length = found.values("content-length");
    match &found.framing {
        Ok(Framing::None) => {
            assert!(coding.is_empty() && length.len() <= 1);
            assert!(length.iter().all(|value| number(value) == Some(0)), "{length:?}");
        }
        Ok(Framing::Length(bytes)) => {
            assert!(coding.is_empty(), "{coding:?}");
            assert!(length.len() == 1 && number(length[0]) == Some(*bytes), "{length:?}");
        }
        Ok(Framing::Chunked) => {
            assert!(length.is_empty() && coding.len() == 1 && found.minor == 1, "{coding:?}");
            assert!(coding[0].eq_ignore_ascii_case(b"chunked"), "{coding:?}");
        }
        Ok(Framing::UntilClose) => panic!("a request ends before its connection does"),
        Err(_) => {}
    }
}

fn number(value: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(value).ok()?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// What goes to the origin says the same, but for what it may not say; forwarded once more it
/// would not change.
fn check_forwarded_request(found: &Found, to_proxy: bool) {
    let (original, _) = RequestHead::parse(&found.bytes).expect("read before").expect("whole");
    let bytes = rewrite::request(&original, to_proxy);
    let Some(Ok(forwarded)) = request(&bytes) else {
        panic!("not a head: {}", bytes.escape_ascii())
    };
    assert_eq!(forwarded.length, bytes.len());
    assert_eq!((forwarded.minor, &forwarded.framing), (found.minor, &found.framing));
    assert_eq!(forwarded.start[0], found.start[0]);
    let target = &forwarded.start[1];
    assert!(*target == found.start[1] || to_proxy && (target.starts_with('/') || target == "*"));

    let may_change =
        ["proxy-connection", "proxy-authorization", "connection", "upgrade", "http2-settings"];
    let (mut kept, wanted) = (forwarded.without(&may_change), found.without(&may_change));
    if to_proxy && found.values("host").is_empty() && !forwarded.values("host").is_empty() {
        assert_eq!(kept.remove(0).0, "Host", "where an old client has left it out");
    }
    assert_eq!(kept, wanted);
    let offers = forwarded.values("upgrade").concat().to_ascii_lowercase();
    let mut offers = offers.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    assert!(!offers.any(|it| it == b"h2c"), "HTTP/2 is offered to the origin");

    let (again, _) = RequestHead::parse(&bytes).expect("read before").expect("whole");
    let twice = rewrite::request(&again, to_proxy);
    assert!(twice == bytes, "{} forwarded is {}", bytes.escape_ascii(), twice.escape_ascii());
}

fn check_response(found: &Found, input: &[u8]) {
    found.check_bytes(input, response);
    let status = found.start[0].parse::<u16>().expect("a number");
    let (coding, length) = (codings(found), found.values("content-length"));
    match found.framing {
        Ok(Framing::None) if matches!(status, 100..200 | 204 | 304) => {}
        Ok(Framing::None | Framing::Length(_)) => {
            assert!(coding.is_empty() && !length.is_empty(), "{coding:?} {length:?}");
        }
        Ok(Framing::Chunked) => assert!(!coding.is_empty()),
        Ok(Framing::UntilClose) => assert!(!coding.is_empty() || length.is_empty(), "{length:?}"),
        Err(_) => return,
    }
    check_forwarded_response(found);
}

/// Codings that count: clients take `identity` and an empty list for none.
fn codings(found: &Found) -> Vec<Vec<u8>> {
    let all = found.values("transfer-encoding").join(&b',').to_ascii_lowercase();
    let members = all.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    members.filter(|it| !it.is_empty() && *it != b"identity").map(<[u8]>::to_vec).collect()
}

/// What goes to the client says the same, but for what it may not say, and no reader can see other
/// lines in it; forwarded once more it would not change.
fn check_forwarded_response(found: &Found) {
    let (original, _) = ResponseHead::parse(&found.bytes).expect("read before").expect("whole");
    let framing = found.framing.expect("checked before");
    let bytes = rewrite::response(&original, framing);
    let Some(Ok(forwarded)) = response(&bytes) else {
        panic!("not a head: {}", bytes.escape_ascii())
    };
    assert_eq!(forwarded.length, bytes.len());
    assert_eq!((&forwarded.start, forwarded.minor), (&found.start, found.minor));
    assert_eq!(forwarded.framing, Ok(framing));
    assert!(!bytes.contains(&0), "a NUL byte in {}", bytes.escape_ascii());
    let mut returns = bytes.windows(2).filter(|two| two[0] == b'\r');
    assert!(
        returns.all(|two| two[1] == b'\n'),
        "a bare carriage return in {}",
        bytes.escape_ascii()
    );

    let (again, _) = ResponseHead::parse(&bytes).expect("read before").expect("whole");
    let twice = rewrite::response(&again, framing);
    assert!(twice == bytes, "{} forwarded is {}", bytes.escape_ascii(), twice.escape_ascii());
}
