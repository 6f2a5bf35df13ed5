//! Standing in for `agent-gate run`: one process that builds a jail, serves its listeners in the
//! simplest way, waits, and exits as the real one does.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use agent_gate_jail::{End, Listener, Plan, StartError, confine, unconfined};

/// The first argument that makes this binary a stand-in.
pub(crate) const MARK: &str = "--as-run";
/// Exit codes for ends that are none of the command's.
pub(crate) const OWN_FAILURE: i32 = 125;
pub(crate) const GATE_LOST: i32 = 99;

/// `NAME=VALUE`… `--` COMMAND…
pub(crate) fn main(arguments: &[OsString]) -> ! {
    let split = arguments.iter().position(|it| it == "--").unwrap();
    let settings: Vec<(String, String)> = arguments[..split]
        .iter()
        .map(|it| it.to_str().unwrap().split_once('=').unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let all = |name: &str| {
        let found = settings.iter().filter(|(it, _)| it == name);
        found.map(|(_, value)| value.clone()).collect::<Vec<_>>()
    };
    let plan = Plan {
        argv: arguments[split + 1..].to_vec(),
        cwd: all("cwd").first().map_or_else(|| std::env::current_dir().unwrap(), Into::into),
        environment: std::env::vars_os().collect(),
        proxy_port: 18888,
        transparent_ports: vec![80, 443],
        authority_pem: all("authority")
            .first()
            .map_or_else(|| AUTHORITY.to_owned(), |path| std::fs::read_to_string(path).unwrap()),
        trust_dir: all("trust").first().unwrap().into(),
        hidden: all("hidden").iter().map(Into::into).collect(),
    };
    let gate: OwnedFd = match all("gate").first() {
        Some(path) => UnixStream::connect(path).unwrap().into(),
        None => {
            let (ours, gate) = UnixStream::pair().unwrap();
            std::mem::forget(gate); // open as long as we live
            ours.into()
        }
    };
    let begun = Instant::now();
    let started = if settings.iter().any(|(name, _)| name == "unconfined") {
        unconfined(&plan)
    } else {
        let mut confined = confine(&plan).unwrap_or_else(|error| fail(OWN_FAILURE, &error));
        if settings.iter().any(|(name, _)| name == "leave") {
            drop(confined);
            fail(0, &"left");
        }
        confined.listeners().into_iter().for_each(serve);
        confined.start()
    };
    let running = started.unwrap_or_else(|error| match &error {
        StartError::NotFound(_) => fail(127, &error),
        StartError::NotExecutable(_) => fail(126, &error),
        StartError::Other(_) => fail(OWN_FAILURE, &error),
    });
    if settings.iter().any(|(name, _)| name == "time") {
        let _ = writeln!(std::io::stderr(), "{}", begun.elapsed().as_micros());
    }
    match running.wait(gate.as_fd()) {
        Ok(End::Exited(code)) => std::process::exit(code),
        Ok(End::Signaled(signal)) => std::process::exit(128 + signal),
        Ok(End::GateLost) => fail(GATE_LOST, &"the gate is gone"),
        Err(error) => fail(OWN_FAILURE, &error),
    }
}

fn fail(code: i32, why: &dyn std::fmt::Display) -> ! {
    let _ = writeln!(std::io::stderr(), "agent-gate: {why}");
    std::process::exit(code)
}

/// Says of each connection by which listener it came and whereto it was meant; answers each
/// datagram with `dns`.
fn serve(listener: Listener) {
    std::thread::spawn(move || match listener {
        Listener::Proxy(tcp) => greet("proxy", &tcp),
        Listener::Transparent(tcp) => greet("transparent", &tcp),
        Listener::DnsTcp(tcp) => greet("dns", &tcp),
        Listener::DnsUdp(udp) => loop {
            let mut query = [0; 512];
            let (_, from) = udp.recv_from(&mut query).unwrap();
            udp.send_to(b"dns\n", from).unwrap();
        },
    });
}

fn greet(kind: &str, listener: &std::net::TcpListener) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let whereto = stream.local_addr().unwrap();
        let _ = writeln!(stream, "{kind} {whereto}");
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

/// Looks like a certificate: an ASN.1 sequence. Nothing here reads further.
pub(crate) const AUTHORITY: &str =
    "-----BEGIN CERTIFICATE-----\nMA9hZ2VudC1nYXRlIHRlc3Q=\n-----END CERTIFICATE-----\n";
