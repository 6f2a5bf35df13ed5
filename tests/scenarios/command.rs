//! The jailed command as if agent-gate were not there: its exit code, its signals, its input and
//! output, its folder, its user and its environment.

use std::io::Write;
use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::support::bench::{AGENT_GATE, Bench, Started};
use crate::support::content::Noise;
use crate::support::processes;
use crate::support::wait_for;

#[test]
fn exit_codes_pass_through() {
    let bench = Bench::new();
    for (script, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
        // A jailed command's own 125 to 127 are its own.
        ("exit 125", 125),
    ] {
        let output = bench.run_sh(script);
        assert_eq!(output.code(), Some(code), "{script}: {output:?}");
        assert_eq!(output.own_lines().len(), 1, "{script}: {output:?}");
    }
    let ends = wait_for("the end of each run in the journal", || {
        let ends = bench.journal().of_type("run_end");
        (ends.len() == 6).then_some(ends)
    });
    let codes: Vec<_> = ends.iter().map(|e| e["status"].as_i64().expect("a status")).collect();
    assert_eq!(codes, [0, 7, 255, 143, 137, 125]);
}

#[test]
fn no_such_command() {
    let bench = Bench::new();
    for command in ["no-such-command-anywhere", "./not-here"] {
        let output = bench.run(&[command]).exits(127);
        let told = output.own_lines().iter().filter(|l| l.contains(command)).count();
        assert_eq!(told, 1, "{output:?}");
    }
}

#[test]
fn not_executable() {
    let bench = Bench::new();
    std::fs::write(bench.work().join("text"), "just text\n").unwrap();
    std::fs::create_dir(bench.work().join("folder")).unwrap();
    for command in ["./text", "./folder"] {
        let output = bench.run(&[command]).exits(126);
        let told = output.own_lines().iter().filter(|l| l.contains(command)).count();
        assert_eq!(told, 1, "{output:?}");
    }
}

#[test]
fn input_and_output_are_pipes_through() {
    let bench = Bench::new();
    let input = Noise::bytes(21, 3_000_000);
    let mut command = bench.run_command(&[], &["sh", "-c", "cat; echo told >&2"]);
    command.stdin(Stdio::piped());
    let mut run = Started::new(command);
    let mut stdin = run.child.stdin.take().expect("a pipe");
    let copy = input.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&copy));
    let output = run.finish().ok();
    writer.join().unwrap().unwrap();
    assert!(output.stdout == input, "cat changed its input");
    assert!(output.stderr.lines().any(|l| l == "told"), "{output:?}");
}

#[test]
fn one_line_tells_mode_run_and_dashboard() {
    let bench = Bench::new();
    let output = bench.run(&["true"]).ok();
    assert!(output.stdout.is_empty(), "{output:?}");
    let [line] = output.own_lines()[..] else { panic!("{output:?}") };
    let run = bench.journal().of_type("run").remove(0);
    let id = run["id"].as_str().unwrap();
    let port = bench.dashboard_port;
    assert_eq!(
        line,
        format!("agent-gate: airtight · run {id} · dashboard http://127.0.0.1:{port}/")
    );
}

#[test]
fn arguments_folder_user_and_environment_stay() {
    let bench = Bench::new();
    let mut command = bench.run_command(
        &[],
        &[
            "sh",
            "-c",
            "printf '%s|' \"$@\"; pwd; id -u; id -g; echo $MINE",
            "sh",
            "a b",
            "",
            "--",
            "*",
        ],
    );
    command.env("MINE", "kept");
    let output = Started::new(command).finish().ok().text();
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let work = bench.work().canonicalize().unwrap();
    assert_eq!(output, format!("a b||--|*|{}\n{uid}\n{gid}\nkept\n", work.display()));
    let run = bench.journal().of_type("run").remove(0);
    assert_eq!(run["agent"], "sh");
    assert_eq!(run["argv"].as_array().unwrap().len(), 8, "{run}");
    assert_eq!(run["cwd"], work.to_str().unwrap());
}

/// A variable that the caller's shell presets must not lead around the gate or break its trust.
#[test]
fn inherited_proxy_and_trust_variables_are_overridden() {
    let bench = Bench::new();
    let mut command = bench.run_command(&[], &["curl", "-sSf", "https://env.test/"]);
    for (name, value) in [
        ("HTTPS_PROXY", "http://127.0.0.1:1"),
        ("https_proxy", "http://127.0.0.1:1"),
        ("ALL_PROXY", "http://127.0.0.1:1"),
        ("CURL_CA_BUNDLE", "/dev/null"),
        ("SSL_CERT_FILE", "/dev/null"),
        ("NO_PROXY", "*"),
    ] {
        command.env(name, value);
    }
    assert_eq!(Started::new(command).finish().ok().text(), "hello from the origin\n");
}

/// SIGTERM to `agent-gate run` goes to the jailed command, which may end as it likes.
#[test]
fn signals_are_passed_on() {
    let bench = Bench::new();
    let script = "trap 'echo caught; exit 9' TERM; echo ready >ready; while :; do sleep 0.05; done";
    let run = Started::new(bench.run_command(&[], &["sh", "-c", script]));
    wait_for("the trap to be set", || bench.work().join("ready").exists().then_some(()));
    processes::signal(run.pid(), Signal::SIGTERM);
    assert_eq!(run.finish().exits(9).text(), "caught\n");
}

/// What the command leaves running ends with it: the bench looks for it when it is dropped.
#[test]
fn nothing_outlives_its_run() {
    let bench = Bench::new();
    // The left process holds no output of ours, so that only the jail's end can end it.
    bench.run_sh("setsid sleep 987 </dev/null >/dev/null 2>&1 & exit 3").exits(3);
    wait_for("the left process to end", || {
        let left = processes::touching(bench.root());
        (!left.iter().any(|p| p.command.contains("sleep 987"))).then_some(())
    });
}

/// Orphans are reaped inside: no zombie stays.
#[test]
fn orphans_are_reaped() {
    let bench = Bench::new();
    let script = "i=0; while [ $i -lt 20 ]; do (sleep 0.01 &) ; i=$((i+1)); done
        n=1; while [ $n -gt 0 ]; do
            n=$(grep -lE '^State:.[Z]' /proc/[0-9]*/status 2>/dev/null | wc -l); sleep 0.05
        done; ps -A >/dev/null 2>&1; echo none";
    assert_eq!(bench.run_sh(script).ok().text(), "none\n");
}

/// The data and config folders can be chosen, by XDG's variables and by options.
#[test]
fn other_folders() {
    let bench = Bench::new();
    let config = std::fs::read_to_string(bench.config_dir().join("config.toml")).unwrap();
    let by_xdg = bench.path("x");
    std::fs::create_dir_all(by_xdg.join("config/agent-gate")).unwrap();
    // Its gate ends by itself: the bench ends the one of the usual place only.
    let config = config.replace("linger_seconds = 60", "linger_seconds = 0");
    std::fs::write(by_xdg.join("config/agent-gate/config.toml"), &config).unwrap();
    let mut command = bench.run_command(&[], &["true"]);
    command.env("XDG_CONFIG_HOME", by_xdg.join("config")).env("XDG_DATA_HOME", by_xdg.join("data"));
    Started::new(command).finish().ok();
    assert!(by_xdg.join("data/agent-gate/journal").is_dir());

    let mut command = bench.command(AGENT_GATE);
    command.arg("--config-dir").arg(by_xdg.join("config/agent-gate"));
    command.arg("--data-dir").arg(bench.path("d")).args(["run", "--", "true"]);
    Started::new(command).finish().ok();
    assert!(bench.path("d/journal").is_dir());
    assert!(!bench.data_dir().exists());
}
