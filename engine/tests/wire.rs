//! The engine on loopback with clear-text peers made of plain sockets: what goes in comes out,
//! byte for byte, and is in the journal. TLS and real clients are the scenarios of the root
//! package.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use agent_gate_engine::{Config, Driver, Engine, Limits, Listener, RunSettings, UpstreamProxies};
use agent_gate_store::record::{Field, Kept, Mode, Outcome, Record, RefusedBy};
use agent_gate_store::{Filter, HostList, HostLists, Id, Layout, Options, Reader, Store};

/// An engine with one run, an origin's listening socket, and the store they write to.
struct Bench {
    engine: Engine,
    store: Store,
    layout: Layout,
    run: Id,
    proxy: std::net::SocketAddr,
    origin: TcpListener,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new(driver: Driver) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("data"));
        let store = Store::open(&layout, Options::default()).unwrap();
        let config = Config {
            workers: 2,
            driver,
            authority_dir: layout.authority_dir().to_owned(),
            roots: Vec::new(),
            body_bytes_max: 4 << 20,
            limits: Limits::default(),
            own_addresses: Vec::new(),
        };
        let lists = HostLists::load(dir.path()).unwrap();
        let engine = Engine::start(config, lists, store.recorder()).unwrap();
        let origin = TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (run, proxy) = (Id::new(), listener.local_addr().unwrap());
        let rule = format!("origin.example:80:{}", origin.local_addr().unwrap());
        let settings = RunSettings {
            id: run,
            mode: Mode::Permissive,
            enforce_allowlist: false,
            upstream_cas: Vec::new(),
            upstream_insecure: false,
            resolve: vec![rule.parse().unwrap()],
            proxies: UpstreamProxies::default(),
            client_certificates: Vec::new(),
        };
        engine.attach(settings, vec![Listener::Proxy(listener)]).unwrap();
        Self { engine, store, layout, run, proxy, origin, _dir: dir }
    }

    fn client(&self) -> TcpStream {
        let client = TcpStream::connect(self.proxy).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client
    }

    /// Serves one connection: for each exchange, reads until `request` has arrived and answers.
    fn origin(&self, script: Vec<(Vec<u8>, Vec<u8>)>) -> JoinHandle<()> {
        let origin = self.origin.try_clone().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = origin.accept().unwrap();
            for (request, answer) in script {
                let mut received = vec![0; request.len()];
                stream.read_exact(&mut received).unwrap();
                assert_eq!(String::from_utf8_lossy(&received), String::from_utf8_lossy(&request));
                stream.write_all(&answer).unwrap();
            }
        })
    }

    /// Ends everything and reads the exchanges' records, oldest first.
    fn finish(self) -> Vec<agent_gate_store::Exchange> {
        self.engine.detach(self.run);
        self.engine.shutdown();
        self.store.close().unwrap();
        let reader = Reader::open(&self.layout).unwrap();
        let mut rows = reader.exchanges(&Filter::default(), 1000).unwrap();
        rows.reverse();
        rows.iter().map(|row| reader.exchange(row.id).unwrap().unwrap()).collect()
    }
}

fn read_answer(client: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut answer = vec![0; length];
    client.read_exact(&mut answer).unwrap();
    answer
}

fn read_to_end(mut client: TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    // A reset after data is an end, too.
    let _ = client.read_to_end(&mut answer);
    answer
}

fn body_of(record: &Option<Record<'static>>) -> Vec<u8> {
    let body = match record {
        Some(Record::Request(r)) => &r.body,
        Some(Record::Response(r)) => &r.body,
        other => panic!("no body in {other:?}"),
    };
    match &body.kept {
        Kept::Inline(bytes) => bytes.to_vec(),
        Kept::File { .. } => panic!("in a side file"),
    }
}

fn outcome(exchange: &agent_gate_store::Exchange) -> Outcome {
    exchange.row.outcome.unwrap()
}

const DRIVERS: [Driver; 2] = [Driver::IoUring, Driver::Epoll];
const ABSOLUTE: &str = "http://origin.example";
const HOST: &str = "Host: origin.example\r\n";

#[test]
fn exchanges_follow_each_other_on_one_connection() {
    for driver in DRIVERS {
        let bench = Bench::new(driver);
        let chunked = "2\r\nhi\r\n3\r\n yo\r\n0\r\nT: 1\r\n\r\n";
        // (as the client sends it, as the origin sees it, answer, request body, response body)
        let exchanges = [
            (
                format!("GET {ABSOLUTE}/a HTTP/1.1\r\n{HOST}\r\n"),
                format!("GET /a HTTP/1.1\r\n{HOST}\r\n"),
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned(),
                "",
                "ok",
            ),
            (
                format!("POST {ABSOLUTE}/b HTTP/1.1\r\n{HOST}Content-Length: 4\r\n\r\nbody"),
                format!("POST /b HTTP/1.1\r\n{HOST}Content-Length: 4\r\n\r\nbody"),
                format!("HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"),
                "body",
                "hi yo",
            ),
            (
                format!(
                    "PUT {ABSOLUTE}/c HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{chunked}"
                ),
                format!("PUT /c HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{chunked}"),
                "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"
                    .to_owned(),
                "hi yo",
                "",
            ),
            (
                format!("HEAD {ABSOLUTE}/d HTTP/1.1\r\n{HOST}\r\n"),
                format!("HEAD /d HTTP/1.1\r\n{HOST}\r\n"),
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n".to_owned(),
                "",
                "",
            ),
        ];
        let script = exchanges.iter().map(|e| (e.1.clone().into(), e.2.clone().into())).collect();
        let origin = bench.origin(script);
        let mut client = bench.client();
        for (sent, _, answer, _, _) in &exchanges {
            client.write_all(sent.as_bytes()).unwrap();
            let received = read_answer(&mut client, answer.len());
            assert_eq!(String::from_utf8_lossy(&received), *answer);
        }
        drop(client);
        origin.join().unwrap();
        let found = bench.finish();
        assert_eq!(found.len(), exchanges.len());
        for (found, (_, _, _, request, response)) in found.iter().zip(&exchanges) {
            assert_eq!(outcome(found), Outcome::Complete);
            assert_eq!(body_of(&found.request), request.as_bytes());
            assert_eq!(body_of(&found.response), response.as_bytes());
        }
    }
}

#[test]
fn one_byte_at_a_time_gives_the_same() {
    for driver in DRIVERS {
        let bench = Bench::new(driver);
        let body = "4\r\nbody\r\n0\r\n\r\n";
        let seen = format!("POST /b HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{body}");
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        let origin = bench.origin(vec![(seen.clone().into(), answer.into())]);
        let mut client = bench.client();
        client.set_nodelay(true).unwrap();
        for byte in seen.replace("/b", &format!("{ABSOLUTE}/b")).bytes() {
            client.write_all(&[byte]).unwrap();
            thread::sleep(Duration::from_micros(200));
        }
        assert_eq!(read_answer(&mut client, answer.len()), answer.as_bytes());
        origin.join().unwrap();
        let found = bench.finish();
        assert_eq!(body_of(&found[0].request), b"body");
    }
}

#[test]
fn an_origin_that_breaks_off_is_not_taken_for_whole() {
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", Outcome::CutByOrigin),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf", Outcome::CutByOrigin),
        ("HTTP/1.1 200 OK\r\n\r\nuntil close", Outcome::Complete),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", Outcome::OriginBroken),
    ] {
        let bench = Bench::new(Driver::Auto);
        let request = format!("GET /a HTTP/1.1\r\n{HOST}\r\n");
        let origin = bench.origin(vec![(request.clone().into(), answer.into())]);
        let mut client = bench.client();
        client.write_all(request.replace("/a", &format!("{ABSOLUTE}/a")).as_bytes()).unwrap();
        let received = read_to_end(client);
        assert!(answer.as_bytes().starts_with(&received), "{answer:?}");
        origin.join().unwrap();
        assert_eq!(outcome(&bench.finish()[0]), expected, "{answer:?}");
    }
}

#[test]
fn an_origin_that_says_nothing_gives_a_502() {
    for answer in ["", "rubbish\r\n\r\n"] {
        let bench = Bench::new(Driver::Auto);
        let request = format!("GET /a HTTP/1.1\r\n{HOST}\r\n");
        let origin = bench.origin(vec![(request.clone().into(), answer.into())]);
        let mut client = bench.client();
        client.write_all(request.replace("/a", &format!("{ABSOLUTE}/a")).as_bytes()).unwrap();
        let received = String::from_utf8(read_to_end(client)).unwrap();
        assert!(received.starts_with("HTTP/1.1 502 "), "{received}");
        assert!(received.contains("\"agent_gate_error\""), "{received}");
        origin.join().unwrap();
        let found = bench.finish();
        assert_eq!(found[0].row.status, Some(502));
        assert_ne!(outcome(&found[0]), Outcome::Complete);
    }
}

#[test]
fn a_client_that_goes_away_is_recorded_with_what_it_sent() {
    let bench = Bench::new(Driver::Auto);
    let origin = bench.origin.try_clone().unwrap();
    let mut client = bench.client();
    let head = format!("POST {ABSOLUTE}/a HTTP/1.1\r\n{HOST}Content-Length: 100\r\n\r\nhalf");
    client.write_all(head.as_bytes()).unwrap();
    let (mut upstream, _) = origin.accept().unwrap();
    let mut first = [0; 4];
    upstream.read_exact(&mut first).unwrap();
    drop(client);
    let mut rest = Vec::new();
    let _ = upstream.read_to_end(&mut rest);
    assert!(rest.ends_with(b"half"));
    let found = bench.finish();
    assert_eq!(outcome(&found[0]), Outcome::CutByClient);
    assert_eq!(body_of(&found[0].request), b"half");
    let Some(Record::Request(request)) = &found[0].request else { panic!("no request") };
    assert!(!request.complete);
}

/// Each request goes to the gate alone; the answer is a 400 that says why, and so does the record.
#[test]
fn malformed_requests_go_nowhere() {
    for (request, reason) in [
        (format!("GET {ABSOLUTE}/ HTTP/1.1\r\n{HOST}{HOST}\r\n"), "more than one Host"),
        (format!("GET {ABSOLUTE}/ HTTP/1.1\r\n\r\n"), "no Host"),
        (format!("GET {ABSOLUTE}/ HTTP/1.1\r\nHost: a b\r\n\r\n"), "a Host field that is not"),
        (format!("GET {ABSOLUTE}/ HTTP/1.1\r\nHost: other.example\r\n\r\n"), "names another host"),
        (
            format!(
                "POST {ABSOLUTE}/ HTTP/1.1\r\n{HOST}Content-Length: 1\r\nContent-Length: 1\r\n\r\n"
            ),
            "more than one Content-Length",
        ),
        (
            format!(
                "POST {ABSOLUTE}/ HTTP/1.1\r\n{HOST}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
            ),
            "both Transfer-Encoding and Content-Length",
        ),
        (
            format!("POST {ABSOLUTE}/ HTTP/1.1\r\n{HOST}Transfer-Encoding: gzip, chunked\r\n\r\n"),
            "other than exactly \\\"chunked\\\"",
        ),
        (
            format!("POST {ABSOLUTE}/ HTTP/1.0\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n"),
            "in an HTTP/1.0 request",
        ),
        (format!("GET {ABSOLUTE}/ HTTP/1.1\n{HOST}\r\n"), "a line feed without"),
        (format!("GET {ABSOLUTE}/ HTTP/1.1\r\n{HOST}A: b\rc\r\n\r\n"), "a carriage return without"),
        (format!("GET {ABSOLUTE}/ HTTP/1.1\r\n{HOST} folded\r\n\r\n"), "a folded field line"),
        (format!("GET {ABSOLUTE}/ HTTP/1.1\r\n{HOST}A : b\r\n\r\n"), "before its colon"),
        (
            format!("GET {ABSOLUTE}/\u{1} HTTP/1.1\r\n{HOST}\r\n"),
            "a control byte in the request target",
        ),
        (format!("GET {ABSOLUTE}/ HTTP/1.1\r\n{HOST}A: \0\r\n\r\n"), "a NUL byte"),
        (
            format!("GET {ABSOLUTE}/ HTTP/1.1\r\n{HOST}{}\r\n", "A: b\r\n".repeat(2000)),
            "more than 1024 fields",
        ),
        (
            format!("GET {ABSOLUTE}/ HTTP/1.1\r\n{HOST}A: {}", "b".repeat(300_000)),
            "longer than 262144 bytes",
        ),
        ("GET / HTTP/1.1\r\nHost: origin.example\r\n\r\n".to_owned(), "this is a proxy"),
        ("CONNECT origin.example HTTP/1.1\r\n\r\n".to_owned(), "HOST:PORT is wanted"),
        ("no http at all\r\n\r\n".to_owned(), "something other than HTTP/1.x"),
    ] {
        let bench = Bench::new(Driver::Auto);
        let mut client = bench.client();
        client.write_all(request.as_bytes()).unwrap();
        let received = String::from_utf8(read_to_end(client)).unwrap();
        let shown = &request[..request.len().min(200)];
        assert!(received.starts_with("HTTP/1.1 400 "), "{shown:?}: {received}");
        assert!(received.contains("X-Agent-Gate-Block: bad_request\r\n"), "{received}");
        assert!(received.contains(reason), "{shown:?}: {received}");
        bench.origin.set_nonblocking(true).unwrap();
        assert!(bench.origin.accept().is_err(), "{shown:?} reached the origin");
        let found = bench.finish();
        assert_eq!(found[0].row.refused_by, Some(RefusedBy::BadRequest), "{shown:?}");
    }
}

/// The head is right, but the body breaks its framing: it is never seen as whole, the client is
/// told, and the record has what came.
#[test]
fn bodies_that_break_their_framing_are_not_whole() {
    for (body, reason) in [
        ("x\r\n", "no chunk size"),
        ("2\r\nhi\n0\r\n\r\n", "a line feed without a carriage return"),
        ("2;a=\"\r\nhi\r\n0\r\n\r\n", "a line end in a quoted string"),
        ("2\r\nhi\r\n0\r\nA: b\n\r\n", "a line feed without a carriage return"),
        ("2\r\nhi\r\n0\r\nA: b\r\n c\r\n\r\n", "a folded trailer field"),
        ("2\r\nhi\r\n0\r\nContent-Length: 5\r\n\r\n", "a trailer field that would change"),
    ] {
        let bench = Bench::new(Driver::Auto);
        let origin = bench.origin.try_clone().unwrap();
        let upstream = thread::spawn(move || read_to_end(origin.accept().unwrap().0));
        let head = format!("POST {ABSOLUTE}/ HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n");
        let mut client = bench.client();
        client.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let received = String::from_utf8(read_to_end(client)).unwrap();
        assert!(received.starts_with("HTTP/1.1 400 "), "{body:?}: {received}");
        assert!(received.contains(reason), "{body:?}: {received}");
        let upstream = String::from_utf8(upstream.join().unwrap()).unwrap();
        assert!(!upstream.ends_with("0\r\n\r\n") && !upstream.ends_with("\n\n"), "{upstream:?}");
        let found = bench.finish();
        assert_eq!(outcome(&found[0]), Outcome::ClientBroken, "{body:?}");
    }
}

/// What is changed on its way, and the record that keeps what came.
#[test]
fn heads_that_are_changed_are_recorded_as_they_came() {
    let bench = Bench::new(Driver::Auto);
    let h2c = "Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAE\r\nUpgrade: h2c\r\n";
    let chunked = "2;x=\"y;\"\r\nhi\r\n0;z\r\nT: 1\r\n\r\n";
    let seen = format!(
        "POST /a HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nT: 1\r\n\r\n"
    );
    let answer = format!(
        "HTTP/1.1 103 Early Hints\r\nAlt-Svc: h3=\":1\"\r\n\r\n\
         HTTP/1.1 200 OK\r\nAlt-Svc: h3=\":443\"; ma=1\r\nA : b\r\n c\r\nContent-Length: 9\r\n\
         Transfer-Encoding: chunked\r\n\r\n{chunked}"
    );
    let given = "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nA: b   c\r\n\
                 Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nT: 1\r\n\r\n";
    let origin = bench.origin(vec![(seen.into(), answer.into())]);
    let mut client = bench.client();
    let request = format!(
        "POST {ABSOLUTE}/a HTTP/1.1\r\n{HOST}{h2c}Transfer-Encoding: chunked\r\n\r\n{chunked}"
    );
    client.write_all(request.as_bytes()).unwrap();
    assert_eq!(String::from_utf8(read_to_end(client)).unwrap(), given);
    origin.join().unwrap();
    let found = bench.finish();
    assert_eq!(outcome(&found[0]), Outcome::Complete);
    let Some(Record::Request(request)) = &found[0].request else { panic!("no request") };
    let Some(Record::Response(response)) = &found[0].response else { panic!("no response") };
    let line =
        |field: &Field<'_>| format!("{}: {}", field.name, String::from_utf8_lossy(&field.value));
    let lines = |fields: &[Field<'_>]| fields.iter().map(line).collect::<Vec<_>>().join("\r\n");
    assert_eq!(request.head.target, format!("{ABSOLUTE}/a"));
    assert_eq!(lines(&request.head.fields), format!("{HOST}{h2c}Transfer-Encoding: chunked"));
    assert_eq!(lines(&request.trailers), "T: 1");
    assert_eq!(lines(&response.interim[0].fields), "Alt-Svc: h3=\":1\"");
    let head = &response.head.as_ref().unwrap().fields;
    assert_eq!(
        lines(head),
        "Alt-Svc: h3=\":443\"; ma=1\r\nA: b\r\n c\r\nContent-Length: 9\r\nTransfer-Encoding: chunked"
    );
    assert_eq!(lines(&response.trailers), "T: 1");
}

/// What no client would have understood for certain is not handed on: the client is told.
#[test]
fn responses_without_a_certain_end_give_a_502() {
    for fields in [
        "Content-Length: 1\r\nContent-Length: 2\r\n",
        "Content-Length: 1, 2\r\n",
        "Content-Length: x\r\n",
        "Content-Length:\r\n",
    ] {
        let bench = Bench::new(Driver::Auto);
        let request = format!("GET /a HTTP/1.1\r\n{HOST}\r\n");
        let answer = format!("HTTP/1.1 200 OK\r\n{fields}\r\nab");
        let origin = bench.origin(vec![(request.clone().into(), answer.into())]);
        let mut client = bench.client();
        client.write_all(request.replace("/a", &format!("{ABSOLUTE}/a")).as_bytes()).unwrap();
        let received = String::from_utf8(read_to_end(client)).unwrap();
        assert!(received.starts_with("HTTP/1.1 502 "), "{fields:?}: {received}");
        assert!(received.contains("Content-Length"), "{fields:?}: {received}");
        origin.join().unwrap();
        assert_eq!(outcome(&bench.finish()[0]), Outcome::OriginBroken, "{fields:?}");
    }
}

#[test]
fn loopback_is_refused_after_resolution() {
    let bench = Bench::new(Driver::Auto);
    let port = bench.origin.local_addr().unwrap().port();
    let mut client = bench.client();
    let request =
        format!("GET http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n");
    client.write_all(request.as_bytes()).unwrap();
    let received = String::from_utf8(read_to_end(client)).unwrap();
    assert!(received.starts_with("HTTP/1.1 403 "), "{received}");
    assert!(received.contains("x-should-retry: false\r\n"), "{received}");
    bench.origin.set_nonblocking(true).unwrap();
    assert!(bench.origin.accept().is_err(), "the origin was reached");
    let found = bench.finish();
    assert!(found.iter().any(|e| e.row.refused_by == Some(RefusedBy::AddressRefused)));
}

#[test]
fn an_upgraded_connection_is_relayed_both_ways() {
    let bench = Bench::new(Driver::Auto);
    let request =
        format!("GET /ws HTTP/1.1\r\n{HOST}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nfirst";
    let origin = bench.origin(vec![
        (request.clone().into(), answer.into()),
        (b"ping".to_vec(), b"pong".to_vec()),
    ]);
    let mut client = bench.client();
    client.write_all(request.replace("/ws", &format!("{ABSOLUTE}/ws")).as_bytes()).unwrap();
    assert_eq!(read_answer(&mut client, answer.len()), answer.as_bytes());
    client.write_all(b"ping").unwrap();
    assert_eq!(read_answer(&mut client, 4), b"pong");
    drop(client);
    origin.join().unwrap();
    let found = bench.finish();
    let Some(Record::Response(response)) = &found[0].response else { panic!("no response") };
    let upgraded = response.upgraded.unwrap();
    assert_eq!((upgraded.sent, upgraded.received), (4, 9));
}

/// Passed through, whoever speaks first, on both drivers: looking for a client hello holds nobody up
/// and loses nothing.
#[test]
fn what_passes_unread_passes_whoever_speaks_first() {
    for (driver, origin_first) in
        DRIVERS.into_iter().flat_map(|driver| [(driver, true), (driver, false)])
    {
        let bench = Bench::new(driver);
        let pass = HostList::parse("origin.example").unwrap();
        bench.engine.set_lists(HostLists { pass, ..HostLists::default() });
        let greeting = if origin_first { "220 ready" } else { "" };
        let listener = bench.origin.try_clone().unwrap();
        let origin = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(greeting.as_bytes()).unwrap();
            let mut word = [0; 4];
            stream.read_exact(&mut word).unwrap();
            stream.write_all(&word).unwrap();
            assert_eq!(stream.read(&mut word).unwrap(), 0, "the client's end");
        });
        let mut client = bench.client();
        client.write_all(b"CONNECT origin.example:80 HTTP/1.0\r\n\r\n").unwrap();
        let established = b"HTTP/1.1 200 Connection established\r\n\r\n";
        assert_eq!(read_answer(&mut client, established.len()), established);
        assert_eq!(read_answer(&mut client, greeting.len()), greeting.as_bytes());
        client.write_all(b"ping").unwrap();
        assert_eq!(read_answer(&mut client, 4), b"ping");
        drop(client);
        origin.join().unwrap();
        let found = bench.finish();
        let Some(Record::Tunnel(tunnel)) = &found[0].request else { panic!("{found:#?}") };
        assert!(tunnel.passthrough);
        assert_eq!(tunnel.transferred.sent, 4);
        assert_eq!(tunnel.transferred.received, 4 + greeting.len() as u64);
    }
}

#[test]
fn what_a_command_sent_before_it_ended_still_goes_out() {
    for driver in DRIVERS {
        let bench = Bench::new(driver);
        let request = format!("POST /last HTTP/1.1\r\n{HOST}Content-Length: 4\r\n\r\nwords");
        let request = &request[..request.len() - 1];
        let origin = bench.origin(vec![(request.into(), Vec::new())]);
        let mut client = bench.client();
        client.write_all(request.replace("/last", &format!("{ABSOLUTE}/last")).as_bytes()).unwrap();
        drop(client);
        // The run ends while the connection may not even have been accepted.
        let found = bench.finish();
        origin.join().unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(body_of(&found[0].request), b"word");
    }
}

#[test]
fn a_run_that_ends_leaves_the_others_alone() {
    for driver in DRIVERS {
        let bench = Bench::new(driver);
        for _ in 0..20 {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let proxy = listener.local_addr().unwrap();
            let id = Id::new();
            let settings = RunSettings {
                id,
                mode: Mode::Permissive,
                enforce_allowlist: false,
                upstream_cas: Vec::new(),
                upstream_insecure: false,
                resolve: Vec::new(),
                proxies: UpstreamProxies::default(),
                client_certificates: Vec::new(),
            };
            bench.engine.attach(settings, vec![Listener::Proxy(listener)]).unwrap();
            let mut client = TcpStream::connect(proxy).unwrap();
            client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            assert!(read_to_end(client).starts_with(b"HTTP/1.1 400 "));
            bench.engine.detach(id);
            assert!(TcpStream::connect(proxy).is_err(), "a listener outlives its run");
        }
        let request = format!("GET /a HTTP/1.1\r\n{HOST}\r\n");
        let answer = "HTTP/1.1 204 No Content\r\n\r\n";
        let origin = bench.origin(vec![(request.clone().into(), answer.into())]);
        let mut client = bench.client();
        client.write_all(request.replace("/a", &format!("{ABSOLUTE}/a")).as_bytes()).unwrap();
        assert_eq!(read_answer(&mut client, answer.len()), answer.as_bytes());
        origin.join().unwrap();
        bench.finish();
    }
}
