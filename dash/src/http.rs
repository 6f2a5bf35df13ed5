//! Requests and responses as the pages see them, on `tiny_http`.
//!
//! A response leaves only through here, which puts the same strict fields on each. `tiny_http`
//! itself answers what is no HTTP request (400, 417, 505): without those fields, and without a byte
//! of ours.

use std::borrow::Cow;
use std::io::{self, Cursor, Read};
use std::mem::ManuallyDrop;

use tiny_http::{Header, StatusCode};

/// The largest body a request may announce. No page takes one, but `tiny_http` 0.12 allocates what
/// has not come of it when the request is dropped or its body read to the end (its pull request
/// 290). The pages of so much are never touched; a petabyte cannot be had, and that aborts the gate.
const ANNOUNCED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// On every response. Nothing is loaded from elsewhere, nothing inline runs, nobody frames us, and
/// nothing of it stays in a cache or a referrer. (CSP level 3; Fetch, `Cross-Origin-*`.)
const SECURITY_FIELDS: [(&str, &str); 6] = [
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
];

/// A request. Dropping it unanswered leaks it, because of [`ANNOUNCED_BYTES_MAX`].
pub(crate) struct Request(ManuallyDrop<tiny_http::Request>);

/// The client announced too large a body: its request could be neither answered nor freed, and
/// leaked the connection's two descriptors and its thread.
#[derive(Debug)]
pub(crate) struct Lost;

impl Request {
    pub(crate) fn new(request: tiny_http::Request) -> Self {
        Self(ManuallyDrop::new(request))
    }

    pub(crate) fn method(&self) -> &str {
        self.0.method().as_str()
    }

    /// As sent: origin form is expected, but any form may stand here.
    pub(crate) fn target(&self) -> &str {
        self.0.url()
    }

    /// The values of all fields of that name, in order.
    pub(crate) fn fields(&self, name: &'static str) -> impl Iterator<Item = &str> {
        let all = self.0.headers().iter();
        all.filter(move |header| header.field.equiv(name)).map(|header| header.value.as_str())
    }

    /// Sends the response. That the client no longer reads it is nobody's error.
    pub(crate) fn respond(self, response: Response) -> Result<(), Lost> {
        if self.0.body_length().is_some_and(|bytes| bytes > ANNOUNCED_BYTES_MAX) {
            return Err(Lost);
        }
        let _ = ManuallyDrop::into_inner(self.0).respond(response.into_tiny());
        Ok(())
    }
}

/// What is sent back.
pub(crate) struct Response {
    status: u16,
    fields: Vec<Header>,
    content: Exactly,
}

impl Response {
    pub(crate) fn new(
        status: u16,
        content_type: &'static str,
        content: impl Into<Cow<'static, [u8]>>,
    ) -> Self {
        let content = content.into();
        let bytes = content.len() as u64;
        Self::streamed(status, content_type, Box::new(Cursor::new(content)), bytes)
    }

    /// `bytes` long bytes as they are, to be saved under `name`.
    pub(crate) fn download(name: &str, content: Box<dyn Read>, bytes: u64) -> Self {
        Self::streamed(200, "application/octet-stream", content, bytes)
            .with("Content-Disposition", &format!("attachment; filename=\"{name}\""))
    }

    pub(crate) fn text(status: u16, line: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", format!("{line}\n").into_bytes())
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.fields.push(field(name, value));
        self
    }

    #[cfg(test)]
    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    fn streamed(
        status: u16,
        content_type: &'static str,
        content: Box<dyn Read>,
        bytes: u64,
    ) -> Self {
        let mut fields = vec![field("Content-Type", content_type)];
        fields.extend(SECURITY_FIELDS.map(|(name, value)| field(name, value)));
        Self { status, fields, content: Exactly { content, left: bytes } }
    }

    fn into_tiny(self) -> tiny_http::Response<Exactly> {
        let length = usize::try_from(self.content.left).ok();
        tiny_http::Response::new(StatusCode(self.status), self.fields, self.content, length, None)
            // It would send anything large in chunks, and the client could not tell how much comes.
            .with_chunked_threshold(usize::MAX)
    }
}

fn field(name: &'static str, value: &str) -> Header {
    Header::from_bytes(name, value).expect("values are constants, ids and numbers: ASCII")
}

/// Gives the promised number of bytes or fails: a response that ends early must not look whole.
struct Exactly {
    content: Box<dyn Read>,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.content.by_ref().take(self.left).read(buffer)?;
        if count == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Request {
        pub(crate) fn for_test(method: &str, target: &str, fields: &[(&str, &str)]) -> Self {
            let request = tiny_http::TestRequest::new()
                .with_method(method.parse().unwrap())
                .with_path(target);
            let add = |request: tiny_http::TestRequest, (name, value): &(&str, &str)| {
                request.with_header(Header::from_bytes(*name, *value).unwrap())
            };
            Self::new(fields.iter().fold(request, add).into())
        }
    }

    /// Freeing the third would allocate a petabyte and abort.
    #[test]
    fn requests_that_announce_too_much_are_lost() {
        let respond = |bytes: &str| {
            let request = Request::for_test("POST", "/", &[("Content-Length", bytes)]);
            request.respond(Response::text(405, "no"))
        };
        assert!(respond("0").is_ok());
        assert!(respond("2000").is_ok());
        assert!(matches!(respond("1125899906842624"), Err(Lost)));
    }

    #[test]
    fn content_is_cut_at_its_length_and_never_ends_early_unnoticed() {
        let read = |left| {
            let mut all = Vec::new();
            let content = Box::new(&b"12345"[..]);
            Exactly { content, left }.read_to_end(&mut all).map(|_| all)
        };
        assert_eq!(read(5).unwrap(), b"12345");
        assert_eq!(read(3).unwrap(), b"123");
        assert_eq!(read(0).unwrap(), b"");
        assert_eq!(read(6).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
