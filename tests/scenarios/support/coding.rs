//! Content codings as an origin or a client applies them: at once, or flushed bit by bit.

use std::cell::RefCell;
use std::io::Write;
use std::mem::take;
use std::rc::Rc;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

/// What codes and what it has written so far.
pub(crate) struct Encoder {
    inner: Box<dyn Write>,
    written: Written,
}

/// An output that is shared with whoever takes from it.
#[derive(Clone, Default)]
struct Written(Rc<RefCell<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Encoder {
    /// `raw` is deflate without zlib's wrapping, as some servers send it; `wide` is zstd with a
    /// window of 16 MiB.
    pub(crate) fn new(name: &str) -> Self {
        let (written, level) = (Written::default(), Compression::default());
        let out = written.clone();
        let inner: Box<dyn Write> = match name {
            "gzip" => Box::new(GzEncoder::new(out, level)),
            "deflate" => Box::new(ZlibEncoder::new(out, level)),
            "raw" => Box::new(DeflateEncoder::new(out, level)),
            "br" => Box::new(brotli::CompressorWriter::new(out, 4096, 4, 18)),
            "zstd" => {
                let mut encoder = zstd::Encoder::new(out, 3).unwrap();
                encoder.include_checksum(true).unwrap();
                Box::new(encoder.auto_finish())
            }
            "wide" => {
                let mut encoder = zstd::Encoder::new(out, 3).unwrap();
                encoder.window_log(24).unwrap();
                Box::new(encoder.auto_finish())
            }
            other => panic!("no coding {other:?}"),
        };
        Self { inner, written }
    }

    /// Codes `plain` so that all of it can be decoded from what is returned.
    pub(crate) fn flush(&mut self, plain: &[u8]) -> Vec<u8> {
        self.inner.write_all(plain).unwrap();
        self.inner.flush().unwrap();
        take(&mut self.written.0.borrow_mut())
    }

    /// The end.
    pub(crate) fn finish(self) -> Vec<u8> {
        let Self { inner, written } = self;
        drop(inner);
        written.0.take()
    }
}

/// `plain` under the codings of a comma-separated list: the first is applied first.
pub(crate) fn encode(list: &str, plain: &[u8]) -> Vec<u8> {
    list.split(',').fold(plain.to_vec(), |body, name| {
        let mut encoder = Encoder::new(name);
        encoder.inner.write_all(&body).unwrap();
        encoder.finish()
    })
}

/// The value of `Content-Encoding` for the same list.
pub(crate) fn field_value(list: &str) -> String {
    list.replace("raw", "deflate").replace("wide", "zstd").replace(',', ", ")
}

/// A text of `bytes` bytes that compresses as texts do, the same every time.
pub(crate) fn text(bytes: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes + 40);
    for n in 0_u64.. {
        if text.len() >= bytes {
            break;
        }
        let number = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        writeln!(text, "{{\"type\":\"text_delta\",\"text\":\"{number:x}\"}}").unwrap();
    }
    text.truncate(bytes);
    text
}
