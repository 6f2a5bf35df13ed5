//! Who is connected to the gate's control socket: while anybody is, the gate stays.

use std::collections::HashMap;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The connected clients.
#[derive(Debug)]
pub(crate) struct Presence {
    state: Mutex<State>,
    left: Condvar,
}

#[derive(Debug)]
struct State {
    /// By a number of our own; the streams are here to be hung up.
    streams: HashMap<u64, UnixStream>,
    next: u64,
    /// When the last one left.
    idle_since: Instant,
    /// Set once: whoever comes now is sent away.
    closed: bool,
}

impl Presence {
    /// Nobody, since now.
    pub(crate) fn new() -> Self {
        let state =
            State { streams: HashMap::new(), next: 0, idle_since: Instant::now(), closed: false };
        Self { state: Mutex::new(state), left: Condvar::new() }
    }

    /// Counts a client in; the number it leaves by. `None` when the gate is ending.
    pub(crate) fn enter(&self, stream: UnixStream) -> Option<u64> {
        let mut state = self.lock();
        if state.closed {
            return None;
        }
        let number = state.next;
        state.next += 1;
        state.streams.insert(number, stream);
        Some(number)
    }

    /// Counts a client out.
    pub(crate) fn leave(&self, number: u64) {
        let mut state = self.lock();
        state.streams.remove(&number);
        state.idle_since = Instant::now();
        self.left.notify_all();
    }

    /// How long nobody has been here; `None` while somebody is.
    pub(crate) fn idle_for(&self) -> Option<Duration> {
        let state = self.lock();
        state.streams.is_empty().then(|| state.idle_since.elapsed())
    }

    /// Lets nobody in any more once nobody but the client `number` is here, which is waited for so
    /// long: a client that has just been told goodbye may still be on its way out. Whether that is
    /// so.
    pub(crate) fn close_for(&self, number: u64, wait_max: Duration) -> bool {
        let is_shared = |state: &mut State| state.streams.keys().any(|other| *other != number);
        let (mut state, _) = self
            .left
            .wait_timeout_while(self.lock(), wait_max, is_shared)
            .unwrap_or_else(PoisonError::into_inner);
        let alone = state.streams.len() == 1 && state.streams.contains_key(&number);
        state.closed |= alone;
        alone
    }

    /// Whether clients are being sent away.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Hangs up on everybody and waits until they have left, for `wait_max` at most; whether they
    /// have.
    pub(crate) fn send_home(&self, wait_max: Duration) -> bool {
        let mut state = self.lock();
        state.closed = true;
        for stream in state.streams.values() {
            // It may have hung up itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
        let waited = self.left.wait_timeout_while(state, wait_max, |s| !s.streams.is_empty());
        waited.unwrap_or_else(PoisonError::into_inner).0.streams.is_empty()
    }

    /// The state is right after each statement, so a poisoned lock is usable.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn one_who_wants_the_gate_to_end_must_be_alone() {
        let presence = Presence::new();
        let (a, _a) = UnixStream::pair().unwrap();
        let (b, _b) = UnixStream::pair().unwrap();
        let a = presence.enter(a).unwrap();
        let b = presence.enter(b).unwrap();
        assert!(presence.idle_for().is_none());
        assert!(!presence.close_for(a, Duration::ZERO));
        presence.leave(b);
        assert!(presence.close_for(a, Duration::ZERO));
        let (c, _c) = UnixStream::pair().unwrap();
        assert!(presence.enter(c).is_none(), "the gate is ending");
        presence.leave(a);
        assert!(presence.idle_for().is_some());
    }

    #[test]
    fn everybody_is_hung_up_on() {
        let presence = Presence::new();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        presence.enter(ours).unwrap();
        assert!(!presence.send_home(Duration::ZERO), "it has not left yet");
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
        presence.leave(0);
        assert!(presence.send_home(Duration::ZERO));
    }
}
