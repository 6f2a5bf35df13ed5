//! A command without a jail: the environment points it at the gate, nothing forces it there.

use std::collections::HashSet;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::child::{Change, Child, Reaping};
use crate::environment::{self, Settings};
use crate::error::{Error, StartError};
use crate::exec::Exec;
use crate::plan::Plan;
use crate::signals::{Blocked, Caught, Received};
use crate::sys;
use crate::terminal::Found;
use crate::trust::{BUNDLE_FILE, TRUSTSTORE_FILE, Trust};
use crate::wait::{Keeper, Running, wait_error};

/// Writes the trust folder and starts the command with the gate's environment, unconfined.
///
/// # Errors
/// What a shell answers with 127 and 126, and everything else that kept the command from starting.
pub fn unconfined(plan: &Plan) -> Result<Running, StartError> {
    let trust = Trust::gather(plan).map_err(|error| other(&error))?;
    write_trust(&plan.trust_dir, &trust).map_err(|error| {
        StartError::Other(format!("cannot write {}: {error}", plan.trust_dir.display()))
    })?;
    let jailed = environment::jailed(
        &plan.environment,
        &Settings {
            proxy_port: plan.proxy_port,
            node_extra: &plan.trust_dir.join(trust.node_extra_file()),
            bundle: &plan.trust_dir.join(BUNDLE_FILE),
            java_truststore: Some(&plan.trust_dir.join(TRUSTSTORE_FILE)),
        },
    );
    let terminal = Found::look();
    let blocked = Blocked::all().map_err(|error| other(&error))?;
    let caught = Caught::begin().map_err(|error| other(&error))?;
    let exec = Exec::new(&plan.argv, &jailed, blocked.before).map_err(StartError::Other)?;

    keep_orphans();
    let others = children();
    let started = exec.spawn(|| {
        caught.forget_in_child();
        die_with_parent()?;
        nix::unistd::chdir(&plan.cwd)
    });
    let pid = started.map_err(|error| other(&error))?.map_err(|it| exec.start_error(it))?;
    let direct = Direct { child: Child::new(pid), others, over: false };
    Ok(Running::new(Box::new(direct), caught, terminal))
}

fn other(error: &dyn std::fmt::Display) -> StartError {
    StartError::Other(error.to_string())
}

/// Whole files appear at once, since another run's command may be reading them.
fn write_trust(folder: &Path, trust: &Trust) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for (name, bytes) in trust.files() {
        let fresh = folder.join(format!(".{name}.{}", std::process::id()));
        let mut how = std::fs::OpenOptions::new();
        how.write(true).create(true).truncate(true).mode(0o600);
        let written = how.open(&fresh).and_then(|mut file| file.write_all(bytes));
        let placed = written.and_then(|()| std::fs::rename(&fresh, folder.join(name)));
        placed.inspect_err(|_| drop(std::fs::remove_file(&fresh)))?;
    }
    Ok(())
}

/// Our own child, followed without a process in between.
#[derive(Debug)]
struct Direct {
    child: Child,
    /// Children that we had before (a gate we started, say): not the command's.
    others: HashSet<i32>,
    over: bool,
}

impl Direct {
    /// The command's processes that are our children now: itself, and those whose parent died.
    fn family(&self) -> HashSet<i32> {
        children().difference(&self.others).copied().collect()
    }

    fn reap_orphans(&self) {
        for pid in self.family().into_iter().filter(|pid| *pid != self.child.pid().as_raw()) {
            let _ = sys::wait_status(pid, libc::WNOHANG);
        }
    }
}

impl Keeper for Direct {
    fn events(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn changes(&mut self) -> Result<Vec<Change>, Error> {
        let changes = self.child.changes(Reaping::CommandAlone).map_err(wait_error)?;
        self.over = matches!(changes.last(), Some(Change::Ended(_)));
        self.reap_orphans();
        Ok(changes)
    }

    fn forward(&mut self, received: Received) -> Result<(), Error> {
        // What the command's own processes send us they mostly sent to the whole group (`kill 0`
        // in a script): the command has got it too. sudo draws a like line.
        let from_inside = received.sender.is_some_and(descends_from_us);
        if !from_inside || self.child.own_group().is_some() {
            self.child.forward(received.signal);
        }
        Ok(())
    }

    fn confirm_stop(&mut self) -> Result<Option<Change>, Error> {
        if let Some(last) = self.changes()?.pop() {
            return Ok(Some(last));
        }
        self.child.note_terminal();
        Ok(self.child.stopped().map(|signal| Change::StillStopped { signal }))
    }

    fn resume(&mut self, foreground: bool) -> Result<(), Error> {
        self.child.resume(foreground, Reaping::CommandAlone).map(drop).map_err(wait_error)
    }

    fn kill(&mut self) {
        let deadline = Instant::now() + KILL_TIME_MAX;
        self.over = true;
        // Each round kills the topmost layer; what it had started becomes our child by that.
        while Instant::now() < deadline {
            let mut family = self.family();
            if !has_ended(self.child.pid()) {
                family.insert(self.child.pid().as_raw()); // where no list of children is to be had
            }
            if family.is_empty() {
                return;
            }
            for pid in family {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                let _ = sys::wait_status(pid, libc::WNOHANG);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        if !self.over {
            self.kill();
        }
    }
}

/// A process in uninterruptible sleep dies when it can; we do not wait for it longer than this.
const KILL_TIME_MAX: Duration = Duration::from_secs(2);

fn has_ended(pid: Pid) -> bool {
    kill(pid, None) == Err(Errno::ESRCH)
}

#[cfg(target_os = "linux")]
fn keep_orphans() {
    let _ = nix::sys::prctl::set_child_subreaper(true);
}

#[cfg(target_os = "linux")]
fn die_with_parent() -> nix::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
}

/// Whether a process is a descendant of this one. Orphans are, since they become our children.
#[cfg(target_os = "linux")]
fn descends_from_us(mut process: Pid) -> bool {
    for _ in 0..DEPTH_MAX {
        match parent(process) {
            Some(above) if above == Pid::this() => return true,
            Some(above) if above.as_raw() > 1 => process = above,
            _ => return false,
        }
    }
    false
}

/// Process trees are flat; the bound is against one that changes under our eyes.
#[cfg(target_os = "linux")]
const DEPTH_MAX: usize = 256;

/// From `/proc/PID/stat` (`proc(5)`): the parent follows the state, which follows the name, which
/// is in parentheses and may hold some itself.
#[cfg(target_os = "linux")]
fn parent(process: Pid) -> Option<Pid> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let after_name = &stat[stat.rfind(')')? + 1..];
    Some(Pid::from_raw(after_name.split_ascii_whitespace().nth(1)?.parse().ok()?))
}

/// All children of this process.
#[cfg(target_os = "linux")]
fn children() -> HashSet<i32> {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return HashSet::new() };
    let lists = tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_ascii_whitespace().flat_map(str::parse).collect::<Vec<_>>())
        .collect()
}

#[cfg(not(target_os = "linux"))]
fn keep_orphans() {}

#[cfg(not(target_os = "linux"))]
fn die_with_parent() -> nix::Result<()> {
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn descends_from_us(_process: Pid) -> bool {
    false
}

#[cfg(not(target_os = "linux"))]
fn children() -> HashSet<i32> {
    HashSet::new()
}
