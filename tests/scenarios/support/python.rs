//! A Python with the packages that scenarios import: the one that `AGENT_GATE_TEST_PYTHON` names,
//! else a virtual environment made once below the build folder.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::tools::{made_once, need, step};

/// What is imported, under the names by which pip knows it.
const PACKAGES: [&str; 6] = ["requests", "httpx", "aiohttp", "websockets", "brotli", "zstandard"];

/// Path of the interpreter. Panics, and says what to do, when there is none to be had.
pub(crate) fn interpreter() -> &'static str {
    static FOUND: OnceLock<String> = OnceLock::new();
    FOUND.get_or_init(|| match std::env::var("AGENT_GATE_TEST_PYTHON") {
        Ok(python) => {
            assert!(has_packages(Path::new(&python)), "{python} lacks one of {PACKAGES:?}");
            python
        }
        Err(_) => {
            let folder = made_once("scenario-python", |it| has_packages(&python_of(it)), make);
            python_of(&folder).to_str().expect("a UTF-8 build folder").to_owned()
        }
    })
}

fn python_of(folder: &Path) -> PathBuf {
    folder.join("bin/python")
}

fn make(folder: &Path) {
    let cure = format!("set AGENT_GATE_TEST_PYTHON to a Python with {PACKAGES:?}");
    let python = need("python3", "python3-venv");
    step(Command::new(python).args(["-m", "venv", "--clear"]).arg(folder), &cure);
    let mut pip = Command::new(python_of(folder));
    step(pip.args(["-m", "pip", "install", "--quiet"]).args(PACKAGES), &cure);
}

fn has_packages(python: &Path) -> bool {
    let import = format!("import {}", PACKAGES.join(", "));
    Command::new(python).args(["-c", &import]).output().is_ok_and(|o| o.status.success())
}
