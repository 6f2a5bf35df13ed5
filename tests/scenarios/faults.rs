//! What goes wrong on the way: the client learns of it in words or by a broken message, never by one
//! that looks whole, and the journal has the exchange with what arrived and how it ended.

use serde_json::Value;

use crate::support::bench::{Bench, Started, finish, free_port};
use crate::support::journal::Exchange;
use crate::support::python::interpreter;
use crate::support::wait_for;

/// The gate's own answer is a 502 whose JSON body names host and cause, and the record holds the
/// same bytes.
fn check_502(bench: &Bench, output: &str, target: &str, host: &str, outcome: &str) {
    let (body, status) = output.rsplit_once('\n').expect("body and status");
    assert_eq!(status, "502", "{output}");
    let json: Value = serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {body}"));
    assert!(json.to_string().contains(host), "{json}");
    assert!(json.to_string().contains(outcome), "{json} does not name {outcome}");
    let exchange = bench.journal().only(target);
    assert_eq!(exchange.outcome(), outcome, "{}", exchange.answer());
    assert_eq!(exchange.answer()["by_gate"], true, "{}", exchange.answer());
    assert!(exchange.answer()["error"].is_string(), "{}", exchange.answer());
    assert_eq!(exchange.status(), Some(502));
    let recorded = String::from_utf8(exchange.response_body()).unwrap();
    assert_eq!(recorded.trim_end(), body.trim_end());
}

const STATUS_LAST: [&str; 4] = ["curl", "-sS", "-w", "\n%{http_code}"];

#[test]
fn the_name_is_unknown() {
    let bench = Bench::new();
    // No rule of the bench is for this port, and the name is reserved not to exist (RFC 6761).
    let url = "https://nowhere.invalid:8443/?unknown";
    let output = bench.run(&[&STATUS_LAST[..], &[url]].concat());
    check_502(&bench, &output.text(), "/?unknown", "nowhere.invalid", "name_unknown");
}

#[test]
fn the_certificate_is_not_trusted() {
    let bench = Bench::new();
    let mut run = bench.agent_gate(&["run"]);
    run.args(bench.resolve()).arg("--").args(STATUS_LAST).arg("https://api.test/?untrusted");
    let output = finish(run);
    check_502(&bench, &output.text(), "/?untrusted", "api.test", "origin_tls_failed");
    assert!(bench.origin.seen().is_empty(), "the request went to an origin that is not trusted");
}

#[test]
fn the_certificate_is_not_checked_on_request() {
    let bench = Bench::new();
    for _ in 0..2 {
        let mut run = bench.agent_gate(&["run", "--upstream-insecure-skip-verify"]);
        run.args(bench.resolve()).args(["--", "curl", "-sSf", "https://api.test/"]);
        let output = finish(run).ok();
        let warned = output.own_lines().iter().any(|l| l.contains("verif") || l.contains("check"));
        assert!(warned, "no warning on this run: {output:?}");
    }
}

#[test]
fn nothing_listens() {
    let bench = Bench::new();
    let rule = format!("closed.test:8443:127.0.0.1:{}", free_port());
    let argv = [&STATUS_LAST[..], &["https://closed.test:8443/?closed"]].concat();
    let output = bench.run_with(&["--resolve", &rule], &argv);
    check_502(&bench, &output.text(), "/?closed", "closed.test", "unreachable");
}

#[test]
fn the_origin_says_nothing_or_nonsense() {
    let bench = Bench::new();
    for (target, outcome) in [("/vanish?x", "cut_by_origin"), ("/garbage?x", "origin_broken")] {
        let url = format!("https://odd.test{target}");
        let output = bench.run(&[&STATUS_LAST[..], &[&url]].concat());
        check_502(&bench, &output.text(), target, "odd.test", outcome);
    }
}

/// The origin leaves in mid-body: the client sees a message that breaks off (curl's exit code says
/// so), and what had come until then is on disk.
#[test]
fn the_origin_leaves_in_mid_body() {
    let bench = Bench::new();
    for target in
        ["/abort?after=5000&frame=length", "/abort?after=5000&frame=chunked", "/reset?after=5000"]
    {
        let output = bench.run(&["curl", "-sS", &format!("https://cut.test{target}")]);
        // 18 a partial file, 56 a failure in receiving.
        assert!(matches!(output.code(), Some(18 | 56)), "{target}: {output:?}");
        let exchange = bench.journal().only(target);
        assert_eq!(exchange.outcome(), "cut_by_origin", "{target}: {}", exchange.answer());
        assert_eq!(exchange.status(), Some(200), "{target}");
        let sent = bench.origin.only(target).sent.expect("an answer").body;
        let recorded = exchange.response_body();
        assert!(output.stdout == recorded, "{target}: the client has what the record has");
        // A reset may overtake bytes that were on their way; an end may not.
        let all = sent.whole().expect("a small body");
        assert!(all.starts_with(&recorded), "{target}");
        assert!(target.starts_with("/reset") || all == recorded, "{target}");
    }
}

/// The client leaves in mid-download.
#[test]
fn the_client_leaves_in_mid_download() {
    const SCRIPT: &str = r#"
import socket
s = socket.create_connection(("gone.test", 80))
s.sendall(b"GET /bytes?n=200000000 HTTP/1.1\r\nHost: gone.test\r\n\r\n")
got = b""
while len(got) < 100000: got += s.recv(10000)
s.close()
"#;
    let exchange = client_leaves(SCRIPT, "/bytes?n=200000000");
    assert_eq!(exchange.request["complete"], true);
    let bytes = exchange.answer()["body"]["bytes"].as_u64().expect("a length");
    assert!((90_000..200_000_000).contains(&bytes), "{bytes} bytes of the response");
}

/// The client leaves in mid-upload: the origin never sees the request as complete.
#[test]
fn the_client_leaves_in_mid_upload() {
    const SCRIPT: &str = r#"
import socket
s = socket.create_connection(("gone.test", 80))
s.sendall(b"POST /upload HTTP/1.1\r\nHost: gone.test\r\nContent-Length: 1000000\r\n\r\n")
s.sendall(b"x" * 30000)
s.close()
"#;
    let exchange = client_leaves(SCRIPT, "/upload");
    assert_eq!(exchange.request["complete"], false, "{}", exchange.request);
    assert_eq!(exchange.request_body(), vec![b'x'; 30_000]);
}

/// The client is gone, and the run goes on until the record of it is there: a run that ends at once
/// may take connections along that the gate has not accepted yet.
fn client_leaves(script: &str, target: &str) -> Exchange {
    let bench = Bench::new();
    let wait = "import os, time\nwhile not os.path.exists('recorded'): time.sleep(0.01)\n";
    let script = format!("{script}{wait}");
    let run = Started::new(bench.run_command(&[], &[interpreter(), "-c", &script]));
    let exchange = bench.journal().only(target);
    std::fs::write(bench.work().join("recorded"), "").unwrap();
    run.finish().ok();
    assert_eq!(exchange.outcome(), "cut_by_client", "{}", exchange.answer());
    if exchange.method() == "POST" {
        assert!(bench.origin.seen().is_empty(), "the origin saw half a request as whole");
    }
    exchange
}

/// A client that does not trust the gate's CA leaves a record that says so.
#[test]
fn the_client_does_not_trust_the_gate() {
    let bench = Bench::new();
    let ca = bench.origin.ca_pem();
    let output =
        bench.run(&["curl", "-sS", "--cacert", ca.to_str().unwrap(), "https://distrust.test/"]);
    assert_eq!(output.code(), Some(60), "{output:?}");
    let tunnel = bench.journal().wait_for("tunnel", |t| t["host"] == "distrust.test");
    let outcome = tunnel["outcome"].as_str().unwrap();
    assert!(matches!(outcome, "client_tls_failed" | "client_closed_early"), "{tunnel}");
    assert!(bench.origin.seen().is_empty());
}

/// Bytes on port 443 that are neither TLS nor HTTP cannot be read, so they do not pass.
#[test]
fn an_unknown_protocol_does_not_pass() {
    const SCRIPT: &str = r#"
import socket
s = socket.create_connection(("ssh.test", 443))
s.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
s.settimeout(60)
try:
    while s.recv(1000): pass
except ConnectionResetError: pass
"#;
    let bench = Bench::new();
    bench.run(&[interpreter(), "-c", SCRIPT]).ok();
    let record = wait_for("a record of the refusal", || bench.journal().of_type("refused").pop());
    assert!(matches!(record["by"].as_str(), Some("unknown_protocol" | "bad_request")), "{record}");
    assert_eq!(record["host"], "ssh.test", "{record}");
    assert!(bench.origin.seen().is_empty());
}
