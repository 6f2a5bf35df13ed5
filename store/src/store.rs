//! The store as a whole: opening it, its writer's thread, closing it.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::unbounded;

use crate::budget::Budget;
use crate::error::Error;
use crate::layout::Layout;
use crate::receipt::Stopped;
use crate::recorder::Recorder;
use crate::writer::Writer;

/// Bounds of the queue between those who record and the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Records that may wait.
    pub queue_records_max: usize,
    /// Bytes that may wait.
    pub queue_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { queue_records_max: 8192, queue_bytes_max: 256 * 1024 * 1024 }
    }
}

/// An open store: the journal is locked and its writer runs.
#[derive(Debug)]
pub struct Store {
    recorder: Recorder,
    committed: Committed,
    writer: JoinHandle<Result<(), Error>>,
}

impl Store {
    /// Opens the store: locks the journal for one writer, cuts off a line that a crash left
    /// unfinished, brings the index up to date and starts the writer.
    ///
    /// # Errors
    /// When another process writes here ([`Error::Busy`]) or the system refuses something.
    pub fn open(layout: &Layout, options: Options) -> Result<Self, Error> {
        layout.create()?;
        let budget = Budget::new(options.queue_records_max, options.queue_bytes_max);
        // The budget bounds what is in the channel.
        let (sender, messages) = unbounded();
        let recorder = Recorder::new(budget, sender);
        let committed = Committed::default();
        let shared = Arc::clone(recorder.shared());
        let writer = Writer::new(layout, messages, Arc::clone(&shared), committed.clone())?;
        let writer = thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || {
                let ending = Ending(shared);
                let result = writer.run();
                drop(ending);
                result
            })
            .map_err(Error::file("start the writer for", layout.data_dir()))?;
        Ok(Self { recorder, committed, writer })
    }

    /// A handle to record by.
    pub fn recorder(&self) -> Recorder {
        self.recorder.clone()
    }

    /// Tells how far the index is.
    pub fn committed(&self) -> Committed {
        self.committed.clone()
    }

    /// Writes what is in the queue, commits the index and ends the writer. Recording stops.
    ///
    /// # Errors
    /// When something could not be written.
    pub fn close(self) -> Result<(), Error> {
        self.recorder.shared().close();
        self.writer.join().unwrap_or_else(|_| Err(Error::Stopped("the writer panicked".to_owned())))
    }
}

/// However the writer ends, by panic too, nobody waits for it in vain.
struct Ending(Arc<crate::recorder::Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.budget.stop(Stopped("recording has ended: the gate is stopping".to_owned()));
    }
}

/// How far the index is: the sequence number of its last line. Wakes those who wait for more.
#[derive(Debug, Clone, Default)]
pub struct Committed(Arc<(Mutex<u64>, Condvar)>);

impl Committed {
    /// The number now.
    pub fn get(&self) -> u64 {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks until the number is greater than `seq`, for `timeout` at most; the number then.
    pub fn wait_past(&self, seq: u64, timeout: Duration) -> u64 {
        let deadline = Instant::now() + timeout;
        let mut now = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        while *now <= seq {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            (now, _) = self.0.1.wait_timeout(now, left).unwrap_or_else(PoisonError::into_inner);
        }
        *now
    }

    pub(crate) fn set(&self, seq: u64) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = seq;
        self.0.1.notify_all();
    }
}
