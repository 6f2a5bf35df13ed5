//! HTTP/1.1 as far as the load and the origin need it: heads, bodies of known length, lines.

use std::io;

use memchr::memmem;

use crate::stream::Stream;

/// Messages over one connection.
pub(crate) struct Messages {
    pub(crate) stream: Stream,
    /// What arrived; consumed up to `start`.
    data: Vec<u8>,
    start: usize,
}

/// Start line and fields.
#[derive(Debug)]
pub(crate) struct Head(String);

impl Head {
    pub(crate) fn start_line(&self) -> &str {
        self.0.lines().next().unwrap_or_default()
    }

    /// The length of the body; 0 when none is given.
    pub(crate) fn content_length(&self) -> io::Result<u64> {
        let mut fields = self.0.lines().skip(1).filter_map(|line| line.split_once(':'));
        match fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
            None => Ok(0),
            Some((_, value)) => value.trim().parse().map_err(io::Error::other),
        }
    }
}

impl Messages {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, data: Vec::new(), start: 0 }
    }

    /// The next head; `None` when the connection ends before it.
    pub(crate) async fn head(&mut self) -> io::Result<Option<Head>> {
        let mut searched = 0;
        loop {
            if let Some(at) = memmem::find(&self.rest()[searched..], b"\r\n\r\n") {
                let length = searched + at + 4;
                let head = String::from_utf8_lossy(&self.rest()[..length]).into_owned();
                self.consume(length);
                return Ok(Some(Head(head)));
            }
            searched = self.rest().len().saturating_sub(3);
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// Drops the next `bytes` bytes, which must come.
    pub(crate) async fn skip(&mut self, mut bytes: u64) -> io::Result<()> {
        loop {
            let here = usize::try_from(bytes).unwrap_or(usize::MAX).min(self.rest().len());
            self.consume(here);
            bytes -= here as u64;
            if bytes == 0 {
                return Ok(());
            }
            if !self.fill().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Shows the next `bytes` bytes to `seen`; they must come.
    pub(crate) async fn exactly<T>(
        &mut self,
        bytes: usize,
        seen: impl FnOnce(&[u8]) -> T,
    ) -> io::Result<T> {
        while self.rest().len() < bytes {
            if !self.fill().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let seen = seen(&self.rest()[..bytes]);
        self.consume(bytes);
        Ok(seen)
    }

    /// Shows the next line to `seen`, without its end; it must come.
    pub(crate) async fn line<T>(&mut self, seen: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', self.rest()) {
                let line = &self.rest()[..end];
                let result = seen(line.strip_suffix(b"\r").unwrap_or(line));
                self.consume(end + 1);
                return Ok(result);
            }
            if !self.fill().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Waits for more; `false` at the end.
    pub(crate) async fn fill(&mut self) -> io::Result<bool> {
        self.data.drain(..std::mem::take(&mut self.start));
        let Self { stream, data, .. } = self;
        stream
            .reader
            .read(&mut |plain| {
                data.extend_from_slice(plain);
                Ok(())
            })
            .await
    }

    fn rest(&self) -> &[u8] {
        &self.data[self.start..]
    }

    fn consume(&mut self, bytes: usize) {
        self.start += bytes;
    }
}
