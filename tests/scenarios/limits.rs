//! Limits of time and number: what each of them ends and how, what the record says of it, and what
//! it leaves alone. The settings make them small; the waits are the limits' own.

use std::io::{Read, Write};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::bench::{Bench, Settings, finish};
use crate::support::outside::{End, Outside, read_answer, read_head, read_rest};
use crate::support::{processes, wait_for};

/// Longer than all limits of a second, which may be exceeded by one more.
const SILENCE: Duration = Duration::from_secs(4);

fn bench(more: &'static str) -> Bench {
    Bench::with(Settings { more, ..Settings::default() })
}

/// An answer of the gate's own: status, code in its field and its JSON, and the connection's end.
#[track_caller]
fn check_own(stream: &mut impl Read, status: &str, field: &str, code: &str) {
    let (bytes, end) = read_rest(stream);
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
    assert!(head.contains(&format!("\r\n{field}: {code}\r\n")), "{text}");
    let json: Value = serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert_eq!(json["error"]["code"], code, "{json}");
    assert_eq!(end, End::Clean, "{text}");
}

/// A head that has begun must come to its end: in the proxy's own language, in CONNECT, in TLS.
#[test]
fn a_head_that_does_not_end() {
    let bench = bench("[limits]\nhead_seconds = 1\n");
    let gate = Outside::start(&bench, &[]);
    for half in ["GET http://slow.test/ HTTP/1.1\r\nHost: slow.t", "CONNECT slow.test:4"] {
        let mut stream = gate.connect();
        stream.write_all(half.as_bytes()).unwrap();
        check_own(&mut stream, "408", "X-Agent-Gate-Block", "head_timeout");
    }
    // A second request on a connection that has carried one.
    let mut stream = gate.secure("slow.test");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: slow.test\r\n\r\n").unwrap();
    assert!(read_answer(&mut stream).0.starts_with("HTTP/1.1 200 "));
    stream.write_all(b"GET / HTTP/1.1\r\nHost: slow.test\r\nX: ").unwrap();
    check_own(&mut stream, "408", "X-Agent-Gate-Block", "head_timeout");

    let refused = wait_for("three records", || {
        let refused = bench.journal().of_type("refused");
        (refused.len() >= 3).then_some(refused)
    });
    assert!(refused.iter().all(|r| r["by"] == "head_timeout"), "{refused:#?}");
    assert!(refused.iter().all(|r| r["detail"].as_str().unwrap().contains("head_seconds")));
    assert_eq!(refused[2]["host"], "slow.test");
    gate.get_ok("/");
    gate.settle();
}

/// A connection without a request is closed as servers close theirs, and that is no failure.
#[test]
fn a_connection_that_idles() {
    let bench = bench("[limits]\nidle_seconds = 1\nhandshake_seconds = 1\n");
    let gate = Outside::start(&bench, &[]);
    let mut silent = gate.connect();
    let mut unused = gate.secure("unused.test");
    let mut used = gate.secure("used.test");
    used.write_all(b"GET /?used HTTP/1.1\r\nHost: used.test\r\n\r\n").unwrap();
    read_answer(&mut used);
    assert_eq!(read_rest(&mut silent), (Vec::new(), End::Clean));
    assert_eq!(read_rest(&mut unused), (Vec::new(), End::Clean));
    assert_eq!(read_rest(&mut used), (Vec::new(), End::Clean));

    assert_eq!(bench.journal().only("/?used").outcome(), "complete");
    let tunnel = bench.journal().wait_for("tunnel", |t| t["host"] == "unused.test");
    assert_eq!(tunnel["outcome"], "complete", "{tunnel}");
    assert!(tunnel["error"].as_str().unwrap().contains("idle_seconds"), "{tunnel}");
    gate.settle();
    assert_eq!(bench.journal().of_type("tunnel").len(), 1);
    assert!(bench.journal().of_type("refused").is_empty());
}

/// Nothing after CONNECT, half a client hello, and a handshake without its last flight.
#[test]
fn a_handshake_that_does_not_end() {
    let bench = bench("[limits]\nhandshake_seconds = 1\n");
    let gate = Outside::start(&bench, &[]);
    let mut nothing = gate.tunnel("nothing.test:443");
    let mut half = gate.tunnel("half.test:443");
    half.write_all(&[22, 3, 1, 1, 0, 1]).unwrap();
    let mut open = gate.tunnel("open.test:443");
    open.write_all(&client_hello("open.test")).unwrap();
    let mut first = [0];
    open.read_exact(&mut first).unwrap();
    assert_eq!(first, [22], "the server's first flight");
    for stream in [&mut nothing, &mut half, &mut open] {
        read_rest(stream);
    }
    for (host, outcome, words) in [
        ("nothing.test", "complete", "nothing was sent"),
        ("half.test", "client_tls_failed", "not whole in time"),
        ("open.test", "client_tls_failed", "not finished in time"),
    ] {
        let tunnel = bench.journal().wait_for("tunnel", |t| t["host"] == host);
        assert_eq!(tunnel["outcome"], outcome, "{tunnel}");
        let error = tunnel["error"].as_str().unwrap();
        assert!(error.contains(words) && error.contains("handshake_seconds"), "{tunnel}");
    }
    gate.get_ok("/");
    gate.settle();
}

fn client_hello(host: &str) -> Vec<u8> {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from(host.to_owned()).unwrap();
    let mut connection = rustls::ClientConnection::new(config.into(), name).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    hello
}

/// A listener whose queue is full does not answer the connection at all.
#[test]
fn an_origin_that_does_not_take_the_connection() {
    let bench = bench("[limits]\nconnect_seconds = 1\n");
    let deaf = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    deaf.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    deaf.listen(0).unwrap();
    let address = deaf.local_addr().unwrap().as_socket().unwrap();
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            let socket =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            // It is under way, or never will be.
            drop(socket.connect(&address.into()));
            socket
        })
        .collect();
    let rule = format!("deaf.test:80:127.0.0.1:{}", address.port());
    let gate = Outside::start(&bench, &["--resolve".to_owned(), rule]);
    let mut stream = gate.connect();
    stream.write_all(b"GET http://deaf.test/?deaf HTTP/1.1\r\nHost: deaf.test\r\n\r\n").unwrap();
    check_own(&mut stream, "502", "X-Agent-Gate-Error", "unreachable");
    assert_eq!(bench.journal().only("/?deaf").outcome(), "unreachable");
    drop(waiting);
    gate.settle();
}

/// No answer within the time that the settings give: 504, and the origin's connection is ended. The
/// time a request takes to be sent does not count.
#[test]
fn an_origin_that_does_not_answer() {
    let bench = bench("[limits]\nfirst_byte_seconds = 1\n");
    let gate = Outside::start(&bench, &[]);
    let mut stream = gate.secure("silent.test");
    stream.write_all(b"GET /hold?name=never HTTP/1.1\r\nHost: silent.test\r\n\r\n").unwrap();
    check_own(&mut stream, "504", "X-Agent-Gate-Error", "origin_silent");
    let exchange = bench.journal().only("/hold?name=never");
    assert_eq!(exchange.outcome(), "origin_silent", "{}", exchange.answer());
    assert_eq!(exchange.answer()["by_gate"], true);
    assert!(exchange.answer()["error"].as_str().unwrap().contains("first_byte_seconds"));

    let mut stream = gate.secure("upload.test");
    stream
        .write_all(b"POST /echo HTTP/1.1\r\nHost: upload.test\r\nContent-Length: 10\r\n\r\nhello")
        .unwrap();
    sleep(SILENCE);
    stream.write_all(b"world").unwrap();
    assert_eq!(read_answer(&mut stream).1, b"helloworld");
    // On a connection that has carried an exchange, the gate's answer is the same.
    stream.write_all(b"GET /hold?name=ever HTTP/1.1\r\nHost: upload.test\r\n\r\n").unwrap();
    check_own(&mut stream, "504", "X-Agent-Gate-Error", "origin_silent");
    gate.settle();
}

/// Every time is a second; yet an event stream, an upgraded connection, a tunnel that passes unread
/// and a request under way are silent for longer, and live.
#[test]
fn silence_inside_a_body_is_no_matter() {
    let bench = bench(
        "[limits]\nhandshake_seconds = 1\nhead_seconds = 1\nidle_seconds = 1\nconnect_seconds = 1\n\
         first_byte_seconds = 1\n",
    );
    bench.write_setting("passthrough.txt", "pass.test\n");
    let gate = Outside::start(&bench, &[]);
    let mut events = gate.secure("sse.test");
    events.write_all(b"GET /sse?n=2&steps=go HTTP/1.1\r\nHost: sse.test\r\n\r\n").unwrap();
    assert!(read_head(&mut events).starts_with("HTTP/1.1 200 "));
    read_until(&mut events, "data: {\"n\":0}\n\n");
    let mut upgraded = gate.connect();
    upgraded
        .write_all(
            b"GET http://up.test/upgrade HTTP/1.1\r\nHost: up.test\r\nConnection: Upgrade\r\n\
              Upgrade: echo\r\n\r\n",
        )
        .unwrap();
    assert!(read_head(&mut upgraded).starts_with("HTTP/1.1 101 "));
    let mut passed = gate.tunnel("pass.test:80");
    let mut sending = gate.secure("body.test");
    sending
        .write_all(b"POST /echo HTTP/1.1\r\nHost: body.test\r\nContent-Length: 4\r\n\r\nab")
        .unwrap();

    sleep(SILENCE);

    bench.origin.release("go", 1);
    read_until(&mut events, "data: {\"n\":1}\n\n");
    read_until(&mut events, "0\r\n\r\n");
    upgraded.write_all(b"still here").unwrap();
    read_until(&mut upgraded, "still here");
    passed.write_all(b"GET / HTTP/1.1\r\nHost: pass.test\r\n\r\n").unwrap();
    assert_eq!(read_answer(&mut passed).1, b"hello from the origin\n");
    sending.write_all(b"cd").unwrap();
    assert_eq!(read_answer(&mut sending).1, b"abcd");
    drop((events, upgraded, passed, sending));
    assert_eq!(bench.journal().only("/sse?n=2&steps=go").outcome(), "complete");
    gate.settle();
}

fn read_until(stream: &mut impl Read, end: &str) {
    let (mut seen, mut byte) = (Vec::new(), [0]);
    while !seen.ends_with(end.as_bytes()) {
        stream.read_exact(&mut byte).unwrap_or_else(|e| panic!("{e} before {end:?}"));
        seen.push(byte[0]);
    }
}

/// A head may be no longer than the settings say.
#[test]
fn a_head_that_is_too_large() {
    let bench = bench("[limits]\nhead_bytes_max = 1024\nfields_max = 16\n");
    let gate = Outside::start(&bench, &[]);
    let start = "GET http://large.test/ HTTP/1.1\r\nHost: large.test\r\n";
    let many: String = (0..16).map(|n| format!("X-{n}: y\r\n")).collect();
    for (rest, setting) in [
        (format!("X: {}\r\n\r\n", "y".repeat(1000)), "head_bytes_max"),
        // Without an end, and so without waiting for one.
        (format!("X: {}", "y".repeat(1000)), "head_bytes_max"),
        (format!("{many}\r\n"), "fields_max"),
    ] {
        let before = bench.journal().of_type("refused").len();
        for start in [start, "CONNECT large.test:443 HTTP/1.1\r\nHost: large.test\r\n"] {
            let mut stream = gate.connect();
            stream.write_all(format!("{start}{rest}").as_bytes()).unwrap();
            check_own(&mut stream, "400", "X-Agent-Gate-Block", "bad_request");
        }
        let refused = wait_for("both records", || {
            let refused = bench.journal().of_type("refused").split_off(before);
            (refused.len() == 2).then_some(refused)
        });
        for refused in refused {
            assert!(refused["detail"].as_str().unwrap().contains(setting), "{refused}");
        }
    }
    assert!(bench.origin.seen().is_empty());
    gate.get_ok("/");
    gate.settle();
}

/// A run at its limit: further connections are told so or closed, a flood of them makes no flood of
/// records, other runs do not notice, and a place that is free again is given away.
#[test]
fn a_run_with_too_many_connections() {
    let bench = bench("[limits]\nconnections_per_run_max = 4\n");
    let gate = Outside::start(&bench, &[]);
    let mut held: Vec<_> = (0..4).map(|n| gate.tunnel(&format!("held{n}.test:443"))).collect();
    let begun = Instant::now();
    for request in [
        "GET http://one.test/ HTTP/1.1\r\nHost: one.test\r\n\r\n",
        "CONNECT one.test:443 HTTP/1.1\r\nHost: one.test\r\n\r\n",
    ] {
        let mut stream = gate.connect();
        stream.write_all(request.as_bytes()).unwrap();
        check_own(&mut stream, "503", "X-Agent-Gate-Block", "too_many_connections");
    }
    for _ in 0..500 {
        drop(gate.connect());
    }
    assert_eq!(gate.connections(), 4);
    bench.run_sh("curl -sSf https://other.test/").ok();

    let told = wait_for("all to be told of", || {
        let told = turned_away(&bench, "connections_per_run_max");
        (told.iter().sum::<u64>() == 502).then_some(told)
    });
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap();
    assert!(told.len() <= seconds + 2, "{} records in {seconds} s: {told:?}", told.len());

    held.pop();
    wait_for("a free place", || (gate.connections() == 3).then_some(()));
    gate.get_ok("/");
    drop(held);
    gate.settle();
}

/// How many connections each record says were turned away by this limit.
fn turned_away(bench: &Bench, setting: &str) -> Vec<u64> {
    let count = |record: Value| {
        assert_eq!(record["by"], "too_many_connections", "{record}");
        let detail = record["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(setting), "{record}");
        let (_, count) = detail.rsplit_once(": ").unwrap();
        count.split(' ').next().unwrap().parse().unwrap_or(1)
    };
    bench.journal().of_type("refused").into_iter().map(count).collect()
}

/// All runs together are at the limit: a run that has no connection yet is told so too.
#[test]
fn all_runs_with_too_many_connections() {
    let bench = bench("[limits]\nconnections_max = 3\n");
    let gate = Outside::start(&bench, &[]);
    let held: Vec<_> = (0..3).map(|n| gate.tunnel(&format!("held{n}.test:443"))).collect();
    let output = bench.run_sh("curl -sSi http://other.test/").ok();
    assert!(output.text().starts_with("HTTP/1.1 503 "), "{output:?}");
    assert_eq!(turned_away(&bench, "(connections_max)"), [1]);
    drop(held);
    gate.settle();
    bench.run_sh("curl -sSf http://other.test/").ok();
}

/// A client that knows of no proxy: in clear text it is told, in TLS the connection is closed.
#[test]
fn too_many_connections_without_a_proxy() {
    let bench = bench("[limits]\nconnections_per_run_max = 1\n");
    let script = "exec 3<>/dev/tcp/held.test/80
        printf 'GET / HTTP/1.1\\r\\nHost: held.test\\r\\n\\r\\n' >&3
        read -r line <&3 && echo \"$line\"
        curl --noproxy '*' -sS -o answer -w '%{http_code}\\n' http://second.test/
        curl --noproxy '*' -sS https://third.test/; echo $?";
    let output = bench.run(&["bash", "-c", script]).ok();
    let lines: Vec<_> = output.text().lines().map(|line| line.trim_end().to_owned()).collect();
    assert_eq!(lines[..2], ["HTTP/1.1 200 OK", "503"], "{output:?}");
    // curl: TLS failed, or the connection was reset.
    assert!(["35", "56"].contains(&&lines[2][..]), "{output:?}");
    let answer = std::fs::read_to_string(bench.work().join("answer")).unwrap();
    assert!(answer.contains("too_many_connections") && answer.contains("second.test"), "{answer}");
    assert_eq!(turned_away(&bench, "connections_per_run_max").iter().sum::<u64>(), 2);
}

#[test]
fn a_limit_that_is_out_of_range() {
    let bench = bench("");
    bench.write_setting("config.toml", "[limits]\nhead_seconds = 0\n");
    let output = bench.run_sh("echo started").exits(125);
    let line = output.own_lines().join("\n");
    assert!(line.contains("config.toml:2: 0 is out of range: 1 to 3600"), "{output:?}");
}

/// The gate takes all descriptors it may have, and says so when the settings want more.
#[test]
fn fewer_descriptors_than_connections() {
    let bench = bench("[limits]\nconnections_max = 5000\n");
    let gate = Outside::start_under(&bench, &["prlimit", "--nofile=300:2000", "--"], &[]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", gate.pid())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let soft = files.split_whitespace().nth(3).unwrap();
    assert_eq!(soft, "2000", "the soft limit: {files}");
    let most = gate.status()["connections_max"].as_u64().unwrap();
    assert!((100..1000).contains(&most), "{most} connections by 2000 descriptors");
    gate.get_ok("/");
    let said = gate.stop();
    assert!(said.contains(&format!("connections_max is {most}, not 5000")), "{said}");
    assert!(said.contains("2000 open files"), "{said}");
}

/// Descriptors run out all the same: who is in goes on, who comes waits, one record a worker tells
/// it, the gate does not spin, and all is well when there are some again.
#[test]
fn no_descriptor_is_left() {
    let bench = bench("");
    let gate = Outside::start(&bench, &[]);
    let mut inside = gate.connect();
    let mut ask_inside = || {
        inside.write_all(b"GET http://in.test/ HTTP/1.1\r\nHost: in.test\r\n\r\n").unwrap();
        assert_eq!(read_answer(&mut inside).1, b"hello from the origin\n");
    };
    ask_inside();
    // The kernel gives the lowest number that is free, so hardly any is left below this one.
    set_descriptors(gate.pid(), &processes::descriptors(gate.pid()).len().to_string());
    let mut waiting: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = gate.connect();
            stream.write_all(b"GET http://new.test/ HTTP/1.1\r\nHost: new.test\r\n\r\n").unwrap();
            stream
        })
        .collect();
    wait_for("a record of the lack", || {
        let refused = bench.journal().of_type("refused");
        refused.iter().any(|r| r["detail"].as_str().unwrap().contains("open files")).then_some(())
    });
    (0..20).for_each(|_| ask_inside());
    let before = processes::cpu_ticks(gate.pid());
    sleep(Duration::from_secs(1));
    let ticks = processes::cpu_ticks(gate.pid()) - before;
    assert!(ticks < 50, "{ticks} hundredths of a second of work in one second of waiting");

    set_descriptors(gate.pid(), "1000");
    // Those that had been let in but had no descriptor for the origin have their 502.
    let answers: Vec<_> = waiting.iter_mut().map(|stream| read_answer(stream).0).collect();
    assert!(answers.iter().any(|head| head.starts_with("HTTP/1.1 200 ")), "{answers:?}");
    let refused = bench.journal().of_type("refused");
    let workers = std::thread::available_parallelism().unwrap().get();
    assert!(refused.len() <= workers, "{refused:#?}");
    gate.get_ok("/");
    drop((waiting, inside));
    gate.settle();
}

/// Sets the soft limit of a process that runs.
fn set_descriptors(pid: i32, soft: &str) {
    let mut command = Command::new("prlimit");
    command.args(["--pid", &pid.to_string(), &format!("--nofile={soft}:")]);
    finish(command).ok();
}
