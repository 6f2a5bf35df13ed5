//! What the gate lets through: the host lists, names that disagree, and the addresses it never dials
//! by itself.
//!
//! Whatever is refused reaches the client as an answer that an agent reads, leaves one record that
//! says by what, and never reaches the origin.

use serde_json::Value;

use crate::support::bench::{Bench, Output, free_port};
use crate::support::http::get_page;
use crate::support::journal::compare;
use crate::support::{tunnel, wait_for};

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

/// The records of refusals, once a run has ended: all of them are there then.
fn all_refused(bench: &Bench) -> Vec<Value> {
    bench.journal().of_type("refused")
}

/// Denied however the name is written, by every way, and no other host is. Behind TLS too the
/// request is answered, and there is one record of it that says all.
#[test]
fn the_denylist() {
    let bench = Bench::new();
    bench.write_setting("denylist.txt", "# telemetry\ndenied.test\n*.evil.test\n");
    for (url, host) in [
        ("https://denied.test/", "denied.test"),
        ("https://DENIED.test./", "denied.test"),
        ("https://deep.evil.test/", "deep.evil.test"),
    ] {
        let before = all_refused(&bench).len();
        let output = curl(&bench, &[], &[url]);
        assert_eq!(output.text(), "200 403", "{url}: {output:?}");
        let record = all_refused(&bench).split_off(before);
        assert_eq!(record.len(), 1, "{record:#?}");
        assert_eq!(record[0]["by"], "denylisted", "{url}");
        assert_eq!(record[0]["host"], host, "{url}");
        assert_eq!(record[0]["port"], 443, "{url}");
        assert_eq!(record[0]["sni"], host, "{url}");
        assert_eq!(record[0]["request"], "GET /", "{url}");
        assert!(record[0]["detail"].as_str().unwrap().contains("denylist.txt"), "{url}");
    }
    let output = curl(&bench, &[], &["http://denied.test/clear"]);
    assert!(output.text().ends_with(" 403"), "{output:?}");
    for scheme in ["http", "https"] {
        let url = format!("{scheme}://denied.test/transparent");
        let output = curl(&bench, &[], &["--noproxy", "*", &url]);
        assert!(output.text().ends_with(" 403"), "{output:?}");
    }
    assert_eq!(all_refused(&bench).len(), 6, "{:#?}", all_refused(&bench));
    assert_eq!(bench.origin.connections(), 0, "something was dialled for a denied host");
    assert!(bench.journal().of_type("tunnel").is_empty());

    curl(&bench, &[], &["https://fine.test/"]).ok();
    assert_eq!(compare(&bench.journal(), &bench.origin), 1);
}

/// A request may name one host to the proxy and another in its Host field, absolute target or
/// client hello (domain fronting); the stricter answer counts, and the record is flagged.
#[test]
fn a_denied_name_behind_an_allowed_one() {
    let bench = Bench::new();
    bench.write_setting("denylist.txt", "denied.test\n");
    for (args, statuses) in [
        (&["-H", "Host: denied.test", "https://fine.test/"][..], "200 403"),
        (&["-H", "Host: denied.test", "http://fine.test/"], "000 403"),
        (&["--request-target", "http://denied.test/", "https://fine.test/"], "200 403"),
        (&["--connect-to", "denied.test:443:fine.test:443", "https://denied.test/"], "200 403"),
        // The front is the denied one, and what lies behind it is not.
        (&["--connect-to", "fine.test:443:denied.test:443", "https://fine.test/"], "200 403"),
    ] {
        let before = all_refused(&bench).len();
        let output = curl(&bench, &[], args);
        assert_eq!(output.text(), statuses, "{args:?}: {output:?}");
        let record = all_refused(&bench).split_off(before);
        assert_eq!(record.len(), 1, "{args:?}: {record:#?}");
        assert_eq!(record[0]["host"], "denied.test", "{args:?}");
        assert_eq!(record[0]["flags"], serde_json::json!(["host_mismatch"]), "{args:?}");
    }
    assert_eq!(bench.origin.connections(), 0);
}

/// Where no list objects, names that disagree pass, and are flagged in the record and on the pages.
#[test]
fn names_that_disagree_are_flagged() {
    let bench = Bench::new();
    for (target, args, flagged) in [
        ("/?same", &["https://fine.test/?same"][..], false),
        ("/?case", &["-H", "Host: FINE.test", "https://fine.test/?case"], false),
        ("/?port", &["-H", "Host: fine.test:443", "https://fine.test/?port"], false),
        ("/?host", &["-H", "Host: other.test", "https://fine.test/?host"], true),
        ("/?ports", &["-H", "Host: fine.test:8443", "https://fine.test/?ports"], true),
        (
            "/?sni",
            &["--connect-to", "other.test:443:fine.test:443", "https://other.test/?sni"],
            true,
        ),
    ] {
        curl(&bench, &[], args).ok();
        let request = bench.journal().only(target).request;
        let flags = if flagged { serde_json::json!(["host_mismatch"]) } else { Value::Null };
        assert_eq!(request["flags"], flags, "{target}: {request}");
        assert_eq!(request["host"], "fine.test", "{target}");
        let page = format!("/exchange/{}", request["id"].as_str().unwrap());
        let page = get_page(bench.dashboard_port, &page).body;
        assert_eq!(page.contains("host mismatch"), flagged, "{target}");
    }
    let home = get_page(bench.dashboard_port, "/").body;
    assert_eq!(home.matches(">host mismatch<").count(), 3, "{home}");
}

/// A list may name a host with a port; a Host field may name another port than the connection's.
#[test]
fn a_port_in_the_host_field() {
    let bench = Bench::new();
    bench.write_setting("denylist.txt", "fine.test:8443\nother.test:443\n");
    for (host, statuses) in [
        ("fine.test", "200 200"),
        ("fine.test:443", "200 200"),
        ("fine.test:8443", "200 403"),
        ("fine.test:9443", "200 200"),
        // It is reached by 443, whatever port it names.
        ("other.test:9443", "200 403"),
    ] {
        let output = curl(&bench, &[], &["-H", &format!("Host: {host}"), "https://fine.test/"]);
        assert_eq!(output.text(), statuses, "{host}: {output:?}");
    }
}

/// The answer says by whom and why, to a person and to a program, and that it is of no use to try
/// again; to a provider's client in the shape that its provider's errors have.
#[test]
fn a_refusal_explains_itself() {
    let bench = Bench::new();
    let hosts = [
        ("api.anthropic.com", "/v1/messages?beta=true", "/error/message"),
        ("api.openai.com", "/v1/responses", "/error/message"),
        ("llm.corp.test", "/v1/chat/completions", "/error/message"),
        ("chatgpt.com", "/backend-api/codex/responses", "/detail"),
        ("generativelanguage.googleapis.com", "/v1beta/models/g:generateContent", "/error/message"),
        ("bedrock-runtime.us-east-1.amazonaws.com", "/model/m/invoke", "/message"),
        ("api.mistral.ai", "/v1/chat/completions", "/message"),
        ("api.cohere.com", "/v2/chat", "/message"),
        ("ollama.com", "/api/chat", "/error"),
        ("denied.test", "/anything", "/error/message"),
    ];
    let denied: String = hosts.iter().map(|(host, _, _)| format!("{host}\n")).collect();
    bench.write_setting("denylist.txt", &denied);
    let script: String = hosts
        .iter()
        .enumerate()
        .map(|(n, (host, path, _))| {
            format!("curl -sSi -d '{{\"stream\":true}}' 'https://{host}{path}' >answer{n}\n")
        })
        .collect();
    bench.run_sh(&script).ok();
    for (n, (host, _, pointer)) in hosts.iter().enumerate() {
        let answer = std::fs::read_to_string(bench.work().join(format!("answer{n}"))).unwrap();
        let (_, answer) = answer.split_once("\r\n\r\n").expect("the proxy's answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("the gate's");
        assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
        let head = head.to_ascii_lowercase();
        assert!(head.contains("\r\nx-agent-gate-block: denylisted\r\n"), "{head}");
        assert!(head.contains("\r\nx-should-retry: false\r\n"), "{head}");
        let body: Value = serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {body}"));
        let said = body.pointer(pointer).and_then(Value::as_str);
        let said = said.unwrap_or_else(|| panic!("{host}: no {pointer} in {body}"));
        for part in [*host, "denylist.txt", "remove the line"] {
            assert!(said.contains(part), "{part} is not in {said}");
        }
    }
    let mut refused: Vec<_> = all_refused(&bench);
    refused
        .retain(|r| r["by"] == "denylisted" && r["request"].as_str().unwrap().starts_with("POST "));
    assert_eq!(refused.len(), hosts.len());
}

/// A failure towards a known provider has that shape too.
#[test]
fn a_failure_explains_itself() {
    let bench = Bench::new();
    let rule = format!("api.anthropic.com:8443:127.0.0.1:{}", free_port());
    let argv = ["curl", "-sS", "-d", "{}", "https://api.anthropic.com:8443/v1/messages"];
    let body = bench.run_with(&["--resolve", &rule], &argv).ok().text();
    let body: Value = serde_json::from_str(&body).unwrap_or_else(|e| panic!("{e}: {body}"));
    assert_eq!(body["type"], "error", "{body}");
    assert_eq!(body["error"]["type"], "api_error", "{body}");
    assert!(body["error"]["message"].as_str().unwrap().contains("api.anthropic.com"), "{body}");
}

/// Where no answer can be spoken, a fatal alert is: to what is neither TLS nor HTTP, to a hello that
/// is none, to a client that insists on HTTP/2. Never a bare reset, and one record each.
#[test]
fn where_nothing_can_be_spoken() {
    const SCRIPT: &str = r#"
def alert(host, first):
    s, _ = tunnel(host + ":443")
    s.sendall(first)
    print(host, to_end(s).hex())
alert("denied.test", b"\x00\x00\x00\x08\x04\xd2\x16\x2f")
alert("denied.test", b"\x16\x03\x01\x00\x04\x02\x00\x00\x00")
alert("fine.test", b"\x16\x03\x01\x00\x04\x02\x00\x00\x00")
try: tls(tunnel("denied.test:443")[0], "denied.test", alpn=["h2"])
except ssl.SSLError as error: print(error)
"#;
    let bench = Bench::new();
    bench.write_setting("denylist.txt", "denied.test\n");
    let said = tunnel::run(&bench, SCRIPT).text();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[0], "denied.test 15030300020231", "access_denied: {said}");
    assert_eq!(lines[1], "denied.test 15030300020231", "access_denied: {said}");
    assert_eq!(lines[2], "fine.test 15030300020232", "decode_error: {said}");
    assert!(lines[3].contains("alert no application protocol"), "{said}");
    let refused: Vec<_> =
        all_refused(&bench).iter().map(|r| (r["host"].clone(), r["by"].clone())).collect();
    let expected = [
        ("denied.test", "denylisted"),
        ("denied.test", "denylisted"),
        ("fine.test", "unknown_protocol"),
        ("denied.test", "denylisted"),
    ];
    assert_eq!(refused, expected.map(|(host, by)| (host.into(), by.into())), "{refused:#?}");
    assert!(all_refused(&bench)[3]["detail"].as_str().unwrap().contains("h2"));
    assert!(bench.journal().of_type("tunnel").is_empty());
}

/// A refused connection that ends without a request is recorded as refused all the same: closed at
/// once, closed after TLS, closed because the client does not trust us.
#[test]
fn refused_without_a_request() {
    const SCRIPT: &str = r#"
tunnel("denied.test:443")[0].close()
tls(tunnel("denied.test:443")[0], "denied.test").close()
try: tls(tunnel("denied.test:443")[0], "not-in-the-certificate.test")
except ssl.SSLError: pass
"#;
    let bench = Bench::new();
    bench.write_setting("denylist.txt", "denied.test\n");
    tunnel::run(&bench, SCRIPT);
    let ca = bench.origin.ca_pem();
    let output =
        bench.run(&["curl", "-sS", "--cacert", ca.to_str().unwrap(), "https://denied.test/"]);
    assert_eq!(output.code(), Some(60), "{output:?}");
    let refused = all_refused(&bench);
    assert!(refused.iter().all(|r| r["by"] == "denylisted" && r["request"].is_null()));
    assert_eq!(refused.len(), 4, "{refused:#?}");
    assert_eq!(refused[0]["sni"], Value::Null, "{refused:#?}");
    assert_eq!(refused[1]["sni"], "denied.test", "{refused:#?}");
    assert!(refused[3]["detail"].as_str().unwrap().contains("does not trust"), "{refused:#?}");
    assert!(bench.journal().of_type("tunnel").is_empty());
    assert_eq!(bench.origin.connections(), 0);
}

/// A list is in force soon after it was saved, in the gate that runs, and for the next request on a
/// connection that is open; no connection is dropped for it.
#[test]
fn an_edited_list_is_read_again() {
    const SCRIPT: &str = r#"
s = tls(tunnel("later.test:443")[0], "later.test")
print(get(s, "/?first", "later.test"))
deadline = time.monotonic() + 80
while time.monotonic() < deadline:
    answer = get(s, "/?again", "later.test")
    if " 200 " not in answer: break
    time.sleep(0.02)
print(answer)
"#;
    let bench = Bench::new();
    let run = tunnel::start(&bench, &[], SCRIPT);
    bench.journal().only("/?first");
    let gate = bench.running_gate();
    bench.write_setting("denylist.txt", "later.test\n");
    let said = run.finish().ok().text();
    assert_eq!(said, "HTTP/1.1 200 OK\nHTTP/1.1 403 Forbidden\n");
    assert_eq!(refused(&bench, "later.test")["request"], "GET /?again");
    assert_eq!(bench.running_gate(), gate);
    let seen = bench.origin.seen();
    assert!(
        seen.iter().all(|s| s.connection == seen[0].connection),
        "one connection up: {seen:#?}"
    );

    bench.write_setting("denylist.txt", "\n");
    wait_for("the list to be in force that allows it again", || {
        (curl(&bench, &[], &["https://later.test/"]).text() == "200 200").then_some(())
    });
    assert_eq!(bench.running_gate(), gate);
}

/// A line that is not understood is told, to a new run and on every page, and changes nothing: the
/// last good list stays in force. Corrected, it is as if nothing had been.
#[test]
fn a_malformed_list_is_told_and_the_last_good_one_stays() {
    let bench = Bench::new();
    bench.write_setting("denylist.txt", "denied.test\n");
    let held = bench.hold_a_run();
    bench.write_setting("denylist.txt", "fine.test\nnot a host\n");
    let told = |page: &str| page.contains("denylist.txt:2: ") && page.contains("stay in force");
    wait_for("a notice on the page", || {
        told(&get_page(bench.dashboard_port, "/").body).then_some(())
    });
    let missing = get_page(bench.dashboard_port, "/no-such-page");
    assert!(told(&missing.body), "{missing:?}");
    let output = bench.run(&["true"]).exits(125);
    assert!(output.own_lines()[0].contains("denylist.txt:2: "), "{output:?}");
    held.finish().ok();

    bench.write_setting("denylist.txt", "fine.test\n");
    wait_for("the notice to go", || {
        (!told(&get_page(bench.dashboard_port, "/").body)).then_some(())
    });
    assert_eq!(curl(&bench, &[], &["https://fine.test/"]).text(), "200 403");
    assert_eq!(curl(&bench, &[], &["https://denied.test/"]).text(), "200 200");
}

/// While a list cannot be understood, what it said before counts, and nothing of what it says now.
#[test]
fn a_malformed_list_is_not_in_force() {
    const SCRIPT: &str = r#"
def wait(name):
    while not os.path.exists(name): time.sleep(0.01)
open("ready", "w").close(); wait("edited")
for host in ["denied.test", "fine.test"]:
    print(get(tls(tunnel(host + ":443")[0], host), "/", host))
"#;
    let bench = Bench::new();
    bench.write_setting("denylist.txt", "denied.test\n");
    let run = tunnel::start(&bench, &[], SCRIPT);
    wait_for("the run", || bench.work().join("ready").exists().then_some(()));
    bench.write_setting("denylist.txt", "fine.test\nnot a host\n");
    wait_for("the gate to see the edit", || {
        get_page(bench.dashboard_port, "/").body.contains("denylist.txt:2: ").then_some(())
    });
    std::fs::write(bench.work().join("edited"), "").unwrap();
    let said = run.finish().ok().text();
    assert_eq!(said, "HTTP/1.1 403 Forbidden\nHTTP/1.1 200 OK\n");
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
        ("https://other.test/", "200 403"),
        ("https://both.test/", "200 403"),
        ("https://port.test/", "200 403"),
        ("https://notgood.test/", "200 403"),
        ("https://192.0.2.9/", "200 403"),
    ] {
        let output = curl(&bench, &enforce, &[url]);
        assert_eq!(output.text(), statuses, "{url}: {output:?}");
    }
    assert_eq!(refused(&bench, "other.test")["by"], "host_not_allowlisted");
    assert_eq!(refused(&bench, "both.test")["by"], "denylisted");
    // An allowed address is no way to a name that is not.
    bench.write_setting("allowlist.txt", "192.0.2.0/24\ngood.test\n");
    let front = ["--connect-to", "other.test:443:192.0.2.9:443", "https://other.test/"];
    assert_eq!(curl(&bench, &["--enforce-allowlist=false"], &front).text(), "200 200");
    let output = curl(&bench, &enforce, &front);
    assert_eq!(output.text(), "200 403", "{output:?}");
    curl(&bench, &["--enforce-allowlist=false"], &["https://other.test/"]).ok();
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
