//! The origin itself, spoken to by curl without a gate between: what every other scenario stands on.

use crate::support::bench::{Bench, Output, finish};
use crate::support::content::Noise;

/// curl straight to the origin, whatever host the URL names.
fn curl(bench: &Bench, args: &[&str]) -> Output {
    let mut command = bench.command("curl");
    command.args(["-sS", "--cacert"]).arg(bench.origin.ca_pem());
    for (port, own) in [(443, bench.origin.https_port), (80, bench.origin.http_port)] {
        command.args(["--connect-to", &format!(":{port}:127.0.0.1:{own}")]);
    }
    command.args(args);
    finish(command)
}

#[test]
fn every_route_answers() {
    let bench = Bench::new();
    let hello = "hello from the origin\n";
    assert_eq!(curl(&bench, &["https://a.test/"]).ok().text(), hello);
    assert_eq!(curl(&bench, &["http://b.test/"]).ok().text(), hello);
    assert_eq!(curl(&bench, &["-d", "x y", "https://a.test/echo"]).ok().text(), "x y");
    for frame in ["length", "chunked", "close"] {
        let url = format!("https://a.test/bytes?n=200001&seed=5&frame={frame}");
        assert!(curl(&bench, &[&url]).ok().stdout == Noise::bytes(5, 200_001), "{frame}");
    }
    let events = curl(&bench, &["https://a.test/sse?n=2"]).ok().text();
    assert_eq!(events.matches("event: tick").count(), 2, "{events}");
    assert_eq!(curl(&bench, &["https://a.test/slow?ms=1"]).ok().text(), "at last\n");
    bench.origin.release("go", 1);
    assert_eq!(curl(&bench, &["https://a.test/hold?name=go"]).ok().text(), "released\n");
    let status = ["-w", "%{http_code}", "https://a.test/status?code=418"];
    assert_eq!(curl(&bench, &status).ok().text(), "as you asked\n418");
    assert!(curl(&bench, &["-i", "https://a.test/interim"]).ok().text().contains(" 103 "));
    assert!(curl(&bench, &["-i", "https://a.test/trailers"]).ok().text().contains("X-Last: yes"));
    let plain = curl(&bench, &["--compressed", "https://a.test/gzip"]).ok().text();
    assert!(plain.contains("under a content coding"), "{plain}");
    assert!(
        curl(&bench, &["-d", "{}", "https://a.test/v1/messages"]).ok().text().contains("Grüße")
    );
}

#[test]
fn broken_answers_are_broken() {
    let bench = Bench::new();
    for (url, code) in [
        ("https://a.test/abort?after=10", 18),
        ("https://a.test/abort?after=10&frame=chunked", 18),
        ("https://a.test/reset?after=10", 56),
        ("https://a.test/vanish", 52),
    ] {
        curl(&bench, &[url]).exits(code);
    }
    let early =
        ["-w", "%{http_code}", "-H", "Expect:", "--data-binary", "@body", "https://a.test/early"];
    std::fs::write(bench.work().join("body"), vec![0; 3_000_000]).unwrap();
    assert_eq!(curl(&bench, &early).text(), "too much413");
}

#[test]
fn it_remembers_what_it_saw_and_sent() {
    let bench = Bench::new();
    curl(&bench, &["-H", "X-Odd-CASE: 1", "-d", "in", "https://a.test/echo?1", "https://a.test/"])
        .ok();
    let seen = bench.origin.only("/echo?1");
    assert_eq!(
        (&seen.method[..], seen.host(), seen.sni.as_deref()),
        ("POST", "a.test", Some("a.test"))
    );
    assert!(seen.fields.contains(&("X-Odd-CASE".to_owned(), "1".to_owned())), "{seen:?}");
    assert_eq!(seen.body.whole(), Some(&b"in"[..]));
    let sent = seen.sent.unwrap();
    assert_eq!((sent.status, sent.body.whole()), (200, Some(&b"in"[..])));
    assert_eq!(bench.origin.only("/").connection, 0, "the same connection");
    assert!(bench.origin.violations().is_empty());
}

/// It is strict, or it could not tell what the gate does wrong.
#[test]
fn it_takes_offence() {
    use std::io::{Read, Write};
    for request in [
        "GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\nHost: a.test\n\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\nProxy-Connection: close\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n0\r\n\r\n",
    ] {
        let bench = Bench::new();
        let mut stream =
            std::net::TcpStream::connect(("127.0.0.1", bench.origin.http_port)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(bench.origin.violations().len(), 1, "{request:?}");
        bench.origin.forgive();
    }
}

#[test]
fn git_clones_from_it() {
    let bench = Bench::new();
    let bare = bench.origin.repository("empty.git");
    finish({
        let mut git = bench.command("git");
        git.args(["init", "-q", "--bare"]).arg(bare);
        git
    })
    .ok();
    let port = bench.origin.https_port;
    let mut git = bench.command("git");
    git.arg("-c").arg(format!("http.sslCAInfo={}", bench.origin.ca_pem().display()));
    git.arg("-c").arg(format!("http.curloptResolve=git.test:{port}:127.0.0.1"));
    git.args(["clone", "-q", &format!("https://git.test:{port}/empty.git")]);
    finish(git).ok();
    assert!(bench.work().join("empty/.git").is_dir());
}
