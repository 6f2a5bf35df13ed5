//! Reading HTTP/1.1 requests strictly: whatever RFC 9112 forbids a client is a fault here, because
//! the client is the gate.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use rustls::{ServerConnection, StreamOwned};

use super::log::{Fields, value};
use crate::support::content::Content;

/// No start line or field of a scenario is longer.
const LINE_BYTES_MAX: usize = 128 << 10;

/// A clear or a TLS connection.
pub(super) trait Stream: Read + Write + Send {
    fn socket(&self) -> &TcpStream;
    fn is_tls(&self) -> bool;
    /// Tells the peer in TLS's own words that no more follows.
    fn say_goodbye(&mut self);
}

impl Stream for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }

    fn is_tls(&self) -> bool {
        false
    }

    fn say_goodbye(&mut self) {}
}

impl Stream for StreamOwned<ServerConnection, TcpStream> {
    fn socket(&self) -> &TcpStream {
        &self.sock
    }

    fn is_tls(&self) -> bool {
        true
    }

    fn say_goodbye(&mut self) {
        self.conn.send_close_notify();
        drop(self.flush());
    }
}

/// Why no further request comes.
pub(super) enum Fault {
    /// The peer ended the connection where it may.
    Ended,
    /// The connection broke in mid-message, by the peer or by a route that means to break it.
    Cut,
    /// The connection is to be reset (RST), not ended.
    Reset,
    /// The peer broke the rules: which, and where.
    Broken(String),
}

impl From<std::io::Error> for Fault {
    fn from(_: std::io::Error) -> Self {
        Self::Cut
    }
}

/// Start line and fields of a request.
pub(super) struct Head {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) version: String,
    pub(super) fields: Fields,
}

/// How the end of a request's body is known.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
}

/// One connection with what was read of it and not yet used.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
    used: usize,
}

impl Wire {
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        Self { stream, buffer: Vec::new(), used: 0 }
    }

    pub(super) fn socket(&self) -> &TcpStream {
        self.stream.socket()
    }

    /// Ends the connection without a word, so that the kernel resets it. No other handle of the
    /// socket may be open.
    pub(super) fn reset(self) {
        socket2::SockRef::from(self.socket()).set_linger(Some(Duration::ZERO)).unwrap();
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Ends the connection as the protocol wishes, and waits for the peer to end it too: closing
    /// with unread bytes would send a reset that can overtake the answer.
    pub(super) fn close(mut self) {
        self.stream.say_goodbye();
        drop(self.stream.socket().shutdown(Shutdown::Write));
        let mut rest = [0; 4096];
        while matches!(self.stream.read(&mut rest), Ok(n) if n > 0) {}
    }

    pub(super) fn read_head(&mut self) -> Result<Head, Fault> {
        let line = self.read_line(true)?;
        let mut parts = line.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Fault::Broken(format!("start line {line:?}")));
        };
        let head = Head {
            method: method.to_owned(),
            target: target.to_owned(),
            version: version.to_owned(),
            fields: self.read_fields()?,
        };
        head.check(self.stream.is_tls())?;
        Ok(head)
    }

    /// Field lines up to the empty line, of a head or of trailers.
    fn read_fields(&mut self) -> Result<Fields, Fault> {
        let mut fields = Fields::new();
        loop {
            let line = self.read_line(false)?;
            if line.is_empty() {
                return Ok(fields);
            }
            let broken = || Fault::Broken(format!("field line {line:?}"));
            let (name, value) = line.split_once(':').ok_or_else(broken)?;
            let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
            if name.is_empty() || !name.chars().all(token) {
                return Err(broken());
            }
            fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
    }

    /// One line without its CRLF; `first` says that the connection may end before it.
    fn read_line(&mut self, first: bool) -> Result<String, Fault> {
        let mut searched = 0;
        let end = loop {
            let start = self.used + searched;
            if let Some(at) = self.buffer[start..].iter().position(|b| *b == b'\n') {
                break start + at;
            }
            searched = self.buffer.len() - self.used;
            if searched > LINE_BYTES_MAX {
                return Err(Fault::Broken("a line without end".to_owned()));
            }
            self.fill(first && searched == 0)?;
        };
        let line = self.buffer[self.used..end].to_vec();
        self.used = end + 1;
        let line = String::from_utf8(line)
            .map_err(|e| Fault::Broken(format!("not UTF-8: {:?}", e.into_bytes())))?;
        match line.strip_suffix('\r') {
            Some(line) if !line.contains('\r') => Ok(line.to_owned()),
            _ => Err(Fault::Broken(format!("line does not end in CRLF: {line:?}"))),
        }
    }

    /// Reads the body into `content`; returns the trailers.
    pub(super) fn read_body(
        &mut self,
        framing: Framing,
        content: &mut Content,
    ) -> Result<Fields, Fault> {
        match framing {
            Framing::Length(bytes) => self.take(bytes, content).map(|()| Fields::new()),
            Framing::Chunked => self.read_chunks(content),
        }
    }

    fn read_chunks(&mut self, content: &mut Content) -> Result<Fields, Fault> {
        loop {
            let line = self.read_line(false)?;
            let size = line.split(';').next().unwrap_or_default();
            let size = u64::from_str_radix(size, 16)
                .map_err(|_| Fault::Broken(format!("chunk size {line:?}")))?;
            if size == 0 {
                return self.read_fields();
            }
            self.take(size, content)?;
            if !self.read_line(false)?.is_empty() {
                return Err(Fault::Broken("chunk is longer than its size".to_owned()));
            }
        }
    }

    fn take(&mut self, mut bytes: u64, content: &mut Content) -> Result<(), Fault> {
        while bytes > 0 {
            if self.used == self.buffer.len() {
                self.fill(false)?;
            }
            let ready = &self.buffer[self.used..];
            let n = ready.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
            content.push(&ready[..n]);
            self.used += n;
            bytes -= n as u64;
        }
        Ok(())
    }

    /// What the peer sent after its request, once bytes are no longer HTTP; empty at the end.
    pub(super) fn read_raw(&mut self) -> Result<Vec<u8>, Fault> {
        if self.used == self.buffer.len() {
            match self.fill(true) {
                Err(Fault::Ended) => return Ok(Vec::new()),
                other => other?,
            }
        }
        Ok(self.buffer.split_off(self.used))
    }

    /// Reads more; `may_end` says that the connection may end here.
    fn fill(&mut self, may_end: bool) -> Result<(), Fault> {
        self.buffer.drain(..self.used);
        self.used = 0;
        let mut piece = [0; 64 << 10];
        match self.stream.read(&mut piece) {
            Ok(0) if may_end => Err(Fault::Ended),
            Ok(0) => Err(Fault::Cut),
            Ok(n) => {
                self.buffer.extend_from_slice(&piece[..n]);
                Ok(())
            }
            Err(_) if may_end => Err(Fault::Ended),
            Err(_) => Err(Fault::Cut),
        }
    }
}

impl Head {
    /// What a request to an origin must and must not say (RFC 9110 section 7, RFC 9112 section 3).
    /// What a client sends through a tunnel is its own: wget says `Proxy-Connection` there too.
    fn check(&self, is_tls: bool) -> Result<(), Fault> {
        let broken = |what: &str| {
            Err(Fault::Broken(format!("{what}: {} {} {:?}", self.method, self.target, self.fields)))
        };
        if !self.target.starts_with('/') && self.target != "*" {
            return broken("target not in origin form");
        }
        if !matches!(&self.version[..], "HTTP/1.1" | "HTTP/1.0") {
            return broken("version");
        }
        if self.count("host") != 1 {
            return broken("not one Host");
        }
        let of_proxies = ["proxy-connection", "proxy-authorization", "keep-alive"];
        if !is_tls && of_proxies.iter().any(|forbidden| self.count(forbidden) > 0) {
            return broken("field that ends at a proxy");
        }
        Ok(())
    }

    /// RFC 9112 section 6.3; a request with both framings, or one twice, is smuggling.
    pub(super) fn framing(&self) -> Result<Framing, Fault> {
        let broken = || Fault::Broken(format!("framing: {:?}", self.fields));
        match (self.count("transfer-encoding"), self.count("content-length")) {
            (0, 0) => Ok(Framing::Length(0)),
            (1, 0) => match value(&self.fields, "transfer-encoding") {
                Some(coding) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
                _ => Err(broken()),
            },
            (0, 1) => {
                let length = value(&self.fields, "content-length").and_then(|v| v.parse().ok());
                length.map(Framing::Length).ok_or_else(broken)
            }
            _ => Err(broken()),
        }
    }

    fn count(&self, name: &str) -> usize {
        self.fields.iter().filter(|f| f.0.eq_ignore_ascii_case(name)).count()
    }
}
