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
use super::stream::{Reader, Stream};
use super::upstream::Upstream;
use crate::Limits;
use crate::policy::{Verdict, verdict};
use crate::proto::framing::Framing;
use crate::proto::head::RequestHead;

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
            After::Reset => {
                down.handle().reset();
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
    if down.reader.data().is_empty() {
        match wait_for_data(flow, down, kept).await {
            Waited::Arrived => {}
            Waited::ClientGone if served == 0 => {
                ended_without_request(flow, door).await;
                return None;
            }
            Waited::TooLong if served == 0 => {
                let error = "nothing was asked in time, so the gate closed (idle_seconds)";
                record_end(flow, door, Outcome::Complete, Some(error.to_owned())).await;
                return None;
            }
            Waited::ClientGone | Waited::OriginGone | Waited::TooLong => return None,
        }
    }
    flow.control.set_stage(Stage::Sending);
    let begun = (Timestamp::now(), Instant::now());
    let limits = &flow.worker.shared.limits;
    let due = begun.1 + limits.head_time_max;
    loop {
        match RequestHead::parse(down.reader.data()) {
            Ok(Some((head, length))) => {
                if !is_within(&head, limits) {
                    let words = words_for_size(length, head.head.field_count(), limits);
                    broken_head(flow, door, &words, down).await;
                    return None;
                }
                down.reader.consume(length);
                return Some((head, begun));
            }
            Ok(None) => {
                let length = down.reader.data().len();
                if length > limits.head_bytes_max {
                    broken_head(flow, door, &words_for_size(length, 0, limits), down).await;
                    return None;
                }
                let next_line = next_line(&mut down.reader, limits.head_bytes_max);
                match flow.control.alarm.until(due, next_line).await {
                    Some(true) => {}
                    Some(false) => {
                        let error = "the client went away in mid-head".to_owned();
                        record_end(flow, door, Outcome::CutByClient, Some(error)).await;
                        return None;
                    }
                    None => {
                        give_up_head(flow, door, down).await;
                        return None;
                    }
                }
            }
            Err(error) => {
                broken_head(flow, door, &error.to_string(), down).await;
                return None;
            }
        }
    }
}

/// Whether a head is no larger than the settings allow.
pub(super) fn is_within(head: &RequestHead, limits: &Limits) -> bool {
    head.head.bytes.len() <= limits.head_bytes_max && head.head.field_count() <= limits.fields_max
}

fn words_for_size(bytes: usize, fields: usize, limits: &Limits) -> String {
    if bytes > limits.head_bytes_max {
        format!("its head has over {} bytes (head_bytes_max)", limits.head_bytes_max)
    } else {
        format!("its head has {fields} fields, over {} (fields_max)", limits.fields_max)
    }
}

/// Waits for the next end of a line, where alone a head can end: one that dribbles in byte by byte
/// is not read anew for each. `false` when the client is gone, and no more than `bytes_max` is
/// waited for.
pub(super) async fn next_line(reader: &mut Reader, bytes_max: usize) -> bool {
    let mut seen = reader.data().len();
    while seen <= bytes_max {
        if !matches!(reader.fill().await, Ok(true)) {
            return false;
        }
        if reader.data()[seen..].contains(&b'\n') {
            break;
        }
        seen = reader.data().len();
    }
    true
}

/// A head that has not come to its end in time: the client is told, in case it only is slow.
pub(super) async fn give_up_head(flow: &Flow, door: &Door, down: &mut Stream) {
    let unknown = Target { host: unknown_host(), port: 80 };
    let target = door.target.as_ref().unwrap_or(&unknown);
    let seconds = flow.worker.shared.limits.head_time_max.as_secs();
    let detail = format!("the request's head was not whole within {seconds} s (head_seconds)");
    flow.record_refused(target, None, RefusedBy::HeadTimeout, &detail).await;
    give(RefusedBy::HeadTimeout, target, &detail, down).await;
}

/// What an idle connection came to.
enum Waited {
    /// The client sent something.
    Arrived,
    /// The client closed, or its connection broke.
    ClientGone,
    /// The origin closed.
    OriginGone,
    /// It idled for too long.
    TooLong,
}

/// Waits for the client's next byte. An origin that closes the idle connection closes the
/// client's with it, as it would without a gate between.
async fn wait_for_data(flow: &Flow, down: &mut Stream, kept: &mut Option<Upstream>) -> Waited {
    let due = Instant::now() + flow.worker.shared.limits.idle_time_max;
    let alarm = &flow.control.alarm;
    let of_client = |arrived: std::io::Result<bool>| match arrived {
        Ok(true) => Waited::Arrived,
        Ok(false) | Err(_) => Waited::ClientGone,
    };
    let waited = match kept {
        None => alarm.until(due, down.reader.fill()).await.map(of_client),
        Some(upstream) => {
            upstream.release();
            let client = std::pin::pin!(down.reader.fill());
            let origin = std::pin::pin!(upstream.stream.reader.fill());
            alarm.until(due, select(client, origin)).await.map(|first| match first {
                Either::Left((arrived, _)) => of_client(arrived),
                Either::Right(_) => Waited::OriginGone,
            })
        }
    }
    .unwrap_or(Waited::TooLong);
    if matches!(waited, Waited::OriginGone | Waited::TooLong) {
        *kept = None;
        // A client that is gone needs no goodbye.
        let _ = down.writer.finish().await;
    }
    waited
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
        via: None,
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

/// Stands where no host is known.
pub(super) fn unknown_host() -> HostName {
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

async fn broken_head(flow: &Flow, door: &Door, error: &str, down: &mut Stream) {
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
