//! Where no user namespace can be made, airtight says loudly what remains and goes on; strict
//! refuses.

use crate::support::as_user::without_user_namespaces;
use crate::support::bench::{AGENT_GATE, Bench, Output, finish};
use crate::support::journal::compare;

fn run(bench: &Bench, mode: &str) -> Output {
    let options: Vec<_> = bench.upstream().iter().map(|o| format!("'{o}'")).collect();
    let script = format!(
        "'{AGENT_GATE}' run --mode {mode} {} -- curl -sSf https://weak.test/",
        options.join(" ")
    );
    finish(without_user_namespaces(bench, &script))
}

#[test]
fn airtight_falls_back_loudly() {
    let bench = Bench::new();
    let output = run(&bench, "airtight").ok();
    assert_eq!(output.text(), "hello from the origin\n");
    let loud = output.own_lines().into_iter().find(|l| l.contains("namespace"));
    let loud = loud.unwrap_or_else(|| panic!("no line names the failed step: {output:?}"));
    assert!(loud.contains("permissive"), "{loud}");
    assert!(loud.contains("max_user_namespaces"), "no cure: {loud}");
    let run = bench.journal().of_type("run").remove(0);
    assert_eq!(run["mode"], "permissive", "{run}");
    assert!(run["weaker"].as_str().unwrap().contains("namespace"), "{run}");
    assert_eq!(compare(&bench.journal(), &bench.origin), 1);
}

#[test]
fn airtight_strict_refuses() {
    let bench = Bench::new();
    let output = run(&bench, "airtight-strict").exits(125);
    assert_eq!(output.text(), "", "{output:?}");
    assert!(output.own_lines().iter().any(|l| l.contains("namespace")), "{output:?}");
    assert!(bench.origin.seen().is_empty());
}
