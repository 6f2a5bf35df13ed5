//! Every way in which HTTP/1.1 says where a message ends (RFC 9112 section 6), and what may come
//! before and after one: each passes unchanged, and the journal tells it as it was.

use crate::support::bench::Bench;
use crate::support::content::Noise;
use crate::support::journal::{compare, compare_one};
use crate::support::python::interpreter;

/// One curl asks three times: one connection to the gate, and one from the gate to the origin.
#[test]
fn connections_are_used_again() {
    let bench = Bench::new();
    let output = bench.run_sh("curl -sSf 'https://keep.test/?n=[1-3]'").ok();
    assert_eq!(output.text(), "hello from the origin\n".repeat(3));
    assert_eq!(compare(&bench.journal(), &bench.origin), 3);
    assert_eq!(bench.origin.connections(), 1, "connections of the gate to the origin");
    assert!(bench.origin.seen().iter().all(|s| s.connection == 0));
    let exchanges = bench.journal().exchanges();
    assert!(exchanges.iter().all(|e| e.request["flow"] == exchanges[0].request["flow"]));
}

/// An upload of unknown length goes out in chunks; chunked or not, the record is the same.
#[test]
fn uploads_in_chunks() {
    let bench = Bench::new();
    let body = Noise::bytes(11, 700_000);
    std::fs::write(bench.work().join("body"), &body).unwrap();
    let output = bench.run_sh("cat body | curl -sSf -T - https://chunks.test/echo?chunked").ok();
    assert!(output.stdout == body, "came back changed");
    let seen = bench.origin.only("/echo?chunked");
    assert_eq!(seen.field("transfer-encoding"), Some("chunked"));
    assert_eq!(compare(&bench.journal(), &bench.origin), 1);
}

/// HEAD has the length of what it does not send; 204 and 304 have no body whatever they say, and 205
/// says that it has none.
#[test]
fn answers_without_a_body() {
    let bench = Bench::new();
    let script = "set -eu
        curl -sSfI 'https://empty.test/bytes?n=5000'
        curl -sSf -w '%{http_code}\\n' 'https://empty.test/status?code=204'
        curl -sSf -w '%{http_code}\\n' 'https://empty.test/status?code=304'
        curl -sSf -w '%{http_code}\\n' 'https://empty.test/status?code=205'
        curl -sSfI 'https://empty.test/bytes?n=5000&frame=chunked'
        curl -sSf -w '%{http_code}\\n' 'https://empty.test/status?code=204' 'https://empty.test/?then'";
    let output = bench.run_sh(script).ok().text();
    assert!(output.contains("204\n304\n205\n"), "{output}");
    assert!(output.to_ascii_lowercase().contains("content-length: 5000"), "{output}");
    assert_eq!(compare(&bench.journal(), &bench.origin), 7);
    let head = bench.journal().only("/bytes?n=5000");
    assert_eq!((head.status(), head.answer()["body"]["bytes"].as_u64()), (Some(200), Some(0)));
    assert_eq!(head.outcome(), "complete");
}

/// 103 comes before 200, to the client and in the record.
#[test]
fn interim_answers() {
    let bench = Bench::new();
    let output = bench.run_sh("curl -sSfi https://hints.test/interim").ok().text();
    let early = output.find("103 Early Hints").expect("the 103");
    assert!(output.find("200 OK").expect("the 200") > early, "{output}");
    assert!(output.ends_with("after the hints\n"), "{output}");
    assert_eq!(compare(&bench.journal(), &bench.origin), 1);
    let exchange = bench.journal().only("/interim");
    assert_eq!(exchange.answer()["interim"][0]["status"], 103, "{}", exchange.answer());
}

/// `Expect: 100-continue`: curl holds a big body back until the origin has said yes.
#[test]
fn bodies_that_wait_for_permission() {
    let bench = Bench::new();
    let body = Noise::bytes(12, 2_000_000);
    std::fs::write(bench.work().join("body"), &body).unwrap();
    let script = "curl -sSfv --expect100-timeout 600 -H 'Expect: 100-continue' \
                  --data-binary @body https://expect.test/echo?expect";
    let output = bench.run_sh(script).ok();
    assert!(output.stdout == body, "came back changed");
    assert!(output.stderr.contains("100 Continue"), "{}", output.stderr);
    compare_one(&bench.journal().only("/echo?expect"), &bench.origin.only("/echo?expect"));
}

/// The origin says no in the place of 100: the body is not sent, curl goes on with another
/// connection, and the record says that the request was not whole.
#[test]
fn bodies_that_are_not_permitted() {
    let bench = Bench::new();
    std::fs::write(bench.work().join("body"), Noise::bytes(14, 2_000_000)).unwrap();
    let script = "curl -sS --expect100-timeout 600 -H Expect:100-continue --data-binary @body \
                      -w '%{http_code} %{size_upload}\\n' 'https://expect.test/reject?code=401' \
                      --next -sSf https://expect.test/?next";
    let output = bench.run_sh(script).ok();
    assert_eq!(output.text(), "not this401 0\nhello from the origin\n");
    let exchange = bench.journal().only("/reject?code=401");
    assert_eq!(exchange.status(), Some(401));
    assert_eq!(exchange.response_body(), b"not this");
    assert_eq!(exchange.request["complete"], false, "{}", exchange.request);
    assert_eq!(exchange.request["body"]["bytes"], 0, "{}", exchange.request);
    compare_one(&bench.journal().only("/?next"), &bench.origin.only("/?next"));
}

/// A client that is told no and sends its body all the same may go on with the connection.
#[test]
fn bodies_that_come_after_the_answer() {
    const SCRIPT: &str = r#"
import socket
s = socket.create_connection(("late.test", 80))
f = s.makefile("rb")
def answer():
    status, length = f.readline().split()[1], 0
    while (line := f.readline()) != b"\r\n":
        if line.lower().startswith(b"content-length:"): length = int(line.split()[1])
    return status, f.read(length)
s.sendall(b"POST /reject?code=417 HTTP/1.1\r\nHost: late.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
assert answer() == (b"417", b"not this")
s.sendall(b"helloGET /?late HTTP/1.1\r\nHost: late.test\r\n\r\n")
assert answer() == (b"200", b"hello from the origin\n")
"#;
    let bench = Bench::new();
    bench.run(&[interpreter(), "-c", SCRIPT]).ok();
    let exchange = bench.journal().only("/reject?code=417");
    assert_eq!((exchange.status(), exchange.outcome()), (Some(417), "complete"));
    assert_eq!(exchange.request_body(), b"hello");
    assert_eq!(bench.journal().only("/?late").outcome(), "complete");
    assert_eq!(bench.origin.connections(), 1, "connections of the gate to the origin");
}

/// The origin answers before it has read the body, and reads no further.
#[test]
fn answers_before_the_body() {
    let bench = Bench::new();
    std::fs::write(bench.work().join("body"), Noise::bytes(13, 6_000_000)).unwrap();
    let script =
        "curl -sS -w '%{http_code}' -H 'Expect:' --data-binary @body https://early.test/early";
    let output = bench.run_sh(script);
    assert!(output.text().ends_with("413"), "{output:?}");
    let exchange = bench.journal().only("/early");
    assert_eq!(exchange.status(), Some(413));
    assert_eq!(exchange.response_body(), b"too much");
}

/// A body that ends with the connection.
#[test]
fn bodies_that_the_connection_ends() {
    let bench = Bench::new();
    let output = bench.run_sh("curl -sSf 'https://close.test/bytes?n=300000&frame=close'").ok();
    assert!(output.stdout == Noise::bytes(1, 300_000), "came changed");
    assert_eq!(compare(&bench.journal(), &bench.origin), 1);
    assert_eq!(bench.journal().exchanges()[0].outcome(), "complete");
}

/// HTTP/1.0, and `Connection: close`: the connection ends with the answer, and the origin is told
/// what the client said.
#[test]
fn connections_that_end_with_the_answer() {
    let bench = Bench::new();
    let script = "set -eu
        curl -sSf --http1.0 'http://close.test/bytes?n=70000&seed=2&frame=close'
        curl -sSf -H 'Connection: close' 'https://close.test/bytes?n=70000&seed=3&frame=chunked'
        curl -sSf -H 'Connection: close' https://close.test/?n=1 https://close.test/?n=2";
    let output = bench.run_sh(script).ok();
    let hello = "hello from the origin\n".repeat(2).into_bytes();
    let expected = [Noise::bytes(2, 70_000), Noise::bytes(3, 70_000), hello].concat();
    assert!(output.stdout == expected, "came changed");
    assert_eq!(compare(&bench.journal(), &bench.origin), 4);
    let seen = bench.origin.seen();
    assert_eq!(seen[0].version, "HTTP/1.0");
    assert!(seen[1..].iter().all(|s| s.field("connection") == Some("close")));
    assert_eq!(bench.origin.connections(), 4, "connections of the gate to the origin");
}

/// A client that has nothing more to say and says so still gets its answer.
#[test]
fn half_a_connection() {
    const SCRIPT: &str = r#"
import socket, ssl
for port in (80, 443):
    s = socket.create_connection(("half.test", port))
    if port == 443: s = ssl.create_default_context().wrap_socket(s, server_hostname="half.test")
    s.sendall(b"POST /echo?port=%d HTTP/1.1\r\nHost: half.test\r\nContent-Length: 5\r\n\r\nhello" % port)
    if port == 80: s.shutdown(socket.SHUT_WR)
    got = b""
    while not got.endswith(b"\r\n\r\nhello"):
        piece = s.recv(65536)
        assert piece, got
        got += piece
    if port == 80: assert s.recv(1) == b""
"#;
    let bench = Bench::new();
    bench.run(&[interpreter(), "-c", SCRIPT]).ok();
    assert_eq!(compare(&bench.journal(), &bench.origin), 2);
}

/// Fields behind a chunked body.
#[test]
fn trailers() {
    let bench = Bench::new();
    // curl hands trailers out where it writes the head.
    let output = bench.run_sh("curl -sSfi https://trail.test/trailers").ok().text();
    assert!(output.contains("X-Sum: 2") && output.contains("one two\n"), "{output}");
    assert_eq!(compare(&bench.journal(), &bench.origin), 1);
    assert_eq!(bench.journal().exchanges()[0].answer()["trailers"][0][0], "X-Sum");
}

/// The record keeps a body as it was on the wire; the client decodes it.
#[test]
fn content_codings_pass_unchanged() {
    let bench = Bench::new();
    let output = bench.run_sh("curl -sSf --compressed https://gzip.test/gzip").ok();
    assert!(output.text().contains("under a content coding"), "{output:?}");
    assert_eq!(compare(&bench.journal(), &bench.origin), 1);
    assert!(bench.journal().exchanges()[0].response_body().starts_with(&[0x1f, 0x8b]));
}

/// After 101 the bytes are no longer HTTP and pass as they are, both ways.
#[test]
fn upgrades() {
    const SCRIPT: &str = r#"
import socket, ssl
raw = socket.create_connection(("upgrade.test", 443))
s = ssl.create_default_context().wrap_socket(raw, server_hostname="upgrade.test")
s.sendall(b"GET /upgrade HTTP/1.1\r\nHost: upgrade.test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
f = s.makefile("rb")
assert b" 101 " in f.readline()
while f.readline() != b"\r\n": pass
for n in range(10):
    s.sendall(b"%08d" % n)
    assert f.read(8) == b"%08d" % n
s.close()
"#;
    let bench = Bench::new();
    bench.run(&[interpreter(), "-c", SCRIPT]).ok();
    let exchange = bench.journal().only("/upgrade");
    assert_eq!(exchange.status(), Some(101));
    assert_eq!(exchange.answer()["upgraded"]["sent"], 80, "{}", exchange.answer());
    assert_eq!(exchange.answer()["upgraded"]["received"], 80, "{}", exchange.answer());
}

/// The origin wants another upgrade than was offered: the connection goes on in HTTP/1.1.
#[test]
fn upgrades_that_are_refused() {
    let bench = Bench::new();
    let script = "curl -sSi -H 'Connection: Upgrade' -H 'Upgrade: websocket' \
                  'https://upgrade.test/status?code=426' https://upgrade.test/?after";
    let output = bench.run_sh(script).ok().text();
    assert!(output.contains(" 426 ") && output.contains("Upgrade: x/1"), "{output}");
    assert!(output.ends_with("hello from the origin\n"), "{output}");
    assert_eq!(compare(&bench.journal(), &bench.origin), 2);
    assert!(bench.origin.seen().iter().all(|s| s.field("upgrade") == Some("websocket")));
    assert_eq!(bench.origin.connections(), 1, "connections of the gate to the origin");
}

/// An offer to go on in HTTP/2 in clear text is not handed on, so the exchange can be read; the
/// record has it.
#[test]
fn offers_of_h2c() {
    let bench = Bench::new();
    let script = "set -eu
        curl -sSf --http2 'http://h2c.test/?way=absolute'
        unset HTTP_PROXY http_proxy ALL_PROXY all_proxy
        curl -sSf --http2 'http://h2c.test/?way=transparent'";
    let output = bench.run_sh(script).ok();
    assert_eq!(output.text(), "hello from the origin\n".repeat(2));
    for way in ["/?way=absolute", "/?way=transparent"] {
        let seen = bench.origin.only(way);
        for name in ["upgrade", "http2-settings", "connection"] {
            assert_eq!(seen.field(name), None, "{way}");
        }
        let fields = bench.journal().only(way).request["head"]["fields"].to_string();
        assert!(fields.contains(r#"["Upgrade","h2c"]"#), "{fields}");
        assert!(fields.contains(r#"["HTTP2-Settings","#), "{fields}");
    }
}
