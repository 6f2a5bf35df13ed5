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
    let request = request.replace('\r', "\\r").replace('\n', "\\n");
    bench.run(&[interpreter(), "-c", SCRIPT, &request, &piece.to_string()]).ok()
}

#[test]
fn several_in_one_piece() {
    let bench = Bench::new();
    let request = "GET /?n=1 HTTP/1.1\r\nHost: odd.test\r\n\r\n\
                   POST /echo?n=2 HTTP/1.1\r\nHost: odd.test\r\nContent-Length: 5\r\n\r\nhello\
                   POST /echo?n=3 HTTP/1.1\r\nHost: odd.test\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n\
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

/// HTTP/1.0: the connection ends with the answer.
#[test]
fn an_old_client() {
    let bench = Bench::new();
    let answer = send(&bench, "GET /?old HTTP/1.0\r\nHost: odd.test\r\n\r\n", 100).text();
    assert!(answer.ends_with("hello from the origin\n"), "{answer}");
    assert_eq!(compare(&bench.journal(), &bench.origin), 1);
}

#[test]
fn what_could_be_smuggled() {
    for request in [
        "POST /x HTTP/1.1\r\nHost: odd.test\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /x HTTP/1.1\r\nHost: odd.test\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "POST /x HTTP/1.1\r\nHost: odd.test\r\nContent-Length: 3, 3\r\n\r\nabc",
        "POST /x HTTP/1.1\r\nHost: odd.test\r\nContent-Length: +3\r\n\r\nabc",
        "POST /x HTTP/1.1\r\nHost: odd.test\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST /x HTTP/1.1\r\nHost: odd.test\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "POST /x HTTP/1.1\r\nHost: odd.test\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: odd.test\r\n folded: yes\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: odd.test\r\nHost: other.test\r\n\r\n",
        "GET /x HTTP/1.1\r\nHo st: odd.test\r\n\r\n",
        "GET /x y HTTP/1.1\r\nHost: odd.test\r\n\r\n",
        "GET /x HTTP/9.9\r\nHost: odd.test\r\n\r\n",
    ] {
        let bench = Bench::new();
        let answer = send(&bench, request, 1_000_000).text();
        assert!(answer.starts_with("HTTP/1.1 4") || answer.is_empty(), "{request:?}: {answer}");
        assert!(!answer.contains("HTTP/1.1 2"), "{request:?}: {answer}");
        assert!(bench.origin.seen().is_empty(), "{request:?} reached the origin");
        wait_for("a record of what was refused", || {
            let refused = bench.journal().of_type("refused");
            let broken = bench.journal().of_type("response");
            (refused.iter().any(|r| r["by"] == "bad_request")
                || broken.iter().any(|r| r["outcome"] == "client_broken"))
            .then_some(())
        });
    }
}
