//! What real clients do at a proxy's door that no standard asks of them: odd CONNECT heads,
//! connections opened and not used, ends without goodbye. None of it may break them, and all of it
//! is on disk.

use serde_json::{Value, json};

use crate::support::bench::{Bench, finish};
use crate::support::python::interpreter;
use crate::support::{tunnel, wait_for};

/// CONNECT as HTTP/1.0 without a field (requests, urllib3), with `Connection: close` (gemini) or
/// `Proxy-Connection: close` (axios), with credentials that nobody asked for (git), with a Host that
/// is odd: a tunnel each, for more than one request, and never a 407.
#[test]
fn heads_of_connect() {
    const SCRIPT: &str = r#"
for n, rest in enumerate([
    " HTTP/1.0\r\n\r\n",
    " HTTP/1.1\r\nHost: api.test:443\r\n\r\n",
    " HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n",
    " HTTP/1.1\r\nHost: api.test:443\r\nProxy-Connection: close\r\n\r\n",
    " HTTP/1.1\r\nhost: elsewhere.test\r\nHOST: \r\nUser-Agent:\r\n\r\n",
    " HTTP/1.1\r\nProxy-Authorization: Basic dTpw\r\nContent-Length: 0\r\n\r\n",
    "   HTTP/1.1\r\n\r\n",
    "\r\n\r\n",
]):
    s, answer = tunnel("api.test:443", rest)
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    t = tls(s, "api.test")
    for m in "ab": print(get(t, f"/?{n}{m}", "api.test"))
s = connect()
for byte in b"CONNECT  api.test:443 HTTP/1.1\r\nHost: api.test\r\n\r\n": s.sendall(bytes([byte]))
assert head_of(s).startswith(b"HTTP/1.1 200 ")
print(get(tls(s, "api.test"), "/?bytewise", "api.test"))
"#;
    let bench = Bench::new();
    let said = tunnel::run(&bench, SCRIPT).text();
    assert_eq!(said, "HTTP/1.1 200 OK\n".repeat(17));
    let ended = bench.journal().ended(17);
    assert!(ended.iter().all(|e| e.host() == "api.test" && e.request["flags"].is_null()));
    assert!(bench.journal().of_type("refused").is_empty());
}

/// What names no host is answered at once and recorded.
#[test]
fn a_connect_that_names_nothing() {
    const SCRIPT: &str = r#"
for authority in ["", "api.test", "api.test:x", "http://api.test:443", "a b:443"]:
    s = connect()
    s.sendall(f"CONNECT {authority} HTTP/1.1\r\n\r\n".encode())
    print(head_of(s).split(b"\r\n")[0].decode())
"#;
    let bench = Bench::new();
    let said = tunnel::run(&bench, SCRIPT).text();
    assert_eq!(said, "HTTP/1.1 400 Bad Request\n".repeat(5));
    let refused = bench.journal().of_type("refused");
    assert_eq!(refused.len(), 5, "{refused:#?}");
    assert!(refused.iter().all(|r| r["by"] == "bad_request"), "{refused:#?}");
}

/// Opened in advance and not used: a bare connection, a tunnel, a tunnel with TLS; closed in order
/// or reset; at once or when the client exits. Nothing is dialled, nothing is refused.
#[test]
fn connections_without_a_byte() {
    const SCRIPT: &str = r#"
connect().close()
tunnel("idle.test:443")[0].close()
reset(tunnel("idle.test:443")[0])
reset(tls(tunnel("idle.test:443")[0], "idle.test"))
s = connect()
s.sendall(b"CONNECT idle.test:443 HTTP/1.1\r\n\r\n")
reset(s)
left = [connect(), tunnel("left.test:443")[0], tls(tunnel("left.test:443")[0], "left.test")]
"#;
    let bench = Bench::new();
    tunnel::run(&bench, SCRIPT);
    assert_eq!(bench.origin.connections(), 0);
    assert!(bench.journal().of_type("refused").is_empty());
    let tunnels = bench.journal().of_type("tunnel");
    let of = |host: &str| tunnels.iter().filter(|t| t["host"] == host).count();
    assert_eq!((of("idle.test"), of("left.test")), (4, 2), "{tunnels:#?}");
    assert!(tunnels.iter().all(|t| t["flags"].is_null()), "{tunnels:#?}");
    // The gate is as well as before.
    bench.run_sh("curl -sSf https://next.test/").ok();
}

/// A stream that its reader leaves by a reset, as agents do when they exit, is recorded as cut by
/// the client, with what had arrived.
#[test]
fn a_stream_that_ends_by_a_reset() {
    const SCRIPT: &str = r#"
s = tls(tunnel("mcp.test:443")[0], "mcp.test")
s.sendall(b"GET /sse?n=9&steps=next HTTP/1.1\r\nHost: mcp.test\r\n\r\n")
got = b""
while b"id: 0" not in got: got += s.recv(1000)
reset(s)
while not os.path.exists("recorded"): time.sleep(0.01)
"#;
    let bench = Bench::new();
    let run = tunnel::start(&bench, &[], SCRIPT);
    let exchange = bench.journal().only("/sse?n=9&steps=next");
    std::fs::write(bench.work().join("recorded"), "").unwrap();
    bench.origin.release("next", 100);
    run.finish().ok();
    assert_eq!(exchange.outcome(), "cut_by_client", "{}", exchange.answer());
    assert!(exchange.response_body().starts_with(b"event: tick\nid: 0\n"));
}

/// CONNECT to an address: the name in the hello is whom the certificate is for and whom the origin
/// is asked for; without one it is the address. One that the gate's own DNS gave stands for its name.
#[test]
fn connect_to_an_address() {
    const SCRIPT: &str = r#"
print(get(tls(tunnel("203.0.113.7:443")[0], "named.test"), "/?named", "named.test"))
print(get(tls(tunnel("203.0.113.7:443")[0], "203.0.113.7"), "/?bare", "203.0.113.7"))
looked_up = socket.gethostbyname("looked-up.test")
print(get(tls(tunnel(looked_up + ":443")[0], "looked-up.test"), "/?looked-up", "looked-up.test"))
"#;
    let bench = Bench::new();
    let said = tunnel::run(&bench, SCRIPT).text();
    assert_eq!(said, "HTTP/1.1 200 OK\n".repeat(3));
    for (target, host, sni) in [
        ("/?named", "203.0.113.7", json!("named.test")),
        ("/?bare", "203.0.113.7", Value::Null),
        ("/?looked-up", "looked-up.test", json!("looked-up.test")),
    ] {
        let request = bench.journal().only(target).request;
        assert_eq!(request["host"], host, "{request}");
        assert_eq!(request["tls"]["sni"], sni, "{request}");
        assert_eq!(request["flags"], Value::Null, "{request}");
    }
    assert_eq!(bench.origin.only("/?named").sni.as_deref(), Some("named.test"));
}

/// HTTP/1.1 is agreed with whoever offers it. A client that insists on HTTP/2 gets TLS's own alert
/// and leaves a record that says why.
#[test]
fn alpn() {
    const SCRIPT: &str = r#"
for offer in [["h2", "http/1.1"], ["http/1.1"], None]:
    t = tls(tunnel("api.test:443")[0], "api.test", alpn=offer)
    print(t.selected_alpn_protocol(), get(t, "/", "api.test"))
try: tls(tunnel("grpc.test:443")[0], "grpc.test", alpn=["h2"])
except ssl.SSLError as error: print(error)
"#;
    let bench = Bench::new();
    let said = tunnel::run(&bench, SCRIPT).text();
    let lines: Vec<_> = said.lines().collect();
    let agreed = "http/1.1 HTTP/1.1 200 OK";
    assert_eq!(lines[..3], [agreed, agreed, "None HTTP/1.1 200 OK"], "{said}");
    assert!(lines[3].contains("alert no application protocol"), "{said}");
    let tunnel = bench.journal().wait_for("tunnel", |t| t["host"] == "grpc.test");
    assert_eq!(tunnel["outcome"], "client_tls_failed", "{tunnel}");
    assert_eq!(tunnel["sni"], "grpc.test", "{tunnel}");
    assert!(tunnel["error"].as_str().unwrap().contains("insists on h2"), "{tunnel}");
}

/// HTTP/2 without asking is turned down in its own words, on every way in, and recorded.
#[test]
fn http2_with_prior_knowledge() {
    const SCRIPT: &str = r#"
preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
for step in [1, 100]:
    for s in [tunnel("clear.test:80")[0], tls(tunnel("tls.test:443")[0], "tls.test")]:
        for at in range(0, len(preface), step): s.sendall(preface[at:at + step])
        print(to_end(s).hex())
"#;
    let bench = Bench::new();
    let said = tunnel::run(&bench, SCRIPT).text();
    let goodbye = "000000040000000000\
                   000008070000000000000000000000000d";
    assert_eq!(said, format!("{goodbye}\n").repeat(4));
    let url = "http://curl.test/";
    let output = bench.run(&["curl", "-sS", "--http2-prior-knowledge", "--noproxy", "*", url]);
    assert_ne!(output.code(), Some(0), "{output:?}");
    let refused = bench.journal().of_type("refused");
    let hosts: Vec<_> = refused.iter().map(|r| r["host"].as_str().unwrap()).collect();
    assert_eq!(hosts, ["clear.test", "tls.test", "clear.test", "tls.test", "curl.test"]);
    assert!(refused.iter().all(|r| r["by"] == "unknown_protocol"), "{refused:#?}");
    assert!(refused[0]["detail"].as_str().unwrap().contains("HTTP/2"), "{refused:#?}");
    assert_eq!(bench.origin.connections(), 0);
}

/// The library that most agents' Python side calls stand on, by its own proxy code.
#[test]
fn python_requests_by_the_proxy() {
    const SCRIPT: &str = r#"
import requests
with requests.Session() as session:
    for n in range(3): print(session.get(f"https://lib.test/?{n}").status_code)
"#;
    let bench = Bench::new();
    let command = bench.run_command(&[], &[interpreter(), "-c", SCRIPT]);
    assert_eq!(finish(command).ok().text(), "200\n".repeat(3));
    let ended = wait_for("three exchanges", || {
        let ended = bench.journal().ended(3);
        (ended.len() == 3).then_some(ended)
    });
    let flows: Vec<_> = ended.iter().map(|e| e.request["flow"].clone()).collect();
    assert!(flows.iter().all(|flow| *flow == flows[0]), "one tunnel for all: {flows:?}");
}
