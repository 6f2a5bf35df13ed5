//! Starting a gate in the background, and hearing from it whether it started.
//!
//! The new process is this same program with the hidden command `__gate`. Its standard output is a
//! pipe to the starter until it is ready: it writes `ready`, or `failed: …`, as one line there and
//! then lets go of the pipe. Its standard error is `gate.log`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use agent_gate_store::Layout;
use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, umask};

use crate::config::Config;
use crate::terminal;

/// After so long the user is told what is being waited for (an index that catches up, mostly).
const PATIENCE_MS: u16 = 5_000;

const READY: &str = "ready";
const FAILED: &str = "failed: ";

/// Starts a gate and waits until it listens. The caller holds the start lock.
///
/// # Errors
/// When it cannot be started, or with its own reason when it did not come up.
pub(crate) fn in_background(config: &Config, layout: &Layout) -> anyhow::Result<()> {
    let log = layout.gate_log();
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let (from_gate, to_us) = io::pipe().context("pipe")?;
    Command::new(program)
        .arg("--config-dir")
        .arg(&config.paths.config_dir)
        .arg("--data-dir")
        .arg(&config.paths.data_dir)
        .arg("__gate")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(to_us)
        .stderr(new_log(log).with_context(|| format!("cannot write {}", log.display()))?)
        .spawn()
        .context("cannot start the gate")?;
    tell_if_slow(&from_gate);
    let mut line = String::new();
    BufReader::new(from_gate).read_line(&mut line).context("the gate's first word")?;
    outcome(line.trim_end(), log)
}

fn outcome(line: &str, log: &Path) -> anyhow::Result<()> {
    if line == READY {
        return Ok(());
    }
    match line.strip_prefix(FAILED) {
        Some(reason) => bail!("{reason}"),
        None => bail!("the gate ended while it started; see {}", log.display()),
    }
}

fn tell_if_slow(from_gate: &io::PipeReader) {
    let mut ready = [PollFd::new(from_gate.as_fd(), PollFlags::POLLIN)];
    if let Ok(0) = poll(&mut ready, PollTimeout::from(PATIENCE_MS)) {
        terminal::note("the gate is still starting (it reads what an earlier one left unindexed)");
    }
}

/// A fresh log; the one before is kept, for it may say why its gate died.
fn new_log(path: &Path) -> io::Result<File> {
    match fs::rename(path, path.with_extension("log.1")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// The gate's own first steps: nothing of the terminal, of the folder or of the open files of
/// whoever started it stays with it. Called before anything else is opened.
///
/// # Errors
/// When the process cannot be made a session of its own.
pub(crate) fn become_background() -> anyhow::Result<()> {
    close_inherited();
    umask(Mode::from_bits_truncate(0o077));
    match nix::unistd::setsid() {
        // Already a group's leader: started by hand.
        Ok(_) | Err(Errno::EPERM) => Ok(()),
        Err(errno) => Err(errno).context("setsid"),
    }
}

/// Tells the starter that we listen, and lets go of its pipe.
pub(crate) fn tell_ready() {
    tell(READY);
}

/// Tells the starter why we do not.
pub(crate) fn tell_failed(error: &anyhow::Error) {
    tell(&format!("{FAILED}{}", terminal::chain(error)));
}

fn tell(line: &str) {
    // The starter may be gone; the gate then serves the next one.
    let _ = writeln!(io::stdout(), "{line}");
    let _ = nix::unistd::dup2_stdout(io::stderr());
}

/// Descriptors that our starter's own starter forgot to mark: a pipe kept open here would keep its
/// reader waiting for as long as the gate lives.
fn close_inherited() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<i32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|descriptor| *descriptor > 2)
        .collect();
    for descriptor in open {
        // The folder we have just read is among them, and is closed already.
        let _ = nix::unistd::close(descriptor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_decides() {
        let log = Path::new("/d/gate.log");
        assert!(outcome("ready", log).is_ok());
        let failed = outcome("failed: no space left", log).unwrap_err();
        assert_eq!(failed.to_string(), "no space left");
        let silent = outcome("", log).unwrap_err();
        assert!(silent.to_string().contains("/d/gate.log"), "{silent}");
    }

    #[test]
    fn the_log_before_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate.log");
        writeln!(new_log(&path).unwrap(), "first").unwrap();
        writeln!(new_log(&path).unwrap(), "second").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "second\n");
        assert_eq!(fs::read_to_string(folder.path().join("gate.log.1")).unwrap(), "first\n");
    }
}
