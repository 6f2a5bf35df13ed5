//! A message body by any framing: which of the bytes that arrive belong to it, and which of those
//! are its content.

use agent_gate_store::record;

use super::chunked::{ChunkedError, ChunkedReader};
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
    pub(crate) fn new(framing: Framing) -> Self {
        match framing {
            Framing::None => Self::Length(0),
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(ChunkedReader::new()),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// Reads from the front of `input`, pushes the content it finds, and returns how many bytes
    /// belong to the body as it is on the wire.
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
        for (framing, input, content, wire, done) in [
            (Framing::None, "next", "", 0, true),
            (Framing::Length(3), "abcnext", "abc", 3, true),
            (Framing::Length(9), "abc", "abc", 3, false),
            (Framing::Chunked, "1\r\na\r\n0\r\n\r\nnext", "a", 11, true),
            (Framing::UntilClose, "abc", "abc", 3, false),
        ] {
            let (mut reader, mut found) = (BodyReader::new(framing), Vec::new());
            let n = reader.read(input.as_bytes(), |c| found.extend_from_slice(c)).unwrap();
            assert_eq!((n, reader.is_done()), (wire, done), "{framing:?}");
            assert_eq!(found, content.as_bytes(), "{framing:?}");
        }
    }
}
