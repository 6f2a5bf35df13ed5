//! Where everything stands under the data directory.

use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::private;

/// The paths under one data directory. Holds names only; nothing is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    data_dir: PathBuf,
    journal_dir: PathBuf,
    bodies_dir: PathBuf,
    index_path: PathBuf,
    gate_lock: PathBuf,
    start_lock: PathBuf,
    control_socket: PathBuf,
    authority_dir: PathBuf,
    trust_dir: PathBuf,
    gate_log: PathBuf,
}

impl Layout {
    /// The layout under `data_dir`.
    pub fn new(data_dir: PathBuf) -> Self {
        Self {
            journal_dir: data_dir.join("journal"),
            bodies_dir: data_dir.join("bodies"),
            index_path: data_dir.join("index.db"),
            gate_lock: data_dir.join("gate.lock"),
            start_lock: data_dir.join("start.lock"),
            control_socket: data_dir.join("control.sock"),
            authority_dir: data_dir.join("ca"),
            trust_dir: data_dir.join("trust"),
            gate_log: data_dir.join("gate.log"),
            data_dir,
        }
    }

    /// Makes the directories, each readable by its owner alone (0700), also where they exist.
    ///
    /// # Errors
    /// When the system refuses, with the path.
    pub fn create(&self) -> Result<(), Error> {
        for dir in [
            &self.data_dir,
            &self.journal_dir,
            &self.bodies_dir,
            &self.authority_dir,
            &self.trust_dir,
        ] {
            private::create_dir(dir)?;
        }
        Ok(())
    }

    /// The directory all others are in.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// `journal/`: one file a UTC day.
    pub fn journal_dir(&self) -> &Path {
        &self.journal_dir
    }

    /// `bodies/`: side files, named by the BLAKE3 hash of their content.
    pub fn bodies_dir(&self) -> &Path {
        &self.bodies_dir
    }

    /// The side file of one content.
    pub fn body_path(&self, blake3: crate::record::Hash) -> PathBuf {
        self.bodies_dir.join(blake3.to_string())
    }

    /// The SQLite index.
    pub fn index_path(&self) -> &Path {
        &self.index_path
    }

    /// Locked while a gate is up.
    pub fn gate_lock(&self) -> &Path {
        &self.gate_lock
    }

    /// Locked while a gate is being started.
    pub fn start_lock(&self) -> &Path {
        &self.start_lock
    }

    /// The gate's control socket.
    pub fn control_socket(&self) -> &Path {
        &self.control_socket
    }

    /// Certificate and key of the local CA.
    pub fn authority_dir(&self) -> &Path {
        &self.authority_dir
    }

    /// What jailed commands are given to trust the CA by.
    pub fn trust_dir(&self) -> &Path {
        &self.trust_dir
    }

    /// What a background gate prints.
    pub fn gate_log(&self) -> &Path {
        &self.gate_log
    }
}
