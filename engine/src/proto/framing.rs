//! How the end of a body is known (RFC 9112, section 6.3), decided here and nowhere else.

use super::head::{Head, RequestHead, ResponseHead};

/// How long a message's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunked coding says.
    Chunked,
    /// Until the connection closes (responses only).
    UntilClose,
}

/// Why a message's length cannot be told without doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FramingError {
    /// A request has both.
    #[error("both Transfer-Encoding and Content-Length")]
    Both,
    /// A request says its length more than once.
    #[error("more than one Content-Length")]
    Repeated,
    /// A response has several that differ.
    #[error("several values of Content-Length that differ")]
    Conflicting,
    /// Anything but digits.
    #[error("a Content-Length that is not a number")]
    NotANumber,
    /// Over 64 bits.
    #[error("a Content-Length beyond all measure")]
    TooLarge,
    /// A request with a transfer coding other than `chunked`, or with more than that.
    #[error("a Transfer-Encoding other than exactly \"chunked\"")]
    Coding,
    /// HTTP/1.0 has no transfer codings (section 6.1).
    #[error("Transfer-Encoding in an HTTP/1.0 request")]
    OldVersion,
}

impl Framing {
    /// The framing of a request. A client has no reason to say it twice or in another way than
    /// everybody does, and servers differ in what they make of it, so that is an error.
    pub(crate) fn of_request(request: &RequestHead) -> Result<Self, FramingError> {
        let mut codings = request.head.values("transfer-encoding");
        let mut lengths = request.head.values("content-length");
        match (codings.next(), lengths.next()) {
            (None, None) => Ok(Self::None),
            (Some(_), Some(_)) => Err(FramingError::Both),
            (Some(_), None) if request.head.minor == 0 => Err(FramingError::OldVersion),
            (Some(coding), None) => {
                let exact = coding.eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
                if exact { Ok(Self::Chunked) } else { Err(FramingError::Coding) }
            }
            (None, Some(value)) if value.contains(&b',') || lengths.next().is_some() => {
                Err(FramingError::Repeated)
            }
            (None, Some(value)) => parse_length(value).map(Self::of_length),
        }
    }

    /// The framing of a response to a request that was or was not HEAD.
    pub(crate) fn of_response(
        response: &ResponseHead,
        to_head: bool,
    ) -> Result<Self, FramingError> {
        if to_head || matches!(response.status, 100..200 | 204 | 304) {
            return Ok(Self::None);
        }
        match codings(&response.head).last() {
            // Where an origin sends both, the coding counts (rule 3).
            Some(last) if last.eq_ignore_ascii_case(b"chunked") => Ok(Self::Chunked),
            Some(_) => Ok(Self::UntilClose),
            None => Ok(length(&response.head)?.map_or(Self::UntilClose, Self::of_length)),
        }
    }

    fn of_length(length: u64) -> Self {
        if length == 0 { Self::None } else { Self::Length(length) }
    }
}

/// Whether a response has a Content-Length that does not count, because a transfer coding does. An
/// intermediary takes it out (rule 3).
pub(super) fn is_length_void(head: &Head) -> bool {
    codings(head).next().is_some() && head.values("content-length").next().is_some()
}

/// Whether the connection may carry another response behind this one. Not behind one whose
/// framing is in doubt (section 6.1): chunked coding on HTTP/1.0, or both coding and length.
pub(crate) fn is_reusable(response: &ResponseHead) -> bool {
    let head = &response.head;
    let in_doubt = || codings(head).next().is_some() && (head.minor == 0 || is_length_void(head));
    head.keeps_alive() && !in_doubt()
}

/// A response's transfer codings. `identity`, which RFC 2616 still had, is none: clients go by
/// Content-Length beside it.
fn codings(head: &Head) -> impl Iterator<Item = &[u8]> {
    head.members("transfer-encoding").filter(|coding| !coding.eq_ignore_ascii_case(b"identity"))
}

/// A response's Content-Length; repeats of the same value count once (rule 5).
fn length(head: &Head) -> Result<Option<u64>, FramingError> {
    let mut length = None;
    for value in head.values("content-length").flat_map(|v| v.split(|&b| b == b',')) {
        let value = parse_length(value.trim_ascii())?;
        if length.is_some_and(|l| l != value) {
            return Err(FramingError::Conflicting);
        }
        length = Some(value);
    }
    Ok(length)
}

fn parse_length(digits: &[u8]) -> Result<u64, FramingError> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(FramingError::NotANumber);
    }
    let text = std::str::from_utf8(digits).map_err(|_| FramingError::NotANumber)?;
    text.parse().map_err(|_| FramingError::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        for (fields, framing) in [
            ("", Ok(Framing::None)),
            ("Content-Length: 0\r\n", Ok(Framing::None)),
            ("Content-Length: 5\r\n", Ok(Framing::Length(5))),
            ("content-length:\t005 \r\n", Ok(Framing::Length(5))),
            ("Content-Length: 5, 5\r\n", Err(FramingError::Repeated)),
            ("Content-Length: 5,\r\n", Err(FramingError::Repeated)),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", Err(FramingError::Repeated)),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", Err(FramingError::Repeated)),
            ("Content-Length: +5\r\n", Err(FramingError::NotANumber)),
            ("Content-Length: -5\r\n", Err(FramingError::NotANumber)),
            ("Content-Length: 5 5\r\n", Err(FramingError::NotANumber)),
            ("Content-Length: 0x5\r\n", Err(FramingError::NotANumber)),
            ("Content-Length: \r\n", Err(FramingError::NotANumber)),
            ("Content-Length:\r\n", Err(FramingError::NotANumber)),
            ("Content-Length: ٥\r\n", Err(FramingError::NotANumber)),
            ("Content-Length: 99999999999999999999\r\n", Err(FramingError::TooLarge)),
            ("Transfer-Encoding: chunked\r\n", Ok(Framing::Chunked)),
            ("transfer-encoding:\t Chunked \r\n", Ok(Framing::Chunked)),
            ("Transfer-Encoding: gzip, chunked\r\n", Err(FramingError::Coding)),
            ("Transfer-Encoding: chunked, chunked\r\n", Err(FramingError::Coding)),
            ("Transfer-Encoding: chunked, identity\r\n", Err(FramingError::Coding)),
            ("Transfer-Encoding: identity\r\n", Err(FramingError::Coding)),
            ("Transfer-Encoding: xchunked\r\n", Err(FramingError::Coding)),
            ("Transfer-Encoding: chunked;q=1\r\n", Err(FramingError::Coding)),
            ("Transfer-Encoding: chunked,\r\n", Err(FramingError::Coding)),
            ("Transfer-Encoding: ,chunked\r\n", Err(FramingError::Coding)),
            ("Transfer-Encoding: \"chunked\"\r\n", Err(FramingError::Coding)),
            ("Transfer-Encoding: \u{a0}chunked\r\n", Err(FramingError::Coding)),
            ("Transfer-Encoding:\r\n", Err(FramingError::Coding)),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                Err(FramingError::Coding),
            ),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
                Err(FramingError::Coding),
            ),
            ("Transfer-Encoding:\r\nContent-Length: 5\r\n", Err(FramingError::Both)),
            ("Transfer-Encoding: identity\r\nContent-Length: 5\r\n", Err(FramingError::Both)),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Err(FramingError::Both)),
        ] {
            assert_eq!(of_request("HTTP/1.1", fields), framing, "{fields:?}");
        }
        let chunked = "Transfer-Encoding: chunked\r\n";
        assert_eq!(of_request("HTTP/1.0", chunked), Err(FramingError::OldVersion));
        assert_eq!(of_request("HTTP/1.0", "Content-Length: 5\r\n"), Ok(Framing::Length(5)));
    }

    fn of_request(version: &str, fields: &str) -> Result<Framing, FramingError> {
        let text = format!("POST / {version}\r\n{fields}\r\n");
        let (head, _) = RequestHead::parse(text.as_bytes()).unwrap().unwrap();
        Framing::of_request(&head)
    }

    fn response(text: &str) -> ResponseHead {
        ResponseHead::parse(text.as_bytes()).unwrap().unwrap().0
    }

    #[test]
    fn responses() {
        use Framing::{Chunked, Length, UntilClose};
        for (status, fields, framing) in [
            (200, "", Ok(UntilClose)),
            (200, "Content-Length: 5\r\n", Ok(Length(5))),
            (200, "Content-Length: 0\r\n", Ok(Framing::None)),
            (200, "Content-Length:\r\n 5\r\n", Ok(Length(5))),
            (205, "Content-Length: 0\r\n", Ok(Framing::None)),
            (205, "", Ok(UntilClose)),
            (204, "", Ok(Framing::None)),
            (204, "Content-Length: 5\r\n", Ok(Framing::None)),
            (304, "Content-Length: 5\r\n", Ok(Framing::None)),
            (304, "Transfer-Encoding: chunked\r\n", Ok(Framing::None)),
            (101, "", Ok(Framing::None)),
            (999, "Content-Length: 5\r\n", Ok(Length(5))),
            (200, "Transfer-Encoding: chunked\r\n", Ok(Chunked)),
            (200, "Transfer-Encoding: gzip, chunked\r\n", Ok(Chunked)),
            (200, "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", Ok(Chunked)),
            (200, "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Ok(Chunked)),
            (200, "Transfer-Encoding: chunked, gzip\r\n", Ok(UntilClose)),
            (200, "Transfer-Encoding: gzip\r\nContent-Length: 5\r\n", Ok(UntilClose)),
            (200, "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Ok(Chunked)),
            (200, "Transfer-Encoding: chunked\r\nContent-Length: x\r\n", Ok(Chunked)),
            (200, "Transfer-Encoding: identity\r\nContent-Length: 5\r\n", Ok(Length(5))),
            (200, "Transfer-Encoding:\r\nContent-Length: 5\r\n", Ok(Length(5))),
            (200, "Transfer-Encoding: identity, chunked\r\n", Ok(Chunked)),
            (200, "Transfer-Encoding : chunked\r\n", Ok(Chunked)),
            (200, "Content-Length: 5, 5\r\n", Ok(Length(5))),
            (200, "Content-Length: 5\r\nContent-Length: 5\r\n", Ok(Length(5))),
            (200, "Content-Length: 5\r\nContent-Length: 6\r\n", Err(FramingError::Conflicting)),
            (200, "Content-Length: 5, 6\r\n", Err(FramingError::Conflicting)),
            (200, "Content-Length: \r\n", Err(FramingError::NotANumber)),
            (200, "Content-Length: +5\r\n", Err(FramingError::NotANumber)),
            (200, "Content-Length: 99999999999999999999\r\n", Err(FramingError::TooLarge)),
        ] {
            let head = response(&format!("HTTP/1.1 {status} X\r\n{fields}\r\n"));
            assert_eq!(Framing::of_response(&head, false), framing, "{status} {fields:?}");
            assert_eq!(Framing::of_response(&head, true), Ok(Framing::None), "{status} {fields:?}");
        }
        let old = response("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(Framing::of_response(&old, false), Ok(Chunked));
    }

    #[test]
    fn a_connection_is_used_again_where_nothing_is_in_doubt() {
        for (text, reusable) in [
            ("HTTP/1.1 200 OK\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nConnection: x, Close\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 5\r\n\r\n", true),
            (
                "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n",
                false,
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\n", true),
        ] {
            assert_eq!(is_reusable(&response(text)), reusable, "{text:?}");
        }
    }
}
