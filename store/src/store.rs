//! The store as a whole: opening it, its writer's thread, closing it.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::budget::Budget;
use crate::channel::channel;
use crate::disk::Disk;
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
    /// Bytes that may wait. A disk writes this much in some hundredths of a second; a larger queue
    /// would only hold more memory while it does.
    pub queue_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { queue_records_max: 8192, queue_bytes_max: 16 * 1024 * 1024 }
    }
}

/// An open store: the journal is locked and its writer runs. Dropped, it closes all the same, but
/// cannot say whether that worked.
#[derive(Debug)]
pub struct Store {
    recorder: Recorder,
    committed: Committed,
    /// Taken by whoever waits for its end.
    writer: Option<JoinHandle<Result<(), Error>>>,
}

impl Store {
    /// Opens the store: locks the journal for one writer, cuts off a line that a crash left
    /// unfinished, brings the index up to date and starts the writer.
    ///
    /// # Errors
    /// When another process writes here ([`Error::Busy`]) or the system refuses something.
    pub fn open(layout: &Layout, options: Options) -> Result<Self, Error> {
        Self::open_on(Disk::default(), layout, options)
    }

    fn open_on(disk: Disk, layout: &Layout, options: Options) -> Result<Self, Error> {
        layout.create()?;
        let budget = Budget::new(options.queue_records_max, options.queue_bytes_max);
        let (way, arrivals) = channel();
        let recorder = Recorder::new(budget, way);
        let committed = Committed::default();
        let shared = Arc::clone(recorder.shared());
        let writer = Writer::new(layout, arrivals, Arc::clone(&shared), committed.clone(), disk)?;
        let writer = thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || {
                let ending = Ending(shared);
                let result = writer.run();
                drop(ending);
                result
            })
            .map_err(Error::file("start the writer for", layout.data_dir()))?;
        Ok(Self { recorder, committed, writer: Some(writer) })
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
    pub fn close(mut self) -> Result<(), Error> {
        self.end()
    }

    fn end(&mut self) -> Result<(), Error> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        self.recorder.shared().close();
        writer.join().unwrap_or_else(|_| Err(Error::Stopped("the writer panicked".to_owned())))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.end();
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::record::{Hash, Id, Mode, Record, Run, Timestamp};

    fn record(id: Id) -> Record<'static> {
        Record::Run(Run {
            id,
            at: Timestamp(0),
            argv: vec!["x".repeat(500).into()],
            cwd: "/".into(),
            agent: "x".into(),
            mode: Mode::Airtight,
            weaker: None,
            pid: 1,
            version: "0".into(),
        })
    }

    /// A store on a disk with `room` bytes left.
    fn store(room: u64) -> (tempfile::TempDir, Layout, Arc<AtomicU64>, Store) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("data"));
        let room = Arc::new(AtomicU64::new(room));
        let disk = Disk { room: Some(Arc::clone(&room)) };
        let store = Store::open_on(disk, &layout, Options::default()).unwrap();
        (dir, layout, room, store)
    }

    fn journal_text(layout: &Layout) -> String {
        let days = crate::journal::days(layout).unwrap();
        days.iter().map(|d| std::fs::read_to_string(d.path(layout)).unwrap()).collect()
    }

    /// The ids of the journal, whose lines must all be whole and chained.
    fn ids(layout: &Layout) -> Vec<Id> {
        let mut last = Hash::ZERO;
        let mut ids = Vec::new();
        for line in journal_text(layout).lines() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(value["prev"], last.to_string());
            last = Hash::of(line.as_bytes());
            ids.push(value["id"].as_str().unwrap().parse().unwrap());
        }
        ids
    }

    /// The disk runs full in mid-line; all are told at once; when there is room again, what was
    /// queued is written once and in order.
    #[test]
    fn a_full_disk_stops_recording_and_loses_nothing() {
        let (_dir, layout, room, store) = store(2000);
        let recorder = store.recorder();
        let early = recorder.reserve_blocking(0).unwrap();
        let mut sent = Vec::new();
        let stopped = loop {
            let id = Id::new();
            let permit = recorder.reserve_blocking(0).unwrap();
            sent.push(id);
            if let Err(stopped) = permit.record_with_receipt(&record(id)).wait() {
                break stopped;
            }
        };
        let days = crate::journal::days(&layout).unwrap();
        assert!(stopped.0.contains(&*days[0].path(&layout).to_string_lossy()), "{stopped}");
        assert!(stopped.0.contains("free some space"), "{stopped}");
        assert!(!stopped.0.contains('\n'));
        assert!(recorder.stopped().is_some());
        assert!(recorder.reserve_blocking(0).is_err());
        let id = Id::new();
        sent.push(id);
        assert!(early.record_with_receipt(&record(id)).wait().is_err(), "told, but kept");

        room.store(u64::MAX, Ordering::SeqCst);
        while recorder.stopped().is_some() {
            thread::sleep(Duration::from_millis(5));
        }
        let id = Id::new();
        sent.push(id);
        recorder.reserve_blocking(0).unwrap().record_with_receipt(&record(id)).wait().unwrap();
        store.close().unwrap();
        assert_eq!(ids(&layout), sent);
    }

    #[test]
    fn a_side_file_survives_a_full_disk() {
        let (_dir, layout, room, store) = store(100);
        let recorder = store.recorder();
        let (first, second) = (vec![1; 70], vec![2; 70]);
        let file = recorder.side_file();
        recorder.reserve_blocking(70).unwrap().piece(&file, first.clone());
        recorder.reserve_blocking(70).unwrap().piece(&file, second.clone());
        while recorder.stopped().is_none() {
            thread::sleep(Duration::from_millis(5));
        }
        room.store(u64::MAX, Ordering::SeqCst);
        let whole = [first, second].concat();
        let name = Hash::of(&whole);
        file.finish(name);
        store.close().unwrap();
        assert_eq!(std::fs::read(layout.body_path(name)).unwrap(), whole);
    }

    #[test]
    fn a_store_that_closes_on_a_full_disk_says_so_and_leaves_whole_lines() {
        let (_dir, layout, _room, store) = store(1000);
        let recorder = store.recorder();
        let sent = [Id::new(), Id::new(), Id::new()];
        for id in sent {
            recorder.reserve_blocking(0).unwrap().record(&record(id));
        }
        let error = store.close().unwrap_err().to_string();
        assert!(error.contains("recording stopped"), "{error}");
        assert!(recorder.reserve_blocking(0).is_err());
        let kept = ids(&layout);
        assert_eq!(kept, sent[..kept.len()]);
    }
}
