//! Programs that scenarios start, and packages that are made once for all test programs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};

/// A program that must be on `PATH`. Panics with one line that names the Debian package otherwise.
pub(crate) fn need(program: &'static str, package: &str) -> &'static str {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    assert!(found, "{program} is not installed (apt-get install {package})");
    program
}

/// A folder below the build folder for which `is_whole` holds; made by `make` where it does not.
pub(crate) fn made_once(
    name: &str,
    is_whole: impl Fn(&Path) -> bool,
    make: impl Fn(&Path),
) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if is_whole(&folder) {
        return folder;
    }
    // Another test program may be making it: one makes, the others wait and find it made.
    std::fs::create_dir_all(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let lock = File::create(folder.with_extension("lock")).unwrap();
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).expect("a lock on a file of ours");
    if !is_whole(&folder) {
        make(&folder);
        assert!(is_whole(&folder), "{} was made and is not whole", folder.display());
    }
    folder
}

/// One step of making. This runs in the machine's own environment: a package index may be set up
/// there. Panics with `cure` when it fails.
pub(crate) fn step(command: &mut Command, cure: &str) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}; {cure}"));
    assert!(
        output.status.success(),
        "{command:?} failed; {cure}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A Rust toolchain's folder with `bin/cargo` and `bin/rustc`: the one that
/// `AGENT_GATE_TEST_TOOLCHAIN` names, else the one that built this. Not rustup's own `cargo`, which
/// looks for its toolchains in the home folder.
pub(crate) fn toolchain() -> PathBuf {
    let built_by = || Path::new(env!("CARGO")).ancestors().nth(2).expect("in bin/").to_owned();
    let folder = std::env::var_os("AGENT_GATE_TEST_TOOLCHAIN").map_or_else(built_by, PathBuf::from);
    for program in ["bin/cargo", "bin/rustc"] {
        let there = folder.join(program).is_file();
        assert!(there, "no {program} in {} (AGENT_GATE_TEST_TOOLCHAIN)", folder.display());
    }
    folder
}
