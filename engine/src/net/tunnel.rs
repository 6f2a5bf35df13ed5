//! A connection for one known target: refused, passed through, or opened and read.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Instant;

use agent_gate_store::HostName;
use agent_gate_store::record::{Outcome, RefusedBy, Transferred};
use rustls::server::UnbufferedServerConnection;

use super::answer::refusal_detail;
use super::door::{Door, DoorTls, Target};
use super::exchanges;
use super::flow::{Flow, Stage, TunnelEnd};
use super::relay::{RelayEnd, linger, relay};
use super::run::Form;
use super::stream::{Stream, TlsError};
use super::upstream::{self, DialError, DialTimes, Route};
use crate::policy::{Verdict, verdict};
use crate::proto::client_hello::{ClientHello, Sniffed, sniff};

/// Asks policy about a tunnel's target.
pub(super) fn verdict_for(flow: &Flow, target: &Target) -> Verdict {
    let lists = flow.worker.shared.lists.load();
    verdict(&lists, flow.run.enforce_allowlist, &target.host, target.port)
}

/// Serves a connection for `target` that policy did not refuse. `passthrough`: it said not to
/// read it.
pub(super) async fn open(flow: &Flow, target: Target, passthrough: bool, mut down: Stream) {
    if passthrough {
        return Box::pin(pass_through(flow, &target, down)).await;
    }
    let due = flow.handshake_due();
    let begun = Cell::new(false);
    let first_bytes = first_bytes(&mut down, &begun);
    let Some(sniffed) = flow.control.alarm.until(due, first_bytes).await else {
        return late(flow, &target, begun.get()).await;
    };
    match sniffed {
        Sniffed::Partial => ended_early(flow, &target, "closed before anything was asked").await,
        Sniffed::Hello(hello) => intercept_tls(flow, target, &hello, down, due).await,
        Sniffed::Other if looks_like_http(down.reader.data()) => {
            let door = Door { target: Some(target), tls: None };
            exchanges::serve(flow, &door, &mut down).await;
        }
        Sniffed::Other | Sniffed::Malformed => refuse_unknown(flow, &target, &down).await,
    }
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

async fn ended_early(flow: &Flow, target: &Target, why: &str) {
    let mut end = unread(target, Outcome::Complete);
    end.error = Some(why.to_owned());
    flow.record_tunnel(end).await;
}

/// The client did not say in time what it wants.
async fn late(flow: &Flow, target: &Target, begun: bool) {
    if !begun {
        return ended_early(flow, target, "nothing was sent in time (handshake_seconds)").await;
    }
    let mut end = unread(target, Outcome::ClientTlsFailed);
    end.error = Some("the client hello was not whole in time (handshake_seconds)".to_owned());
    flow.record_tunnel(end).await;
}

fn unread(target: &Target, outcome: Outcome) -> TunnelEnd<'_> {
    TunnelEnd {
        target,
        address: None,
        via: None,
        sni: None,
        passthrough: false,
        outcome,
        error: None,
        transferred: Transferred::default(),
    }
}

/// What is neither TLS nor HTTP cannot be read, and what cannot be read does not pass.
async fn refuse_unknown(flow: &Flow, target: &Target, down: &Stream) {
    let detail = format!(
        "neither TLS nor HTTP, so it cannot be recorded; add a line \"{}:{}\" to passthrough.txt \
         to let it pass unread",
        target.host.as_str(),
        target.port
    );
    flow.record_refused(target, None, RefusedBy::UnknownProtocol, &detail).await;
    down.handle().abort();
}

async fn intercept_tls(
    flow: &Flow,
    target: Target,
    hello: &ClientHello,
    mut down: Stream,
    due: Instant,
) {
    let sni = hello.sni.as_deref().and_then(|name| HostName::parse(name).ok());
    // A name in the hello that differs from the connection's is asked about too.
    if let Some(name) = sni.as_ref().filter(|name| **name != target.host) {
        let named = Target { host: name.clone(), port: target.port };
        if let Verdict::Refuse(by) = verdict_for(flow, &named) {
            let detail = refusal_detail(by, &named, "");
            flow.record_refused(&named, None, by, &detail).await;
            return down.handle().abort();
        }
    }
    let name = sni.as_ref().unwrap_or(&target.host).as_str();
    // Boxed like everything that is over before the connection idles.
    let accepted = flow.control.alarm.until(due, Box::pin(accept(flow, name, &mut down)));
    match accepted.await.unwrap_or(Err(TlsError::Late)) {
        Ok(()) => {
            let tls = door_tls(&down, sni);
            let door = Door { target: Some(target), tls: Some(tls) };
            exchanges::serve(flow, &door, &mut down).await;
        }
        Err(error) => {
            let mut end = unread(&target, Outcome::ClientTlsFailed);
            end.sni = hello.sni.as_deref();
            end.error = Some(words_for(&error, hello));
            flow.record_tunnel(end).await;
            linger(&mut down).await;
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
    let config = config.map_err(|e| TlsError::Protocol(rustls::Error::General(e.to_string())))?;
    let connection = UnbufferedServerConnection::new(config).map_err(TlsError::Protocol)?;
    down.accept_tls(connection).await
}

/// A failed handshake in words a user can act on.
fn words_for(error: &TlsError, hello: &ClientHello) -> String {
    use rustls::AlertDescription as A;
    match error {
        TlsError::Protocol(rustls::Error::NoApplicationProtocol) => {
            let offered: Vec<_> = hello.alpn.iter().map(|p| String::from_utf8_lossy(p)).collect();
            format!("the client insists on {}; the gate speaks http/1.1", offered.join(", "))
        }
        TlsError::Protocol(rustls::Error::AlertReceived(
            A::UnknownCA | A::BadCertificate | A::CertificateUnknown | A::UnsupportedCertificate,
        )) => format!(
            "the client does not trust agent-gate's CA or pins the origin's certificate ({error}); \
             a line in passthrough.txt lets the host pass unread"
        ),
        other => other.to_string(),
    }
}

/// Bytes both ways, unread, recorded by their number.
async fn pass_through(flow: &Flow, target: &Target, mut down: Stream) {
    let route = flow.run.route(target, Form::Tls);
    let mut times = DialTimes::default();
    let (address, mut up) = match upstream::connect(flow, target, &route, &mut times).await {
        Ok(connected) => connected,
        Err(error) => return not_connected(flow, target, &route, error, &down).await,
    };
    flow.control.set_upstream(Some(up.handle().clone()));
    flow.control.set_stage(Stage::Waiting);
    let mut sniffer = Sniffer::default();
    let (end, transferred) = relay(&mut down, &mut up, |data| sniffer.see(data)).await;
    flow.control.set_upstream(None);
    let outcome = match end {
        RelayEnd::Both => Outcome::Complete,
        RelayEnd::ClientGone => Outcome::CutByClient,
        RelayEnd::OriginGone => Outcome::CutByOrigin,
    };
    let sni = sniffer.sni();
    let passed = TunnelEnd {
        target,
        address: Some(address),
        via: route.via(),
        sni,
        passthrough: true,
        outcome,
        error: None,
        transferred,
    };
    flow.record_tunnel(passed).await;
}

/// Finds the name in a client hello that passes.
#[derive(Default)]
struct Sniffer {
    /// What has passed, as long as it may be a hello.
    hello: Vec<u8>,
    sniffed: Option<Sniffed>,
}

impl Sniffer {
    fn see(&mut self, data: &[u8]) {
        if self.sniffed.is_some() {
            return;
        }
        self.hello.extend_from_slice(data);
        match sniff(&self.hello) {
            Sniffed::Partial => {}
            sniffed => {
                self.sniffed = Some(sniffed);
                self.hello = Vec::new();
            }
        }
    }

    fn sni(&self) -> Option<&str> {
        match &self.sniffed {
            Some(Sniffed::Hello(hello)) => hello.sni.as_deref(),
            _ => None,
        }
    }
}

async fn not_connected(
    flow: &Flow,
    target: &Target,
    route: &Route,
    error: DialError,
    down: &Stream,
) {
    let (outcome, address, detail): (_, Option<SocketAddr>, _) = match error {
        DialError::Failed { outcome, detail } => (outcome, None, detail),
        DialError::Refused { by, address, detail } => {
            flow.record_refused(target, None, by, &detail).await;
            (Outcome::AddressRefused, Some(address), detail)
        }
    };
    let mut end = unread(target, outcome);
    end.passthrough = true;
    end.via = route.via();
    end.address = address;
    end.error = Some(detail);
    flow.record_tunnel(end).await;
    down.handle().abort();
}
