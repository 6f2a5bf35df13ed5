//! Locks between processes: `flock` on a file, gone with the process that holds it.
//!
//! A file that names a process id would outlive a crash and might come to name another process.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

/// How long a gate that is ending may take to write its last records.
pub(crate) const ENDING_WAIT: Duration = Duration::from_secs(10);

/// How often a taken lock is tried again where the wait is bounded.
const TRY_EVERY: Duration = Duration::from_millis(10);

/// Held until dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Takes the lock, waiting for as long as another process holds it.
///
/// # Errors
/// When the file cannot be opened or locked.
pub(crate) fn exclusive(path: &Path) -> anyhow::Result<Lock> {
    let lock = || -> io::Result<Lock> {
        let file = open(path)?;
        file.lock()?;
        Ok(Lock { _file: file })
    };
    lock().with_context(|| format!("lock {}", path.display()))
}

/// Takes the lock if it is free.
///
/// # Errors
/// When the file cannot be opened or locked.
pub(crate) fn try_exclusive(path: &Path) -> io::Result<Option<Lock>> {
    let file = open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock { _file: file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Takes the lock, waiting no longer than this.
///
/// # Errors
/// `WouldBlock` when it is still held then; else as the file says.
pub(crate) fn exclusive_within(path: &Path, wait_max: Duration) -> io::Result<Lock> {
    let deadline = Instant::now() + wait_max;
    loop {
        if let Some(lock) = try_exclusive(path)? {
            return Ok(lock);
        }
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        thread::sleep(TRY_EVERY);
    }
}

/// Waits until nobody holds the lock.
///
/// # Errors
/// As [`exclusive_within`].
pub(crate) fn wait_for_free(path: &Path, wait_max: Duration) -> io::Result<()> {
    exclusive_within(path, wait_max).map(drop)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.lock");
        let held = exclusive(&path).unwrap();
        assert!(try_exclusive(&path).unwrap().is_none());
        let error = exclusive_within(&path, Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(held);
        assert!(try_exclusive(&path).unwrap().is_some());
        wait_for_free(&path, Duration::ZERO).unwrap();
    }
}
