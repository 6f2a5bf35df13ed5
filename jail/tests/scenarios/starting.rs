//! Environment, descriptors, exit codes, commands that cannot be run.

use std::fs::File;
use std::io::Write;

use crate::Scenario;
use crate::support::{Answer, Caller, Home, piped};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("starting::the_environment_is_the_gates", the_environment_is_the_gates),
    ("starting::a_private_ca_of_the_users_stays", a_private_ca_of_the_users_stays),
    ("starting::inherited_descriptors_are_closed", inherited_descriptors_are_closed),
    ("starting::standard_streams_pass_through", standard_streams_pass_through),
    ("starting::closed_stdin_is_no_trouble", closed_stdin_is_no_trouble),
    ("starting::exit_codes_pass_through", exit_codes_pass_through),
    ("starting::deaths_by_signal_are_told", deaths_by_signal_are_told),
    ("starting::a_missing_command_is_127", a_missing_command_is_127),
    ("starting::what_cannot_be_run_is_126", what_cannot_be_run_is_126),
    ("starting::a_script_without_interpreter_line_runs", a_script_without_interpreter_line_runs),
    ("starting::signals_are_as_they_were", signals_are_as_they_were),
];

fn the_environment_is_the_gates(caller: Caller) {
    let home = Home::new(caller);
    let mut command = home.command(&[], &["env"]);
    command.env("https_proxy", "http://elsewhere").env("NO_PROXY", "*").env("KEPT", "yes");
    command.env("AGENT_GATE_X", "elsewhere").env("SSL_CERT_DIR", "/elsewhere");
    let out = Answer::of(&command.output().unwrap()).ok();
    assert!(!out.contains("elsewhere") && !out.contains("AGENT_GATE"), "{out}");
    let trust = home.trust();
    for wanted in [
        "KEPT=yes".to_owned(),
        "https_proxy=http://127.0.0.1:18888".to_owned(),
        "WSS_PROXY=http://127.0.0.1:18888".to_owned(),
        "NO_PROXY=localhost,127.0.0.1,::1".to_owned(),
        format!("NODE_EXTRA_CA_CERTS={}", trust.join("ca.pem").display()),
        format!("SSL_CERT_FILE={}", trust.join("bundle.pem").display()),
        format!("GIT_SSL_CAINFO={}", trust.join("bundle.pem").display()),
    ] {
        assert!(out.lines().any(|line| line == wanted), "{wanted} in {out}");
    }
    assert!(!out.contains("JAVA_TOOL_OPTIONS"), "{out}");
}

fn a_private_ca_of_the_users_stays(caller: Caller) {
    let home = Home::new(caller);
    let own = "-----BEGIN CERTIFICATE-----\nMAl0aGVpciBvd24=\n-----END CERTIFICATE-----\n";
    home.write("own.pem", own);
    let mut command =
        home.command(&[], &["sh", "-c", "cat $NODE_EXTRA_CA_CERTS; echo; tail -n4 $SSL_CERT_FILE"]);
    command.env("NODE_EXTRA_CA_CERTS", home.path().join("own.pem"));
    let out = Answer::of(&command.output().unwrap()).ok();
    assert_eq!(out.matches("MAl0aGVpciBvd24=").count(), 2, "{out}");
    assert!(out.matches("MA9hZ2VudC1nYXRlIHRlc3Q=").count() >= 1, "{out}");
}

fn inherited_descriptors_are_closed(caller: Caller) {
    let home = Home::new(caller);
    let held = File::open("/etc/passwd").unwrap();
    let held = nix::unistd::dup(&held).unwrap(); // without close-on-exec
    let out = home.script("ls /proc/self/fd | tr '\\n' ' '").ok();
    drop(held);
    assert_eq!(out, "0 1 2 3"); // 3 is ls itself, reading the folder
}

fn standard_streams_pass_through(caller: Caller) {
    let home = Home::new(caller);
    let mut child = piped(&mut home.command(&[], &["sh", "-c", "cat; echo error >&2"]));
    let text = "line\n".repeat(100_000);
    let mut stdin = child.stdin.take().unwrap();
    let writer = {
        let text = text.clone();
        std::thread::spawn(move || stdin.write_all(text.as_bytes()).unwrap())
    };
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert_eq!(output.stdout, text.as_bytes());
    assert_eq!(output.stderr, b"error\n");
}

fn closed_stdin_is_no_trouble(caller: Caller) {
    let home = Home::new(caller);
    let words = home.words(&[], &["sh", "-c", "cat; echo done"]);
    let output = home.prepare_shell(&format!("'{}' <&-", words.join("' '"))).output().unwrap();
    assert_eq!(Answer::of(&output).ok(), "done");
}

fn exit_codes_pass_through(caller: Caller) {
    let home = Home::new(caller);
    for code in [0, 1, 42, 125, 255] {
        assert_eq!(home.script(&format!("exit {code}")).code, Some(code));
    }
}

fn deaths_by_signal_are_told(caller: Caller) {
    let home = Home::new(caller);
    for signal in [9, 11, 15, 34] {
        let answer = home.script(&format!("ulimit -c 0; kill -{signal} $$; sleep 5"));
        assert_eq!(answer.code, Some(128 + signal));
    }
}

fn a_missing_command_is_127(caller: Caller) {
    let home = Home::new(caller);
    for name in ["no-such-command", "./no-such-file", "/no/such/path", ""] {
        let output = home.command(&[], &[name]).output().unwrap();
        assert_eq!(output.status.code(), Some(127), "{name}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(said, format!("agent-gate: {name}: command not found\n"));
    }
}

fn what_cannot_be_run_is_126(caller: Caller) {
    let home = Home::new(caller);
    home.executable("project/orphan", "#!/no/such/interpreter\n");
    for name in ["/etc", "./file.txt", "./orphan"] {
        let output = home.command(&[], &[name]).output().unwrap();
        assert_eq!(output.status.code(), Some(126), "{name}");
        assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1);
    }
}

fn a_script_without_interpreter_line_runs(caller: Caller) {
    let home = Home::new(caller);
    home.executable("project/plain", "echo \"plain $1\"\n");
    let output = home.command(&[], &["./plain", "word"]).output().unwrap();
    assert_eq!(Answer::of(&output).ok(), "plain word");
}

/// Nothing blocked, nothing ignored but what the caller's own caller had ignored.
fn signals_are_as_they_were(caller: Caller) {
    let home = Home::new(caller);
    let status = ["grep", "-E", "^Sig(Blk|Ign|Cgt)", "/proc/self/status"];
    let inside = Answer::of(&home.command(&[], &status).output().unwrap()).ok();
    let script = "grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status";
    let outside = Answer::of(&home.prepare_shell(script).output().unwrap()).ok();
    assert_eq!(classic(&inside), classic(&outside));

    let words = home.words(&[], &["grep", "SigIgn", "/proc/self/status"]);
    let script = format!("trap '' HUP; exec '{}'", words.join("' '"));
    let output = home.prepare_shell(&script).output().unwrap();
    let ignored = Answer::of(&output).ok();
    assert!(ignored.ends_with('1'), "{ignored}"); // SIGHUP is the first
}

/// The masks of signals 1 to 31. The two after them are the C library's, which ignores them or not
/// depending on how it started a process.
fn classic(status: &str) -> Vec<u64> {
    let masks = status.lines().map(|line| line.split_once('\t').unwrap().1);
    masks.map(|mask| u64::from_str_radix(mask, 16).unwrap() & 0x7fff_ffff).collect()
}
