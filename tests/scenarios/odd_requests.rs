//! Requests as no library writes them: in one piece, byte by byte, very long, or broken on purpose.
//! What is odd but right passes; what two readers could understand differently does not, because
//! that is how requests are smuggled (RFC 9112 section 11.2).

use crate::support::bench::{Bench, Output};
use crate::support::journal::compare;
use crate::support::python::interpreter;
use crate::support::wait_for;

/// Sends these bytes to port 80 of a host, in pieces of `piece` bytes, and prints what comes back
/// until the connection ends.
const SCRIPT: &str = r#"
import socket, sys, time
data, piece = sys.argv[1].encode().decode("unicode_escape").encode("latin1"), int(sys.argv[2])
s = socket.create_connection(("odd.test", 80))
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
try:
    for at in range(0, len(data), piece):
        s.sendall(data[at:at + piece])
        if piece < 100: time.sleep(0.001)
except OSError: pass
s.settimeout(60)
try:
    while got := s.recv(65536): sys.stdout.buffer.write(got)
except OSError: pass
"#;

fn send(bench: &Bench, request: &str, piece: usize) -> Output {
    let request = request.as_bytes().escape_ascii().to_string();
    bench.run(&[interpreter(), "-c", SCRIPT, &request, &piece.to_string()]).ok()
}

#[test]
fn several_in_one_piece() {
    let bench = Bench::new();
    let request = "GET /?n=1 HTTP/1.1\r\nHost: odd.test\r\n\r\n\
                   POST /echo?n=2 HTTP/1.1\r\nHost: odd.test\r\nContent-Length: 5\r\n\r\nhello\
                   POST /echo?n=3 HTTP/1.1\r\nHost: odd.test\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3;ext=\"1;\"\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n\
                   GET /?n=4 HTTP/1.1\r\nHost: odd.test\r\nConnection: close\r\n\r\n";
    let answers = send(&bench, request, 1_000_000).text();
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 4, "{answers}");
    let order: Vec<_> = ["hello from", "hello", "abcde", "hello from"]
        .iter()
        .scan(0, |from, text| {
            let at = answers[*from..].find(text)? + *from;
            *from = at + text.len();
            Some(at)
        })
        .collect();
    assert_eq!(order.len(), 4, "answers out of order: {answers}");
    assert_eq!(compare(&bench.journal(), &bench.origin), 4);
    let trailers = bench.origin.only("/echo?n=3").trailers;
    assert_eq!(trailers, [("X-Sum".to_owned(), "5".to_owned())]);
}

#[test]
fn byte_by_byte() {
    let bench = Bench::new();
    let request = "POST /echo?slowly HTTP/1.1\r\nHost: odd.test\r\nTransfer-Encoding: chunked\r\n\
                   Connection: close\r\n\r\na\r\n0123456789\r\n1\r\n!\r\n0\r\n\r\n";
    let answer = send(&bench, request, 1).text();
    assert!(answer.ends_with("0123456789!"), "{answer}");
    assert_eq!(compare(&bench.journal(), &bench.origin), 1);
}

/// Cookies and tokens grow; 40 KB of fields are still a request.
#[test]
fn long_heads() {
    let bench = Bench::new();
    let cookie = "c".repeat(8000);
    let fields: String = (0..5).map(|n| format!("X-Long-{n}: {cookie}\r\n")).collect();
    let request =
        format!("GET /?long HTTP/1.1\r\nHost: odd.test\r\n{fields}Connection: close\r\n\r\n");
    let answer = send(&bench, &request, 1_000_000).text();
    assert!(answer.ends_with("hello from the origin\n"), "{answer}");
    assert_eq!(compare(&bench.journal(), &bench.origin), 1);
}

/// No library writes this, but each reader reads it the same way: an empty line before the request,
/// a method of its own, a target with what was typed.
#[test]
fn odd_but_right() {
    let bench = Bench::new();
    let request = "\r\n\r\nget /?ü=\"{|}` HTTP/1.1\r\nhOST:odd.test\r\nX-Empty:\r\nX-Odd: \t a \r\n\
                   !#$%&'*+-.^_`|~: b\r\nx-odd: ü\r\nConnection: close\r\n\r\n";
    let answer = send(&bench, request, 1_000_000).text();
    assert!(answer.ends_with("hello from the origin\n"), "{answer}");
    assert_eq!(compare(&bench.journal(), &bench.origin), 1);
    let seen = bench.origin.only("/?ü=\"{|}`");
    assert_eq!((&seen.method[..], seen.field("x-odd")), ("get", Some("a")));
}

/// HTTP/1.0: the connection ends with the answer.
#[test]
fn an_old_client() {
    let bench = Bench::new();
    let answer = send(&bench, "GET /?old HTTP/1.0\r\nHost: odd.test\r\n\r\n", 100).text();
    assert!(answer.ends_with("hello from the origin\n"), "{answer}");
    assert_eq!(compare(&bench.journal(), &bench.origin), 1);
}

/// One gate, one request after the other: each is refused with its reason and reaches nobody.
#[test]
fn what_could_be_smuggled() {
    let bench = Bench::new();
    for (n, (request, reason)) in SMUGGLED.iter().enumerate() {
        let answer = send(&bench, request, 1_000_000).text();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{request:?}: {answer}");
        assert!(!answer.contains("HTTP/1.1 2"), "{request:?}: {answer}");
        assert!(answer.contains(reason), "{request:?}: {answer}");
        wait_for(&format!("a record of what was wrong with {request:?}"), || {
            let refused = bench.journal().of_type("refused").into_iter();
            let refused = refused.filter(|r| r["by"] == "bad_request").map(|r| r["detail"].clone());
            let broken = bench.journal().of_type("response").into_iter();
            let broken = broken.filter(|r| r["outcome"] == "client_broken");
            let reasons: Vec<_> = refused.chain(broken.map(|r| r["error"].clone())).collect();
            let told = reasons.iter().any(|r| r.as_str().is_some_and(|r| r.contains(reason)));
            (reasons.len() == n + 1 && told).then_some(())
        });
        assert!(bench.origin.seen().is_empty(), "{request:?} reached the origin");
    }
    bench.origin.forgive(); // a request that broke off in its body is half a request
}

const SMUGGLED: [(&str, &str); 30] = [
    (
        "POST /x HTTP/1.1\r\nHost: odd.test\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "both Transfer-Encoding and Content-Length",
    ),
    (
        "POST /x HTTP/1.1\r\nHost: odd.test\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "more than one Content-Length",
    ),
    (
        "POST /x HTTP/1.1\r\nHost: odd.test\r\nContent-Length: 3, 3\r\n\r\nabc",
        "more than one Content-Length",
    ),
    (
        "POST /x HTTP/1.1\r\nHost: odd.test\r\nContent-Length: +3\r\n\r\nabc",
        "a Content-Length that is not a number",
    ),
    (
        "POST /x HTTP/1.1\r\nHost: odd.test\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "a Transfer-Encoding other than exactly",
    ),
    (
        "POST /x HTTP/1.1\r\nHost: odd.test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "a Transfer-Encoding other than exactly",
    ),
    (
        "POST /x HTTP/1.1\r\nHost: odd.test\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "a Transfer-Encoding other than exactly",
    ),
    (
        "POST /x HTTP/1.1\r\nHost: odd.test\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
        "a Transfer-Encoding other than exactly",
    ),
    (
        "POST /x HTTP/1.1\r\nHost: odd.test\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        "a control byte in a field value",
    ),
    (
        "POST /x HTTP/1.1\r\nHost: odd.test\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "white space in a field name or before its colon",
    ),
    (
        "POST /x HTTP/1.1\r\nHost: odd.test\r\nTransfer-Encoding\r\n : chunked\r\n\r\n0\r\n\r\n",
        "a field line without a colon",
    ),
    (
        "POST /x HTTP/1.0\r\nHost: odd.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding in an HTTP/1.0 request",
    ),
    (
        "POST /x HTTP/1.1\r\nHost: odd.test\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
        "no chunk size where one was expected",
    ),
    (
        "POST /x HTTP/1.1\r\nHost: odd.test\r\nTransfer-Encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n",
        "malformed chunked coding: a line feed without a carriage return",
    ),
    (
        "POST /x HTTP/1.1\r\nHost: odd.test\r\nTransfer-Encoding: chunked\r\n\r\n1;a=\"\r\nx\r\n0\r\n\r\n",
        "a line end in a quoted string",
    ),
    (
        "POST /x HTTP/1.1\r\nHost: odd.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nHost: x\r\n\r\n",
        "a trailer field that would change",
    ),
    ("GET /x HTTP/1.1\r\nHost: odd.test\r\n folded: yes\r\n\r\n", "a folded field line"),
    ("GET /x HTTP/1.1\r\n Host: odd.test\r\n\r\n", "white space before the first field"),
    ("GET /x HTTP/1.1\r\nHost: odd.test\r\nHost: other.test\r\n\r\n", "more than one Host field"),
    ("GET /x HTTP/1.1\r\nHost: odd.test/\r\n\r\n", "a Host field that is not HOST or HOST:PORT"),
    ("GET /x HTTP/1.1\r\nAccept: */*\r\n\r\n", "no Host field"),
    ("GET http://other.test/x HTTP/1.1\r\nHost: odd.test\r\n\r\n", "names another host"),
    ("GET /x HTTP/1.1\r\nHo st: odd.test\r\n\r\n", "white space in a field name"),
    ("GET /x HTTP/1.1\r\nHost: odd.test\r\n: x\r\n\r\n", "an empty field name"),
    ("GET /x HTTP/1.1\nHost: odd.test\r\n\r\n", "a line feed without a carriage return before it"),
    (
        "GET /x HTTP/1.1\r\nHost: odd.test\r\nA: b\rC: d\r\n\r\n",
        "a carriage return without a line feed",
    ),
    ("GET /x HTTP/1.1\r\nHost: odd.test\r\nA: \0\r\n\r\n", "a NUL byte in a field value"),
    ("GET /x\u{1} HTTP/1.1\r\nHost: odd.test\r\n\r\n", "a control byte in the request target"),
    ("GET /x y HTTP/1.1\r\nHost: odd.test\r\n\r\n", "something other than HTTP/1.x"),
    ("GET /x HTTP/9.9\r\nHost: odd.test\r\n\r\n", "something other than HTTP/1.x"),
];
