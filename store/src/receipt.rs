//! The word back from the writer: a record is with the kernel, or recording has stopped.

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

/// Recording has stopped: one line for the user, what failed and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Stopped(pub String);

/// Resolves when the record's bytes are with the kernel: from then on killing the gate cannot lose
/// it. Fails at once when recording stops, though the record is then still kept and tried again.
#[derive(Debug)]
#[must_use = "a receipt says something only when it is waited for"]
pub struct Receipt(Arc<Mutex<State>>);

impl Receipt {
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
        match &mut *lock(&self.0) {
            State::Done(result) => Poll::Ready(result.clone()),
            State::Pending(waker) => {
                match waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    None => *waker = Some(context.waker().clone()),
                }
                Poll::Pending
            }
        }
    }
}

/// The writer's end of a receipt. Dropped unsigned, for instance because the writer died, it says
/// that recording has stopped.
#[derive(Debug)]
pub(crate) struct Signer(Option<Arc<Mutex<State>>>);

impl Signer {
    /// Both ends.
    pub(crate) fn new() -> (Self, Receipt) {
        let state = Arc::new(Mutex::new(State::Pending(None)));
        (Self(Some(Arc::clone(&state))), Receipt(state))
    }

    /// Says what became of the record.
    pub(crate) fn sign(mut self, result: Result<(), Stopped>) {
        self.settle(result);
    }

    fn settle(&mut self, result: Result<(), Stopped>) {
        let Some(state) = self.0.take() else { return };
        let before = std::mem::replace(&mut *lock(&state), State::Done(result));
        if let State::Pending(Some(waker)) = before {
            waker.wake();
        }
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        self.settle(Err(writer_gone()));
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

#[derive(Debug)]
enum State {
    Pending(Option<Waker>),
    Done(Result<(), Stopped>),
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // The state is replaced in one step, so it is whole whoever panicked.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
