//! Crowds of clients that are slow, stuck or idle, and beside them one ordinary client whose
//! requests pass with nothing lost while the others still stand where they stood.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustls::{ClientConnection, StreamOwned};

use crate::support::bench::{Bench, Settings, tell};
use crate::support::content::Noise;
use crate::support::journal::compare;
use crate::support::outside::{Outside, read_answer, read_head};
use crate::support::{processes, wait_for};

/// Requests of the ordinary client, in clear text and in TLS, small and large; each byte of them
/// and of their records is compared with what the origin saw and sent.
fn ordinary_client(bench: &Bench, gate: &Outside<'_>) {
    for _ in 0..20 {
        gate.get_ok("/");
    }
    let mut secure = gate.secure("ordinary.test");
    for seed in 0..20 {
        let target = format!("/bytes?n=100000&seed={seed}");
        let (head, body) = ask(&mut secure, &target);
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(body == Noise::bytes(seed, 100_000), "{target} came changed");
    }
    drop(secure);
    assert!(compare(&bench.journal(), &bench.origin) >= 40);
}

fn ask(stream: &mut StreamOwned<ClientConnection, TcpStream>, target: &str) -> (String, Vec<u8>) {
    write!(stream, "GET {target} HTTP/1.1\r\nHost: ordinary.test\r\n\r\n").unwrap();
    read_answer(stream)
}

/// Two hundred heads dribble in, byte by byte and for as long as the ordinary client asks.
#[test]
fn slow_heads() {
    let bench =
        Bench::with(Settings { more: "[limits]\nhead_seconds = 600\n", ..Settings::default() });
    let gate = Outside::start(&bench, &[]);
    let mut slow: Vec<_> = (0..200).map(|_| gate.connect()).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let dribble = scope.spawn(|| {
            let head = b"GET http://slow.test/ HTTP/1.1\r\nHost: slow.test\r\nX-Slow: ";
            let mut bytes = 0;
            for byte in head.iter().chain(std::iter::repeat(&b's')) {
                for stream in &mut slow {
                    stream.write_all(&[*byte]).unwrap();
                }
                bytes += 1;
                if bytes > head.len() && done.load(Ordering::SeqCst) {
                    return;
                }
            }
        });
        wait_for("all to be let in", || (gate.connections() == 200).then_some(()));
        ordinary_client(&bench, &gate);
        assert!(gate.connections() >= 200, "the others are still at it");
        done.store(true, Ordering::SeqCst);
        dribble.join().unwrap();
    });
    // At last the heads end, and each is answered.
    for stream in &mut slow {
        stream.write_all(b"\r\n\r\n").unwrap();
    }
    for stream in &mut slow {
        assert_eq!(read_answer(stream).1, b"hello from the origin\n");
    }
    drop(slow);
    gate.settle();
}

/// Fifty megabytes that nobody reads: the gate holds what its buffers hold, the origin waits, and
/// when the client reads at last, it has all.
#[test]
fn a_client_that_does_not_read() {
    const BYTES: usize = 50_000_000;
    let bench = Bench::with(Settings { body_bytes_max: 1 << 20, ..Settings::default() });
    let gate = Outside::start(&bench, &[]);
    // One that is read at once brings the gate to its working size.
    let mut prompt = gate.secure("ordinary.test");
    assert!(ask(&mut prompt, &format!("/bytes?n={BYTES}&seed=8")).1 == Noise::bytes(8, BYTES));
    let before = processes::status_kib(gate.pid(), "VmRSS");
    let counted = bench.origin.bytes_sent();
    let mut lazy = gate.secure("lazy.test");
    write!(lazy, "GET /bytes?n={BYTES}&seed=9 HTTP/1.1\r\nHost: lazy.test\r\n\r\n").unwrap();
    assert!(read_head(&mut lazy).starts_with("HTTP/1.1 200 "));
    // Stuck: what has been sent does not change while other requests come and go.
    let mut sent = 0;
    wait_for("the origin to be stuck", || {
        let before = std::mem::replace(&mut sent, bench.origin.bytes_sent() - counted);
        (0..10).for_each(|_| gate.get_ok("/"));
        (sent > 0 && sent.abs_diff(before) < 1000).then_some(())
    });
    assert!(sent < BYTES as u64 / 2, "{sent} bytes went on to a client that does not read");
    for seed in 0..20 {
        assert!(
            ask(&mut prompt, &format!("/bytes?n=100000&seed={seed}")).1
                == Noise::bytes(seed, 100_000)
        );
    }
    let grown = processes::status_kib(gate.pid(), "VmRSS").saturating_sub(before);
    // Well below the body; most of it is what allocators keep for each worker.
    assert!(grown < 32 << 10, "the gate grew by {grown} KiB");

    let mut body = vec![0; BYTES];
    lazy.read_exact(&mut body).unwrap();
    assert!(body == Noise::bytes(9, BYTES), "what was late came changed");
    drop((lazy, prompt));
    compare(&bench.journal(), &bench.origin);
    gate.settle();
}

/// A client that writes one byte at a time: nothing is lost, and others are served meanwhile.
#[test]
fn a_client_that_writes_byte_by_byte() {
    let bench = Bench::new();
    let gate = Outside::start(&bench, &[]);
    let body = Noise::bytes(4, 20_000);
    let mut request = format!(
        "POST /echo?bytes HTTP/1.1\r\nHost: bytes.test\r\nX-Long: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        "x".repeat(2000)
    )
    .into_bytes();
    for chunk in body.chunks(100) {
        write!(request, "{:x}\r\n", chunk.len()).unwrap();
        request.extend_from_slice(chunk);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    let (last, most) = request.split_last().unwrap();
    let mut slow = gate.secure("bytes.test");
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            for byte in most {
                slow.write_all(&[*byte]).unwrap();
            }
        });
        ordinary_client(&bench, &gate);
        writing.join().unwrap();
    });
    // Whole but for a byte: it has not gone out.
    assert!(bench.origin.seen().iter().all(|seen| seen.target != "/echo?bytes"));
    slow.write_all(&[*last]).unwrap();
    assert!(read_answer(&mut slow).1 == body, "came back changed");
    drop(slow);
    compare(&bench.journal(), &bench.origin);
    gate.settle();
}

/// An idle connection in TLS, or in a tunnel that has not begun it, may take so much at most, in
/// KiB. It takes a fraction of that; this is to see a buffer or a timer that stays.
const IDLE_KIB_MAX: u64 = 40;

/// Ten thousand idle connections, or as many as descriptors allow here.
#[test]
fn idle_connections() {
    const SECURE: usize = 500;
    let bench = Bench::with(Settings {
        more: "[limits]\nconnections_max = 20000\nconnections_per_run_max = 20000\n\
               handshake_seconds = 3600\n",
        ..Settings::default()
    });
    let gate = Outside::start(&bench, &[]);
    let count = idle_count(gate.status()["connections_max"].as_u64().unwrap());
    tell(&format!("{count} idle connections"));
    ordinary_client(&bench, &gate);
    wait_for("the first ones to be gone", || (gate.connections() == 0).then_some(()));
    let before = processes::status_kib(gate.pid(), "VmRSS");
    let tunnels: Vec<_> = (SECURE..count).map(|_| gate.tunnel("idle.test:443")).collect();
    let mut secure: Vec<_> = (0..SECURE).map(|_| gate.secure("idle.test")).collect();
    assert_eq!(gate.connections(), count as u64);
    let grown = processes::status_kib(gate.pid(), "VmRSS").saturating_sub(before);
    assert!(grown < IDLE_KIB_MAX * count as u64, "{count} idle connections take {grown} KiB");

    ordinary_client(&bench, &gate);
    assert_eq!(gate.connections(), count as u64, "all of them are still there");
    // They were idle, not dead.
    for stream in secure.iter_mut().step_by(50) {
        assert_eq!(ask(stream, "/").1, b"hello from the origin\n");
    }
    for tunnel in tunnels.into_iter().step_by(997) {
        let mut stream = gate.secured(tunnel, "idle.test");
        assert_eq!(ask(&mut stream, "/").1, b"hello from the origin\n");
    }
    drop(secure);
    gate.settle();
}

/// As many as this process and the gate can have: the gate one descriptor each, and so does the
/// test, which has other tests beside it.
fn idle_count(gates: u64) -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let count = (gates - 50).min(hard / 2 - 200).min(10_000);
    assert!(count >= 1000, "{count} connections are no crowd: raise the limit of open files");
    usize::try_from(count).unwrap()
}
