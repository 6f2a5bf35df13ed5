//! One coding of a stack, with what waits to go through it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::brotli::Brotli;
use super::inflate::{Deflate, Gzip};
use super::zstd::Zstd;
use crate::record::CodingFlaw;

/// What one step of a coding did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    /// Bytes of the input that are done with.
    pub(super) taken: usize,
    /// Bytes of the output that were made.
    pub(super) given: usize,
    pub(super) state: State,
}

/// Where a coding stands after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// In the middle of it.
    Going,
    /// At a place where the body may end.
    AtEnd,
    /// It cannot go on. What was made before counts.
    Flawed(CodingFlaw),
}

/// It is not what its coding says.
pub(super) const CORRUPT: State = State::Flawed(CodingFlaw::Corrupt);

/// A coding and its surroundings.
#[derive(Debug)]
pub(super) struct Layer {
    coding: Coding,
    /// What the layer before made and this one has not taken: at most one piece, of which
    /// everything before `at` is done with.
    waiting: Vec<u8>,
    at: usize,
    /// Bytes made so far.
    made: u64,
    /// The last step filled its output, so there may be more without further input.
    is_full: bool,
    is_at_end: bool,
}

#[derive(Debug)]
enum Coding {
    Gzip(Gzip),
    Deflate(Deflate),
    Brotli(Brotli),
    Zstd(Zstd),
}

impl Layer {
    /// A layer that undoes the coding of that name; none if it is not known.
    pub(super) fn of(name: &str) -> Option<Self> {
        let coding = match name {
            "gzip" | "x-gzip" => Coding::Gzip(Gzip::new()),
            "deflate" => Coding::Deflate(Deflate::new()),
            "br" => Coding::Brotli(Brotli::new()),
            "zstd" => Coding::Zstd(Zstd::new()?),
            _ => return None,
        };
        let waiting = Vec::new();
        Some(Self { coding, waiting, at: 0, made: 0, is_full: false, is_at_end: false })
    }

    /// Goes on with `input` and makes the beginning of `output`.
    pub(super) fn step(&mut self, input: &[u8], output: &mut [u8]) -> Step {
        let coding = &mut self.coding;
        let room = output.len();
        // Three decoders of others read what may be made to break them. Whatever one of them comes
        // to, the traffic and the gate go on.
        let step = catch_unwind(AssertUnwindSafe(|| coding.step(input, output)));
        let step = step.unwrap_or(Step { taken: 0, given: 0, state: CORRUPT });
        self.made += step.given as u64;
        self.is_full = step.given == room;
        self.is_at_end = step.state == State::AtEnd;
        if step.taken == 0 && step.given == 0 && !input.is_empty() && step.state == State::Going {
            // It would stay so for ever.
            return Step { state: CORRUPT, ..step };
        }
        step
    }

    /// Goes on with what waits.
    pub(super) fn step_on(&mut self, output: &mut [u8]) -> Step {
        let waiting = std::mem::take(&mut self.waiting);
        let step = self.step(&waiting[self.at..], output);
        self.waiting = waiting;
        self.at += step.taken;
        step
    }

    /// Takes what the layer before made; nothing waits here then.
    pub(super) fn wait(&mut self, made: &[u8]) {
        debug_assert!(!self.has_waiting(), "this layer goes on before the one that feeds it");
        self.waiting.clear();
        self.waiting.extend_from_slice(made);
        self.at = 0;
    }

    /// Whether something waits.
    pub(super) fn has_waiting(&self) -> bool {
        self.at < self.waiting.len()
    }

    /// Whether there may be more without further input.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Whether the body may end here.
    pub(super) fn is_at_end(&self) -> bool {
        self.is_at_end
    }

    /// Bytes made so far.
    pub(super) fn made(&self) -> u64 {
        self.made
    }
}

impl Coding {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Step {
        match self {
            Self::Gzip(gzip) => gzip.step(input, output),
            Self::Deflate(deflate) => deflate.step(input, output),
            Self::Brotli(brotli) => brotli.step(input, output),
            Self::Zstd(zstd) => zstd.step(input, output),
        }
    }
}
