//! Undoing content codings (RFC 9110, section 8.4) for reading: gzip, deflate, br, zstd, one over
//! the other in any order, piece by piece and bounded. What went over the wire is never touched.
//!
//! A body without a flaw gives the same bytes however it is cut into pieces. One with a flaw gives
//! the same flaw, and of what it says before the flaw at least what was complete; a coding may
//! hold some more of it back, and how much depends on the cut.

mod brotli;
mod inflate;
mod layer;
mod zstd;

#[cfg(test)]
mod tests;

use crate::record::{CodingFlaw, Decoded};
use layer::{Layer, State, Step};

/// Codings of one body at most, like curl's five. Nobody stacks more than two.
pub const CODINGS_MAX: usize = 5;

/// A coding's name, in bytes; the registered ones are shorter than eleven.
const NAME_BYTES_MAX: usize = 32;

/// How many bytes one body may decode to. Nobody reads a longer text, and it takes about two
/// seconds of a core.
pub const DECODED_BYTES_MAX: u64 = 1 << 30;

/// Up to so many decoded bytes no ratio counts: a short answer of zeros is not an attack.
pub const RATIO_FREE_BYTES: u64 = 4 << 20;

/// How many bytes one byte of the wire may decode to, beyond [`RATIO_FREE_BYTES`]. Logs and JSON
/// reach 10 to 60; deflate can reach 1,030 and the others far more. (Apache's `mod_deflate` has
/// the same bound, `DeflateInflateRatioLimit`.)
pub const RATIO_MAX: u64 = 200;

/// How much work one [`Decoder::push`] does before it lets others have their turn, in bytes read
/// and made by all layers: a fifth of a millisecond. br may fill its whole window before it gives
/// anything, so a bomb of it has one turn of tens of milliseconds.
const SLICE_BYTES: usize = 64 * 1024;

/// What a step of a layer costs at least, in the same bytes: thousands of empty gzip members fit
/// into one piece.
const STEP_BYTES: usize = 1024;

/// What a layer is given in one step, in bytes. A few bytes can make a decoder build a large
/// table, so a step takes no more than these.
const INPUT_BYTES_MAX: usize = 8 * 1024;

/// What a layer makes in one step, in bytes: the largest piece a sink is handed.
pub const PIECE_BYTES_MAX: usize = 16 * 1024;

/// The codings that the `Content-Encoding` fields of a head name, in order, in lower case;
/// `identity` stands for nothing and is left out. A list that is longer than can be undone is cut
/// behind the first name too many.
pub fn codings<'a>(fields: impl Iterator<Item = (&'a str, &'a [u8])>) -> Vec<String> {
    let fields = fields.filter(|(name, _)| name.eq_ignore_ascii_case("content-encoding"));
    let names = fields.flat_map(|(_, value)| value.split(|byte| *byte == b','));
    let names = names.map(<[u8]>::trim_ascii).filter(|name| !name.is_empty());
    let names = names.map(|name| {
        String::from_utf8_lossy(&name[..name.len().min(NAME_BYTES_MAX)]).to_ascii_lowercase()
    });
    names.filter(|name| name != "identity").take(CODINGS_MAX + 1).collect()
}

/// One body being decoded. Between the pieces it holds what its codings need: gzip and deflate
/// about 50 KB, br and zstd up to their window (16 MiB, 8 MiB), which fills as the body goes on.
/// All of it is given back at the body's end and at the first flaw.
#[derive(Debug)]
pub struct Decoder {
    codings: Vec<String>,
    /// The outermost coding first: the last one that was applied. After a flaw those that have
    /// something left to do, then none.
    layers: Vec<Layer>,
    /// Bytes the outermost layer has taken so far.
    wire_bytes: u64,
    /// Bytes made so far.
    bytes: u64,
    /// Whether the body has any byte.
    has_begun: bool,
    flaw: Option<CodingFlaw>,
}

/// How far a [`Decoder::push`] came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// So many bytes of the piece are done with; the rest wants to be pushed again.
    pub taken: usize,
    /// Whether there is more to do with what was taken: push again, if need be an empty piece.
    pub more: bool,
}

impl Decoder {
    /// Undoes `codings`, in the order of the field: the last was applied last. A name that is not
    /// known is a flaw from the start, and then nothing is decoded.
    pub fn new(codings: &[String]) -> Self {
        let layers: Option<Vec<_>> = if codings.len() > CODINGS_MAX {
            None
        } else {
            codings.iter().rev().map(|name| Layer::of(name)).collect()
        };
        let flaw = layers.is_none().then_some(CodingFlaw::Unsupported);
        Self {
            codings: codings.to_vec(),
            layers: layers.unwrap_or_default(),
            wire_bytes: 0,
            bytes: 0,
            has_begun: false,
            flaw,
        }
    }

    /// Takes the next bytes of the body and hands what they decode to on to `sink`, as much as
    /// goes into one turn. After a flaw everything is taken and nothing comes out.
    pub fn push(&mut self, input: &[u8], sink: &mut dyn FnMut(&[u8])) -> Progress {
        self.has_begun |= !input.is_empty();
        let mut piece = [0; PIECE_BYTES_MAX];
        let (mut taken, mut work) = (0, 0);
        while work < SLICE_BYTES {
            if self.flaw.is_some() {
                taken = input.len();
            }
            let rest = &input[taken..input.len().min(taken + INPUT_BYTES_MAX)];
            let Some(at) = self.next_layer(rest) else { break };
            let step = if self.is_outermost(at) {
                let step = self.layers[at].step(rest, &mut piece);
                taken += step.taken;
                self.wire_bytes += step.taken as u64;
                step
            } else {
                self.layers[at].step_on(&mut piece)
            };
            work += STEP_BYTES + step.taken + step.given;
            self.hand_on(at, step, &piece, sink);
        }
        let rest = if self.flaw.is_some() { &[] } else { &input[taken..] };
        let more = self.next_layer(rest).is_some();
        if self.flaw.is_some() && !more {
            self.layers = Vec::new();
        }
        Progress { taken: input.len() - rest.len(), more }
    }

    /// The body is over, and all of it has been pushed: what there is to say about it. Nothing for
    /// a body that had no byte.
    pub fn finish(mut self) -> Option<Decoded> {
        if self.flaw.is_none() && !self.layers.iter().all(Layer::is_at_end) {
            self.flaw = Some(CodingFlaw::Truncated);
        }
        let Self { codings, bytes, flaw, .. } = self;
        self.has_begun.then_some(Decoded { codings, bytes, flaw })
    }

    /// What was wrong so far; how much of the body came out is known when nothing is left to do.
    pub fn flaw(&self) -> Option<CodingFlaw> {
        self.flaw
    }

    /// The innermost layer that can go on, so that nothing piles up in between; `wire` comes next
    /// for the outermost.
    fn next_layer(&self, wire: &[u8]) -> Option<usize> {
        let can_go_on = |at: &usize| {
            let layer = &self.layers[*at];
            layer.is_full() || layer.has_waiting() || self.is_outermost(*at) && !wire.is_empty()
        };
        (0..self.layers.len()).rev().find(can_go_on)
    }

    /// Whether the wire's bytes are for this layer. After a flaw they are for none.
    fn is_outermost(&self, at: usize) -> bool {
        at == 0 && self.flaw.is_none()
    }

    /// Gives what layer `at` made to the next one or, decoded to the end, to the sink.
    fn hand_on(&mut self, at: usize, step: Step, piece: &[u8], sink: &mut dyn FnMut(&[u8])) {
        let allowed = self.allowed(self.layers[at].made() - step.given as u64);
        let made = &piece[..step.given.min(allowed)];
        if let Some(next) = self.layers.get_mut(at + 1) {
            next.wait(made);
        } else if !made.is_empty() {
            self.bytes += made.len() as u64;
            sink(made);
        }
        match step.state {
            _ if allowed < step.given => self.stop(at, CodingFlaw::Bomb),
            State::Flawed(flaw) => self.stop(at, flaw),
            State::Going | State::AtEnd => {}
        }
    }

    /// How many more bytes a layer may make that has made `made`: the same for all layers, or
    /// each could swell what the one before it swelled.
    fn allowed(&self, made: u64) -> usize {
        let by_ratio = self.wire_bytes.saturating_mul(RATIO_MAX).max(RATIO_FREE_BYTES);
        let left = by_ratio.min(DECODED_BYTES_MAX).saturating_sub(made);
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    /// Layer `at` is at its end, and so are those that feed it: they give their memory back. Those
    /// behind it go on with what it made. What they find wrong in that came earlier, and counts.
    fn stop(&mut self, at: usize, flaw: CodingFlaw) {
        self.layers.drain(..=at);
        self.flaw = Some(flaw);
    }
}
