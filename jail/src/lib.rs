//! Starting a command in a network jail: the one face that every system's code stands behind.
//!
//! [`confine`] builds the jail and hands out its listening sockets; [`Confined::start`] starts the
//! command in it; [`Running::wait`] stands in for it towards terminal, signals and exit status.
//! [`unconfined()`] does the same without a jail. Knows nothing of HTTP, TLS, rules and records.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod child;
mod environment;
mod error;
mod exec;
#[cfg(target_os = "linux")]
mod linux;
mod plan;
mod signals;
mod sys;
mod terminal;
mod trust;
mod unconfined;
mod wait;

pub use error::{Error, StartError, Step};
pub use plan::{Listener, Plan};
pub use unconfined::unconfined;
pub use wait::{End, Running};

#[cfg(not(target_os = "linux"))]
use elsewhere as linux;

/// Builds the jail that a plan describes, up to the point where the command can start: the jail's
/// sockets listen, but nothing in it runs yet.
///
/// The calling process must have one thread: the jail's first process is a copy of it.
///
/// # Errors
/// The step that failed, with its cure where one is known; [`Error::Unsupported`] on systems that
/// have no jail yet. Nothing is left behind.
pub fn confine(plan: &Plan) -> Result<Confined, Error> {
    linux::confine(plan).map(Confined)
}

/// A jail that stands, with nothing started in it yet. Dropped, it is taken down.
#[derive(Debug)]
pub struct Confined(linux::Confined);

impl Confined {
    /// The listening sockets of the jail, to be served by the gate; empty the second time.
    pub fn listeners(&mut self) -> Vec<Listener> {
        std::mem::take(&mut self.0.listeners)
    }

    /// Starts the command. From now on, until the [`Running`] is dropped, signals that would end
    /// or stop this process are the command's.
    ///
    /// # Errors
    /// What a shell answers with 127 and 126, and everything else that kept the command from
    /// starting. The jail is taken down then.
    pub fn start(self) -> Result<Running, StartError> {
        self.0.start()
    }
}

/// What stands behind the face where there is no jail yet.
#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use crate::{Error, Listener, Plan, Running, StartError};

    pub(crate) fn confine(_plan: &Plan) -> Result<Confined, Error> {
        Err(Error::Unsupported)
    }

    #[derive(Debug)]
    pub(crate) struct Confined {
        pub(crate) listeners: Vec<Listener>,
    }

    impl Confined {
        pub(crate) fn start(self) -> Result<Running, StartError> {
            Err(StartError::Other(Error::Unsupported.to_string()))
        }
    }
}
