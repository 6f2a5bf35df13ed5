//! zstd (RFC 8878, frames in a row), with the window that RFC 9659 allows for HTTP.

use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, zstd_sys::ZSTD_ErrorCode};

use super::layer::{State, Step};
use crate::record::CodingFlaw;

/// The base-2 logarithm of the largest window: 8 MB (RFC 9659, section 3).
const WINDOW_LOG_MAX: u32 = 23;

/// Bytes of a block's header, which the library would read together with the block before.
const BLOCK_HEADER_BYTES: usize = 3;

/// A Zstandard stream.
pub(super) struct Zstd {
    context: DCtx<'static>,
    /// How much the library is given next at most, in bytes: the first byte of a frame, or what
    /// is missing of a header or a block. It makes nothing of what it read in one go if the end of
    /// that is bad, so each part goes by itself, whatever the pieces are.
    want: usize,
    /// Whether a frame has ended.
    has_frame: bool,
    /// Whether a frame begins with the next byte.
    is_between: bool,
}

impl std::fmt::Debug for Zstd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Zstd").field("want", &self.want).finish_non_exhaustive()
    }
}

impl Zstd {
    /// None if there is no memory for it.
    pub(super) fn new() -> Option<Self> {
        let mut context = DCtx::try_create()?;
        context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).ok()?;
        Some(Self { context, want: 1, has_frame: false, is_between: true })
    }

    pub(super) fn step(&mut self, input: &[u8], output: &mut [u8]) -> Step {
        if input.is_empty() && self.is_between && self.has_frame {
            return Step { taken: 0, given: 0, state: State::AtEnd };
        }
        let mut source = InBuffer::around(&input[..input.len().min(self.want)]);
        let mut sink = OutBuffer::around(output);
        let result = self.context.decompress_stream(&mut sink, &mut source);
        let (taken, given) = (source.pos(), sink.pos());
        let state = match result {
            Ok(0) => {
                (self.want, self.has_frame, self.is_between) = (1, true, true);
                State::AtEnd
            }
            Ok(missing) => {
                self.is_between &= taken == 0;
                let without_header = missing.checked_sub(BLOCK_HEADER_BYTES);
                self.want = without_header.filter(|rest| *rest > 0).unwrap_or(missing);
                State::Going
            }
            Err(code) => State::Flawed(self.flaw(code)),
        };
        Step { taken, given, state }
    }

    fn flaw(&self, code: usize) -> CodingFlaw {
        let is = |error: ZSTD_ErrorCode| code == 0_usize.wrapping_sub(error as usize);
        if is(ZSTD_ErrorCode::ZSTD_error_frameParameter_windowTooLarge) {
            CodingFlaw::Window
        } else if is(ZSTD_ErrorCode::ZSTD_error_prefix_unknown) && self.has_frame {
            // Behind a frame comes what is none.
            CodingFlaw::Trailing
        } else {
            CodingFlaw::Corrupt
        }
    }
}
