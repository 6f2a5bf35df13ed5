//! What can go wrong while the engine starts or takes a run; traffic's own failures are records.

use std::io;
use std::path::PathBuf;

/// Why the engine did not start or did not take a run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The CA's key or certificate cannot be used.
    #[error("CA file {path}: {reason}")]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The kernel grants no way to wait for sockets.
    #[error("worker cannot start: {0}")]
    Worker(#[source] io::Error),
    /// A listening socket cannot be used.
    #[error("listening socket: {0}")]
    Listener(#[source] io::Error),
    /// The roots given for origins cannot be used.
    #[error("upstream roots: {0}")]
    Roots(String),
}
