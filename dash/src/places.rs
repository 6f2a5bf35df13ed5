//! The bound on how many requests are in work at once, and on what hostile ones may cost for good.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How many requests are answered at once, each on a thread of its own.
pub(crate) const REQUESTS_MAX: usize = 96;

/// How many more are told at once that there are too many; the next ones wait their turn.
const REFUSALS_MAX: usize = 16;

/// How many requests may be lost (`http::Lost`) before the dashboard closes: the gate needs the
/// descriptors more.
const LOST_MAX: usize = 64;

/// The places for requests.
#[derive(Default)]
pub(crate) struct Places {
    state: Mutex<State>,
    /// Told whenever a place is given back or the server closes.
    freed: Condvar,
}

#[derive(Default)]
struct State {
    taken: usize,
    lost: usize,
    closed: bool,
}

/// One of the places, given back on drop, also when its thread panics.
pub(crate) struct Place {
    places: Arc<Places>,
    /// Over [`REQUESTS_MAX`]: there is only time to refuse.
    pub(crate) surplus: bool,
}

impl Places {
    /// Takes a place, waiting for a free one; none when the server closes.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Place> {
        let full = |state: &mut State| state.taken == REQUESTS_MAX + REFUSALS_MAX && !state.closed;
        let mut state =
            self.freed.wait_while(self.lock(), full).unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return None;
        }
        let surplus = state.taken >= REQUESTS_MAX;
        state.taken += 1;
        Some(Place { places: Arc::clone(self), surplus })
    }

    /// Notes a lost request; true when that was one too many.
    pub(crate) fn lose(&self) -> bool {
        let mut state = self.lock();
        state.lost += 1;
        state.lost >= LOST_MAX
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.freed.notify_all();
    }

    pub(crate) fn closed(&self) -> bool {
        self.lock().closed
    }

    /// Waits until all are given back, at most for `timeout`.
    pub(crate) fn wait_until_empty(&self, timeout: Duration) {
        let _ = self.freed.wait_timeout_while(self.lock(), timeout, |state| state.taken > 0);
    }

    /// The state is three plain values, right after every statement: a poisoned lock is usable.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().taken -= 1;
        self.places.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surplus_requests_are_refused_and_places_come_back() {
        let places = Arc::new(Places::default());
        let mut taken: Vec<_> = (0..REQUESTS_MAX).map(|_| places.take().unwrap()).collect();
        assert!(taken.iter().all(|place| !place.surplus));
        taken.extend((0..REFUSALS_MAX).map(|_| places.take().unwrap()));
        assert!(taken[REQUESTS_MAX..].iter().all(|place| place.surplus));
        drop(taken);
        assert!(!places.take().unwrap().surplus);
        places.wait_until_empty(Duration::ZERO);
    }

    #[test]
    fn closing_ends_the_wait_for_a_place() {
        let places = Arc::new(Places::default());
        let taken: Vec<_> =
            (0..REQUESTS_MAX + REFUSALS_MAX).map(|_| places.take().unwrap()).collect();
        let waiting = std::thread::spawn({
            let places = Arc::clone(&places);
            move || places.take().is_none()
        });
        places.close();
        assert!(waiting.join().unwrap());
        drop(taken);
    }

    #[test]
    fn losses_are_counted() {
        let places = Places::default();
        assert_eq!((0..LOST_MAX).filter(|_| places.lose()).count(), 1);
    }
}
