//! The jail seen from outside, as the user who runs the tests and, if that is root, as an ordinary
//! user too. Table of contents:
//!
//! - `network`: every address is the gate's, none is the world's
//! - `files`: what is hidden, what is laid over, what root must not write
//! - `privileges`: who the command is and what it may do
//! - `starting`: environment, descriptors, exit codes, commands that cannot be run
//! - `ending`: who dies when
//! - `terminal`: signals, job control, a terminal as if agent-gate were not there
//! - `unconfined`: the same without a jail
//!
//! [`run`] is the other half: this binary executes itself to stand in for `agent-gate run`.
// The whole file is test code; without the library's harness clippy cannot see that.
#![allow(clippy::unwrap_used, missing_docs)]

#[cfg(target_os = "linux")]
mod ending;
#[cfg(target_os = "linux")]
mod files;
#[cfg(target_os = "linux")]
mod network;
#[cfg(target_os = "linux")]
mod privileges;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
mod starting;
#[cfg(target_os = "linux")]
mod support;
#[cfg(target_os = "linux")]
mod terminal;
#[cfg(target_os = "linux")]
mod unconfined;

#[cfg(target_os = "linux")]
use libtest_mimic::{Arguments, Trial};

#[cfg(target_os = "linux")]
use support::Caller;

#[cfg(target_os = "linux")]
fn main() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == run::MARK) {
        run::main(&arguments.collect::<Vec<_>>());
    }
    with_default_signals();
    let _ = support::binary();
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials());
    support::clean_up();
    conclusion.exit();
}

/// Whoever starts the tests in the background ignores SIGINT, and whoever uses `nohup` SIGHUP;
/// jails keep to what they inherit, so the scenarios must not inherit that. Starts this program
/// over if so.
#[cfg(target_os = "linux")]
fn with_default_signals() {
    use std::os::unix::process::CommandExt;
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
    // SIGHUP, SIGINT and SIGQUIT; Rust itself ignores SIGPIPE.
    if ignored & 0b111 != 0 {
        let mut again = std::process::Command::new("env");
        again.arg("--default-signal=HUP,INT,QUIT").arg(std::env::current_exe().unwrap());
        panic!("cannot start over: {}", again.args(std::env::args_os().skip(1)).exec());
    }
}

/// A scenario gets its caller, and panics if the jail does not keep its word.
#[cfg(target_os = "linux")]
type Scenario = (&'static str, fn(Caller));

#[cfg(target_os = "linux")]
fn trials() -> Vec<Trial> {
    let all: [&[Scenario]; 7] = [
        network::SCENARIOS,
        files::SCENARIOS,
        privileges::SCENARIOS,
        starting::SCENARIOS,
        ending::SCENARIOS,
        terminal::SCENARIOS,
        unconfined::SCENARIOS,
    ];
    let mut trials = Vec::new();
    for caller in Caller::all() {
        for (name, scenario) in all.into_iter().flatten().copied() {
            trials.push(Trial::test(format!("{name} as {caller}"), move || {
                scenario(caller);
                Ok(())
            }));
        }
    }
    trials
}

/// There is no other jail yet.
#[cfg(not(target_os = "linux"))]
fn main() {}
