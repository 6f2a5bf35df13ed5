//! The handles by which everybody else writes: reserve room, record, get a receipt.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

pub use crate::receipt::{Receipt, Stopped};

use crate::budget::{Budget, Cost, Ticket};
use crate::channel::Way;
use crate::encode;
use crate::outbox::{Outbox, Signature};
use crate::receipt::block_on;
use crate::record::{Hash, Record};
use crate::row::RowChange;

/// Writes records. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
    outbox: Arc<Outbox>,
}

/// What all handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) budget: Budget,
    way: Way,
    side_files: AtomicU64,
}

impl Recorder {
    pub(crate) fn new(budget: Budget, way: Way) -> Self {
        let outbox = Outbox::new(way.clone(), false);
        let shared = Shared { budget, way, side_files: AtomicU64::new(0) };
        Self { shared: Arc::new(shared), outbox }
    }

    /// A recorder for one thread: what it sends gathers in its outbox until that is told to
    /// deliver. A receipt comes only if the outbox is attended to.
    pub fn gathering(&self) -> (Self, Arc<Outbox>) {
        let outbox = Outbox::new(self.shared.way.clone(), true);
        (Self { shared: Arc::clone(&self.shared), outbox: Arc::clone(&outbox) }, outbox)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Asks for room for one record or piece of about so many bytes. The estimate is corrected
    /// when the record is written; the length of the body is good enough.
    pub fn reserve(&self, bytes: usize) -> Reserve {
        Reserve {
            recorder: self.clone(),
            cost: self.shared.budget.cost(bytes),
            state: ReserveState::New,
        }
    }

    /// Asks for room and waits for it on this thread.
    ///
    /// # Errors
    /// When recording has stopped.
    pub fn reserve_blocking(&self, bytes: usize) -> Result<Permit, Stopped> {
        block_on(self.reserve(bytes))
    }

    /// Begins a side file for a body that is too long to be held in memory.
    pub fn side_file(&self) -> SideFile {
        let number = self.shared.side_files.fetch_add(1, Ordering::Relaxed);
        SideFile { recorder: self.clone(), number, finished: false }
    }

    /// Why nothing is being recorded, if so.
    pub fn stopped(&self) -> Option<Stopped> {
        self.shared.budget.stopped()
    }
}

/// Resolves to a [`Permit`] when there is room in the queue, in order of asking. Dropping it gives
/// the place in the waiting line up.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Reserve {
    recorder: Recorder,
    cost: Cost,
    state: ReserveState,
}

#[derive(Debug, Clone, Copy)]
enum ReserveState {
    New,
    Waiting(Ticket),
    Over,
}

impl Future for Reserve {
    type Output = Result<Permit, Stopped>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let granted = match self.state {
            ReserveState::New => self.ask(context),
            ReserveState::Waiting(ticket) => {
                self.recorder.shared.budget.poll(ticket, context.waker())
            }
            ReserveState::Over => Poll::Pending,
        };
        if granted.is_ready() {
            self.state = ReserveState::Over;
        }
        granted.map_ok(|()| Permit { recorder: self.recorder.clone(), cost: Some(self.cost) })
    }
}

impl Reserve {
    fn ask(&mut self, context: &Context<'_>) -> Poll<Result<(), Stopped>> {
        let budget = &self.recorder.shared.budget;
        if budget.try_take(self.cost) {
            return Poll::Ready(Ok(()));
        }
        match budget.join(self.cost, context.waker())? {
            None => Poll::Ready(Ok(())),
            Some(ticket) => {
                self.state = ReserveState::Waiting(ticket);
                Poll::Pending
            }
        }
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        if let ReserveState::Waiting(ticket) = self.state {
            self.recorder.shared.budget.leave(ticket, self.cost);
        }
    }
}

/// Room in the queue for one record or one piece of a side file.
#[derive(Debug)]
#[must_use = "a permit that is dropped gives its room back"]
pub struct Permit {
    recorder: Recorder,
    /// Taken when the room passes to a message.
    cost: Option<Cost>,
}

impl Permit {
    /// Hands a record to the writer. It is serialised here, on the caller's thread.
    pub fn record(self, record: &Record<'_>) {
        drop(self.record_with_receipt(record));
    }

    /// Hands a record to the writer and asks for word when it is with the kernel.
    pub fn record_with_receipt(mut self, record: &Record<'_>) -> Receipt {
        let line = encode::line(record);
        let change = RowChange::of(record);
        let cost = self.correct(line.len());
        let outbox = &self.recorder.outbox;
        let number = outbox.put_signed(|signature| {
            Message::Record(Box::new(QueuedRecord { line, change, cost, signature }))
        });
        Receipt::new(Arc::clone(outbox), number)
    }

    /// Hands the next piece of a side file to the writer.
    pub fn piece(mut self, file: &SideFile, bytes: Vec<u8>) {
        let cost = self.correct(bytes.len());
        self.recorder.outbox.put(Message::Piece { number: file.number, bytes, cost });
    }

    /// The room as it turned out; it passes to a message.
    fn correct(&mut self, bytes: usize) -> Cost {
        let budget = &self.recorder.shared.budget;
        let reserved = self.cost.take().unwrap_or_else(|| budget.cost(0));
        budget.correct(reserved, bytes)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(cost) = self.cost.take() {
            self.recorder.shared.budget.give(cost);
        }
    }
}

/// A body on its way into a file of its own, `bodies/<blake3>`. Unfinished, it is deleted.
#[derive(Debug)]
pub struct SideFile {
    recorder: Recorder,
    number: u64,
    finished: bool,
}

impl SideFile {
    /// Names the file by the hash of all pieces. The record that refers to it is sent after this.
    pub fn finish(mut self, kept_blake3: Hash) {
        self.finished = true;
        self.recorder.outbox.put(Message::Finish { number: self.number, name: kept_blake3 });
    }
}

impl Drop for SideFile {
    fn drop(&mut self) {
        if !self.finished {
            self.recorder.outbox.put(Message::Discard { number: self.number });
        }
    }
}

/// What goes over the channel, in order.
#[derive(Debug)]
pub(crate) enum Message {
    Record(Box<QueuedRecord>),
    Piece {
        number: u64,
        bytes: Vec<u8>,
        cost: Cost,
    },
    Finish {
        number: u64,
        name: Hash,
    },
    Discard {
        number: u64,
    },
    /// Write all that came before, commit the index, end.
    Close,
}

impl Message {
    /// Tells whoever waits for its receipt that recording has stopped.
    pub(crate) fn refuse(&mut self, stopped: &Stopped) {
        if let Self::Record(record) = self {
            record.signature.refuse(stopped);
        }
    }

    /// Whoever waits for its receipt knows already.
    pub(crate) fn set_told(&mut self) {
        if let Self::Record(record) = self {
            record.signature.set_told();
        }
    }
}

/// A record on its way.
#[derive(Debug)]
pub(crate) struct QueuedRecord {
    /// The line without `prev` and its closing brace (see `encode`).
    pub(crate) line: Vec<u8>,
    pub(crate) change: RowChange,
    pub(crate) cost: Cost,
    pub(crate) signature: Signature,
}

impl Shared {
    /// Tells the writer to end after all that came before.
    pub(crate) fn close(&self) {
        let _ = self.way.send(vec![Message::Close]);
    }
}
