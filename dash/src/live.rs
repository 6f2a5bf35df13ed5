//! Waking the live pages when the store has committed something new.
//!
//! One watcher thread waits on [`Changes`] and wakes every waiting page, so that the store sees one
//! waiter however many pages are open.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use agent_gate_store::{Committed, Layout, Reader};

/// What tells the pages that there is more to show.
pub trait Changes: Send + Sync {
    /// The sequence number of the newest committed record.
    fn committed(&self) -> u64;

    /// Waits until something newer than `seq` is committed, at most for `timeout`; returns the
    /// newest committed sequence number either way.
    fn wait_past(&self, seq: u64, timeout: Duration) -> u64;
}

impl Changes for Committed {
    fn committed(&self) -> u64 {
        self.get()
    }

    fn wait_past(&self, seq: u64, timeout: Duration) -> u64 {
        Self::wait_past(self, seq, timeout)
    }
}

/// Looks into the index now and then: for a dashboard without a gate in the same process.
pub struct Polling {
    layout: Layout,
}

/// How often [`Polling`] looks. A person watching a page does not notice less.
const POLL_EVERY: Duration = Duration::from_millis(250);

impl Polling {
    /// Watches the index under `layout`.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self { layout }
    }
}

impl Changes for Polling {
    /// An index that cannot be read has nothing new; the page that needs it says what is wrong.
    fn committed(&self) -> u64 {
        Reader::open(&self.layout).and_then(|reader| reader.committed()).unwrap_or(0)
    }

    fn wait_past(&self, seq: u64, timeout: Duration) -> u64 {
        let mut left = timeout;
        loop {
            let committed = self.committed();
            if committed > seq || left.is_zero() {
                return committed;
            }
            let nap = left.min(POLL_EVERY);
            thread::sleep(nap);
            left -= nap;
        }
    }
}

/// The meeting point of the watcher and the waiting pages.
pub(crate) struct Live {
    changes: Box<dyn Changes>,
    state: Mutex<State>,
    woken: Condvar,
}

struct State {
    committed: u64,
    /// Pages waiting now, at most [`WAITING_MAX`].
    waiting: usize,
    stopped: bool,
}

/// How many pages may wait at once. Each holds a request's place, and the other places
/// (`places::REQUESTS_MAX`) stay free for requests that are answered at once.
const WAITING_MAX: usize = 64;
const _: () = assert!(WAITING_MAX < crate::places::REQUESTS_MAX);

/// How long one request waits for news. Under the 30 s after which proxies and browsers' extensions
/// lose patience.
const WAIT_MAX: Duration = Duration::from_secs(25);

/// How long the watcher waits before it looks whether it should stop.
const WATCH_SLICE: Duration = Duration::from_millis(250);

/// Too many pages wait already.
#[derive(Debug)]
pub(crate) struct Busy;

impl Live {
    pub(crate) fn new(changes: Box<dyn Changes>) -> Self {
        let committed = changes.committed();
        let state = State { committed, waiting: 0, stopped: false };
        Self { changes, state: Mutex::new(state), woken: Condvar::new() }
    }

    /// Waits until something newer than `seq` is committed, the wait is over, or the server stops.
    pub(crate) fn wait_past(&self, seq: u64) -> Result<(), Busy> {
        let mut state = self.lock();
        if state.waiting == WAITING_MAX {
            return Err(Busy);
        }
        state.waiting += 1;
        let (mut state, _) = self
            .woken
            .wait_timeout_while(state, WAIT_MAX, |state| state.committed <= seq && !state.stopped)
            .unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        Ok(())
    }

    /// The watcher's loop; returns after [`Live::stop`].
    pub(crate) fn watch(&self) {
        let mut seen = self.lock().committed;
        loop {
            let committed = self.changes.wait_past(seen, WATCH_SLICE);
            let mut state = self.lock();
            if state.stopped {
                return;
            }
            if committed != seen {
                seen = committed;
                state.committed = committed;
                self.woken.notify_all();
            }
        }
    }

    /// Sends every waiting page home.
    pub(crate) fn stop(&self) {
        self.lock().stopped = true;
        self.woken.notify_all();
    }

    /// The state is three plain values, right after every statement: a poisoned lock is usable.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
