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
    /// Both Transfer-Encoding and Content-Length.
    #[error("both Transfer-Encoding and Content-Length")]
    Both,
    /// A Content-Length that is no number, or several.
    #[error("malformed or repeated Content-Length")]
    Length,
    /// A transfer coding other than chunked, or chunked not last, or on HTTP/1.0.
    #[error("unsupported Transfer-Encoding")]
    Coding,
}

impl Framing {
    /// The framing of a request.
    pub(crate) fn of_request(request: &RequestHead) -> Result<Self, FramingError> {
        // A client has no reason to say it twice, and servers differ in what they make of it.
        if lengths(&request.head).nth(1).is_some() {
            return Err(FramingError::Length);
        }
        match (is_chunked(&request.head)?, length(&request.head)?) {
            (true, Some(_)) => Err(FramingError::Both),
            (true, None) if request.head.minor == 0 => Err(FramingError::Coding),
            (true, None) => Ok(Self::Chunked),
            (false, Some(0) | None) => Ok(Self::None),
            (false, Some(length)) => Ok(Self::Length(length)),
        }
    }

    /// The framing of a final response to a request with `method`.
    pub(crate) fn of_response(
        response: &ResponseHead,
        to_head: bool,
    ) -> Result<Self, FramingError> {
        if to_head || matches!(response.status, 100..200 | 204 | 304) {
            return Ok(Self::None);
        }
        // Where an origin sends both, the coding counts (section 6.3, rule 3); the connection is
        // not used again.
        match (is_chunked(&response.head)?, length(&response.head)?) {
            (true, _) => Ok(Self::Chunked),
            (false, Some(0)) => Ok(Self::None),
            (false, Some(length)) => Ok(Self::Length(length)),
            (false, None) => Ok(Self::UntilClose),
        }
    }
}

fn is_chunked(head: &Head) -> Result<bool, FramingError> {
    let mut codings = head.members("transfer-encoding");
    match (codings.next(), codings.next()) {
        (None, _) if head.values("transfer-encoding").next().is_some() => Err(FramingError::Coding),
        (None, _) => Ok(false),
        (Some(only), None) if only.eq_ignore_ascii_case(b"chunked") => Ok(true),
        _ => Err(FramingError::Coding),
    }
}

/// The Content-Length; repeats of the same value count once (section 6.3, rule 5).
fn length(head: &Head) -> Result<Option<u64>, FramingError> {
    let mut length = None;
    for value in lengths(head) {
        let value = parse_length(value.trim_ascii()).ok_or(FramingError::Length)?;
        if length.is_some_and(|l| l != value) {
            return Err(FramingError::Length);
        }
        length = Some(value);
    }
    Ok(length)
}

fn lengths(head: &Head) -> impl Iterator<Item = &[u8]> {
    head.values("content-length").flat_map(|v| v.split(|&b| b == b','))
}

fn parse_length(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
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
            ("Content-Length: 5, 5\r\n", Err(FramingError::Length)),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", Err(FramingError::Length)),
            ("Content-Length: +5\r\n", Err(FramingError::Length)),
            ("Content-Length: \r\n", Err(FramingError::Length)),
            ("Content-Length: 99999999999999999999\r\n", Err(FramingError::Length)),
            ("Transfer-Encoding: Chunked\r\n", Ok(Framing::Chunked)),
            ("Transfer-Encoding: gzip, chunked\r\n", Err(FramingError::Coding)),
            ("Transfer-Encoding: chunked, chunked\r\n", Err(FramingError::Coding)),
            ("Transfer-Encoding: xchunked\r\n", Err(FramingError::Coding)),
            ("Transfer-Encoding:\r\n", Err(FramingError::Coding)),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Err(FramingError::Both)),
        ] {
            let text = format!("POST / HTTP/1.1\r\n{fields}\r\n");
            let (head, _) = RequestHead::parse(text.as_bytes()).unwrap().unwrap();
            assert_eq!(Framing::of_request(&head), framing, "{fields:?}");
        }
    }

    #[test]
    fn responses() {
        for (status, fields, to_head, framing) in [
            (200, "", false, Ok(Framing::UntilClose)),
            (200, "Content-Length: 5\r\n", false, Ok(Framing::Length(5))),
            (200, "Content-Length: 5\r\n", true, Ok(Framing::None)),
            (204, "", false, Ok(Framing::None)),
            (304, "Content-Length: 5\r\n", false, Ok(Framing::None)),
            (101, "", false, Ok(Framing::None)),
            (200, "Transfer-Encoding: chunked\r\n", false, Ok(Framing::Chunked)),
            (
                200,
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                false,
                Ok(Framing::Chunked),
            ),
            (200, "Content-Length: 5\r\nContent-Length: 6\r\n", false, Err(FramingError::Length)),
            (200, "Content-Length: 5, 5\r\n", false, Ok(Framing::Length(5))),
        ] {
            let text = format!("HTTP/1.1 {status} X\r\n{fields}\r\n");
            let (head, _) = ResponseHead::parse(text.as_bytes()).unwrap().unwrap();
            assert_eq!(Framing::of_response(&head, to_head), framing, "{status} {fields:?}");
        }
    }
}
