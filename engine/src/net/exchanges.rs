//! The exchanges of one connection, one after the other: heads in, policy asked, carried out.

use std::time::Instant;

use agent_gate_store::record::{Outcome, RefusedBy};
use agent_gate_store::{HostName, Timestamp};
use futures_util::future::{Either, select};

use super::answer::{self, refusal_detail};
use super::door::{Door, Target};
use super::exchange::{After, Opening, exchange};
use super::flow::{Flow, Stage, TunnelEnd};
use super::relay::linger;
use super::stream::Stream;
use super::upstream::Upstream;
use crate::policy::{Verdict, verdict};
use crate::proto::framing::Framing;
use crate::proto::head::{HeadError, RequestHead};

/// Serves exchanges until the connection ends.
pub(super) async fn serve(flow: &Flow, door: &Door, down: &mut Stream) {
    let (mut kept, mut served) = (None, 0_u64);
    loop {
        let Some((head, begun)) = next_head(flow, door, down, &mut kept, served).await else {
            break;
        };
        served += 1;
        let (target, framing) = match admit(flow, door, &head) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                refuse(flow, &refusal, &head, down).await;
                break;
            }
        };
        let opening = Opening { door, target: &target, head: &head, framing, begun };
        // Boxed, so that an idle connection does not hold the room of a busy one.
        match Box::pin(exchange(flow, opening, down, kept.take())).await {
            After::Next(upstream) => {
                kept = Some(*upstream);
                down.reader.release();
                down.writer.release();
            }
            After::Close => {
                // A client that is gone needs no goodbye.
                let _ = down.writer.finish().await;
                return;
            }
            After::Abort => {
                down.handle().abort();
                return;
            }
        }
    }
    if let Some(upstream) = kept {
        give_back(flow, upstream);
    }
}

/// An upstream connection that its flow needs no more serves another.
fn give_back(flow: &Flow, mut upstream: Upstream) {
    upstream.release();
    let key = upstream.key.clone();
    flow.worker.pool.borrow_mut().put(key, upstream);
}

/// Waits for the next head and reads it; `None` when there is none to serve.
async fn next_head(
    flow: &Flow,
    door: &Door,
    down: &mut Stream,
    kept: &mut Option<Upstream>,
    served: u64,
) -> Option<(RequestHead, (Timestamp, Instant))> {
    if served > 0 {
        flow.control.set_stage(Stage::Idle);
    }
    if down.reader.data().is_empty() && !wait_for_data(down, kept).await {
        if served == 0 {
            ended_without_request(flow, door).await;
        }
        return None;
    }
    flow.control.set_stage(Stage::Sending);
    let begun = (Timestamp::now(), Instant::now());
    loop {
        match RequestHead::parse(down.reader.data()) {
            Ok(Some((head, length))) => {
                down.reader.consume(length);
                return Some((head, begun));
            }
            Ok(None) => match down.reader.fill().await {
                Ok(true) => {}
                Ok(false) | Err(_) => {
                    let error = "the client went away in mid-head".to_owned();
                    record_end(flow, door, Outcome::CutByClient, Some(error)).await;
                    return None;
                }
            },
            Err(error) => {
                broken_head(flow, door, &error, down).await;
                return None;
            }
        }
    }
}

/// Whether more arrives. An origin that closes the idle connection closes the client's with it,
/// as it would without a gate between.
async fn wait_for_data(down: &mut Stream, kept: &mut Option<Upstream>) -> bool {
    let Some(upstream) = kept else { return matches!(down.reader.fill().await, Ok(true)) };
    upstream.release();
    let arrived = {
        let client = std::pin::pin!(down.reader.fill());
        let origin = std::pin::pin!(upstream.stream.reader.fill());
        match select(client, origin).await {
            Either::Left((arrived, _)) => Some(matches!(arrived, Ok(true))),
            Either::Right(_) => None,
        }
    };
    if let Some(arrived) = arrived {
        return arrived;
    }
    *kept = None;
    // A client that is gone needs no goodbye.
    let _ = down.writer.finish().await;
    false
}

/// A client that finishes TLS and closes without a word most likely does not trust the CA
/// (TLS 1.3 lets it say so only after the handshake).
async fn ended_without_request(flow: &Flow, door: &Door) {
    if door.tls.is_some() {
        let error = "TLS was agreed, then the client closed without a request: perhaps it does not \
                     trust agent-gate's CA, or it only opened the connection in advance";
        record_end(flow, door, Outcome::ClientClosedEarly, Some(error.to_owned())).await;
    } else {
        record_end(flow, door, Outcome::Complete, None).await;
    }
}

async fn record_end(flow: &Flow, door: &Door, outcome: Outcome, error: Option<String>) {
    let Some(target) = &door.target else { return };
    let sni = door.tls.as_ref().and_then(|t| t.sni.as_ref()).map(HostName::as_str);
    flow.record_tunnel(TunnelEnd {
        target,
        address: None,
        sni,
        passthrough: false,
        outcome,
        error,
        transferred: Default::default(),
    })
    .await;
}

/// Why a request does not pass.
struct Refusal {
    target: Target,
    by: RefusedBy,
    detail: String,
}

/// Whom the request is for and how long it is, if policy lets it pass.
fn admit(flow: &Flow, door: &Door, head: &RequestHead) -> Result<(Target, Framing), Refusal> {
    let malformed = |target: &Target, detail: &dyn std::fmt::Display| Refusal {
        target: target.clone(),
        by: RefusedBy::BadRequest,
        detail: format!("malformed request: {detail}"),
    };
    let default_port = if door.tls.is_some() { 443 } else { 80 };
    let unknown = Target { host: unknown_host(), port: default_port };
    let at_door = door.target.as_ref().unwrap_or(&unknown);
    let named = head.host().map_err(|e| malformed(at_door, &e))?;
    let named = named
        .map(|h| {
            Target::parse(h, Some(at_door.port)).ok_or_else(|| malformed(at_door, &"bad Host"))
        })
        .transpose()?;
    let target = match &door.target {
        Some(target) => target.clone(),
        None => absolute_target(&head.target())
            .ok_or_else(|| malformed(named.as_ref().unwrap_or(&unknown), &NOT_ABSOLUTE))?,
    };
    if head.is_method("CONNECT") {
        return Err(malformed(&target, &"CONNECT inside a tunnel"));
    }
    let framing = Framing::of_request(head).map_err(|e| malformed(&target, &e))?;
    allowed(flow, &target)?;
    // A Host that names another host than the connection's is asked about too: the stricter
    // answer counts.
    if let Some(named) = named.filter(|n| n.host != target.host) {
        allowed(flow, &Target { host: named.host, port: target.port })?;
    }
    Ok((target, framing))
}

const NOT_ABSOLUTE: &str = "this is a proxy; it takes CONNECT and http:// targets";

/// Whom an absolute-form target names (RFC 9112, section 3.2.2).
fn absolute_target(target: &str) -> Option<Target> {
    let scheme_end = target.find("://")?;
    if !target[..scheme_end].eq_ignore_ascii_case("http") {
        return None;
    }
    let rest = &target[scheme_end + 3..];
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    Target::parse(host, Some(80))
}

fn unknown_host() -> HostName {
    HostName::parse("unknown.invalid").expect("a valid name")
}

/// Asks the lists about `target`. Passed-through hosts are let through here: what came in clear
/// text is read all the same.
fn allowed(flow: &Flow, target: &Target) -> Result<(), Refusal> {
    let lists = flow.worker.shared.lists.load();
    match verdict(&lists, flow.run.enforce_allowlist, &target.host, target.port) {
        Verdict::Refuse(by) => {
            Err(Refusal { target: target.clone(), by, detail: refusal_detail(by, target, "") })
        }
        Verdict::PassThrough | Verdict::Intercept => Ok(()),
    }
}

async fn refuse(flow: &Flow, refusal: &Refusal, head: &RequestHead, down: &mut Stream) {
    let Refusal { target, by, detail } = refusal;
    let request = format!("{} {}", head.method(), head.target());
    flow.record_refused(target, Some(request), *by, detail).await;
    give(*by, target, detail, down).await;
}

async fn broken_head(flow: &Flow, door: &Door, error: &HeadError, down: &mut Stream) {
    let unknown = Target { host: unknown_host(), port: 80 };
    let target = door.target.as_ref().unwrap_or(&unknown);
    let detail = format!("malformed request: {error}");
    flow.record_refused(target, None, RefusedBy::BadRequest, &detail).await;
    give(RefusedBy::BadRequest, target, &detail, down).await;
}

/// Sends a refusal and ends the connection.
pub(super) async fn give(by: RefusedBy, target: &Target, detail: &str, down: &mut Stream) {
    let answer = answer::refusal(by, target, detail);
    if down.writer.stage(&answer.bytes).is_ok() {
        linger(down).await;
    }
}
