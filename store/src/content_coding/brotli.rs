//! br (RFC 7932).

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};

use super::layer::{CORRUPT, State, Step};
use crate::record::CodingFlaw;

/// What the library is given in one go, in bytes. When it finds something wrong it keeps what it
/// made of the go, so one is short.
const GO_BYTES: usize = 512;

/// A Brotli stream. Its window is 16 MiB at most: the extension that knows larger ones is not
/// part of the content coding.
pub(super) struct Brotli {
    state: Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>,
    is_over: bool,
}

impl std::fmt::Debug for Brotli {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Brotli").field("is_over", &self.is_over).finish_non_exhaustive()
    }
}

impl Brotli {
    pub(super) fn new() -> Self {
        let alloc = StandardAlloc::default;
        let state = Box::new(BrotliState::new_strict(alloc(), alloc(), alloc()));
        Self { state, is_over: false }
    }

    pub(super) fn step(&mut self, input: &[u8], output: &mut [u8]) -> Step {
        if self.is_over {
            let state =
                if input.is_empty() { State::AtEnd } else { State::Flawed(CodingFlaw::Trailing) };
            return Step { taken: 0, given: 0, state };
        }
        let input = &input[..input.len().min(GO_BYTES)];
        let (mut left, mut taken) = (input.len(), 0);
        let (mut room, mut given, mut made) = (output.len(), 0, 0);
        let result = BrotliDecompressStream(
            &mut left,
            &mut taken,
            input,
            &mut room,
            &mut given,
            output,
            &mut made,
            &mut self.state,
        );
        let state = match result {
            BrotliResult::ResultSuccess => {
                self.is_over = true;
                State::AtEnd
            }
            BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => State::Going,
            BrotliResult::ResultFailure => CORRUPT,
        };
        Step { taken, given, state }
    }
}
