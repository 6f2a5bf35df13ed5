//! A connection for one known target: passed through, or opened and read. What the lists refuse is
//! opened too, so that each request in it can be told why, but nothing is dialled for it.

use std::cell::Cell;
use std::time::Instant;

use agent_gate_store::HostName;
use agent_gate_store::record::{Flag, Outcome, RefusedBy};
use rustls::server::UnbufferedServerConnection;

use super::answer::{Alert, Refusal, alert};
use super::door::{Aliases, Door, DoorTls, Target};
use super::exchanges::{self, Ending};
use super::flow::Flow;
use super::passthrough;
use super::relay::linger;
use super::stream::{Stream, TlsError};
use crate::policy::Verdict;
use crate::proto::client_hello::{ClientHello, Sniffed, sniff};

/// Serves a connection for `target`.
pub(super) async fn open(flow: &Flow, target: Target, mut down: Box<Stream>) {
    let (verdict, _) = Aliases::new(&target).ask(flow);
    if verdict == Verdict::PassThrough {
        return Box::pin(passthrough::open(flow, target, down)).await;
    }
    let due = flow.handshake_due();
    let begun = Cell::new(false);
    let sniffed = flow.control.alarm.until(due, first_bytes(&mut down, &begun)).await;
    match sniffed {
        Some(Sniffed::Hello(hello)) => intercept(flow, target, &hello, down, due).await,
        Some(Sniffed::Malformed) => Box::pin(refuse_malformed(flow, target, down)).await,
        Some(Sniffed::Other) if looks_like_http(down.reader.data()) => {
            exchanges::serve(flow, &in_clear(flow, target), &mut down).await;
        }
        Some(Sniffed::Other) => Box::pin(refuse_unknown(flow, target, down)).await,
        Some(Sniffed::Partial) => {
            Box::pin(unused(flow, target, Outcome::Complete, "closed before anything was asked"))
                .await;
        }
        None if begun.get() => half_said(flow, target, true).await,
        None => {
            let why = "nothing was sent in time (handshake_seconds)";
            Box::pin(unused(flow, target, Outcome::Complete, why)).await;
        }
    }
}

/// The way in for what is not TLS.
fn in_clear(flow: &Flow, target: Target) -> Door {
    let refused = Aliases::new(&target).refusal(flow);
    Door { target: Some(target), tls: None, refused }
}

/// Waits until the first bytes say what they are; `Partial` when the client closed before.
/// `begun`: whether there were any.
async fn first_bytes(down: &mut Stream, begun: &Cell<bool>) -> Sniffed {
    loop {
        begun.set(!down.reader.data().is_empty());
        let sniffed = sniff(down.reader.data());
        if sniffed != Sniffed::Partial || !matches!(down.reader.fill().await, Ok(true)) {
            return sniffed;
        }
    }
}

/// A method is a token; anything else is not HTTP/1.
pub(super) fn looks_like_http(data: &[u8]) -> bool {
    let start = data.trim_ascii_start();
    !start.is_empty()
        && start
            .iter()
            .take(16)
            .take_while(|&&b| b != b' ')
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

/// The client hello did not come to its end: the client went away, or it is `late`.
pub(super) async fn half_said(flow: &Flow, target: Target, late: bool) {
    let (outcome, why) = if late {
        (Outcome::ClientTlsFailed, "the client hello was not whole in time (handshake_seconds)")
    } else {
        (Outcome::CutByClient, "the client went away in the middle of its hello")
    };
    unused(flow, target, outcome, why).await;
}

/// Nothing came of it.
async fn unused(flow: &Flow, target: Target, outcome: Outcome, why: &str) {
    let ending = Ending::new(outcome, Some(why.to_owned()));
    exchanges::record_unused(flow, &in_clear(flow, target), None, ending).await;
}

/// What is neither TLS nor HTTP cannot be read, and what cannot be read does not pass.
async fn refuse_unknown(flow: &Flow, target: Target, down: Box<Stream>) {
    let detail = format!(
        "neither TLS nor HTTP, so it cannot be recorded; add a line \"{}\" to passthrough.txt to \
         let it pass unread",
        target.list_line()
    );
    let otherwise = Refusal::of(RefusedBy::UnknownProtocol, &target, detail);
    refuse_unspoken(flow, target, otherwise, Alert::AccessDenied, down).await;
}

/// A client hello that is none: nobody can tell whom it is for.
pub(super) async fn refuse_malformed(flow: &Flow, target: Target, down: Box<Stream>) {
    let detail = "it begins like TLS, but its client hello is malformed".to_owned();
    let otherwise = Refusal::of(RefusedBy::UnknownProtocol, &target, detail);
    refuse_unspoken(flow, target, otherwise, Alert::DecodeError, down).await;
}

/// Refuses where no answer would be understood: by the list that refuses the target, else for the
/// reason given.
async fn refuse_unspoken(
    flow: &Flow,
    target: Target,
    otherwise: Refusal,
    description: Alert,
    mut down: Box<Stream>,
) {
    let by_list = Aliases::new(&target).refusal(flow);
    let description = if by_list.is_some() { Alert::AccessDenied } else { description };
    flow.record_refused(&by_list.unwrap_or(otherwise), None, None).await;
    say_last(description, &mut down).await;
}

/// A fatal alert, then the end in order: a reset would look like a broken network.
pub(super) async fn say_last(description: Alert, down: &mut Stream) {
    if down.writer.stage(&alert(description)).is_ok() {
        linger(down).await;
    }
}

/// Answers TLS with our own certificate, until `due`, and serves what comes by it.
pub(super) async fn intercept(
    flow: &Flow,
    target: Target,
    hello: &ClientHello,
    mut down: Box<Stream>,
    due: Instant,
) {
    let sni = hello.sni.as_deref().and_then(|name| HostName::parse(name).ok());
    let mut aliases = Aliases::new(&target);
    if let Some(name) = &sni {
        aliases.said(name, target.port);
    }
    let (refused, flags) = (aliases.refusal(flow), aliases.flags());
    let name = sni.as_ref().unwrap_or(&target.host).clone();
    let mut door = Door { target: Some(target), tls: None, refused };
    // Boxed like everything that is over before the connection idles.
    let accepted = flow.control.alarm.until(due, Box::pin(accept(flow, name.as_str(), &mut down)));
    match accepted.await.unwrap_or(Err(TlsError::Late)) {
        Ok(()) => {
            door.tls = Some(door_tls(&down, sni));
            exchanges::serve(flow, &door, &mut down).await;
        }
        Err(error) => {
            let mut ending = Ending::new(Outcome::ClientTlsFailed, None);
            ending.flags = flags;
            describe(&error, hello, &door, &mut ending);
            Box::pin(exchanges::record_unused(flow, &door, hello.sni.as_deref(), ending)).await;
            Box::pin(linger(&mut down)).await;
        }
    }
}

fn door_tls(down: &Stream, sni: Option<HostName>) -> DoorTls {
    let session = down.tls();
    DoorTls {
        version: session.as_ref().map_or("1.3", |s| s.version()),
        sni,
        alpn: session.and_then(|s| s.alpn().map(|alpn| String::from_utf8_lossy(alpn).into_owned())),
    }
}

async fn accept(flow: &Flow, name: &str, down: &mut Stream) -> Result<(), TlsError> {
    let config = flow.worker.leaves.borrow_mut().server_config(name);
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            // Without a session there is no alert but the one we write ourselves.
            let _ = down.writer.stage(&alert(Alert::UnrecognizedName));
            return Err(TlsError::Protocol(rustls::Error::General(error.to_string())));
        }
    };
    let connection = UnbufferedServerConnection::new(config).map_err(TlsError::Protocol)?;
    down.accept_tls(connection).await
}

/// Puts a failed handshake into words a user can act on.
fn describe(error: &TlsError, hello: &ClientHello, door: &Door, ending: &mut Ending) {
    use rustls::AlertDescription as A;
    ending.error = Some(match error {
        TlsError::Protocol(rustls::Error::NoApplicationProtocol) => {
            let offered: Vec<_> = hello.alpn.iter().map(|p| String::from_utf8_lossy(p)).collect();
            format!("the client insists on {}; the gate speaks http/1.1", offered.join(", "))
        }
        TlsError::Protocol(rustls::Error::AlertReceived(
            A::UnknownCA | A::BadCertificate | A::CertificateUnknown | A::UnsupportedCertificate,
        )) => {
            ending.flags.push(Flag::ClientDistrust);
            format!(
                "the client does not trust agent-gate's CA or pins the origin's certificate \
                 ({error}); {}",
                passthrough_cure(door, hello.sni.as_deref())
            )
        }
        other => other.to_string(),
    });
}

/// What lets a host pass unread whose clients do not accept our certificate: a line for each name
/// that the connection goes by, since the strictest counts.
pub(super) fn passthrough_cure(door: &Door, sni: Option<&str>) -> String {
    let target = door.target.as_ref();
    let lines = target.map(Target::list_line).into_iter();
    let named = target.zip(sni.and_then(|name| HostName::parse(name).ok()));
    let named = named.map(|(target, host)| Target { host, port: target.port }.list_line());
    let mut lines: Vec<_> = lines.chain(named).map(|line| format!("\"{line}\"")).collect();
    lines.dedup();
    match &lines[..] {
        [line] => format!("a line {line} in passthrough.txt lets it pass unread"),
        lines => format!("the lines {} in passthrough.txt let it pass unread", lines.join(" and ")),
    }
}
