//! A Python with `requests`, `httpx` and what they decode with: the one that `AGENT_GATE_TEST_PYTHON` names, else a
//! virtual environment made once below the build folder.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use nix::fcntl::{Flock, FlockArg};

const PACKAGES: [&str; 4] = ["requests", "httpx", "brotli", "zstandard"];

/// Path of the interpreter. Panics, and says what to do, when there is none to be had.
pub(crate) fn interpreter() -> &'static str {
    static FOUND: OnceLock<String> = OnceLock::new();
    FOUND.get_or_init(|| match std::env::var("AGENT_GATE_TEST_PYTHON") {
        Ok(python) => {
            assert!(has_packages(Path::new(&python)), "{python} lacks one of {PACKAGES:?}");
            python
        }
        Err(_) => made().to_str().expect("a UTF-8 build folder").to_owned(),
    })
}

fn made() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("scenario-python");
    let python = folder.join("bin/python");
    if has_packages(&python) {
        return python;
    }
    // Another test binary may be making it: one makes, the others wait and find it made.
    std::fs::create_dir_all(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let lock = File::create(folder.with_extension("lock")).unwrap();
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).expect("a lock on a file of ours");
    if !has_packages(&python) {
        step(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
        step(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PACKAGES));
    }
    python
}

fn has_packages(python: &Path) -> bool {
    let import = format!("import {}", PACKAGES.join(", "));
    Command::new(python).args(["-c", &import]).output().is_ok_and(|o| o.status.success())
}

/// This runs in the machine's own environment: a package index may be set up there.
fn step(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?} failed; set AGENT_GATE_TEST_PYTHON to a Python with {PACKAGES:?}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
