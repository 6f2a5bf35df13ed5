//! A message body by any framing: which of the bytes that arrive belong to it, which of those are
//! its content, and which are forwarded.

use std::iter;
use std::ops::Range;

use agent_gate_store::record;

use super::chunked::{ChunkedError, ChunkedReader, Manner};
use super::framing::Framing;

/// A reader at some place inside a body.
#[derive(Debug)]
pub(crate) enum BodyReader {
    /// So many bytes are left.
    Length(u64),
    /// Chunked coding.
    Chunked(ChunkedReader),
    /// Everything until the connection closes.
    UntilClose,
}

impl BodyReader {
    /// A request's body, taken to the letter.
    pub(crate) fn of_request(framing: Framing) -> Self {
        Self::new(framing, Manner::Strict)
    }

    /// A response's body, read as clients read it.
    pub(crate) fn of_response(framing: Framing) -> Self {
        Self::new(framing, Manner::Tolerant)
    }

    fn new(framing: Framing, manner: Manner) -> Self {
        match framing {
            Framing::None => Self::Length(0),
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(ChunkedReader::new(manner)),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// Reads from the front of `input`, pushes the content it finds, and returns how many bytes
    /// belong to the body as it is on the wire. [`Self::forwarded`] tells which of them go on.
    pub(crate) fn read(
        &mut self,
        input: &[u8],
        mut content: impl FnMut(&[u8]),
    ) -> Result<usize, ChunkedError> {
        match self {
            Self::Length(left) => {
                let length = usize::try_from(*left).map_or(input.len(), |l| l.min(input.len()));
                *left -= length as u64;
                content(&input[..length]);
                Ok(length)
            }
            Self::Chunked(reader) => reader.read(input, content),
            Self::UntilClose => {
                content(input);
                Ok(input.len())
            }
        }
    }

    /// What goes on of the bytes that the last [`Self::read`] took: all of them in one piece,
    /// unless there are chunk extensions.
    pub(crate) fn forwarded<'a>(&'a self, taken: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let left_out: &[Range<usize>] = match self {
            Self::Chunked(reader) => reader.extensions(),
            Self::Length(_) | Self::UntilClose => &[],
        };
        let starts = iter::once(0).chain(left_out.iter().map(|range| range.end));
        let ends = left_out.iter().map(|range| range.start).chain(iter::once(taken.len()));
        starts.zip(ends).map(|(start, end)| &taken[start..end]).filter(|piece| !piece.is_empty())
    }

    /// Whether the body has ended.
    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(reader) => reader.is_done(),
            Self::UntilClose => false,
        }
    }

    /// Whether the end of the connection is the end of the body.
    pub(crate) fn ends_with_connection(&self) -> bool {
        matches!(self, Self::UntilClose)
    }

    /// The trailer fields, once the body has ended.
    pub(crate) fn trailers(&self) -> Vec<record::Field<'static>> {
        match self {
            Self::Chunked(reader) => reader.trailers(),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_behind_a_body_are_left_alone() {
        for (framing, input, content, forwarded, wire, done) in [
            (Framing::None, "next", "", "", 0, true),
            (Framing::Length(3), "abcnext", "abc", "abc", 3, true),
            (Framing::Length(9), "abc", "abc", "abc", 3, false),
            (Framing::Chunked, "1\r\na\r\n0\r\n\r\nnext", "a", "1\r\na\r\n0\r\n\r\n", 11, true),
            (Framing::Chunked, "1;x\r\na\r\n0;y\r\n\r\nnext", "a", "1\r\na\r\n0\r\n\r\n", 15, true),
            (Framing::Chunked, "1 ;xyz", "", "1", 6, false),
            (Framing::UntilClose, "abc", "abc", "abc", 3, false),
        ] {
            for step in 1..=input.len() {
                let (mut reader, mut found) = (BodyReader::of_request(framing), Vec::new());
                let (mut passed, mut taken) = (Vec::new(), 0);
                for piece in input.as_bytes().chunks(step) {
                    let n = reader.read(piece, |c| found.extend_from_slice(c)).unwrap();
                    reader.forwarded(&piece[..n]).for_each(|f| passed.extend_from_slice(f));
                    taken += n;
                    if n < piece.len() {
                        break;
                    }
                }
                assert_eq!((taken, reader.is_done()), (wire, done), "{framing:?} by {step}");
                assert_eq!(found, content.as_bytes(), "{framing:?} by {step}");
                assert_eq!(passed, forwarded.as_bytes(), "{framing:?} by {step}");
            }
        }
    }

    #[test]
    fn what_goes_on_unchanged_goes_on_in_one_piece() {
        for framing in [Framing::Length(100), Framing::Chunked, Framing::UntilClose] {
            let mut reader = BodyReader::of_response(framing);
            let input = b"1\r\na\r\n2\r\nbc\r\n";
            let taken = reader.read(input, |_| ()).unwrap();
            assert_eq!(reader.forwarded(&input[..taken]).collect::<Vec<_>>(), [&input[..]]);
        }
    }
}
