//! Named permits by which a test lets the origin take its next step.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex};

/// Counting semaphores by name.
#[derive(Default)]
pub(super) struct Signals {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    permits: HashMap<String, usize>,
    stopped: bool,
}

impl Signals {
    pub(super) fn release(&self, name: &str, times: usize) {
        *self.state.lock().unwrap().permits.entry(name.to_owned()).or_default() += times;
        self.changed.notify_all();
    }

    /// Waits for one permit; false when the origin stops instead.
    pub(super) fn acquire(&self, name: &str) -> bool {
        let mut state = self.state.lock().unwrap();
        loop {
            if state.stopped {
                return false;
            }
            match state.permits.get_mut(name) {
                Some(permits) if *permits > 0 => {
                    *permits -= 1;
                    return true;
                }
                _ => state = self.changed.wait(state).unwrap(),
            }
        }
    }

    pub(super) fn stop(&self) {
        self.state.lock().unwrap().stopped = true;
        self.changed.notify_all();
    }
}
