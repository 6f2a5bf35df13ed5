//! gzip (RFC 1952, members in a row) and deflate (RFC 1950, or RFC 1951 as some servers send it).

use flate2::{Decompress, FlushDecompress, Status};

use super::layer::{CORRUPT, State, Step};
use crate::record::CodingFlaw;

/// What a gzip member begins with (RFC 1952, section 2.3.1).
const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The base-2 logarithm of deflate's window, the only one there is.
const WINDOW_BITS: u8 = 15;

/// A gzip stream.
#[derive(Debug)]
pub(super) struct Gzip {
    inflate: Decompress,
    place: Place,
}

/// Where in a gzip stream we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Member,
    /// Behind a member: another may follow, or the end.
    Between,
    /// The first byte of another member was there.
    HalfMagic,
}

impl Gzip {
    pub(super) fn new() -> Self {
        Self { inflate: Decompress::new_gzip(WINDOW_BITS), place: Place::Member }
    }

    pub(super) fn step(&mut self, input: &[u8], output: &mut [u8]) -> Step {
        match (self.place, input.first()) {
            (Place::Member, _) => {
                let step = inflate(&mut self.inflate, input, output);
                if step.state == State::AtEnd {
                    self.place = Place::Between;
                }
                step
            }
            (Place::Between, None) => nothing(0, State::AtEnd),
            (Place::HalfMagic, None) => nothing(0, State::Going),
            (Place::Between, Some(byte)) if *byte == MAGIC[0] => {
                self.place = Place::HalfMagic;
                nothing(1, State::Going)
            }
            (Place::HalfMagic, Some(byte)) if *byte == MAGIC[1] => {
                *self = Self::new();
                let step = inflate(&mut self.inflate, &MAGIC, output);
                nothing(1, step.state)
            }
            (Place::Between | Place::HalfMagic, Some(_)) => {
                nothing(0, State::Flawed(CodingFlaw::Trailing))
            }
        }
    }
}

/// A deflate stream, with or without zlib's wrapping: the first two bytes tell.
#[derive(Debug)]
pub(super) struct Deflate(Stream);

#[derive(Debug)]
enum Stream {
    /// Before its second byte.
    Head(Option<u8>),
    Body(Decompress),
    Over,
}

impl Deflate {
    pub(super) fn new() -> Self {
        Self(Stream::Head(None))
    }

    pub(super) fn step(&mut self, input: &[u8], output: &mut [u8]) -> Step {
        match (&mut self.0, input) {
            (Stream::Over, []) => nothing(0, State::AtEnd),
            (Stream::Over, _) => nothing(0, State::Flawed(CodingFlaw::Trailing)),
            (Stream::Head(_), []) => nothing(0, State::Going),
            (Stream::Head(head @ None), [first, ..]) => {
                *head = Some(*first);
                nothing(1, State::Going)
            }
            (Stream::Head(Some(first)), [second, ..]) => {
                let head = [*first, *second];
                self.0 = Stream::Body(Decompress::new(is_zlib_head(head)));
                Step { taken: 1, ..self.inflate(&head, output) }
            }
            (Stream::Body(_), _) => self.inflate(input, output),
        }
    }

    fn inflate(&mut self, input: &[u8], output: &mut [u8]) -> Step {
        let Stream::Body(body) = &mut self.0 else { return nothing(0, CORRUPT) };
        let step = inflate(body, input, output);
        if step.state == State::AtEnd {
            self.0 = Stream::Over;
        }
        step
    }
}

/// Method 8, a window of 32 KiB at most, and a sum that 31 divides (RFC 1950, section 2.2).
/// Without the wrapping it would be a stored block with odd padding.
fn is_zlib_head([method, flags]: [u8; 2]) -> bool {
    method & 0x0f == 8 && method >> 4 <= 7 && u16::from_be_bytes([method, flags]) % 31 == 0
}

/// A step that made nothing.
fn nothing(taken: usize, state: State) -> Step {
    Step { taken, given: 0, state }
}

fn inflate(inflate: &mut Decompress, input: &[u8], output: &mut [u8]) -> Step {
    let (read, made) = (inflate.total_in(), inflate.total_out());
    let state = match inflate.decompress(input, output, FlushDecompress::None) {
        Ok(Status::StreamEnd) => State::AtEnd,
        Ok(Status::Ok | Status::BufError) => State::Going,
        Err(_) => CORRUPT,
    };
    let count = |now: u64, before: u64| usize::try_from(now - before).unwrap_or_default();
    Step { taken: count(inflate.total_in(), read), given: count(inflate.total_out(), made), state }
}
