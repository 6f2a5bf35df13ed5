//! Finding the processes that a bench started, however far they have detached themselves, and
//! ending them by their ids.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// One process that has to do with a bench.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) command: String,
}

/// Processes that carry `root` in their environment or command line, or hold a file below it open.
/// A bench's folder has a name of its own, so nobody else's process is among them.
pub(crate) fn touching(root: &Path) -> Vec<Process> {
    let me = std::process::id().cast_signed();
    all_pids()
        .filter(|pid| *pid != me && touches(*pid, root))
        .map(|pid| Process { pid, command: command_of(pid) })
        .collect()
}

fn all_pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn touches(pid: i32, root: &Path) -> bool {
    let root = root.to_str().expect("a UTF-8 temporary folder");
    ["environ", "cmdline"].iter().any(|file| {
        let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).contains(root)
    }) || holds_open(pid, root)
}

fn holds_open(pid: i32, root: &str) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors
        .filter_map(|d| fs::read_link(d.ok()?.path()).ok())
        .any(|target| target.starts_with(root))
}

pub(crate) fn command_of(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ").trim_end().to_owned()
}

/// Whether it runs; a zombie that nobody has reaped yet does not.
pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state stands behind the command's name, which may contain anything but is in brackets.
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// The process that holds a `flock` on this file.
pub(crate) fn lock_holder(file: &Path) -> Option<i32> {
    let inode = fs::metadata(file).ok()?.ino().to_string();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    // "1: FLOCK  ADVISORY  WRITE 4711 08:01:1234 0 EOF"; waiting ones have "->" before the kind.
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let kind = words.next()?;
        let (pid, place) = (words.nth(2)?, words.next()?);
        let same = place.rsplit(':').next() == Some(&inode[..]);
        (kind == "FLOCK" && same).then(|| pid.parse().ok())?
    })
}

pub(crate) fn signal(pid: i32, signal: Signal) {
    // That it is gone already is as good.
    let _ = kill(Pid::from_raw(pid), signal);
}

/// A figure of `/proc/PID/status` in KiB (`VmRSS`, `VmHWM`).
pub(crate) fn status_kib(pid: i32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with(name)).expect("a line of that name");
    line.split_whitespace().nth(1).expect("a figure").parse().unwrap()
}

/// The numbers of the descriptors that a process has open.
pub(crate) fn descriptors(pid: i32) -> Vec<u32> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// The CPU time a process has used so far, user and system, in hundredths of a second.
pub(crate) fn cpu_ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(')').expect("a name in brackets");
    rest.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}
