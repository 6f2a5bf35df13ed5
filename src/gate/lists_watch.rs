//! Watching the host lists: an edit is in force within a second, a malformed one never is.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use agent_gate_store::{Error, HostLists};
use anyhow::anyhow;

/// The three files, as `HostLists::load` reads them.
pub(crate) const FILES: [&str; 3] = ["allowlist.txt", "denylist.txt", "passthrough.txt"];

/// Looks whether a list changed, each time it is asked.
#[derive(Debug)]
pub(crate) struct ListsWatch {
    config_dir: PathBuf,
    seen: Vec<Trace>,
}

/// What tells one state of a file from another; no single part does on every file system.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trace {
    /// There, with inode, length and times.
    File { inode: u64, bytes: u64, modified: (i64, i64), changed: (i64, i64) },
    /// Not there.
    Missing,
    /// There, but not to be looked at.
    Hidden(io::ErrorKind),
}

impl ListsWatch {
    /// Loads the lists and remembers their state.
    ///
    /// # Errors
    /// When a list cannot be read or understood; the message names file and line.
    pub(crate) fn start(config_dir: &Path) -> anyhow::Result<(Self, HostLists)> {
        // The state first: an edit between the two shows as a change later.
        let seen = traces(config_dir);
        let lists = load(config_dir)?;
        Ok((Self { config_dir: config_dir.to_owned(), seen }, lists))
    }

    /// The lists anew, if a file changed since the last look.
    ///
    /// # Errors
    /// As [`Self::start`]; the caller keeps what is in force until the next change.
    pub(crate) fn changed(&mut self) -> Option<anyhow::Result<HostLists>> {
        let now = traces(&self.config_dir);
        if now == self.seen {
            return None;
        }
        self.seen = now;
        Some(load(&self.config_dir))
    }
}

/// Reads the lists, an error being `file:line: reason` as for the settings.
///
/// # Errors
/// When a list cannot be read or understood.
pub(crate) fn load(config_dir: &Path) -> anyhow::Result<HostLists> {
    HostLists::load(config_dir).map_err(told)
}

/// An error as `file:line: reason`, where it is about a line.
pub(crate) fn told(error: Error) -> anyhow::Error {
    match error {
        Error::List { path, source } => {
            anyhow!("{}:{}: {}", path.display(), source.line, source.reason)
        }
        other => other.into(),
    }
}

fn traces(config_dir: &Path) -> Vec<Trace> {
    FILES.iter().map(|file| trace(&config_dir.join(file))).collect()
}

fn trace(path: &Path) -> Trace {
    match fs::metadata(path) {
        Ok(file) => Trace::File {
            inode: file.ino(),
            bytes: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Trace::Missing,
        Err(error) => Trace::Hidden(error.kind()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_show_once_and_malformed_ones_as_errors() {
        let folder = tempfile::tempdir().unwrap();
        let deny = folder.path().join("denylist.txt");
        let (mut watch, lists) = ListsWatch::start(folder.path()).unwrap();
        assert!(lists.deny.is_empty());
        assert!(watch.changed().is_none());

        fs::write(&deny, "evil.example\n").unwrap();
        assert!(!watch.changed().unwrap().unwrap().deny.is_empty());
        assert!(watch.changed().is_none());

        fs::write(&deny, "fine.example\nnot a host\n").unwrap();
        let error = watch.changed().unwrap().unwrap_err();
        assert!(error.to_string().contains("denylist.txt:2: "), "{error:#}");
        assert!(watch.changed().is_none(), "told once");

        fs::remove_file(&deny).unwrap();
        assert!(watch.changed().unwrap().unwrap().deny.is_empty());
    }
}
