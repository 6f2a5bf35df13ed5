//! Writing one answer, and remembering what of it went out.

use std::fmt::Write as _;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use super::log::{Fields, Sent};
use super::wire::Wire;

/// An answer being written. What each step wrote is in [`Sent`] also when a later step fails.
pub(super) struct Answer<'a> {
    wire: &'a mut Wire,
    method: &'a str,
    bytes_sent: &'a AtomicU64,
    pub(super) sent: Sent,
}

impl<'a> Answer<'a> {
    /// `bytes_sent` counts the bytes of bodies as they go out.
    pub(super) fn new(wire: &'a mut Wire, method: &'a str, bytes_sent: &'a AtomicU64) -> Self {
        Self { wire, method, bytes_sent, sent: Sent::default() }
    }

    pub(super) fn wire(&mut self) -> &mut Wire {
        self.wire
    }

    pub(super) fn interim(&mut self, status: u16, fields: &[(&str, &str)]) -> io::Result<()> {
        self.sent.interim.push(status);
        self.wire.write(head_text(status, &owned(fields)).as_bytes())
    }

    /// Status line and fields as they are given.
    pub(super) fn head(&mut self, status: u16, fields: &[(&str, &str)]) -> io::Result<()> {
        self.sent.status = status;
        self.sent.fields = owned(fields);
        self.wire.write(head_text(status, &self.sent.fields).as_bytes())
    }

    /// A whole answer of known length. `HEAD`, 204 and 304 get the head alone (RFC 9110 6.4.1).
    pub(super) fn whole(
        &mut self,
        status: u16,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<()> {
        let length = body.len().to_string();
        let mut fields = fields.to_vec();
        if status != 204 {
            fields.push(("Content-Length", &length));
        }
        self.head(status, &fields)?;
        if self.has_body() { self.bytes(body) } else { Ok(()) }
    }

    /// Whether this method and status carry a body at all.
    pub(super) fn has_body(&self) -> bool {
        self.method != "HEAD" && !matches!(self.sent.status, 204 | 304)
    }

    /// Bytes of a body whose end is known by its length or by the connection's end.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.write(bytes)?;
        self.sent.body.push(bytes);
        self.bytes_sent.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        Ok(())
    }

    pub(super) fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut framed = format!("{:x}\r\n", bytes.len()).into_bytes();
        framed.extend_from_slice(bytes);
        framed.extend_from_slice(b"\r\n");
        self.wire.write(&framed)?;
        self.sent.body.push(bytes);
        self.bytes_sent.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        Ok(())
    }

    pub(super) fn last_chunk(&mut self, trailers: &[(&str, &str)]) -> io::Result<()> {
        self.sent.trailers = owned(trailers);
        self.wire.write(format!("0\r\n{}\r\n", field_lines(&self.sent.trailers)).as_bytes())
    }
}

fn owned(fields: &[(&str, &str)]) -> Fields {
    fields.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
}

pub(super) fn head_text(status: u16, fields: &Fields) -> String {
    format!("HTTP/1.1 {status} {}\r\n{}\r\n", reason(status), field_lines(fields))
}

fn field_lines(fields: &Fields) -> String {
    fields.iter().fold(String::new(), |mut lines, (name, value)| {
        write!(lines, "{name}: {value}\r\n").expect("writing to a string");
        lines
    })
}

fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        103 => "Early Hints",
        200 => "OK",
        204 => "No Content",
        304 => "Not Modified",
        404 => "Not Found",
        413 => "Content Too Large",
        // An empty reason is allowed, and worth passing on.
        _ => "",
    }
}
