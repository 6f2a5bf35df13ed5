//! HTTP/1.1 as far as these pages need it: read a head within bounds, write a response.
//!
//! Not a ready-made server, because the ones small enough to be here set no time limits, bound
//! neither heads nor threads, and answer some errors by themselves without our headers.

use std::borrow::Cow;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// The largest head that is read. Browsers send 1–2 KB; cookies of other local sites may add some.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// The most field lines in a head.
const FIELDS_MAX: usize = 100;

/// How long a head may take, counted from when the connection was free for it: also the time an
/// idle connection is kept.
const HEAD_TIME_MAX: Duration = Duration::from_secs(15);

/// How long one write may wait for a client that does not read.
const WRITE_TIME_MAX: Duration = Duration::from_secs(30);

/// How much of an unwanted body is read, and for how long, so that closing does not reset the
/// connection before the client has read the answer.
const DRAIN_BYTES_MAX: u64 = 64 * 1024;
const DRAIN_TIME_MAX: Duration = Duration::from_secs(1);

/// On every response. Nothing is loaded from elsewhere, nothing inline runs, nobody frames us, and
/// nothing of it stays in a cache or a referrer. (CSP level 3; Fetch, `Cross-Origin-*`.)
const SECURITY_FIELDS: &str = "\
    Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'\r\n\
    X-Content-Type-Options: nosniff\r\n\
    Referrer-Policy: no-referrer\r\n\
    Cache-Control: no-store\r\n\
    Cross-Origin-Opener-Policy: same-origin\r\n\
    Cross-Origin-Resource-Policy: same-origin\r\n";

/// A request without its body: none of the pages takes one.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// As sent: origin form is expected, but any form may stand here.
    pub(crate) target: String,
    fields: Vec<(String, String)>,
    http_1_0: bool,
}

impl Request {
    /// The values of all fields of that name (lower case), in order.
    pub(crate) fn fields(&self, name: &str) -> impl Iterator<Item = &str> {
        self.fields.iter().filter(move |field| field.0 == name).map(|field| field.1.as_str())
    }

    #[cfg(test)]
    pub(crate) fn for_test(method: &str, target: &str, fields: &[(&str, &str)]) -> Self {
        let fields = fields.iter().map(|field| (field.0.to_owned(), field.1.to_owned())).collect();
        Self { method: method.to_owned(), target: target.to_owned(), fields, http_1_0: false }
    }

    fn has_body(&self) -> bool {
        self.fields("transfer-encoding").next().is_some()
            || self.fields("content-length").any(|length| length.trim() != "0")
    }

    fn wants_close(&self) -> bool {
        self.http_1_0
            || self.fields("connection").any(|value| value.to_ascii_lowercase().contains("close"))
    }
}

/// What is sent back.
pub(crate) struct Response {
    status: u16,
    content_type: &'static str,
    /// Further fields, ready for the wire.
    fields: Vec<(&'static str, String)>,
    content: Content,
}

enum Content {
    Whole(Cow<'static, [u8]>),
    /// Exactly that many bytes are promised.
    Streamed(Box<dyn Read>, u64),
}

impl Response {
    pub(crate) fn new(
        status: u16,
        content_type: &'static str,
        content: impl Into<Cow<'static, [u8]>>,
    ) -> Self {
        Self { status, content_type, fields: Vec::new(), content: Content::Whole(content.into()) }
    }

    /// `bytes` long bytes as they are, to be saved under `name`.
    pub(crate) fn download(name: &str, content: Box<dyn Read>, bytes: u64) -> Self {
        Self {
            status: 200,
            content_type: "application/octet-stream",
            fields: vec![("Content-Disposition", format!("attachment; filename=\"{name}\""))],
            content: Content::Streamed(content, bytes),
        }
    }

    pub(crate) fn text(status: u16, line: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", format!("{line}\n").into_bytes())
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.fields.push((name, value.to_owned()));
        self
    }

    fn head(&self, close: bool) -> String {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        let length = match &self.content {
            Content::Whole(bytes) => bytes.len() as u64,
            Content::Streamed(_, bytes) => *bytes,
        };
        head += &format!("Content-Type: {}\r\nContent-Length: {length}\r\n", self.content_type);
        for (name, value) in &self.fields {
            head += &format!("{name}: {value}\r\n");
        }
        head += SECURITY_FIELDS;
        head += if close { "Connection: close\r\n\r\n" } else { "\r\n" };
        head
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}

/// What came in.
pub(crate) enum Received {
    Request(Request),
    /// Not a request; say so and close.
    Unusable(Response),
    /// The client went away, or never said anything.
    Closed,
}

/// One connection and what was read from it ahead of its turn.
pub(crate) struct Connection<'a> {
    stream: &'a TcpStream,
    ahead: Vec<u8>,
}

impl<'a> Connection<'a> {
    pub(crate) fn new(stream: &'a TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_TIME_MAX))?;
        Ok(Self { stream, ahead: Vec::new() })
    }

    /// Reads the next head.
    pub(crate) fn receive(&mut self) -> Received {
        let deadline = Instant::now() + HEAD_TIME_MAX;
        loop {
            match parse(&self.ahead) {
                Ok(Some((request, bytes))) => {
                    self.ahead.drain(..bytes);
                    return Received::Request(request);
                }
                Ok(None) => {}
                Err(refusal) => return Received::Unusable(refusal),
            }
            if self.ahead.len() >= HEAD_BYTES_MAX {
                return Received::Unusable(Response::text(431, "the request head is too large"));
            }
            match self.read_more(deadline) {
                Ok(0) => return Received::Closed,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if self.ahead.is_empty() => return Received::Closed,
                Err(_) => {
                    return Received::Unusable(Response::text(408, "the request head is late"));
                }
            }
        }
    }

    fn read_more(&mut self, deadline: Instant) -> io::Result<usize> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut bytes = [0; 4096];
        let count = self.stream.read(&mut bytes)?;
        self.ahead.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    /// Answers `request`; false when the connection is over.
    pub(crate) fn send(&mut self, request: &Request, response: Response) -> io::Result<bool> {
        let close = request.wants_close() || request.has_body();
        self.write(response, request.method == "HEAD", close)?;
        if request.has_body() {
            self.drain();
        }
        Ok(!close)
    }

    /// Answers what was no request.
    pub(crate) fn send_last(&mut self, response: Response) -> io::Result<bool> {
        self.write(response, false, true)?;
        self.drain();
        Ok(false)
    }

    fn write(&mut self, response: Response, head_only: bool, close: bool) -> io::Result<()> {
        let mut message = response.head(close).into_bytes();
        match response.content {
            _ if head_only => self.stream.write_all(&message),
            Content::Whole(bytes) => {
                message.extend_from_slice(&bytes);
                self.stream.write_all(&message)
            }
            Content::Streamed(content, bytes) => {
                self.stream.write_all(&message)?;
                let sent = io::copy(&mut content.take(bytes), &mut self.stream)?;
                // A short body must not look whole: the client sees the connection break.
                if sent == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
            }
        }
    }

    /// Errors end it as well: the connection is over in any case.
    fn drain(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
        let _ = self.stream.set_read_timeout(Some(DRAIN_TIME_MAX));
        let _ = io::copy(&mut self.stream.take(DRAIN_BYTES_MAX), &mut io::sink());
    }
}

/// The request at the start of `bytes` and the length of its head; none when there is more to come.
fn parse(bytes: &[u8]) -> Result<Option<(Request, usize)>, Response> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Request::new(&mut fields);
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Response::text(431, "the request head has too many fields"));
        }
        Err(_) => return Err(Response::text(400, "this is not an HTTP/1.1 request")),
    };
    let request = Request {
        method: head.method.unwrap_or_default().to_owned(),
        target: head.path.unwrap_or_default().to_owned(),
        http_1_0: head.version == Some(0),
        fields: head.headers.iter().map(|field| owned(field)).collect(),
    };
    Ok(Some((request, length)))
}

fn owned(field: &httparse::Header<'_>) -> (String, String) {
    (field.name.to_ascii_lowercase(), String::from_utf8_lossy(field.value).into_owned())
}
