//! The one thread that writes: journal and side files first, then receipts, then the index.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::budget::Cost;
use crate::channel::Arrivals;
use crate::disk::Disk;
use crate::error::Error;
use crate::index::{Change, Index};
use crate::journal::{Batch, Journal};
use crate::layout::Layout;
use crate::outbox::Signatures;
use crate::receipt::Stopped;
use crate::recorder::{Message, Shared};
use crate::row::RowChange;
use crate::side_files::SideFiles;
use crate::store::Committed;

/// Records in one batch at most: bounds how long the first waits for its receipt.
const BATCH_RECORDS_MAX: usize = 512;
/// Bytes in one batch at most, for the same reason.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Rows wait so long for more to share their transaction.
const INDEX_DELAY: Duration = Duration::from_millis(20);
/// But not more rows than this.
const INDEX_ROWS_MAX: usize = 512;
/// After a failed write, the next attempt comes this much later.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// An index that failed is tried again this much later.
const INDEX_RETRY_DELAY: Duration = Duration::from_secs(2);
/// When the store closes while writing fails, this many attempts are made.
const CLOSING_ATTEMPTS: u32 = 30;

/// The writer and all it owns.
pub(crate) struct Writer {
    layout: Layout,
    arrivals: Arrivals,
    /// Messages taken from the channel and not yet worked on.
    backlog: VecDeque<Message>,
    shared: Arc<Shared>,
    journal: Journal,
    side_files: SideFiles,
    index: Option<Index>,
    committed: Committed,
    /// Rows that wait for their transaction, and since when.
    rows: Vec<Change>,
    rows_since: Option<Instant>,
    index_retry: Option<Instant>,
    /// What ended writing while rows were being entered.
    failed: Option<Error>,
    closing: bool,
}

/// What one batch gathers.
#[derive(Default)]
struct Gathered {
    batch: Batch,
    bytes: usize,
    changes: Vec<RowChange>,
    costs: Vec<Cost>,
    signatures: Signatures,
}

impl Writer {
    pub(crate) fn new(
        layout: &Layout,
        arrivals: Arrivals,
        shared: Arc<Shared>,
        committed: Committed,
        disk: Disk,
    ) -> Result<Self, Error> {
        let journal = Journal::open(layout, disk.clone())?;
        let side_files = SideFiles::open(layout, disk)?;
        let index = Index::open(layout)?;
        committed.set(index.indexed().lines);
        Ok(Self {
            layout: layout.clone(),
            arrivals,
            backlog: VecDeque::new(),
            shared,
            journal,
            side_files,
            index: Some(index),
            committed,
            rows: Vec::new(),
            rows_since: None,
            index_retry: None,
            failed: None,
            closing: false,
        })
    }

    /// Writes until told to close.
    pub(crate) fn run(mut self) -> Result<(), Error> {
        loop {
            if let Some(first) = self.wait() {
                self.write_batch(first)?;
            }
            if self.is_index_due() {
                self.index_rows();
            }
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            if self.closing && self.backlog.is_empty() && self.arrivals.is_empty() {
                self.index_rows();
                match self.failed.take() {
                    Some(error) => return Err(error),
                    None if self.rows.is_empty() => return Ok(()),
                    None => {} // something came while rows were entered
                }
            }
        }
    }

    /// The next message, or nothing when the index is due first.
    fn wait(&mut self) -> Option<Message> {
        if let Some(message) = self.take_waiting() {
            return Some(message);
        }
        if self.closing {
            return None;
        }
        let due = [self.rows_since.map(|since| since + INDEX_DELAY), self.index_retry];
        let messages = self.arrivals.wait(due.into_iter().flatten().min())?;
        self.backlog.extend(messages);
        self.backlog.pop_front()
    }

    /// The next message that is there already.
    fn take_waiting(&mut self) -> Option<Message> {
        if self.backlog.is_empty()
            && let Some(messages) = self.arrivals.take()
        {
            self.backlog.extend(messages);
        }
        self.backlog.pop_front()
    }

    /// Takes what has gathered behind `first` and writes it. A store that closes while nothing
    /// can be written gives up after a while.
    fn write_batch(&mut self, first: Message) -> Result<(), Error> {
        let mut gathered = Gathered::default();
        let mut next = Some(first);
        while let Some(message) = next {
            self.take_in(message, &mut gathered)?;
            let is_full =
                gathered.changes.len() >= BATCH_RECORDS_MAX || gathered.bytes >= BATCH_BYTES_MAX;
            next = if is_full { None } else { self.take_waiting() };
        }
        self.append(gathered)
    }

    fn take_in(&mut self, message: Message, gathered: &mut Gathered) -> Result<(), Error> {
        match message {
            Message::Record(record) => {
                gathered.bytes += record.line.len();
                self.journal.chain(&mut gathered.batch, record.line);
                gathered.changes.push(record.change);
                gathered.costs.push(record.cost);
                gathered.signatures.push(record.signature);
            }
            Message::Piece { number, bytes, cost } => {
                self.insist(&mut gathered.signatures, |w| w.side_files.write(number, &bytes))?;
                gathered.bytes += bytes.len();
                gathered.costs.push(cost);
            }
            Message::Finish { number, name } => {
                self.insist(&mut gathered.signatures, |w| w.side_files.finish(number, name))?;
            }
            Message::Discard { number } => self.side_files.discard(number),
            Message::Close => self.closing = true,
        }
        Ok(())
    }

    fn append(&mut self, gathered: Gathered) -> Result<(), Error> {
        let Gathered { mut batch, changes, costs, mut signatures, .. } = gathered;
        if !batch.is_empty() {
            let positions = self.insist(&mut signatures, |w| w.journal.append(&mut batch))?;
            signatures.sign();
            let rows = changes.into_iter().zip(positions);
            self.rows.extend(rows.map(|(change, position)| Change { change, position }));
            self.rows_since.get_or_insert_with(Instant::now);
        }
        self.shared.budget.give_all(costs.into_iter());
        Ok(())
    }

    /// Does `write`, again and again until it succeeds. While it fails nothing is recorded: those
    /// who wait are told so, and what they sent is kept and written later.
    fn insist<T>(
        &mut self,
        signatures: &mut Signatures,
        mut write: impl FnMut(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut error = match write(self) {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let mut closing_attempts = 0;
        loop {
            let stopped = Stopped(format!(
                "recording stopped: {error}; traffic waits until writing works again (free some \
                 space or mend the disk)"
            ));
            self.shared.budget.stop(stopped.clone());
            signatures.refuse(&stopped);
            self.refuse_until(Instant::now() + RETRY_DELAY, &stopped);
            closing_attempts += u32::from(self.closing);
            if closing_attempts > CLOSING_ATTEMPTS {
                return Err(Error::Stopped(stopped.0));
            }
            match self.journal.cut_back().and_then(|()| write(self)) {
                Ok(done) => {
                    self.shared.budget.resume();
                    return Ok(done);
                }
                Err(again) => error = again,
            }
        }
    }

    /// Takes messages in until `deadline`, so that whoever waits for a receipt is not left
    /// waiting; the records themselves are kept.
    fn refuse_until(&mut self, deadline: Instant, stopped: &Stopped) {
        for message in &mut self.backlog {
            message.refuse(stopped);
        }
        while let Some(messages) = self.arrivals.wait(Some(deadline)) {
            for mut message in messages {
                message.refuse(stopped);
                self.closing |= matches!(message, Message::Close);
                self.backlog.push_back(message);
            }
        }
    }

    fn is_index_due(&self) -> bool {
        let now = Instant::now();
        self.rows.len() >= INDEX_ROWS_MAX
            || self.rows_since.is_some_and(|since| now >= since + INDEX_DELAY)
            || self.index_retry.is_some_and(|at| now >= at)
    }

    /// Commits the waiting rows. An index that fails does not stop the journal: it catches up
    /// from there when it works again.
    fn index_rows(&mut self) {
        let rows = std::mem::take(&mut self.rows);
        self.rows_since = None;
        if self.index_retry.is_some_and(|at| Instant::now() < at) && !self.closing {
            // The rows are in the journal; the next attempt reads them from there.
            return;
        }
        let result = match self.index.take() {
            Some(mut index) if self.index_retry.is_none() => {
                let committed = index.commit(rows, &mut || self.write_waiting());
                self.index = Some(index);
                committed
            }
            _ => self.reopen_index(),
        };
        self.index_retry = match result {
            Ok(()) => None,
            Err(_) => {
                self.index = None;
                Some(Instant::now() + INDEX_RETRY_DELAY)
            }
        };
        if let Some(index) = &self.index {
            self.committed.set(index.indexed().lines);
        }
    }

    /// Writes what has arrived while rows are being entered: whoever waits for a receipt does not
    /// wait for the index.
    fn write_waiting(&mut self) {
        if self.failed.is_none()
            && let Some(first) = self.take_waiting()
        {
            self.failed = self.write_batch(first).err();
        }
    }

    fn reopen_index(&mut self) -> Result<(), Error> {
        self.index = Some(Index::open(&self.layout)?);
        Ok(())
    }
}
