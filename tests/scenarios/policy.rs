//! What the gate lets through: the three host lists, and the addresses it never dials by itself.
//!
//! Whatever is refused reaches the client as a refusal, leaves a record that says by what, and never
//! reaches the origin.

use serde_json::Value;

use crate::support::bench::{Bench, Output};
use crate::support::journal::compare;
use crate::support::wait_for;

/// What a run's curl prints of an answer: the status of the proxy's answer to CONNECT, then the
/// final status; 000 for neither.
const STATUSES: &str = "%{http_connect} %{http_code}";

fn curl(bench: &Bench, options: &[&str], args: &[&str]) -> Output {
    let mut argv = vec!["curl", "-sS", "-o", "/dev/null", "-w", STATUSES];
    argv.extend(args);
    bench.run_with(options, &argv)
}

fn refused(bench: &Bench, host: &str) -> Value {
    bench.journal().wait_for("refused", |r| r["host"] == host)
}

/// Denied however the name is written, by every way, and no other host is.
#[test]
fn the_denylist() {
    let bench = Bench::new();
    bench.write_setting("denylist.txt", "# telemetry\ndenied.test\n*.evil.test\n");
    for (url, host) in [
        ("https://denied.test/", "denied.test"),
        ("https://DENIED.test./", "denied.test"),
        ("https://deep.evil.test/", "deep.evil.test"),
    ] {
        let output = curl(&bench, &[], &[url]);
        assert_eq!(output.text(), "403 000", "{url}: {output:?}");
        assert_eq!(refused(&bench, host)["by"], "denylisted", "{url}");
    }
    let output = curl(&bench, &[], &["http://denied.test/clear"]);
    assert!(output.text().ends_with(" 403"), "{output:?}");
    let output = curl(&bench, &[], &["--noproxy", "*", "http://denied.test/transparent"]);
    assert!(output.text().ends_with(" 403"), "{output:?}");
    let output = curl(&bench, &[], &["--noproxy", "*", "https://denied.test/transparent"]);
    assert!(!output.text().ends_with(" 200"), "{output:?}");
    assert!(bench.origin.seen().is_empty(), "something denied reached the origin");

    curl(&bench, &[], &["https://fine.test/"]).ok();
    assert_eq!(compare(&bench.journal(), &bench.origin), 1);
}

/// A request may name one host to the proxy and another in its Host field or client hello (domain
/// fronting); the stricter answer counts.
#[test]
fn a_denied_name_behind_an_allowed_one() {
    let bench = Bench::new();
    bench.write_setting("denylist.txt", "denied.test\n");
    let output = curl(&bench, &[], &["-H", "Host: denied.test", "https://fine.test/"]);
    assert_eq!(output.text(), "200 403", "{output:?}");
    let output = curl(&bench, &[], &["-H", "Host: denied.test", "http://fine.test/"]);
    assert_eq!(output.text(), "000 403", "{output:?}");
    let output = curl(
        &bench,
        &[],
        &["--connect-to", "denied.test:443:fine.test:443", "https://denied.test/"],
    );
    assert!(!output.text().ends_with(" 200"), "{output:?}");
    assert!(bench.origin.seen().is_empty(), "{:#?}", bench.origin.seen());
    let refused = bench.journal().of_type("refused");
    assert!(refused.iter().all(|r| r["host"] == "denied.test"), "{refused:#?}");
    assert_eq!(refused.len(), 3, "{refused:#?}");
}

/// The answer says by whom and why, to a person and to a program.
#[test]
fn a_refusal_explains_itself() {
    let bench = Bench::new();
    bench.write_setting("denylist.txt", "denied.test\n");
    let output = bench.run_sh("curl -sSi http://denied.test/").text();
    let (head, body) = output.split_once("\r\n\r\n").expect("a head");
    assert!(head.to_ascii_lowercase().contains("x-agent-gate-block: denylisted"), "{head}");
    let body: Value = serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {body}"));
    assert!(body.to_string().contains("denied.test"), "{body}");
}

/// A list is in force soon after it was saved, in the gate that runs.
#[test]
fn an_edited_list_is_read_again() {
    let bench = Bench::new();
    curl(&bench, &[], &["https://later.test/"]).ok();
    let gate = bench.running_gate();
    bench.write_setting("denylist.txt", "later.test\n");
    wait_for("the new denylist to be in force", || {
        let output = curl(&bench, &[], &["https://later.test/"]);
        (output.text() == "403 000").then_some(())
    });
    assert_eq!(bench.running_gate(), gate);
}

/// Enforced, the allowlist is all there is; the denylist still comes first.
#[test]
fn the_allowlist_enforced() {
    let bench = Bench::new();
    bench.write_setting("allowlist.txt", "good.test\n*.good.test\nboth.test\nport.test:80\n");
    bench.write_setting("denylist.txt", "both.test\n");
    let enforce = ["--enforce-allowlist"];
    for (url, statuses) in [
        ("https://good.test/", "200 200"),
        ("https://sub.good.test/", "200 200"),
        ("http://port.test/", "000 200"),
        ("https://other.test/", "403 000"),
        ("https://both.test/", "403 000"),
        ("https://port.test/", "403 000"),
        ("https://notgood.test/", "403 000"),
    ] {
        let output = curl(&bench, &enforce, &[url]);
        assert_eq!(output.text(), statuses, "{url}: {output:?}");
    }
    assert_eq!(refused(&bench, "other.test")["by"], "host_not_allowlisted");
    assert_eq!(refused(&bench, "both.test")["by"], "denylisted");
    curl(&bench, &["--enforce-allowlist=false"], &["https://other.test/"]).ok();
    assert_eq!(compare(&bench.journal(), &bench.origin), 4);
}

/// A host that pins its certificate passes unread: the client sees the origin's own certificate, and
/// the record has the bytes each way and no exchange.
#[test]
fn passthrough() {
    let bench = Bench::new();
    bench.write_setting("passthrough.txt", "pinned.test\n");
    let ca = bench.origin.ca_pem();
    let ca = ca.to_str().unwrap();
    for way in [&["--http1.1"][..], &["--noproxy", "*"]] {
        let args = [&["--cacert", ca, "https://pinned.test/bytes?n=100000"], way].concat();
        let output = curl(&bench, &[], &args).ok();
        assert!(output.text().ends_with(" 200"), "{output:?}");
    }
    let tunnels = wait_for("two tunnels in the journal", || {
        let tunnels = bench.journal().of_type("tunnel");
        (tunnels.len() == 2).then_some(tunnels)
    });
    for tunnel in tunnels {
        assert_eq!(tunnel["host"], "pinned.test", "{tunnel}");
        assert_eq!(tunnel["sni"], "pinned.test", "{tunnel}");
        assert_eq!(tunnel["passthrough"], true, "{tunnel}");
        // curl does not wait for the origin's goodbye, which may find it gone.
        let outcome = tunnel["outcome"].as_str().unwrap();
        assert!(matches!(outcome, "complete" | "cut_by_client"), "{tunnel}");
        assert!(tunnel["received"].as_u64() > Some(100_000), "{tunnel}");
        assert!(tunnel["sent"].as_u64() > Some(100), "{tunnel}");
    }
    assert!(bench.journal().exchanges().is_empty());
}

/// The loopback of the host, link-local addresses with the cloud's metadata among them, and the
/// gate's own pages are not to be had through it, however they are written.
#[test]
fn addresses_the_gate_does_not_dial() {
    let bench = Bench::new();
    bench.run(&["true"]).ok();
    let (http, https) = (bench.origin.http_port, bench.origin.https_port);
    let dashboard = bench.dashboard_port;
    let proxy = format!("http://127.0.0.1:{}", bench.proxy_port);
    let refused_before = bench.journal().of_type("refused").len();
    let urls = [
        format!("http://127.0.0.1:{http}/"),
        format!("http://localhost:{http}/"),
        format!("http://127.8.8.8:{http}/"),
        format!("http://0.0.0.0:{http}/"),
        format!("http://[::1]:{http}/"),
        format!("http://[::ffff:127.0.0.1]:{http}/"),
        format!("http://127.0.0.1:{dashboard}/"),
        format!("http://localhost:{dashboard}/"),
        "http://169.254.169.254:8080/latest/meta-data/".to_owned(),
        format!("http://[fe80::1]:{http}/"),
    ];
    for url in &urls {
        let output = curl(&bench, &[], &["-g", "--noproxy", "", "-x", &proxy, url]);
        assert_eq!(output.text(), "000 403", "{url}: {output:?}");
    }
    let url = format!("https://127.0.0.1:{https}/");
    let output = curl(&bench, &[], &["-k", "--noproxy", "", "-x", &proxy, &url]);
    assert!(!output.text().ends_with(" 200"), "{url}: {output:?}");
    assert_eq!(bench.origin.connections(), 0, "the gate has dialled a refused address");
    let refused = wait_for("a record of each refusal", || {
        let refused = bench.journal().of_type("refused");
        (refused.len() > refused_before + urls.len()).then_some(refused)
    });
    assert!(refused.iter().all(|r| r["by"] == "address_refused"), "{refused:#?}");
}

/// A name may be bound to a refused address in DNS by whoever owns it; here by the hosts file.
#[test]
fn an_address_named_with_its_port_is_dialled() {
    let bench = Bench::new();
    let http = bench.origin.http_port;
    bench.write_setting("allowlist.txt", &format!("127.0.0.1:{http}\n"));
    let proxy = format!("http://127.0.0.1:{}", bench.proxy_port);
    let url = format!("http://127.0.0.1:{http}/?listed");
    let output = curl(&bench, &[], &["--noproxy", "", "-x", &proxy, &url]);
    assert_eq!(output.text(), "000 200", "{output:?}");
    bench.journal().only("/?listed");
    let other = format!("http://127.0.0.1:{}/", bench.origin.https_port);
    let output = curl(&bench, &[], &["--noproxy", "", "-x", &proxy, &other]);
    assert_eq!(output.text(), "000 403", "another port of it: {output:?}");
}
