//! Chunked transfer coding (RFC 9112, section 7.1), read beside the bytes: the wire form is
//! forwarded, this finds the data in it, its end, and the extensions that are left out.
//!
//! Extensions (section 7.1.1) belong to one connection and mean nothing to anybody; readers that
//! disagree on where one ends are what requests are smuggled by. Trailers are forwarded as they
//! are.

use std::ops::Range;

use agent_gate_store::record;

use super::diagnosis::is_token;
use super::trailers;
use crate::limits::CHUNK_LINE_BYTES_MAX;

/// Why bytes are not chunked coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed chunked coding: {0}")]
pub(crate) struct ChunkedError(pub(super) &'static str);

/// How much is forgiven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Nothing: a request, which somebody else is to read the same way.
    Strict,
    /// What curl, wget and Python forgive: line ends without carriage return, white space behind
    /// a size, trailer lines of any form. A response, which a client would have understood.
    Tolerant,
}

/// A reader of chunked coding, at some place inside it.
#[derive(Debug)]
pub(crate) struct ChunkedReader {
    manner: Manner,
    place: Place,
    /// Bytes in the present line or trailer section.
    line_bytes: usize,
    /// The trailer section so far.
    trailers: Vec<u8>,
    /// Where extensions lie in the input of the last [`Self::read`].
    extensions: Vec<Range<usize>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the size, with so many digits seen.
    Size { size: u64, digits: u8 },
    /// In white space behind the size.
    Padding { size: u64 },
    /// In an extension.
    Extension { size: u64 },
    /// In a quoted string of an extension.
    Quoted { size: u64 },
    /// Behind a backslash in a quoted string.
    Escaped { size: u64 },
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
    /// In the name of a trailer field.
    TrailerName,
    /// In its value.
    TrailerValue,
    /// At the line feed of a trailer line.
    TrailerLineFeed,
    /// At the line feed of the empty line.
    EndLineFeed,
    /// Behind it all.
    Done,
}

impl Place {
    /// Whether the byte that led here belongs to an extension.
    fn is_extension(self) -> bool {
        matches!(
            self,
            Self::Padding { .. }
                | Self::Extension { .. }
                | Self::Quoted { .. }
                | Self::Escaped { .. }
        )
    }
}

/// As many as 64 bits have; further ones are zeros, which not every reader can count.
const SIZE_DIGITS_MAX: u8 = 16;

const BARE_LINE_FEED: ChunkedError = ChunkedError("a line feed without a carriage return");
const BARE_RETURN: ChunkedError = ChunkedError("a carriage return without a line feed");

impl ChunkedReader {
    pub(crate) fn new(manner: Manner) -> Self {
        Self {
            manner,
            place: Place::Size { size: 0, digits: 0 },
            line_bytes: 0,
            trailers: Vec::new(),
            extensions: Vec::new(),
        }
    }

    /// Reads from the front of `input` and pushes the data it finds. Returns how many bytes
    /// belong to the body: less than all only when the body is over ([`Self::is_done`]).
    pub(crate) fn read(
        &mut self,
        input: &[u8],
        mut data: impl FnMut(&[u8]),
    ) -> Result<usize, ChunkedError> {
        self.extensions.clear();
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
                if self.place.is_extension() {
                    self.leave_out(at);
                }
                at += 1;
            }
        }
        Ok(at)
    }

    /// Where, in the input of the last [`Self::read`], lies what is not to be forwarded.
    pub(super) fn extensions(&self) -> &[Range<usize>] {
        &self.extensions
    }

    /// Whether the body has ended.
    pub(crate) fn is_done(&self) -> bool {
        self.place == Place::Done
    }

    /// The trailer fields, once the body has ended.
    pub(crate) fn trailers(&self) -> Vec<record::Field<'static>> {
        trailers::fields(&self.trailers)
    }

    fn leave_out(&mut self, at: usize) {
        match self.extensions.last_mut() {
            Some(last) if last.end == at => last.end = at + 1,
            _ => self.extensions.push(at..at + 1),
        }
    }

    fn step(&mut self, byte: u8) -> Result<Place, ChunkedError> {
        self.line_bytes += 1;
        if self.line_bytes > CHUNK_LINE_BYTES_MAX {
            return Err(ChunkedError("a size line or a trailer section that is too long"));
        }
        match self.place {
            Place::Size { size, digits } => self.size_step(size, digits, byte),
            Place::Padding { .. }
            | Place::Extension { .. }
            | Place::Quoted { .. }
            | Place::Escaped { .. } => self.extension_step(byte),
            Place::SizeLineFeed { size } => match byte {
                b'\n' => Ok(self.behind_size_line(size)),
                _ => Err(BARE_RETURN),
            },
            Place::DataReturn => match byte {
                b'\r' => Ok(Place::DataLineFeed),
                b'\n' => self.forgiven(BARE_LINE_FEED).map(|()| self.at_size_line()),
                _ => Err(ChunkedError("no line end behind a chunk")),
            },
            Place::DataLineFeed => match byte {
                b'\n' => Ok(self.at_size_line()),
                _ => Err(BARE_RETURN),
            },
            Place::TrailerStart
            | Place::TrailerName
            | Place::TrailerValue
            | Place::TrailerLineFeed
            | Place::EndLineFeed => self.trailer_step(byte),
            Place::Data { .. } | Place::Done => unreachable!("handled by read"),
        }
    }

    fn size_step(&mut self, size: u64, digits: u8, byte: u8) -> Result<Place, ChunkedError> {
        match byte {
            b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F' => {
                let digit = u64::from(char::from(byte).to_digit(16).unwrap_or_default());
                let larger = size.checked_mul(16).and_then(|s| s.checked_add(digit));
                let size = larger.ok_or(ChunkedError("a chunk size beyond all measure"))?;
                if digits == SIZE_DIGITS_MAX {
                    self.forgiven(ChunkedError("a chunk size of more than 16 digits"))?;
                }
                Ok(Place::Size { size, digits: digits.saturating_add(1) })
            }
            _ if digits == 0 => Err(ChunkedError("no chunk size where one was expected")),
            b'\r' => Ok(Place::SizeLineFeed { size }),
            b'\n' => self.forgiven(BARE_LINE_FEED).map(|()| self.behind_size_line(size)),
            b';' => Ok(Place::Extension { size }),
            b' ' | b'\t' => Ok(Place::Padding { size }),
            _ => Err(ChunkedError("a chunk size that is not hexadecimal")),
        }
    }

    fn extension_step(&mut self, byte: u8) -> Result<Place, ChunkedError> {
        match (self.place, byte) {
            (Place::Quoted { .. } | Place::Escaped { .. }, b'\r' | b'\n') => {
                Err(ChunkedError("a line end in a quoted string"))
            }
            (_, 0) => Err(ChunkedError("a NUL byte in a size line")),
            (_, byte) if is_control(byte) => {
                self.forgiven(ChunkedError("a control byte in a size line")).map(|()| self.place)
            }
            (Place::Escaped { size }, _) => Ok(Place::Quoted { size }),
            (Place::Quoted { size }, b'"') => Ok(Place::Extension { size }),
            (Place::Quoted { size }, b'\\') => Ok(Place::Escaped { size }),
            (Place::Extension { size }, b'"') => Ok(Place::Quoted { size }),
            (Place::Padding { size }, b';') => Ok(Place::Extension { size }),
            (Place::Padding { size }, b'\r') => {
                let padding = ChunkedError("white space behind a chunk size");
                self.forgiven(padding).map(|()| Place::SizeLineFeed { size })
            }
            (Place::Extension { size }, b'\r') => Ok(Place::SizeLineFeed { size }),
            (Place::Padding { size } | Place::Extension { size }, b'\n') => {
                self.forgiven(BARE_LINE_FEED).map(|()| self.behind_size_line(size))
            }
            (Place::Padding { .. }, byte) if byte != b' ' && byte != b'\t' => {
                Err(ChunkedError("a chunk size that is not hexadecimal"))
            }
            _ => Ok(self.place),
        }
    }

    fn behind_size_line(&mut self, size: u64) -> Place {
        self.line_bytes = 0;
        if size == 0 { Place::TrailerStart } else { Place::Data { left: size } }
    }

    fn at_size_line(&mut self) -> Place {
        self.line_bytes = 0;
        Place::Size { size: 0, digits: 0 }
    }

    fn trailer_step(&mut self, byte: u8) -> Result<Place, ChunkedError> {
        self.trailers.push(byte);
        match (self.place, byte) {
            (Place::TrailerStart, b'\r') => Ok(Place::EndLineFeed),
            (Place::TrailerStart, b'\n') => self.forgiven(BARE_LINE_FEED).map(|()| Place::Done),
            (Place::TrailerLineFeed, b'\n') => Ok(Place::TrailerStart),
            (Place::EndLineFeed, b'\n') => self.end(),
            (Place::TrailerLineFeed | Place::EndLineFeed, _) => Err(BARE_RETURN),
            (_, 0) => Err(ChunkedError("a NUL byte in a trailer section")),
            (Place::TrailerStart | Place::TrailerName, _) if self.manner == Manner::Strict => {
                self.trailer_name(byte)
            }
            (_, b'\r') => Ok(Place::TrailerLineFeed),
            (_, b'\n') => self.forgiven(BARE_LINE_FEED).map(|()| Place::TrailerStart),
            (_, byte) if is_control(byte) => self
                .forgiven(ChunkedError("a control byte in a trailer field"))
                .map(|()| Place::TrailerValue),
            _ => Ok(Place::TrailerValue),
        }
    }

    fn trailer_name(&self, byte: u8) -> Result<Place, ChunkedError> {
        match (self.place, byte) {
            (Place::TrailerStart, b' ' | b'\t') => Err(ChunkedError("a folded trailer field")),
            (Place::TrailerStart, b':') => Err(ChunkedError("a trailer field without a name")),
            (_, b':') => Ok(Place::TrailerValue),
            (_, b'\r' | b'\n') => Err(ChunkedError("a trailer field without a colon")),
            (_, byte) if is_token(byte) => Ok(Place::TrailerName),
            _ => Err(ChunkedError("a byte in the name of a trailer field")),
        }
    }

    fn end(&self) -> Result<Place, ChunkedError> {
        let refused = self.manner == Manner::Strict && trailers::are_misplaced(&self.trailers);
        if refused { Err(ChunkedError(trailers::MISPLACED)) } else { Ok(Place::Done) }
    }

    fn forgiven(&self, error: ChunkedError) -> Result<(), ChunkedError> {
        if self.manner == Manner::Tolerant { Ok(()) } else { Err(error) }
    }
}

/// Not a line end, but a byte that no text has.
fn is_control(byte: u8) -> bool {
    (byte < b' ' && !matches!(byte, b'\t' | b'\r' | b'\n')) || byte == 0x7f
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a reader made of its input.
    #[derive(Debug, PartialEq, Eq)]
    struct Read {
        data: Vec<u8>,
        forwarded: Vec<u8>,
        consumed: usize,
        done: bool,
        trailers: Vec<(String, Vec<u8>)>,
    }

    fn read<'a>(
        manner: Manner,
        pieces: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Read, ChunkedError> {
        let mut reader = ChunkedReader::new(manner);
        let (mut data, mut forwarded, mut consumed) = (Vec::new(), Vec::new(), 0);
        for piece in pieces {
            let n = reader.read(piece, |d| data.extend_from_slice(d))?;
            consumed += n;
            let left_out = reader.extensions();
            forwarded.extend(
                (0..n).filter(|at| !left_out.iter().any(|r| r.contains(at))).map(|at| piece[at]),
            );
            if n < piece.len() {
                break;
            }
        }
        let trailers = reader.trailers();
        let trailers =
            trailers.into_iter().map(|f| (f.name.into_owned(), f.value.into_owned())).collect();
        Ok(Read { data, forwarded, consumed, done: reader.is_done(), trailers })
    }

    /// Whole, in pieces of every size, and in two pieces cut at every byte.
    fn read_however_cut(manner: Manner, input: &[u8]) -> Result<Read, ChunkedError> {
        let whole = read(manner, [input].into_iter());
        for at in 1..=input.len() {
            let shown = String::from_utf8_lossy(input);
            assert_eq!(read(manner, input.chunks(at)), whole, "{shown:?} by {at}");
            let (first, second) = input.split_at(at);
            assert_eq!(read(manner, [first, second].into_iter()), whole, "{shown:?} cut at {at}");
        }
        whole
    }

    #[test]
    fn every_cut_gives_the_same() {
        // (on the wire, without extensions, data, behind it, trailers)
        for (input, forwarded, data, rest, trailers) in [
            ("0\r\n\r\n", "0\r\n\r\n", "", "", 0),
            ("5\r\nhello\r\n0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n", "hello", "NEXT", 0),
            (
                "1;a=b\r\nh\r\n4 ; c\r\nello\r\n000;x\r\nA: b\r\nC:d \r\n\r\n",
                "1\r\nh\r\n4\r\nello\r\n000\r\nA: b\r\nC:d \r\n\r\n",
                "hello",
                "\r\n",
                2,
            ),
            (
                "A;q=\"x;y\\\"\\\\\" ;z\t= \"\" \r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n",
                "A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n",
                "01234567890123456789",
                "",
                0,
            ),
            ("1;é\r\nx\r\n0\r\n\r\n", "1\r\nx\r\n0\r\n\r\n", "x", "", 0),
            (
                "0000000000000001\r\nx\r\n0\r\n\r\n",
                "0000000000000001\r\nx\r\n0\r\n\r\n",
                "x",
                "",
                0,
            ),
        ] {
            for manner in [Manner::Strict, Manner::Tolerant] {
                let wire = format!("{input}{rest}");
                let found = read_however_cut(manner, wire.as_bytes()).unwrap();
                assert_eq!(String::from_utf8_lossy(&found.forwarded), forwarded, "{input:?}");
                assert_eq!(found.data, data.as_bytes(), "{input:?}");
                assert_eq!((found.consumed, found.done), (input.len(), true), "{input:?}");
                assert_eq!(found.trailers.len(), trailers, "{input:?}");
            }
        }
    }

    #[test]
    fn malformed_coding_is_an_error_in_whatever_manner() {
        for (input, error) in [
            ("\r\n", "no chunk size where one was expected"),
            ("x\r\n", "no chunk size where one was expected"),
            ("-1\r\n", "no chunk size where one was expected"),
            (" 1\r\n", "no chunk size where one was expected"),
            (";a\r\n", "no chunk size where one was expected"),
            ("0x1\r\nh", "a chunk size that is not hexadecimal"),
            ("1 2\r\nh", "a chunk size that is not hexadecimal"),
            ("1_0\r\nh", "a chunk size that is not hexadecimal"),
            ("5\r\nhellox", "no line end behind a chunk"),
            ("5\r\nhello\rx", "a carriage return without a line feed"),
            ("5\rhello", "a carriage return without a line feed"),
            ("5;a\rb\r\nhello", "a carriage return without a line feed"),
            ("5;a=\"b\r\nhello", "a line end in a quoted string"),
            ("5;a=\"b\nhello", "a line end in a quoted string"),
            ("5;a=\"b\\\r\nhello", "a line end in a quoted string"),
            ("5;a\0\r\nhello", "a NUL byte in a size line"),
            ("0\r\n\rx", "a carriage return without a line feed"),
            ("0\r\nA: b\rC: d\r\n\r\n", "a carriage return without a line feed"),
            ("0\r\nA: b\0\r\n\r\n", "a NUL byte in a trailer section"),
            ("10000000000000000\r\n", "a chunk size beyond all measure"),
        ] {
            for manner in [Manner::Strict, Manner::Tolerant] {
                let found = read_however_cut(manner, input.as_bytes());
                assert_eq!(found, Err(ChunkedError(error)), "{input:?}");
            }
        }
    }

    /// What a request may not do and a response may: the error, and what is forwarded.
    #[test]
    fn responses_are_forgiven() {
        for (input, error, forwarded) in [
            ("1\nh\r\n0\r\n\r\n", BARE_LINE_FEED.0, None),
            ("1;a\nh\r\n0\r\n\r\n", BARE_LINE_FEED.0, Some("1\nh\r\n0\r\n\r\n")),
            ("1\r\nh\n0\r\n\r\n", BARE_LINE_FEED.0, None),
            ("1\r\nh\r\n0\n\r\n", BARE_LINE_FEED.0, None),
            ("0\r\n\n", BARE_LINE_FEED.0, None),
            ("0\r\nA: b\n\r\n", BARE_LINE_FEED.0, None),
            (
                "1 \t\r\nh\r\n0\r\n\r\n",
                "white space behind a chunk size",
                Some("1\r\nh\r\n0\r\n\r\n"),
            ),
            (
                "1;\u{1}\r\nh\r\n0\r\n\r\n",
                "a control byte in a size line",
                Some("1\r\nh\r\n0\r\n\r\n"),
            ),
            ("00000000000000001\r\nh\r\n0\r\n\r\n", "a chunk size of more than 16 digits", None),
            ("0\r\nA: b\r\n c\r\n\r\n", "a folded trailer field", None),
            ("0\r\n A: b\r\n\r\n", "a folded trailer field", None),
            ("0\r\n: b\r\n\r\n", "a trailer field without a name", None),
            ("0\r\nA\r\n\r\n", "a trailer field without a colon", None),
            ("0\r\nA : b\r\n\r\n", "a byte in the name of a trailer field", None),
            ("0\r\nA: \u{1}\r\n\r\n", "a control byte in a trailer field", None),
            ("0\r\nA: b\r\nContent-length: 5\r\n\r\n", trailers::MISPLACED, None),
            ("0\r\nTRANSFER-ENCODING: x\r\n\r\n", trailers::MISPLACED, None),
            ("0\r\nhost: x\r\nA: b\r\n\r\n", trailers::MISPLACED, None),
        ] {
            let strict = read_however_cut(Manner::Strict, input.as_bytes());
            assert_eq!(strict, Err(ChunkedError(error)), "{input:?}");
            let found = read_however_cut(Manner::Tolerant, input.as_bytes()).unwrap();
            assert_eq!((found.consumed, found.done), (input.len(), true), "{input:?}");
            let forwarded = forwarded.unwrap_or(input);
            assert_eq!(String::from_utf8_lossy(&found.forwarded), forwarded, "{input:?}");
        }
    }

    #[test]
    fn lines_are_bounded() {
        for manner in [Manner::Strict, Manner::Tolerant] {
            let fill = |n: usize| "x".repeat(n);
            let over = "a size line or a trailer section that is too long";
            for (input, fits) in [
                (format!("1;{}\r\nh\r\n", fill(CHUNK_LINE_BYTES_MAX - 4)), true),
                (format!("1;{}\r\nh\r\n", fill(CHUNK_LINE_BYTES_MAX - 3)), false),
                (format!("0\r\nA:{}\r\n\r\n", fill(CHUNK_LINE_BYTES_MAX - 6)), true),
                (format!("0\r\nA:{}\r\n\r\n", fill(CHUNK_LINE_BYTES_MAX - 5)), false),
            ] {
                for step in [1, 100, input.len()] {
                    let found = read(manner, input.as_bytes().chunks(step));
                    match found {
                        Ok(_) => assert!(fits),
                        Err(error) => assert_eq!((fits, error), (false, ChunkedError(over))),
                    }
                }
            }
        }
    }

    #[test]
    fn many_trailer_fields_hide_none() {
        let section = format!("0\r\n{}Host: x\r\n\r\n", "A:\r\n".repeat(3000));
        let found = read(Manner::Strict, [section.as_bytes()].into_iter());
        assert_eq!(found, Err(ChunkedError(trailers::MISPLACED)));
        let found = read(Manner::Tolerant, [section.as_bytes()].into_iter()).unwrap();
        assert_eq!(found.trailers.len(), 3001);
    }

    #[test]
    fn an_unfinished_body_is_not_done() {
        for input in ["", "5", "5\r\nhel", "5\r\nhello\r\n", "0\r\n", "0\r\nA: b\r\n"] {
            let found = read_however_cut(Manner::Strict, input.as_bytes()).unwrap();
            assert_eq!((found.consumed, found.done), (input.len(), false), "{input:?}");
            assert_eq!(found.trailers, [], "{input:?}");
        }
    }
}
