//! The same without a jail: environment, codes, signals, the gate's death.

use std::os::unix::process::CommandExt;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Scenario;
use crate::run::GATE_LOST;
use crate::support::{Answer, Caller, Home, gate_socket, line, piped, processes_with, wait_until};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("unconfined::environment_and_trust_files", environment_and_trust_files),
    ("unconfined::codes_pass_through", codes_pass_through),
    ("unconfined::signals_go_to_the_command", signals_go_to_the_command),
    ("unconfined::the_command_dies_with_its_gate", the_command_dies_with_its_gate),
    ("unconfined::the_command_dies_with_its_run", the_command_dies_with_its_run),
];

fn environment_and_trust_files(caller: Caller) {
    let home = Home::new(caller);
    let script = "echo $https_proxy; cat $NODE_EXTRA_CA_CERTS; ls ${SSL_CERT_FILE%/*}; \
                  echo $JAVA_TOOL_OPTIONS; ls ~/.config/agent-gate";
    let out = home.command(&["unconfined=1"], &["sh", "-c", script]).output().unwrap();
    let out = Answer::of(&out).ok();
    assert!(out.starts_with("http://127.0.0.1:18888\n-----BEGIN"), "{out}");
    assert!(out.contains("bundle.pem\nca.pem\ntruststore.jks\n"), "{out}");
    assert!(out.contains("-Dhttps.proxyPort=18888"), "{out}");
    assert!(out.ends_with("allowlist.txt"), "{out}"); // nothing is hidden
}

fn codes_pass_through(caller: Caller) {
    let home = Home::new(caller);
    let code =
        |command: &[&str]| home.command(&["unconfined=1"], command).output().unwrap().status.code();
    assert_eq!(code(&["sh", "-c", "exit 42"]), Some(42));
    assert_eq!(code(&["sh", "-c", "kill -9 $$"]), Some(137));
    assert_eq!(code(&["no-such-command"]), Some(127));
    assert_eq!(code(&["/etc"]), Some(126));
}

fn signals_go_to_the_command(caller: Caller) {
    let home = Home::new(caller);
    let script = "trap 'echo usr1' USR1; trap 'echo caught; exit 7' TERM; echo up; kill -USR1 0
                  while :; do sleep 0.05; done";
    let mut command = home.command(&["unconfined=1"], &["bash", "-c", script]);
    let mut run = piped(command.process_group(0));
    assert_eq!(line(run.stdout.as_mut().unwrap()), "up");
    assert_eq!(line(run.stdout.as_mut().unwrap()), "usr1"); // once: it sent it to its own group
    kill(Pid::from_raw(i32::try_from(run.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(line(run.stdout.as_mut().unwrap()), "caught");
    assert_eq!(run.wait().unwrap().code(), Some(7));
}

/// Also what the command had started and left alone.
fn the_command_dies_with_its_gate(caller: Caller) {
    let home = Home::new(caller);
    let (gate, setting) = gate_socket(&home);
    let mark = format!("marked-{}", home.path().file_name().unwrap().to_string_lossy());
    let (head, tail) = mark.split_at(4);
    let sleep = format!("setsid bash -c 'trap \"\" TERM; exec -a {head}\"\"{tail} sleep 100'");
    let script = format!("({sleep} & ); {sleep} & echo up; wait");
    let mut run = piped(&mut home.command(&["unconfined=1", &setting], &["bash", "-c", &script]));
    let (end, _) = gate.accept().unwrap();
    assert_eq!(line(run.stdout.as_mut().unwrap()), "up");
    wait_until("both run", || processes_with(&mark) == 2);
    drop(end);
    assert_eq!(run.wait().unwrap().code(), Some(GATE_LOST));
    assert_eq!(processes_with(&mark), 0);
}

fn the_command_dies_with_its_run(caller: Caller) {
    let home = Home::new(caller);
    let mark = format!("marked-{}", home.path().file_name().unwrap().to_string_lossy());
    let (head, tail) = mark.split_at(4);
    let script = format!("echo up; exec -a {head}\"\"{tail} sleep 100");
    let mut run = piped(&mut home.command(&["unconfined=1"], &["bash", "-c", &script]));
    assert_eq!(line(run.stdout.as_mut().unwrap()), "up");
    wait_until("it runs", || processes_with(&mark) == 1);
    run.kill().unwrap();
    run.wait().unwrap();
    wait_until("it is dead", || processes_with(&mark) == 0);
}
