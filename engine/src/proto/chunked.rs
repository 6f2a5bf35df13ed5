//! Chunked transfer coding (RFC 9112, section 7.1), read beside the bytes: the wire form is
//! forwarded untouched, this finds the data in it and its end.

use agent_gate_store::record;

use super::head;
use crate::limits::CHUNK_LINE_BYTES_MAX;

/// Why bytes are not chunked coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed chunked coding: {0}")]
pub(crate) struct ChunkedError(&'static str);

/// A reader of chunked coding, at some place inside it.
#[derive(Debug)]
pub(crate) struct ChunkedReader {
    place: Place,
    /// Bytes in the present line or trailer section.
    line_bytes: usize,
    trailers: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the size; whether a digit was seen.
    Size { size: u64, digits: bool },
    /// Behind the size, up to the carriage return.
    Extension { size: u64 },
    /// At the line feed of the size line.
    SizeLineFeed { size: u64 },
    /// In the data, with so many bytes left.
    Data { left: u64 },
    /// At the carriage return behind the data.
    DataReturn,
    /// At the line feed behind the data.
    DataLineFeed,
    /// At the start of a trailer line.
    TrailerStart,
    /// In a trailer line.
    Trailer,
    /// At the line feed of the empty line.
    EndLineFeed,
    /// Behind it all.
    Done,
}

impl ChunkedReader {
    pub(crate) fn new() -> Self {
        Self { place: Place::Size { size: 0, digits: false }, line_bytes: 0, trailers: Vec::new() }
    }

    /// Reads from the front of `input` and pushes the data it finds. Returns how many bytes
    /// belong to the body: less than all only when the body is over ([`Self::is_done`]).
    pub(crate) fn read(
        &mut self,
        input: &[u8],
        mut data: impl FnMut(&[u8]),
    ) -> Result<usize, ChunkedError> {
        let mut at = 0;
        while at < input.len() && self.place != Place::Done {
            if let Place::Data { left } = self.place {
                let rest = &input[at..];
                let length = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
                data(&rest[..length]);
                at += length;
                let left = left - length as u64;
                self.place = if left == 0 { Place::DataReturn } else { Place::Data { left } };
            } else {
                self.place = self.step(input[at])?;
                at += 1;
            }
        }
        Ok(at)
    }

    /// Whether the body has ended.
    pub(crate) fn is_done(&self) -> bool {
        self.place == Place::Done
    }

    /// The trailer fields, once the body has ended.
    pub(crate) fn trailers(&self) -> Vec<record::Field<'static>> {
        if self.trailers.len() <= 2 { Vec::new() } else { head::trailers(&self.trailers) }
    }

    fn step(&mut self, byte: u8) -> Result<Place, ChunkedError> {
        self.line_bytes += 1;
        if self.line_bytes > CHUNK_LINE_BYTES_MAX {
            return Err(ChunkedError("line or trailers too long"));
        }
        Ok(match self.place {
            Place::Size { size, digits } => size_step(size, digits, byte)?,
            Place::Extension { size } => match byte {
                b'\r' => Place::SizeLineFeed { size },
                b'\n' => return Err(ChunkedError("bare line feed in a size line")),
                _ => Place::Extension { size },
            },
            Place::SizeLineFeed { size } => {
                expect(byte, b'\n', "size line")?;
                self.line_bytes = 0;
                if size == 0 { Place::TrailerStart } else { Place::Data { left: size } }
            }
            Place::DataReturn => {
                expect(byte, b'\r', "no line end behind a chunk")?;
                Place::DataLineFeed
            }
            Place::DataLineFeed => {
                expect(byte, b'\n', "no line end behind a chunk")?;
                self.line_bytes = 0;
                Place::Size { size: 0, digits: false }
            }
            Place::TrailerStart | Place::Trailer | Place::EndLineFeed => self.trailer_step(byte)?,
            Place::Data { .. } | Place::Done => unreachable!("handled by read"),
        })
    }

    fn trailer_step(&mut self, byte: u8) -> Result<Place, ChunkedError> {
        self.trailers.push(byte);
        match (self.place, byte) {
            (Place::TrailerStart, b'\r') => Ok(Place::EndLineFeed),
            (Place::EndLineFeed, b'\n') => Ok(Place::Done),
            (Place::EndLineFeed, _) => Err(ChunkedError("bare carriage return in trailers")),
            (_, b'\n') => Ok(Place::TrailerStart),
            _ => Ok(Place::Trailer),
        }
    }
}

fn size_step(size: u64, digits: bool, byte: u8) -> Result<Place, ChunkedError> {
    match byte {
        b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F' => {
            let digit = u64::from(char::from(byte).to_digit(16).unwrap_or_default());
            let size = size
                .checked_mul(16)
                .and_then(|s| s.checked_add(digit))
                .ok_or(ChunkedError("chunk size too large"))?;
            Ok(Place::Size { size, digits: true })
        }
        _ if !digits => Err(ChunkedError("no chunk size")),
        b'\r' => Ok(Place::SizeLineFeed { size }),
        b';' | b' ' | b'\t' => Ok(Place::Extension { size }),
        _ => Err(ChunkedError("chunk size is not hexadecimal")),
    }
}

fn expect(byte: u8, expected: u8, otherwise: &'static str) -> Result<(), ChunkedError> {
    if byte == expected { Ok(()) } else { Err(ChunkedError(otherwise)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `input` in pieces of `step` bytes: data, bytes consumed, done, trailers.
    fn read(input: &[u8], step: usize) -> Result<(Vec<u8>, usize, bool, usize), ChunkedError> {
        let (mut reader, mut data, mut consumed) = (ChunkedReader::new(), Vec::new(), 0);
        for piece in input.chunks(step) {
            let n = reader.read(piece, |d| data.extend_from_slice(d))?;
            consumed += n;
            if n < piece.len() {
                break;
            }
        }
        Ok((data, consumed, reader.is_done(), reader.trailers().len()))
    }

    #[test]
    fn every_cut_gives_the_same() {
        for (input, data, rest, trailers) in [
            ("0\r\n\r\n", "", "", 0),
            ("5\r\nhello\r\n0\r\n\r\nNEXT", "hello", "NEXT", 0),
            ("1;a=b\r\nh\r\n4 ; c\r\nello\r\n000\r\nA: b\r\nC: d\r\n\r\n", "hello", "", 2),
            ("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789", "", 0),
        ] {
            for step in 1..=input.len() {
                let expected = (data.into(), input.len() - rest.len(), true, trailers);
                assert_eq!(read(input.as_bytes(), step), Ok(expected), "{input:?} by {step}");
            }
        }
    }

    #[test]
    fn malformed_coding_is_an_error() {
        for input in [
            "\r\n",
            "x\r\n",
            "5\nhello",
            "5\r\nhellox",
            "5\r\nhello\n",
            "5;\nhello\r\n",
            "0\r\n\rx",
            "-1\r\n",
            "10000000000000000\r\n",
        ] {
            assert!(read(input.as_bytes(), 1).is_err(), "{input:?}");
            assert!(read(input.as_bytes(), input.len()).is_err(), "{input:?}");
        }
        let long = format!("1;{}", "x".repeat(CHUNK_LINE_BYTES_MAX));
        assert!(read(long.as_bytes(), 100).is_err());
    }

    #[test]
    fn an_unfinished_body_is_not_done() {
        assert_eq!(read(b"5\r\nhel", 2), Ok((b"hel".to_vec(), 6, false, 0)));
    }
}
