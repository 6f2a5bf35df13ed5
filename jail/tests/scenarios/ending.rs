//! Who dies when.

use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Child;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Scenario;
use crate::run::{GATE_LOST, OWN_FAILURE};
use crate::support::{Caller, Home, gate_socket, line, piped, processes_with, wait_until};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("ending::orphans_are_reaped", orphans_are_reaped),
    ("ending::what_is_left_behind_dies", what_is_left_behind_dies),
    ("ending::the_jail_dies_with_its_run", the_jail_dies_with_its_run),
    ("ending::the_jail_dies_with_its_gate", the_jail_dies_with_its_gate),
    ("ending::a_jail_that_is_not_used_is_taken_down", an_unused_jail_is_taken_down),
    ("ending::a_lost_first_process_is_told", a_lost_first_process_is_told),
    ("ending::a_closed_stream_ends_for_its_reader", a_closed_stream_ends_for_its_reader),
];

/// A word that no other process has in its command line.
fn mark(home: &Home) -> String {
    let name = home.path().file_name().unwrap().to_string_lossy().into_owned();
    format!("marked-{name}")
}

/// A script whose processes carry a mark that neither the run nor its first process has.
fn marked_sleep(home: &Home) -> String {
    let mark = mark(home);
    let (head, tail) = mark.split_at(4);
    format!("bash -c 'exec -a {head}\"\"{tail} sleep 100'")
}

fn orphans_are_reaped(caller: Caller) {
    let out = Home::new(caller).script(
        "for i in 1 2 3 4 5; do (sleep 0.0$i & ) ; done; sleep 0.3
         grep -l '^State:.Z' /proc/[0-9]*/status | wc -l",
    );
    assert_eq!(out.ok(), "0");
}

fn what_is_left_behind_dies(caller: Caller) {
    let home = Home::new(caller);
    let script = format!("setsid nohup {} >/dev/null 2>&1 & sleep 0.2", marked_sleep(&home));
    home.script(&script).ok();
    assert_eq!(processes_with(&mark(&home)), 0);
}

fn the_jail_dies_with_its_run(caller: Caller) {
    let home = Home::new(caller);
    let script = format!("echo up; {} & wait", marked_sleep(&home));
    let mut run = piped(&mut home.command(&[], &["bash", "-c", &script]));
    assert_eq!(line(run.stdout.as_mut().unwrap()), "up");
    wait_until("the command runs", || processes_with(&mark(&home)) == 1);
    run.kill().unwrap();
    assert_eq!(run.wait().unwrap().signal(), Some(libc::SIGKILL));
    wait_until("the command is dead", || processes_with(&mark(&home)) == 0);
}

fn the_jail_dies_with_its_gate(caller: Caller) {
    let home = Home::new(caller);
    let (gate, setting) = gate_socket(&home);
    let script = format!("trap '' TERM HUP INT; echo up; {} & wait", marked_sleep(&home));
    let mut run = piped(&mut home.command(&[&setting], &["bash", "-c", &script]));
    let (mut end, _) = gate.accept().unwrap();
    assert_eq!(line(run.stdout.as_mut().unwrap()), "up");
    // Words of the gate are not its end.
    std::io::Write::write_all(&mut end, b"hello").unwrap();
    wait_until("the command runs", || processes_with(&mark(&home)) == 1);
    assert_eq!(run.try_wait().unwrap(), None);
    drop(end);
    assert_eq!(run.wait().unwrap().code(), Some(GATE_LOST));
    assert_eq!(processes_with(&mark(&home)), 0);
}

fn an_unused_jail_is_taken_down(caller: Caller) {
    let home = Home::new(caller);
    let output = home.command(&["leave=1"], &["true"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(processes_with(&home.path().display().to_string()), 0);
}

fn a_lost_first_process_is_told(caller: Caller) {
    let home = Home::new(caller);
    let mut run = piped(&mut home.command(&[], &["sh", "-c", "echo up; exec sleep 100"]));
    assert_eq!(line(run.stdout.as_mut().unwrap()), "up");
    let children = format!("/proc/{0}/task/{0}/children", run.id());
    let first = std::fs::read_to_string(children).unwrap().trim().parse().unwrap();
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(OWN_FAILURE));
    assert_eq!(output.stderr, b"agent-gate: the jail's first process is gone\n");
}

/// The first process must not hold the command's output open.
fn a_closed_stream_ends_for_its_reader(caller: Caller) {
    let home = Home::new(caller);
    let mut run = piped(&mut home.command(&[], &["sh", "-c", "echo up; exec sleep 100 2>&-"]));
    assert_eq!(line(run.stdout.as_mut().unwrap()), "up");
    // Of all the run's processes only the run itself still has the pipe.
    let pipe = stderr_of(&run);
    wait_until("the first process let go", || holders(&pipe) == 1);
    kill(Pid::from_raw(i32::try_from(run.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(128 + libc::SIGTERM));
}

fn stderr_of(run: &Child) -> PathBuf {
    let ours = run.stderr.as_ref().unwrap().as_raw_fd();
    std::fs::read_link(format!("/proc/self/fd/{ours}")).unwrap()
}

/// Processes that have a pipe as their stderr.
fn holders(pipe: &Path) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let links = entries.filter_map(|entry| std::fs::read_link(entry.path().join("fd/2")).ok());
    links.filter(|link| link == pipe).count()
}
