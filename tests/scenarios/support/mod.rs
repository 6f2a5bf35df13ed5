//! What every scenario stands on: our own origin, a bench with one gate, and what it left on disk.

pub(crate) mod adversary;
pub(crate) mod as_user;
pub(crate) mod bench;
pub(crate) mod cases;
pub(crate) mod coding;
pub(crate) mod content;
pub(crate) mod http;
pub(crate) mod journal;
pub(crate) mod node;
pub(crate) mod origin;
pub(crate) mod outside;
pub(crate) mod processes;
pub(crate) mod proxy;
pub(crate) mod pseudo_terminal;
pub(crate) mod python;
pub(crate) mod staying_client;
pub(crate) mod tools;
pub(crate) mod tunnel;

use std::time::{Duration, Instant};

/// How long anything may take that is expected to happen. No scenario measures time: this only
/// ends a test that would hang, and is generous because a loaded machine is slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Asks again and again until there is an answer; panics with `what` after [`PATIENCE`].
pub(crate) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
