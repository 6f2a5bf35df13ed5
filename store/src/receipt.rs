//! The word back from the writer: a record is with the kernel, or recording has stopped.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use crate::outbox::Outbox;

/// Recording has stopped: one line for the user, what failed and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Stopped(pub String);

/// Resolves when the record's bytes are with the kernel: from then on killing the gate cannot lose
/// it. Fails at once when recording stops, though the record is then still kept and tried again;
/// a receipt that failed may be polled again for the word on that.
#[derive(Debug)]
#[must_use = "a receipt says something only when it is waited for"]
pub struct Receipt {
    outbox: Arc<Outbox>,
    number: u64,
}

impl Receipt {
    pub(crate) fn new(outbox: Arc<Outbox>, number: u64) -> Self {
        Self { outbox, number }
    }

    /// Waits on this thread.
    ///
    /// # Errors
    /// When recording stopped first.
    pub fn wait(self) -> Result<(), Stopped> {
        block_on(self)
    }
}

impl Future for Receipt {
    type Output = Result<(), Stopped>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.outbox.poll(self.number, context.waker())
    }
}

/// What callers are told when there is no writer any more.
pub(crate) fn writer_gone() -> Stopped {
    Stopped("recording has stopped: the writer has ended; restart the gate".to_owned())
}

/// Drives a future on this thread; parks while it is pending.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        thread::park();
    }
}
