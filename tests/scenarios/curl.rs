//! curl through the gate by each of the four ways in which a request can reach it.
//!
//! A run starts curl; the origin answers with the request's own body. Then the three accounts of the
//! exchange are held against each other: what curl printed, what the origin saw and sent, and what
//! the journal holds.

use crate::support::bench::Bench;
use crate::support::journal::compare;

/// What a tool does that has never heard of proxies.
const NO_VARIABLES: &str =
    "unset HTTPS_PROXY https_proxy HTTP_PROXY http_proxy ALL_PROXY all_proxy";

const BODY: &str = "the body, with UTF-8 in it: grüß Gott";

/// Runs curl in a shell, and checks all accounts of the one exchange.
fn one_post(bench: &Bench, options: &[&str], before: &str, url: &str) {
    let script = format!("{before}; exec curl -sS -H 'X-Odd-CASE: 1' --data-raw '{BODY}' '{url}'");
    let output = bench.run_with(options, &["sh", "-c", &script]).ok();
    assert_eq!(output.text(), BODY);
    assert_eq!(compare(&bench.journal(), &bench.origin), 1);
}

#[test]
fn connect_through_the_proxy_variables() {
    let bench = Bench::new();
    one_post(&bench, &[], "true", "https://api.test/echo?way=connect");
    let exchange = bench.journal().only("/echo?way=connect");
    let request = &exchange.request;
    assert_eq!(request["scheme"], "https");
    assert_eq!(request["host"], "api.test");
    assert_eq!(request["port"], 443);
    assert_eq!(request["tls"]["sni"], "api.test");
    assert_eq!(exchange.outcome(), "complete");
    assert_eq!(bench.origin.only("/echo?way=connect").sni.as_deref(), Some("api.test"));
    let runs = bench.journal().of_type("run");
    assert_eq!(request["run"], runs[0]["id"], "the exchange belongs to the run");
    assert_eq!(runs[0]["mode"], "airtight", "{}", runs[0]);
}

#[test]
fn absolute_form_through_the_proxy_variables() {
    let bench = Bench::new();
    one_post(&bench, &[], "true", "http://plain.test/echo?way=absolute");
    let exchange = bench.journal().only("/echo?way=absolute");
    assert_eq!(exchange.request["scheme"], "http");
    assert_eq!(exchange.request["port"], 80);
    assert!(exchange.request.get("tls").is_none(), "{}", exchange.request);
}

#[test]
fn transparent_tls_without_proxy_variables() {
    let bench = Bench::new();
    one_post(&bench, &[], NO_VARIABLES, "https://api.test/echo?way=transparent");
    let exchange = bench.journal().only("/echo?way=transparent");
    assert_eq!(exchange.request["host"], "api.test");
    assert_eq!(exchange.request["port"], 443);
}

#[test]
fn transparent_clear_text_without_proxy_variables() {
    let bench = Bench::new();
    one_post(&bench, &[], NO_VARIABLES, "http://plain.test/echo?way=clear");
    let exchange = bench.journal().only("/echo?way=clear");
    assert_eq!(exchange.request["host"], "plain.test");
    assert_eq!(exchange.request["port"], 80);
}

/// By IPv6, and to an address without a name: the destination alone tells where it was to go.
#[test]
fn transparent_by_address_family_and_literal() {
    let bench = Bench::new();
    for (family, url) in [
        ("-6", "https://[2001:db8::7]/?six"),
        ("-6", "http://[2001:db8::7]/?six-clear"),
        ("-4", "https://203.0.113.7/?literal"),
        ("-4", "http://203.0.113.7/?literal-clear"),
    ] {
        let output = bench.run(&["curl", "-gsSf", "--noproxy", "*", family, url]).ok();
        assert_eq!(output.text(), "hello from the origin\n", "{url}");
    }
    assert_eq!(compare(&bench.journal(), &bench.origin), 4);
    let literal = bench.journal().only("/?literal");
    assert_eq!(literal.request["host"], "203.0.113.7");
    let six = bench.journal().only("/?six");
    assert_eq!(six.request["host"], "2001:db8::7");
}

/// Permissive has no namespace: the variables alone bring curl to the gate.
#[test]
fn permissive_mode_by_the_variables_alone() {
    let bench = Bench::new();
    one_post(&bench, &["--mode", "permissive"], "true", "https://api.test/echo?way=permissive");
    assert_eq!(bench.journal().of_type("run")[0]["mode"], "permissive");
}

/// A body above what a record holds inline goes to a side file; curl's own file, the origin's memory
/// and the side file are the same bytes, each way.
#[test]
fn bodies_of_some_megabytes_each_way() {
    let bench = Bench::new();
    let body = crate::support::content::Noise::bytes(9, 5_000_000);
    std::fs::write(bench.work().join("up"), &body).unwrap();
    bench.run_sh("curl -sSf --data-binary @up -o down https://api.test/echo?way=big").ok();
    assert!(std::fs::read(bench.work().join("down")).unwrap() == body, "came back changed");
    assert_eq!(compare(&bench.journal(), &bench.origin), 1);
    let exchange = bench.journal().only("/echo?way=big");
    assert!(exchange.request_body() == body && exchange.response_body() == body);
}

/// In TLS 1.2 the last word of the handshake is the server's, and the client waits for it.
#[test]
fn tls_1_2() {
    let bench = Bench::new();
    bench.run_sh("curl -sSf --tls-max 1.2 -m 20 'https://old.test/?n=[1-2]'").ok();
    assert_eq!(compare(&bench.journal(), &bench.origin), 2);
    assert_eq!(bench.journal().only("/?n=1").request["tls"]["version"], "1.2");
}
