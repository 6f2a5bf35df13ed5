//! A run in a shell on a terminal behaves as the command itself would: it reads what is typed, stops
//! and goes on, is interrupted, and learns of the window's size.

use crate::support::bench::{AGENT_GATE, Bench};
use crate::support::pseudo_terminal::Shell;

const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const CTRL_Z: &str = "\x1a";
const CTRL_BACKSLASH: &str = "\x1c";

/// Types a run and waits until the jailed command says that it is up.
fn run(shell: &mut Shell, script: &str) {
    shell.type_in(&format!("{AGENT_GATE} run -- sh -c 'echo u''p; {script}'\n"));
    shell.expect("up\r\n");
}

#[test]
fn typing_stopping_and_going_on() {
    let bench = Bench::new();
    let mut shell = Shell::start(&bench);
    run(&mut shell, "exec cat");
    shell.type_in("one\n");
    // Once by the terminal's echo, once by cat.
    shell.expect("one\r\none\r\n");
    shell.type_in(CTRL_Z);
    shell.expect("Stopped");
    shell.expect("ready> ");
    shell.type_in("fg\n");
    // The shell says what it continues.
    shell.expect("exec cat'\r\n");
    shell.type_in("two\n");
    shell.expect("two\r\ntwo\r\n");
    shell.type_in(CTRL_D);
    shell.expect("ready> ");
    shell.type_in("echo code $?\n");
    shell.expect("code 0\r\n");
}

#[test]
fn interrupting() {
    let bench = Bench::new();
    let mut shell = Shell::start(&bench);
    for (key, code) in [(CTRL_C, 130), (CTRL_BACKSLASH, 131)] {
        run(&mut shell, "exec sleep 600");
        shell.type_in(key);
        shell.expect("ready> ");
        shell.type_in("echo code $?\n");
        shell.expect(&format!("code {code}\r\n"));
    }
}

/// A command that handles Ctrl-C itself, as agents do, goes on.
#[test]
fn an_interrupt_is_the_commands_own_affair() {
    let bench = Bench::new();
    let mut shell = Shell::start(&bench);
    run(&mut shell, "trap \"echo caught\" INT; echo armed; while :; do sleep 0.1; done");
    shell.expect("armed\r\n");
    shell.type_in(CTRL_C);
    shell.expect("caught\r\n");
    shell.type_in(CTRL_C);
    shell.expect("caught\r\n");
    shell.type_in(CTRL_BACKSLASH);
    shell.expect("ready> ");
}

#[test]
fn the_windows_size() {
    let bench = Bench::new();
    let mut shell = Shell::start(&bench);
    shell.resize(33, 77);
    run(
        &mut shell,
        "stty size; trap \"stty size\" WINCH; echo watching; while :; do sleep 0.1; done",
    );
    shell.expect("33 77\r\n");
    shell.expect("watching\r\n");
    shell.resize(44, 99);
    shell.expect("44 99\r\n");
    shell.type_in(CTRL_C);
    shell.expect("ready> ");
}

/// The terminal's settings are what they were, also when the command left them otherwise and was
/// killed; and `run` in a pipeline stops and ends with it.
#[test]
fn full_screen_programs_and_pipelines() {
    let bench = Bench::new();
    let mut shell = Shell::start(&bench);
    run(&mut shell, "stty raw -echo; exec head -c 1");
    shell.type_in("\r");
    shell.expect("ready> ");
    shell.type_in("stty sane\n");
    shell.expect("ready> ");
    shell.type_in(&format!("echo through | {AGENT_GATE} run -- cat | tr a-z A-Z\n"));
    shell.expect("THROUGH\r\n");
    shell.expect("ready> ");
}
