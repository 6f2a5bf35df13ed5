//! A connection to a host of the passthrough list: bytes both ways, unread, recorded by their
//! number. The client's hello is looked at before anything is forwarded, since the list names
//! hosts, and a hello may name another.

use agent_gate_store::HostName;
use agent_gate_store::record::{Flag, Outcome, Transferred};
use futures_util::future::{Either, select};

use super::answer::{Alert, Refusal};
use super::door::{Aliases, Target};
use super::flow::{Flow, Stage, TunnelEnd};
use super::relay::{RelayEnd, relay};
use super::run::Form;
use super::stream::Stream;
use super::tunnel;
use super::upstream::{self, DialError, DialTimes, Route};
use crate::policy::Verdict;
use crate::proto::client_hello::{ClientHello, Sniffed, sniff};

/// Serves a connection whose target is to pass unread, unless its hello says otherwise.
pub(super) async fn open(flow: &Flow, target: Target, mut down: Box<Stream>) {
    // While this is under way the hello arrives, so that looking at it costs no time.
    let mut times = DialTimes::default();
    let route = flow.run.route(&target, Form::Tls);
    let connected = upstream::connect(flow, &target, &route, &mut times).await;
    let (address, mut up) = match connected {
        Ok(connected) => connected,
        Err(error) => return not_connected(flow, &target, &route, error, down).await,
    };
    flow.control.set_upstream(Some(up.handle().clone()));
    flow.control.set_stage(Stage::Waiting);
    let first = first_word(flow, &mut down, &mut up).await;
    let mut passed = TunnelEnd::passed(&target);
    passed.address = Some(address);
    passed.via = route.via();
    match &first {
        First::Hello(hello) => match names_in(flow, &target, hello) {
            (Verdict::PassThrough, flags) => {
                passed.sni = hello.sni.as_deref();
                passed.flags = flags;
            }
            _ => {
                flow.control.set_upstream(None);
                flow.control.set_stage(Stage::Sending);
                up.handle().abort();
                let due = flow.handshake_due();
                return Box::pin(tunnel::intercept(flow, target.clone(), hello, down, due)).await;
            }
        },
        First::Malformed => {
            flow.control.set_upstream(None);
            up.handle().abort();
            return tunnel::refuse_malformed(flow, target, down).await;
        }
        First::Half { late } => {
            flow.control.set_upstream(None);
            up.handle().abort();
            return tunnel::half_said(flow, target, *late).await;
        }
        First::Unread => {}
    }
    let (end, transferred) = relay(&mut down, &mut up, |_| ()).await;
    flow.control.set_upstream(None);
    passed.outcome = match end {
        RelayEnd::Both => Outcome::Complete,
        RelayEnd::ClientGone => Outcome::CutByClient,
        RelayEnd::OriginGone => Outcome::CutByOrigin,
    };
    passed.transferred = transferred;
    flow.record_tunnel(passed).await;
}

/// How the two sides began.
enum First {
    /// With a client hello, which waits to be forwarded.
    Hello(ClientHello),
    /// With what began like TLS and is not.
    Malformed,
    /// With a part of a hello, and then an end, or nothing for too long.
    Half { late: bool },
    /// With anything else: another protocol, the origin's word (SSH, SMTP), or an end.
    Unread,
}

/// Waits until the client has sent a whole hello, or it is clear that there will be none. A
/// connection that was opened in advance may wait here for long.
async fn first_word(flow: &Flow, down: &mut Stream, up: &mut Stream) -> First {
    let mut due = flow.handshake_due();
    loop {
        match sniff(down.reader.data()) {
            Sniffed::Hello(hello) => return First::Hello(hello),
            Sniffed::Malformed => return First::Malformed,
            Sniffed::Other => return First::Unread,
            Sniffed::Partial if down.reader.data().is_empty() => {
                let client = std::pin::pin!(down.reader.fill());
                let origin = std::pin::pin!(up.reader.fill());
                match select(client, origin).await {
                    Either::Left((Ok(true), _)) => due = flow.handshake_due(),
                    Either::Left(_) | Either::Right(_) => return First::Unread,
                }
            }
            Sniffed::Partial => match flow.control.alarm.until(due, down.reader.fill()).await {
                Some(Ok(true)) => {}
                Some(_) => return First::Half { late: false },
                None => return First::Half { late: true },
            },
        }
    }
}

/// What the lists say to target and hello together, and what is odd about them. A name that is
/// none is on no list, so it does not pass unread.
fn names_in(flow: &Flow, target: &Target, hello: &ClientHello) -> (Verdict, Vec<Flag>) {
    let mut aliases = Aliases::new(target);
    match hello.sni.as_deref().map(HostName::parse) {
        Some(Ok(name)) => aliases.said(&name, target.port),
        Some(Err(_)) => return (Verdict::Intercept, Vec::new()),
        None => {}
    }
    (aliases.ask(flow).0, aliases.flags())
}

/// The client has no answer to expect from us, so its connection ends as the origin's would.
async fn not_connected(
    flow: &Flow,
    target: &Target,
    route: &Route,
    error: DialError,
    mut down: Box<Stream>,
) {
    let mut end = TunnelEnd::passed(target);
    end.via = route.via();
    match error {
        DialError::Failed { outcome, detail } => {
            end.outcome = outcome;
            end.error = Some(detail);
            flow.record_tunnel(end).await;
            down.handle().abort();
        }
        DialError::Refused { by, detail, .. } => {
            flow.record_refused(&Refusal::of(by, target, detail), None, None).await;
            tunnel::say_last(Alert::AccessDenied, &mut down).await;
        }
    }
}

impl<'a> TunnelEnd<'a> {
    /// A tunnel that passed unread, as far as is known before it ends.
    fn passed(target: &'a Target) -> Self {
        Self {
            target,
            address: None,
            via: None,
            sni: None,
            passthrough: true,
            outcome: Outcome::Complete,
            error: None,
            flags: Vec::new(),
            transferred: Transferred::default(),
        }
    }
}
