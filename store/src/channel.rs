//! The way from those who record to the writer: a channel, and a bell for a writer that sleeps.
//!
//! The channel's own blocking receive spins and yields before it sleeps, which costs a core that
//! others could use; here the writer sleeps at once, and is woken by whoever finds it asleep.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::recorder::Message;

/// A way from recorders to the writer that is to run on this thread.
///
/// The channel has no bound of its own: the budget is its bound, since every message but the two
/// small ones that end a side file holds a share of it. So sending never blocks.
pub(crate) fn channel() -> (Way, Arrivals) {
    let (sender, receiver) = unbounded();
    let asleep = Arc::new(AtomicBool::new(false));
    let writer = Arc::new(OnceLock::new());
    let way = Way { sender, asleep: Arc::clone(&asleep), writer: Arc::clone(&writer) };
    (way, Arrivals { receiver, asleep, writer })
}

/// Where messages go in.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    sender: Sender<Vec<Message>>,
    asleep: Arc<AtomicBool>,
    writer: Arc<OnceLock<Thread>>,
}

impl Way {
    /// Sends messages and wakes the writer; they come back when it is gone.
    pub(crate) fn send(&self, messages: Vec<Message>) -> Result<(), Vec<Message>> {
        self.sender.send(messages).map_err(|unsent| unsent.0)?;
        // Sequentially consistent, as is the writer's store: either it sees the messages, or this
        // sees that it sleeps.
        if self.asleep.swap(false, Ordering::SeqCst)
            && let Some(writer) = self.writer.get()
        {
            writer.unpark();
        }
        Ok(())
    }
}

/// Where the writer finds them.
#[derive(Debug)]
pub(crate) struct Arrivals {
    receiver: Receiver<Vec<Message>>,
    asleep: Arc<AtomicBool>,
    writer: Arc<OnceLock<Thread>>,
}

impl Arrivals {
    /// What is there already.
    pub(crate) fn take(&self) -> Option<Vec<Message>> {
        self.receiver.try_recv().ok()
    }

    /// Whether nothing is there.
    pub(crate) fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }

    /// Waits for the next messages, until `deadline` at most. Always called by the same thread.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Option<Vec<Message>> {
        self.writer.get_or_init(thread::current);
        loop {
            self.asleep.store(true, Ordering::SeqCst);
            if let Some(messages) = self.take() {
                self.asleep.store(false, Ordering::SeqCst);
                return Some(messages);
            }
            match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
                None => thread::park(),
                Some(left) if left.is_zero() => {
                    self.asleep.store(false, Ordering::SeqCst);
                    return self.take();
                }
                Some(left) => thread::park_timeout(left),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn nothing_is_missed_by_a_writer_that_falls_asleep() {
        const BATCHES: usize = 20_000;
        let (way, arrivals) = channel();
        let writer = thread::spawn(move || {
            let mut seen = 0;
            while seen < BATCHES {
                seen += arrivals.wait(None).map_or(0, |messages| messages.len());
            }
        });
        for _ in 0..BATCHES {
            assert!(way.send(vec![Message::Close]).is_ok());
        }
        writer.join().unwrap();
        assert_eq!(way.send(vec![Message::Close]).map_err(|unsent| unsent.len()), Err(1));
    }

    #[test]
    fn waiting_ends_at_its_deadline() {
        let (way, arrivals) = channel();
        let soon = Instant::now() + Duration::from_millis(5);
        assert!(arrivals.wait(Some(soon)).is_none());
        assert!(Instant::now() >= soon);
        assert!(way.send(vec![Message::Close]).is_ok());
        assert!(arrivals.wait(Some(soon)).is_some(), "what is there is found, late or not");
    }
}
