//! A body as it passes: counted, hashed, and kept, in memory while small, else in a side file.

use std::cell::Cell;
use std::rc::Rc;

use agent_gate_store::Recorder;
use agent_gate_store::record::{Body, Hash, Kept};
use agent_gate_store::recorder::{SideFile, Stopped};

use crate::limits::{BODY_INLINE_BYTES_MAX, SIDE_PIECE_BYTES};

/// How much memory the bodies of one worker hold, and may hold before they go to side files early.
#[derive(Debug)]
pub(super) struct Room {
    held: Cell<usize>,
    max: usize,
}

impl Room {
    /// Room for so many bytes.
    pub(super) fn new(max: usize) -> Rc<Self> {
        Rc::new(Self { held: Cell::new(0), max })
    }

    fn is_full(&self) -> bool {
        self.held.get() > self.max
    }
}

/// One body under way.
pub(super) struct Capture {
    recorder: Recorder,
    room: Rc<Room>,
    /// What of the room is this one's.
    held: usize,
    /// How much is kept at most.
    bytes_max: u64,
    /// All bytes so far.
    bytes: u64,
    /// What is kept in memory: all of a small body, or what a side file has yet to get.
    memory: Vec<u8>,
    large: Option<Box<Large>>,
}

/// A body that outgrew its record.
struct Large {
    /// Of all bytes.
    hasher: blake3::Hasher,
    /// Where what is kept goes; `None` once the bound was reached.
    file: Option<SideFile>,
    /// Bytes in the file.
    file_bytes: u64,
    /// Hash of the file, once the bound was reached.
    file_hash: Option<Hash>,
}

impl Large {
    fn begin(recorder: &Recorder) -> Self {
        Self {
            hasher: blake3::Hasher::new(),
            file: Some(recorder.side_file()),
            file_bytes: 0,
            file_hash: None,
        }
    }

    /// Names the file by its content, which is all so far.
    fn finish_file(&mut self) {
        if let Some(file) = self.file.take() {
            let hash = Hash(*self.hasher.finalize().as_bytes());
            self.file_hash = Some(hash);
            file.finish(hash);
        }
    }
}

impl Capture {
    pub(super) fn new(recorder: Recorder, room: Rc<Room>, bytes_max: u64) -> Self {
        Self { recorder, room, held: 0, bytes_max, bytes: 0, memory: Vec::new(), large: None }
    }

    /// Prepares for a body whose length is known: a small one gets its room at once, a large one
    /// does not gather in memory first.
    pub(super) fn expect(&mut self, bytes: u64) {
        if bytes > BODY_INLINE_BYTES_MAX as u64 || bytes > self.bytes_max {
            self.large = Some(Box::new(Large::begin(&self.recorder)));
        } else if let Ok(bytes) = usize::try_from(bytes)
            && !self.room.is_full()
        {
            self.memory.reserve_exact(bytes);
            self.account();
        }
    }

    /// Takes note of how much memory is held.
    fn account(&mut self) {
        let held = self.memory.capacity();
        if held != self.held {
            self.room.held.set(self.room.held.get() + held - self.held);
            self.held = held;
        }
    }

    /// Takes the next bytes of the body.
    pub(super) fn push(&mut self, data: &[u8]) {
        self.bytes += data.len() as u64;
        match &mut self.large {
            Some(large) if large.file.is_none() => {
                large.hasher.update(data);
            }
            Some(_) if self.memory.capacity() == 0 => {
                // A read's worth is handed on at once; less gathers.
                self.memory.reserve_exact(data.len().max(SIDE_PIECE_BYTES));
                self.memory.extend_from_slice(data);
            }
            _ => self.memory.extend_from_slice(data),
        }
        self.account();
    }

    /// Whether [`Self::spill`] has something to do.
    pub(super) fn is_full(&self) -> bool {
        match &self.large {
            None => {
                self.memory.len() > BODY_INLINE_BYTES_MAX
                    || self.memory.len() as u64 > self.bytes_max
                    || (self.memory.len() >= SIDE_PIECE_BYTES && self.room.is_full())
            }
            Some(_) => self.memory.len() >= SIDE_PIECE_BYTES,
        }
    }

    /// Hands what has gathered to the side file; waits while the recorder is busy.
    pub(super) async fn spill(&mut self) -> Result<(), Stopped> {
        let recorder = &self.recorder;
        let large = self.large.get_or_insert_with(|| Box::new(Large::begin(recorder)));
        let Some(file) = &large.file else { return Ok(()) };
        // First the permit: where there is none, what has gathered stays for a later attempt.
        let permit = self.recorder.reserve(self.memory.len()).await?;
        let mut kept = std::mem::take(&mut self.memory);
        let room = usize::try_from(self.bytes_max - large.file_bytes).unwrap_or(usize::MAX);
        let over = kept.split_off(kept.len().min(room));
        large.hasher.update(&kept);
        large.file_bytes += kept.len() as u64;
        if !kept.is_empty() {
            permit.piece(file, kept);
        }
        if large.file_bytes == self.bytes_max {
            large.finish_file();
            large.hasher.update(&over);
        }
        self.account();
        Ok(())
    }

    /// Makes the body ready for its record: after this, [`Self::body`] tells it.
    pub(super) async fn settle(&mut self) -> Result<(), Stopped> {
        if self.large.is_none() && !self.is_full() {
            return Ok(());
        }
        self.spill().await?;
        if let Some(large) = &mut self.large {
            large.finish_file();
        }
        Ok(())
    }

    /// The body as its record tells it; call [`Self::settle`] first.
    pub(super) fn body(&self) -> Body<'_> {
        match &self.large {
            None => Body {
                bytes: self.bytes,
                blake3: Hash(*blake3::hash(&self.memory).as_bytes()),
                kept: Kept::Inline((&self.memory[..]).into()),
                decoded: None,
            },
            Some(large) => {
                let blake3 = Hash(*large.hasher.finalize().as_bytes());
                let kept = Kept::File {
                    bytes: large.file_bytes,
                    blake3: large.file_hash.unwrap_or(blake3),
                };
                Body { bytes: self.bytes, blake3, kept, decoded: None }
            }
        }
    }

    /// How many bytes of it lie in memory: the share of a record's size that varies.
    pub(super) fn memory_bytes(&self) -> usize {
        self.memory.len()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.room.held.set(self.room.held.get() - self.held);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use agent_gate_store::{Layout, Options, Store};

    use super::*;

    fn spill(capture: &mut Capture) {
        let mut spilling = pin!(capture.spill());
        let mut context = Context::from_waker(Waker::noop());
        assert!(matches!(spilling.as_mut().poll(&mut context), Poll::Ready(Ok(()))));
    }

    #[test]
    fn bodies_go_to_side_files_early_when_there_is_no_room() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&Layout::new(folder.path().to_owned()), Options::default());
        let recorder = store.as_ref().unwrap().recorder();
        let room = Room::new(2 * SIDE_PIECE_BYTES);
        let begin = || Capture::new(recorder.clone(), room.clone(), 1 << 30);
        let piece = vec![b'x'; SIDE_PIECE_BYTES];
        let (mut first, mut second, mut small) = (begin(), begin(), begin());
        first.push(&piece);
        second.push(&piece);
        assert!(!first.is_full() && !second.is_full());
        small.push(b"one byte too many");
        assert!(first.is_full() && second.is_full(), "each can make room");
        assert!(!small.is_full(), "a small one is not worth a file");
        spill(&mut first);
        assert!(!second.is_full(), "one did");
        assert!(matches!(small.body().kept, Kept::Inline(_)));
        first.push(b"end");
        drop((second, small));
        spill(&mut first);
        let body = first.body();
        assert_eq!(body.bytes, SIDE_PIECE_BYTES as u64 + 3);
        drop(body);
        drop(first);
        assert_eq!(room.held.get(), 0);
    }
}
