//! Who is answered and how: foreign sites, broken and slow clients, the fields of every response.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use agent_gate_dash::{Error, Notices, Polling, Server};
use agent_gate_store::Id;
use agent_gate_store::record::Body;

use crate::support::{Fixture, request};

#[test]
fn only_this_dashboard_s_own_names_may_ask() {
    let fixture = Fixture::new();
    let ours = format!("127.0.0.1:{}", fixture.port());
    let local = format!("localhost:{}", fixture.port());
    let six = format!("[::1]:{}", fixture.port());
    let origin = format!("Origin: http://{ours}\r\n");
    for (method, target, host, fields, status) in [
        ("GET", "/", ours.as_str(), "", 200),
        ("GET", "/", &local, "", 200),
        ("GET", "/", &six, "", 200),
        ("GET", "/", &ours, &origin, 200),
        ("HEAD", "/", &ours, "", 200),
        ("GET", "/", &ours, "Sec-Fetch-Site: same-origin\r\n", 200),
        ("GET", "/", "evil.example", "", 403),
        ("GET", "/", &format!("evil.example:{}", fixture.port()), "", 403),
        ("GET", "/", "127.0.0.1:1", "", 403),
        ("GET", "/", "127.0.0.1", "", 403),
        ("GET", "/", &ours, &format!("Host: {ours}\r\n"), 403),
        ("GET", &format!("http://{ours}/"), &ours, "", 400),
        ("GET", "/", &ours, "Origin: http://evil.example\r\n", 403),
        ("GET", "/", &ours, "Origin: null\r\n", 403),
        ("GET", "/", &ours, "Sec-Fetch-Site: cross-site\r\n", 403),
        ("GET", "/api/exchanges", &ours, "Sec-Fetch-Site: same-site\r\n", 403),
        ("POST", "/", &ours, "Content-Length: 3\r\n\r\nabc", 405),
        ("POST", "/", "evil.example", "", 403),
        ("DELETE", "/", &ours, "", 405),
        ("OPTIONS", "*", &ours, "", 400),
        ("CONNECT", "evil.example:443", &ours, "", 400),
    ] {
        let message = format!(
            "{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{fields}\r\n"
        );
        assert_eq!(fixture.raw(&message).status, status, "{message}");
    }
    assert_eq!(fixture.raw("GET / HTTP/1.0\r\n\r\n").status, 403);
}

#[test]
fn every_response_carries_the_same_strict_fields() {
    let fixture = Fixture::new();
    let request = request(fixture.run("claude"));
    fixture.exchange(&request, Vec::new(), Body::inline(&b"x"[..]));
    let id = request.id;
    let replies = [
        ("index", fixture.get("/"), 200),
        ("exchange", fixture.get(&format!("/exchange/{id}")), 200),
        ("body", fixture.get(&format!("/body/{id}/response")), 200),
        ("changes", fixture.get("/api/exchanges?after=0"), 200),
        ("runs", fixture.get("/api/runs"), 200),
        ("style", fixture.get("/assets/style.css"), 200),
        ("script", fixture.get("/assets/app.js"), 200),
        ("icon", fixture.get("/favicon.ico"), 200),
        ("unknown", fixture.get("/nothing/here"), 404),
        ("method", fixture.request("PUT", "/", ""), 405),
        ("host", fixture.raw("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), 403),
    ];
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                  connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    for (name, reply, status) in replies {
        assert_eq!(reply.status, status, "{name}");
        for (field, value) in [
            ("Content-Security-Policy", policy),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cache-Control", "no-store"),
            ("Cross-Origin-Opener-Policy", "same-origin"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
        ] {
            assert_eq!(reply.field(field), Some(value), "{name}");
        }
        let length: usize = reply.field("Content-Length").unwrap().parse().unwrap();
        assert_eq!(reply.body.len(), length, "{name}");
    }
}

/// `tiny_http` answers these by itself: with nothing of ours, neither content nor fields.
#[test]
fn what_is_no_request_gets_an_empty_answer() {
    let fixture = Fixture::new();
    for message in ["\x16\x03\x01 hello\r\n\r\n", "GET /\r\n\r\n", "GET / HTTP/1.1\r\nX y\r\n\r\n"]
    {
        let reply = fixture.raw(message);
        assert_eq!((reply.status, reply.body.len()), (400, 0), "{message}");
    }
}

#[test]
fn head_is_get_without_the_body() {
    let fixture = Fixture::new();
    let (head, get) = (fixture.request("HEAD", "/", ""), fixture.get("/"));
    assert_eq!(head.field("Content-Length"), get.field("Content-Length"));
    assert!(head.body.is_empty());
    assert_eq!(fixture.request("HEAD", "/x", "").status, 404);
}

#[test]
fn several_requests_share_a_connection() {
    let fixture = Fixture::new();
    let port = fixture.port();
    let one = format!("GET /assets/icon.svg HTTP/1.1\r\nHost: localhost:{port}\r\n");
    let reply = fixture.raw(&format!("{one}\r\n{one}\r\n{one}Connection: close\r\n\r\n"));
    let all = reply.text();
    assert_eq!(all.matches("HTTP/1.1 200 OK").count(), 2);
    assert_eq!(all.matches("<svg").count(), 3);
}

#[test]
fn unknown_paths_and_malformed_ids_are_not_found() {
    let fixture = Fixture::new();
    let absent = Id::new();
    for target in [
        "/x".to_owned(),
        "/exchange/".to_owned(),
        "/exchange/..".to_owned(),
        format!("/exchange/{absent}"),
        format!("/body/{absent}/request"),
        format!("/body/{absent}/neither"),
        "/?run=zzz".to_owned(),
        "/api/exchanges?after=abc".to_owned(),
        "/assets/../Cargo.toml".to_owned(),
        "/%00".to_owned(),
        format!("/{}", "a".repeat(8000)),
    ] {
        assert_eq!(fixture.get(&target).status, 404, "{target}");
    }
}

/// Idle connections, half heads, and clients that ask for a lot and do not read it.
#[test]
fn idle_and_slow_clients_block_nobody() {
    let fixture = Fixture::new();
    let request = request(fixture.run("claude"));
    let body = fixture.side_file(&vec![b'x'; 32 << 20]);
    fixture.exchange(&request, Vec::new(), body);
    let idle: Vec<_> = (0..50).map(|_| fixture.connect()).collect();
    let target = format!("/body/{}/response", request.id);
    let deaf: Vec<_> = (0..20).map(|_| fixture.ask(&target)).collect();
    let halves: Vec<_> = (0..20)
        .map(|_| {
            let mut stream = fixture.connect();
            stream.write_all(b"GET / HT").unwrap();
            stream
        })
        .collect();
    assert!(fixture.page("/").contains("claude"));
    drop((idle, deaf, halves));
}

#[test]
fn a_large_body_is_refused() {
    let fixture = Fixture::new();
    let bytes = 20 << 20;
    let body = "x".repeat(bytes);
    let reply = fixture.request("POST", "/", &format!("Content-Length: {bytes}\r\n\r\n{body}"));
    assert_eq!(reply.status, 405);
}

/// A petabyte cannot be had: asking for it would end this process.
#[test]
fn an_announced_body_that_never_comes_harms_nobody() {
    let fixture = Fixture::new();
    for bytes in [1 << 20, 1_u64 << 50, u64::MAX] {
        let mut stream = fixture.connect();
        let port = fixture.port();
        write!(
            stream,
            "POST / HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Length: {bytes}\r\n\r\n"
        )
        .unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    }
    assert_eq!(fixture.get("/").status, 200);
}

#[test]
fn stopping_sends_waiting_pages_home_and_frees_the_port() {
    let mut fixture = Fixture::new();
    let port = fixture.port();
    let mut waiting = fixture.ask("/api/exchanges?after=99");
    let _idle = fixture.connect();
    fixture.get("/");
    fixture.server.take().unwrap().stop();
    // Ended by whatever means: closed, reset, or with an answer before the close.
    let ended = waiting.read_to_end(&mut Vec::new());
    assert!(!matches!(ended, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock));
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn other_machines_are_never_served() {
    let fixture = Fixture::new();
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let changes = Box::new(Polling::new(fixture.layout.clone()));
    let result = Server::start(listener, fixture.layout.clone(), changes, Notices::default());
    assert!(matches!(result, Err(Error::NotLoopback(_))));
}
