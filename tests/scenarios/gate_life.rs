//! One gate for any number of runs: who starts it, who replaces it, when it ends, and what becomes
//! of a run whose gate, or of a jail whose run, dies.

use std::os::unix::net::UnixListener;

use nix::sys::signal::Signal;

use crate::support::bench::{Bench, Settings, Started};
use crate::support::journal::compare;
use crate::support::processes;
use crate::support::wait_for;

/// Twenty runs at once on a cold machine end with exactly one gate, which has all of them.
#[test]
fn twenty_runs_at_once() {
    let bench = Bench::new();
    let runs: Vec<_> = (0..20)
        .map(|n| {
            let url = format!("https://cold.test/?n={n}");
            Started::new(bench.run_command(&[], &["curl", "-sSf", &url]))
        })
        .collect();
    for run in runs {
        assert_eq!(run.finish().ok().text(), "hello from the origin\n");
    }
    assert_eq!(bench.gate_processes().len(), 1, "{:#?}", bench.gate_processes());
    assert_eq!(bench.gate_processes()[0].pid, bench.running_gate());
    assert_eq!(compare(&bench.journal(), &bench.origin), 20);
    assert_eq!(bench.journal().of_type("run").len(), 20);
    bench.journal().check_chain();
}

/// While one run is at work, a second attaches to its gate.
#[test]
fn a_second_run_attaches() {
    let bench = Bench::with(Settings { linger_seconds: 0, ..Settings::default() });
    let first = bench.hold_a_run();
    let gate = bench.running_gate();
    bench.run_sh("curl -sSf https://second.test/").ok();
    assert_eq!(bench.running_gate(), gate);
    first.finish().ok();
    let ids: Vec<_> = bench.journal().of_type("run").iter().map(|r| r["id"].clone()).collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(bench.journal().ended(1)[0].request["run"], ids[1], "each run has its exchanges");
}

/// After the last run the gate stays for its linger, and then ends by itself.
#[test]
fn the_gate_ends_after_its_linger() {
    let bench = Bench::with(Settings { linger_seconds: 1, ..Settings::default() });
    bench.run(&["true"]).ok();
    let gate = bench.gate();
    wait_for("the gate to end by itself", || bench.gate_processes().is_empty().then_some(()));
    bench.run(&["true"]).ok();
    assert_ne!(bench.gate(), gate, "a new gate");
    assert_eq!(bench.journal().of_type("run").len(), 2);
}

/// A socket that nobody listens on any more is replaced.
#[test]
fn a_stale_socket() {
    let bench = Bench::new();
    bench.run(&["true"]).ok();
    bench.stop_gate();
    let socket = bench.data_dir().join("control.sock");
    drop(std::fs::remove_file(&socket));
    drop(UnixListener::bind(&socket).unwrap());
    assert!(socket.exists(), "a socket without a listener");
    assert_eq!(
        bench.run_sh("curl -sSf https://stale.test/").ok().text(),
        "hello from the origin\n"
    );
}

/// A gate that was killed while no run was attached is replaced without a word.
#[test]
fn a_dead_gate() {
    let bench = Bench::new();
    bench.run(&["true"]).ok();
    let gate = bench.running_gate();
    processes::signal(gate, Signal::SIGKILL);
    wait_for("the gate to be gone", || (!processes::is_alive(gate)).then_some(()));
    bench.run_sh("curl -sSf https://again.test/").ok();
    assert_ne!(bench.running_gate(), gate);
    bench.journal().check_chain();
}

/// The gate is told to end while a run is at work: the run ends with it and says why.
#[test]
fn a_gate_that_ends_ends_its_runs() {
    let bench = Bench::new();
    let run = Started::new(bench.run_command(&[], &["sleep", "986"]));
    wait_for("the run to attach", || (bench.journal().of_type("run").len() == 1).then_some(()));
    bench.stop_gate();
    let output = run.finish().exits(125);
    assert!(output.own_lines().last().unwrap().contains("gate"), "{output:?}");
}

/// `kill -9` of `agent-gate run` takes its jail with it, and the gate notes that the run was lost.
#[test]
fn a_killed_run_takes_its_jail_along() {
    let bench = Bench::new();
    let script = "echo up >up; setsid sleep 985 & exec sleep 985";
    let run = Started::new(bench.run_command(&[], &["sh", "-c", script]));
    wait_for("the jailed command", || bench.work().join("up").exists().then_some(()));
    processes::signal(run.pid(), Signal::SIGKILL);
    wait_for("the jail to be gone", || {
        let left = processes::touching(bench.root());
        (!left.iter().any(|p| p.command.contains("sleep 985"))).then_some(())
    });
    drop(run.finish());
    let end = bench.journal().wait_for("run_end", |_| true);
    assert!(end.get("status").is_none() || end["status"].is_null(), "{end}");
}
