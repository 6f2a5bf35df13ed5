//! `agent-gate proxy`: a gate in the foreground with one permissive listener, for commands that are
//! started otherwise. It stays until it is told to end, and runs attach to it.

use nix::sys::signal::Signal;

use crate::support::bench::{Bench, Settings, Started, finish};
use crate::support::journal::compare;
use crate::support::processes;
use crate::support::wait_for;

#[test]
fn a_proxy_in_the_foreground() {
    let bench = Bench::with(Settings { linger_seconds: 0, ..Settings::default() });
    let mut command = bench.agent_gate(&["proxy"]);
    command.args(bench.upstream());
    let proxy = Started::new(command);
    let address = format!("127.0.0.1:{}", bench.proxy_port);
    wait_for("the proxy's own run", || bench.journal().of_type("run").pop());

    // Nobody told this curl whom to trust but the test, which reads the CA as its user would.
    let mut curl = bench.command("curl");
    curl.args(["-sSf", "-x", &format!("http://{address}"), "--cacert"]);
    curl.arg(authority(&bench)).arg("https://outside.test/?outside");
    assert_eq!(finish(curl).ok().text(), "hello from the origin\n");
    bench.run_sh("curl -sSf https://inside.test/?inside").ok();

    assert_eq!(compare(&bench.journal(), &bench.origin), 2);
    let runs = bench.journal().of_type("run");
    assert_eq!(runs.len(), 2, "the proxy and the run: {runs:#?}");
    assert_eq!(runs[0]["mode"], "permissive", "{runs:#?}");
    assert_eq!(bench.gate(), Some(proxy.pid()), "the run has attached to the proxy's gate");
    processes::signal(proxy.pid(), Signal::SIGTERM);
    let output = proxy.finish();
    assert!(output.stderr.contains(&address) || output.text().contains(&address), "{output:?}");
}

fn authority(bench: &Bench) -> std::path::PathBuf {
    let files = std::fs::read_dir(bench.data_dir().join("ca")).unwrap();
    let is_certificate = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        text.contains("BEGIN CERTIFICATE") && !text.contains("PRIVATE KEY")
    };
    files.map(|e| e.unwrap().path()).find(is_certificate).expect("the CA's certificate")
}

/// A second gate over the same data is refused while the first is in use.
#[test]
fn only_one() {
    let bench = Bench::new();
    let run = bench.hold_a_run();
    let output = finish(bench.agent_gate(&["proxy"])).exits(125);
    assert_eq!(output.own_lines().len(), 1, "{output:?}");
    run.finish().ok();
}
