//! `kill -9` of the gate in the middle of 200 concurrent requests.
//!
//! 1. Four runs keep 50 connections each busy with posts, of which every fourth is held by the
//!    origin, so that some are answered, some are waiting and some are on their way.
//! 2. Once the origin has received 400 requests the gate is killed.
//! 3. Every run ends with 125 and a line that says why; nothing of them is left.
//! 4. Every request that the origin received completely is in the journal with its whole body.
//! 5. The next run works, repairs what was torn, and the journal's chain holds.

use std::collections::HashSet;
use std::io::Write;

use nix::sys::signal::Signal;

use crate::support::bench::{Bench, Started};
use crate::support::processes;
use crate::support::wait_for;

const RUNS: usize = 4;
const CONNECTIONS: usize = 50;

#[test]
fn no_request_is_lost() {
    let bench = Bench::new();
    std::fs::write(bench.work().join("body"), vec![b'b'; 3000]).unwrap();
    let runs: Vec<_> = (0..RUNS).map(|run| start(&bench, run)).collect();
    wait_for("400 requests at the origin", || (bench.origin.seen().len() >= 400).then_some(()));
    let gate = bench.running_gate();
    processes::signal(gate, Signal::SIGKILL);

    for run in runs {
        let output = run.finish().exits(125);
        assert!(output.own_lines().last().unwrap().contains("gate"), "{output:?}");
    }
    bench.origin.release("kill", 100_000);
    let received = bench.origin.settled();
    let of = |path| received.iter().filter(|s| s.path() == path).count();
    assert!(of("/echo") > 50 && of("/slow") > 25 && of("/hold") > 25, "no mixture");
    check_all_there(&bench, &received);

    bench.run_sh("curl -sSf https://kill.test/?next").ok();
    assert_ne!(bench.running_gate(), gate);
    bench.journal().only("/?next");
    bench.journal().check_chain();
    check_all_there(&bench, &received);
}

/// Each run has 50 requests under way at any time, for as long as the gate lives.
fn start(bench: &Bench, run: usize) -> Started {
    let urls: String = (0..5000)
        .map(|n| {
            let path = ["echo", "echo", "slow", "hold"][n % 4];
            format!("url = \"https://kill.test/{path}?name=kill&ms=1&run={run}&n={n}\"\n")
        })
        .collect();
    std::fs::write(bench.work().join(format!("urls-{run}")), urls).unwrap();
    let script = format!(
        "exec curl -s -Z --parallel-immediate --parallel-max {CONNECTIONS} --data-binary @body \
         -K urls-{run} >/dev/null 2>&1"
    );
    Started::new(bench.run_command(&[], &["sh", "-c", &script]))
}

fn check_all_there(bench: &Bench, received: &[crate::support::origin::Seen]) {
    let kept: HashSet<_> = bench
        .journal()
        .exchanges()
        .iter()
        .map(|e| (e.target().to_owned(), e.request_body().len(), e.request["complete"] == true))
        .collect();
    let missing: Vec<_> = received
        .iter()
        .filter(|s| !kept.contains(&(s.target.clone(), 3000, true)))
        .map(|s| &s.target)
        .collect();
    assert!(missing.is_empty(), "{} of {} lost: {missing:?}", missing.len(), received.len());
}

/// A line that was being written when the gate died is cut off by the next one, and the record
/// before it stays.
#[test]
fn a_torn_line_is_repaired() {
    let bench = Bench::new();
    bench.run_sh("curl -sSf https://torn.test/?first").ok();
    bench.journal().only("/?first");
    let gate = bench.running_gate();
    processes::signal(gate, Signal::SIGKILL);
    wait_for("the gate to be gone", || (!processes::is_alive(gate)).then_some(()));
    let before = bench.journal().lines();
    let file = bench.journal().files().pop().expect("a journal");
    let mut file = std::fs::OpenOptions::new().append(true).open(file).unwrap();
    file.write_all(b"{\"v\":1,\"type\":\"request\",\"id\":\"01TORN").unwrap();
    drop(file);

    bench.run_sh("curl -sSf https://torn.test/?second").ok();
    bench.journal().only("/?second");
    bench.journal().check_chain();
    assert_eq!(bench.journal().lines()[..before.len()], before[..]);
}
