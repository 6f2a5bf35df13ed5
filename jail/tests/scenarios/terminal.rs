//! Signals, job control, and a terminal as if agent-gate were not there.

use std::os::unix::process::CommandExt;
use std::process::Child;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::Scenario;
use crate::support::{Caller, Home, OnTerminal, line, piped, processes_with, wait_until};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("terminal::a_signal_to_the_run_is_the_commands", a_signal_to_the_run_is_the_commands),
    ("terminal::a_signal_to_the_group_comes_once", a_signal_to_the_group_comes_once),
    ("terminal::ctrl_c_ends_a_plain_command", ctrl_c_ends_a_plain_command),
    ("terminal::ctrl_c_is_for_the_command_to_decide", ctrl_c_is_for_the_command_to_decide),
    ("terminal::ctrl_z_and_fg", ctrl_z_and_fg),
    ("terminal::bg_and_kill", bg_and_kill),
    ("terminal::a_command_that_stops_its_group", a_command_that_stops_its_group),
    ("terminal::raw_mode_sees_the_keys", raw_mode_sees_the_keys),
    ("terminal::the_window_size_arrives", the_window_size_arrives),
    ("terminal::an_interactive_shell_inside", an_interactive_shell_inside),
    ("terminal::a_pipeline_is_one_job", a_pipeline_is_one_job),
    ("terminal::modes_come_back_after_a_kill", modes_come_back_after_a_kill),
    ("terminal::hanging_up_ends_the_jail", hanging_up_ends_the_jail),
    ("terminal::ctrl_z_and_fg_unconfined", ctrl_z_and_fg_unconfined),
    ("terminal::an_interactive_shell_unconfined", an_interactive_shell_unconfined),
];

fn pid(run: &Child) -> Pid {
    Pid::from_raw(i32::try_from(run.id()).unwrap())
}

fn a_signal_to_the_run_is_the_commands(caller: Caller) {
    let home = Home::new(caller);
    let script = "for s in HUP INT QUIT TERM USR1 USR2 WINCH; do trap \"echo $s\" $s; done
                  trap 'exit 5' USR2; echo up; while :; do sleep 0.05; done";
    let mut run = piped(&mut home.command(&[], &["bash", "-c", script]));
    let mut out = run.stdout.take().unwrap();
    assert_eq!(line(&mut out), "up");
    for (signal, name) in [
        (Signal::SIGHUP, "HUP"),
        (Signal::SIGINT, "INT"),
        (Signal::SIGQUIT, "QUIT"),
        (Signal::SIGTERM, "TERM"),
        (Signal::SIGUSR1, "USR1"),
        (Signal::SIGWINCH, "WINCH"),
    ] {
        kill(pid(&run), signal).unwrap();
        assert_eq!(line(&mut out), name);
    }
    kill(pid(&run), Signal::SIGUSR2).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(5));
}

/// A shell's `kill %1` goes to the whole group; so does `kill 0` in a script inside.
fn a_signal_to_the_group_comes_once(caller: Caller) {
    let home = Home::new(caller);
    let script = "trap 'echo term' TERM; trap 'echo usr1' USR1; trap 'exit 0' USR2; echo up
                  kill -USR1 0
                  while :; do sleep 0.05; done";
    let mut command = home.command(&[], &["bash", "-c", script]);
    let mut run = piped(command.process_group(0));
    let mut out = run.stdout.take().unwrap();
    assert_eq!(line(&mut out), "up");
    assert_eq!(line(&mut out), "usr1");
    killpg(pid(&run), Signal::SIGTERM).unwrap();
    assert_eq!(line(&mut out), "term");
    // Nothing more is on its way: the next thing that is heard is the end.
    std::thread::sleep(std::time::Duration::from_millis(300));
    kill(pid(&run), Signal::SIGUSR2).unwrap();
    assert_eq!(line(&mut out), "");
    assert_eq!(run.wait().unwrap().code(), Some(0));
}

/// An outer shell with a run of `command` as its job.
fn shell_with(home: &Home, settings: &[&str], command: &[&str]) -> OnTerminal {
    let mut shell = home.on_terminal(&["bash", "--norc", "--noediting", "-i"]);
    shell.type_in("stty -echo; PS1='READY''> '\n");
    shell.expect("READY> ");
    shell.type_in(&job(home, settings, command));
    shell
}

fn job(home: &Home, settings: &[&str], command: &[&str]) -> String {
    let words = home.words(settings, command);
    let quoted: Vec<_> =
        words.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect();
    quoted.join(" ") + "\n"
}

fn leave(mut shell: OnTerminal) {
    shell.type_in("exit 0\n");
    assert_eq!(shell.exit_code(), Some(0));
}

fn ctrl_c_ends_a_plain_command(caller: Caller) {
    let home = Home::new(caller);
    let mut shell = shell_with(&home, &[], &["sh", "-c", "echo up; exec sleep 100"]);
    shell.expect("up");
    shell.type_in("\x03");
    shell.expect("READY> ");
    shell.type_in("echo code $?\n");
    shell.expect("code 130");
    leave(shell);
}

fn ctrl_c_is_for_the_command_to_decide(caller: Caller) {
    let home = Home::new(caller);
    let script = "n=0; told=0; trap 'n=$((n+1))' INT; echo up
                  while sleep 0.05 || :; do
                      now=$n; [ $now = $told ] || echo int $now; told=$now
                      [ $now = 2 ] && exit 3
                  done";
    let mut shell = shell_with(&home, &[], &["bash", "-c", script]);
    shell.expect("up");
    shell.type_in("\x03");
    shell.expect("int 1");
    shell.type_in("\x03");
    shell.expect("int 2");
    shell.expect("READY> ");
    shell.type_in("echo code $?\n");
    shell.expect("code 3");
    leave(shell);
}

/// Tells how often it was continued, outside the trap: bash forgets a signal that comes while it
/// runs the trap of the same one. Ends with what it reads once there is a file `stop`.
const COUNTING: &str = "n=0; told=0; trap 'n=$((n+1))' CONT; echo up
    until [ -e stop ]; do
        sleep 0.05; now=$n; [ $now = $told ] || echo continued $now; told=$now
    done; read -r word; echo got $word; exit 4";

fn ctrl_z_and_fg(caller: Caller) {
    stop_and_continue(&Home::new(caller), &[]);
}

fn ctrl_z_and_fg_unconfined(caller: Caller) {
    stop_and_continue(&Home::new(caller), &["unconfined=1"]);
}

fn stop_and_continue(home: &Home, settings: &[&str]) {
    let mut shell = shell_with(home, settings, &["bash", "-c", COUNTING]);
    shell.expect("up");
    for times in 1..=3 {
        shell.type_in("\x1a");
        shell.expect("Stopped");
        shell.expect("READY> ");
        shell.type_in("echo code $?\n");
        shell.expect("code 148"); // 128 + SIGTSTP, as of any job
        shell.type_in("fg\n");
        shell.expect(&format!("continued {times}"));
    }
    home.write("project/stop", "");
    shell.type_in("hello\n");
    shell.expect("got hello");
    shell.expect("READY> ");
    shell.type_in("echo code $?\n");
    shell.expect("code 4");
    leave(shell);
}

fn bg_and_kill(caller: Caller) {
    let home = Home::new(caller);
    let script = "echo up; while [ ! -e stop ]; do sleep 0.05; done; echo over; read -r x; echo no";
    let mut shell = shell_with(&home, &[], &["bash", "-c", script]);
    shell.expect("up");
    shell.type_in("\x1a");
    shell.expect("Stopped");
    shell.type_in("bg; job=$!; touch stop\n");
    shell.expect("over");
    // It wants to read from the background and is stopped for it.
    shell.type_in("until jobs | grep Stopped; do sleep 0.05; done\n");
    shell.expect("Stopped");
    shell.type_in("kill %1; while kill -0 $job; do sleep 0.05; done; echo\n");
    shell.expect("Exit 143");
    leave(shell);
}

/// As vim does on Ctrl-Z: it stops itself and all in its group, us too.
fn a_command_that_stops_its_group(caller: Caller) {
    let home = Home::new(caller);
    for stop in ["TSTP", "STOP"] {
        let script = format!("echo up; kill -{stop} 0; echo back; read -r word; echo got $word");
        let mut shell = shell_with(&home, &[], &["bash", "-c", &script]);
        shell.expect("up");
        shell.expect("Stopped");
        shell.expect("READY> ");
        shell.type_in("fg\n");
        shell.expect("back");
        shell.type_in("hello\n");
        shell.expect("got hello");
        shell.expect("READY> ");
        leave(shell);
    }
}

fn raw_mode_sees_the_keys(caller: Caller) {
    let home = Home::new(caller);
    let script = "stty raw -echo; echo up; head -c3 | od -An -tx1; stty sane; echo over";
    let mut shell = shell_with(&home, &[], &["bash", "-c", script]);
    shell.expect("up");
    shell.type_in("\x03\x1a\x1c");
    shell.expect("03 1a 1c");
    shell.expect("over");
    shell.expect("READY> ");
    leave(shell);
}

fn the_window_size_arrives(caller: Caller) {
    let home = Home::new(caller);
    let script = "trap 'stty size' WINCH; echo up; while :; do sleep 0.05; done";
    let mut shell = shell_with(&home, &[], &["sh", "-c", script]);
    shell.expect("up");
    // Rows and columns may arrive as two changes.
    shell.resize(33, 77);
    shell.expect("33 77");
    shell.type_in("\x03");
    shell.expect("READY> ");
    leave(shell);
}

fn an_interactive_shell_inside(caller: Caller) {
    interactive_shell(&Home::new(caller), &[]);
}

fn an_interactive_shell_unconfined(caller: Caller) {
    interactive_shell(&Home::new(caller), &["unconfined=1"]);
}

/// It makes a group of its own, takes the terminal, and has jobs of its own; when it ends, the
/// outer shell has the terminal again.
fn interactive_shell(home: &Home, settings: &[&str]) {
    let mut shell = shell_with(home, settings, &["bash", "--norc", "--noediting", "-i"]);
    shell.type_in("PS1='INNER''> '\n");
    shell.expect("INNER> ");
    shell.type_in(&format!("bash -c \"{}\"\n", COUNTING.replace('$', "\\$")));
    shell.expect("up");
    shell.type_in("\x1a");
    shell.expect("Stopped");
    shell.expect("INNER> ");
    shell.type_in("jobs\n");
    shell.expect("Stopped");
    shell.type_in("fg\n");
    shell.expect("continued 1");
    shell.type_in("\x03");
    shell.expect("INNER> ");
    shell.type_in("echo inner $?\n");
    shell.expect("inner 130");
    // The inner shell as a whole can be a stopped job of the outer one.
    shell.type_in("suspend -f\n");
    shell.expect("Stopped");
    shell.expect("READY> ");
    shell.type_in("fg\n");
    shell.expect("bash");
    shell.type_in("echo inner again\n");
    shell.expect("inner again");
    shell.type_in("exit 6\n");
    shell.expect("READY> ");
    shell.type_in("echo code $?; read -r word; echo got $word\n");
    shell.expect("code 6");
    shell.type_in("hello\n");
    shell.expect("got hello");
    leave(shell);
}

fn a_pipeline_is_one_job(caller: Caller) {
    let home = Home::new(caller);
    let mut shell = home.on_terminal(&["bash", "--norc", "--noediting", "-i"]);
    shell.type_in("stty -echo; PS1='READY''> '\n");
    shell.expect("READY> ");
    let job = job(&home, &[], &["bash", "-c", COUNTING]);
    shell.type_in(&format!("{} | cat\n", job.trim_end()));
    shell.expect("up");
    shell.type_in("\x1a");
    shell.expect("Stopped");
    shell.expect("READY> ");
    shell.type_in("fg\n");
    shell.expect("continued 1");
    shell.type_in("\x03");
    shell.expect("READY> ");
    shell.type_in("echo code ${PIPESTATUS[*]}\n");
    shell.expect("code 130");
    leave(shell);
}

fn modes_come_back_after_a_kill(caller: Caller) {
    let home = Home::new(caller);
    // No shell outside: it would put the modes right itself for its next line.
    let inner = job(&home, &[], &["bash", "-c", "stty raw -echo; kill -9 $$"]);
    let script =
        format!("{} ; stty -a | grep -qw -e -icanon && echo raw || echo cooked", inner.trim_end());
    let mut shell = home.on_terminal(&["bash", "-c", &script]);
    shell.expect("cooked");
    assert_eq!(shell.exit_code(), Some(0));
}

fn hanging_up_ends_the_jail(caller: Caller) {
    let home = Home::new(caller);
    let mark = format!("marked-{}", home.path().file_name().unwrap().to_string_lossy());
    let (head, tail) = mark.split_at(4);
    let script = format!("echo up; exec -a {head}\"\"{tail} sleep 100");
    let mut shell = shell_with(&home, &[], &["bash", "-c", &script]);
    shell.expect("up");
    wait_until("it runs", || processes_with(&mark) == 1);
    drop(shell);
    wait_until("it is dead", || processes_with(&mark) == 0);
}
