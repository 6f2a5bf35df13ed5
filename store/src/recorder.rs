//! The handles by which everybody else writes: reserve room, record, get a receipt.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use crossbeam_channel::Sender;

pub use crate::receipt::{Receipt, Stopped};

use crate::budget::{Budget, Cost, Ticket};
use crate::encode;
use crate::receipt::{Signer, block_on};
use crate::record::{Hash, Record};
use crate::row::RowChange;

/// Writes records. Cheap to clone; one for every worker.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Shared>);

/// What all handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) budget: Budget,
    /// Unbounded as a channel: the budget is its bound, since every message but the two small ones
    /// that end a side file holds a share of it. So sending never blocks.
    sender: Sender<Message>,
    side_files: AtomicU64,
}

impl Recorder {
    pub(crate) fn new(budget: Budget, sender: Sender<Message>) -> Self {
        Self(Arc::new(Shared { budget, sender, side_files: AtomicU64::new(0) }))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }

    /// Asks for room for one record or piece of about so many bytes. The estimate is corrected
    /// when the record is written; the length of the body is good enough.
    pub fn reserve(&self, bytes: usize) -> Reserve {
        Reserve {
            shared: Arc::clone(&self.0),
            cost: self.0.budget.cost(bytes),
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
        let number = self.0.side_files.fetch_add(1, Ordering::Relaxed);
        SideFile { shared: Arc::clone(&self.0), number, finished: false }
    }

    /// Why nothing is being recorded, if so.
    pub fn stopped(&self) -> Option<Stopped> {
        self.0.budget.stopped()
    }
}

/// Resolves to a [`Permit`] when there is room in the queue, in order of asking. Dropping it gives
/// the place in the waiting line up.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Reserve {
    shared: Arc<Shared>,
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
            ReserveState::Waiting(ticket) => self.shared.budget.poll(ticket, context.waker()),
            ReserveState::Over => Poll::Pending,
        };
        if granted.is_ready() {
            self.state = ReserveState::Over;
        }
        granted.map_ok(|()| Permit { shared: Arc::clone(&self.shared), cost: Some(self.cost) })
    }
}

impl Reserve {
    fn ask(&mut self, context: &Context<'_>) -> Poll<Result<(), Stopped>> {
        let budget = &self.shared.budget;
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
            self.shared.budget.leave(ticket, self.cost);
        }
    }
}

/// Room in the queue for one record or one piece of a side file.
#[derive(Debug)]
#[must_use = "a permit that is dropped gives its room back"]
pub struct Permit {
    shared: Arc<Shared>,
    /// Taken when the room passes to a message.
    cost: Option<Cost>,
}

impl Permit {
    /// Hands a record to the writer. It is serialised here, on the caller's thread.
    pub fn record(self, record: &Record<'_>) {
        self.send_record(record, None);
    }

    /// Hands a record to the writer and asks for word when it is with the kernel.
    pub fn record_with_receipt(self, record: &Record<'_>) -> Receipt {
        let (signer, receipt) = Signer::new();
        self.send_record(record, Some(signer));
        receipt
    }

    /// Hands the next piece of a side file to the writer.
    pub fn piece(self, file: &SideFile, bytes: Vec<u8>) {
        let number = file.number;
        self.send(bytes.len(), |cost| Message::Piece { number, bytes, cost });
    }

    fn send_record(self, record: &Record<'_>, signer: Option<Signer>) {
        let line = encode::line(record);
        let change = RowChange::of(record);
        self.send(line.len(), |cost| {
            Message::Record(Box::new(QueuedRecord { line, change, cost, signer }))
        });
    }

    fn send(mut self, bytes: usize, message: impl FnOnce(Cost) -> Message) {
        let Some(cost) = self.cost.take() else { return };
        let cost = self.shared.budget.correct(cost, bytes);
        // A writer that is gone has said so to everybody; the message's own signer says it too.
        let _ = self.shared.sender.send(message(cost));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(cost) = self.cost.take() {
            self.shared.budget.give(cost);
        }
    }
}

/// A body on its way into a file of its own, `bodies/<blake3>`. Unfinished, it is deleted.
#[derive(Debug)]
pub struct SideFile {
    shared: Arc<Shared>,
    number: u64,
    finished: bool,
}

impl SideFile {
    /// Names the file by the hash of all pieces. The record that refers to it is sent after this.
    pub fn finish(mut self, kept_blake3: Hash) {
        self.finished = true;
        let _ = self.shared.sender.send(Message::Finish { number: self.number, name: kept_blake3 });
    }
}

impl Drop for SideFile {
    fn drop(&mut self) {
        if !self.finished {
            let _ = self.shared.sender.send(Message::Discard { number: self.number });
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

/// A record on its way.
#[derive(Debug)]
pub(crate) struct QueuedRecord {
    /// The line without `prev` and its closing brace (see `encode`).
    pub(crate) line: Vec<u8>,
    pub(crate) change: RowChange,
    pub(crate) cost: Cost,
    pub(crate) signer: Option<Signer>,
}

impl Shared {
    /// Tells the writer to end after all that came before.
    pub(crate) fn close(&self) {
        let _ = self.sender.send(Message::Close);
    }
}
