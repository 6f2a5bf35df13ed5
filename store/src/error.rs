//! What can go wrong with what is on disk.

use std::io;
use std::path::{Path, PathBuf};

use crate::lists::LineError;

/// What can go wrong with what is on disk. Messages name the file; sources tell the rest.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused something about a file.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried, as a verb: `open`, `create`, …
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another process writes this journal.
    #[error("another gate is writing to {}", .0.display())]
    Busy(PathBuf),
    /// The index was written by a newer agent-gate.
    #[error("{} was written by a newer agent-gate (schema {found}, this one knows {known}); update, or run `agent-gate reindex`", path.display())]
    NewerIndex {
        /// The index.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The newest one this build knows.
        known: i64,
    },
    /// SQLite failed.
    #[error("the index failed: {0}")]
    Index(#[from] rusqlite::Error),
    /// A line of the journal is not the record it should be.
    #[error("{}: no record at byte {offset}: {reason}", path.display())]
    Record {
        /// The journal file.
        path: PathBuf,
        /// Where the line starts.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A line of a host list is malformed.
    #[error("{}: {source}", path.display())]
    List {
        /// The list.
        path: PathBuf,
        /// Line and reason.
        source: LineError,
    },
    /// Recording stopped and what was not written could not be saved.
    #[error("{0}")]
    Stopped(String),
}

impl Error {
    /// Wraps the system's error with what was tried on which path.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }
}
