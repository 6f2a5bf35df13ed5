//! A kept body without its content codings, read from what was kept of it.

use std::io::{self, Read};

use crate::content_coding::Decoder;
use crate::record::CodingFlaw;

/// What is read of the kept bytes at once, in bytes.
const WIRE_BYTES: usize = 16 * 1024;

/// The decoded bytes, up to their end or to where something is wrong. Only the system's errors are
/// errors here; [`Self::flaw`] tells the rest.
#[derive(Debug)]
pub struct DecodedBody<R> {
    wire: R,
    /// What was read of it and is not decoded: everything from `at` on.
    read: Vec<u8>,
    at: usize,
    /// None behind the end.
    decoder: Option<Decoder>,
    /// What was decoded and not handed out: everything from `given` on; at most what one push
    /// makes.
    decoded: Vec<u8>,
    given: usize,
    flaw: Option<CodingFlaw>,
}

impl<R: Read> DecodedBody<R> {
    /// Decodes what `wire` gives.
    pub fn new(codings: &[String], wire: R) -> Self {
        let decoder = Some(Decoder::new(codings));
        let (read, decoded) = (Vec::new(), Vec::new());
        Self { wire, read, at: 0, decoder, decoded, given: 0, flaw: None }
    }

    /// What was wrong, as far as it has been read.
    pub fn flaw(&self) -> Option<CodingFlaw> {
        self.flaw
    }

    /// Decodes one slice more, or comes to the end.
    fn go_on(&mut self, decoder: &mut Decoder) -> io::Result<bool> {
        let Self { read, at, decoded, .. } = self;
        let progress = decoder.push(&read[*at..], &mut |piece| decoded.extend_from_slice(piece));
        *at += progress.taken;
        if progress.more || !decoded.is_empty() {
            return Ok(true);
        }
        if decoder.flaw().is_some() {
            return Ok(false);
        }
        read.clear();
        *at = 0;
        let count = self.wire.by_ref().take(WIRE_BYTES as u64).read_to_end(read)?;
        Ok(count > 0)
    }
}

impl<R: Read> Read for DecodedBody<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.given == self.decoded.len() && !buffer.is_empty() {
            self.decoded.clear();
            self.given = 0;
            let Some(mut decoder) = self.decoder.take() else { return Ok(0) };
            if self.go_on(&mut decoder)? {
                self.flaw = decoder.flaw();
                self.decoder = Some(decoder);
            } else {
                let known = decoder.flaw();
                self.flaw = known.or_else(|| decoder.finish().and_then(|told| told.flaw));
            }
        }
        let count = (&self.decoded[self.given..]).read(buffer)?;
        self.given += count;
        Ok(count)
    }
}
