//! Building the index anew from the journal alone.

use std::fs;

use crate::error::Error;
use crate::index::{Index, remove_wal, with_suffix};
use crate::journal::{WriterLock, days, total_bytes};
use crate::layout::Layout;

/// What a reindexing came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReindexSummary {
    /// Lines of the journal.
    pub lines: u64,
    /// Of these, lines that hold no record this version knows.
    pub unreadable: u64,
}

/// Builds the index anew beside the old one and puts it in its place. `progress` is told how many
/// bytes of the journal are done, and of how many.
///
/// # Errors
/// When a writer is at work ([`Error::Busy`]), or something cannot be read or written.
pub fn reindex(
    layout: &Layout,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<ReindexSummary, Error> {
    layout.create()?;
    let _lock = WriterLock::take(layout)?;
    let total = total_bytes(layout)?;
    let before = days(layout)?;
    let fresh = with_suffix(layout.index_path(), ".new");
    // What an interrupted attempt left is of no use.
    let _ = fs::remove_file(&fresh);
    remove_wal(&fresh);
    let mut index = Index::open_file(&fresh)?;
    let unreadable = index.catch_up_with(layout, &mut |position| {
        let earlier = before.iter().filter(|d| **d < position.day);
        let done: u64 =
            earlier.filter_map(|d| fs::metadata(d.path(layout)).ok()).map(|m| m.len()).sum();
        progress(done + position.offset, total);
    })?;
    progress(total, total);
    let lines = index.indexed().lines;
    index.close()?;
    let path = layout.index_path();
    // In this order: a database without its WAL may be broken, none at all is made anew.
    let _ = fs::remove_file(path);
    remove_wal(path);
    fs::rename(&fresh, path).map_err(Error::file("rename", &fresh))?;
    remove_wal(&fresh);
    Ok(ReindexSummary { lines, unreadable })
}
