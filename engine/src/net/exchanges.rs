//! The exchanges of one connection, one after the other: heads in, policy asked, carried out.

use std::time::Instant;

use agent_gate_store::record::{Flag, Outcome, RefusedBy};
use agent_gate_store::{HostName, Timestamp};
use futures_util::future::{Either, select};

use super::answer::{self, HTTP2_GOODBYE, HTTP2_PREFACE, Refusal};
use super::door::{Aliases, Door, Target};
use super::exchange::{After, Opening, exchange};
use super::flow::{Flow, Stage, TunnelEnd};
use super::relay::linger;
use super::stream::{Reader, Stream};
use super::tunnel::passthrough_cure;
use super::upstream::Upstream;
use crate::Limits;
use crate::distrust::Unused;
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
        if served == 1 {
            accepted(flow, door);
        }
        let Admitted { target, framing, flags } = match admit(flow, door, &head) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                let sni = door.sni().map(HostName::as_str);
                Box::pin(refuse(flow, &refusal, sni, &head, down)).await;
                break;
            }
        };
        let opening = Opening { door, target: &target, head: &head, framing, flags: &flags, begun };
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

/// Waits for the next head and reads it; `None` when there is none to serve. What ends the
/// connection is boxed: its room, a record's, is not to be held while the connection idles.
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
                Box::pin(ended_without_request(flow, door)).await;
                return None;
            }
            Waited::TooLong if served == 0 => {
                let error = "nothing was asked in time, so the gate closed (idle_seconds)";
                let ending = Ending::new(Outcome::Complete, Some(error.to_owned()));
                Box::pin(record_unused(flow, door, None, ending)).await;
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
        let data = down.reader.data();
        if data.starts_with(HTTP2_PREFACE) {
            Box::pin(refuse_http2(flow, door, down)).await;
            return None;
        }
        let found =
            if HTTP2_PREFACE.starts_with(data) { Ok(None) } else { RequestHead::parse(data) };
        match found {
            Ok(Some((head, length))) => {
                if !is_within(&head, limits) {
                    let words = words_for_size(length, head.head.field_count(), limits);
                    Box::pin(broken_head(flow, door, &words, down)).await;
                    return None;
                }
                down.reader.consume(length);
                return Some((head, begun));
            }
            Ok(None) => {
                let length = down.reader.data().len();
                if length > limits.head_bytes_max {
                    Box::pin(broken_head(flow, door, &words_for_size(length, 0, limits), down))
                        .await;
                    return None;
                }
                let next_line = next_line(&mut down.reader, limits.head_bytes_max);
                match flow.control.alarm.until(due, next_line).await {
                    Some(true) => {}
                    Some(false) => {
                        let error = "the client went away in mid-head".to_owned();
                        let ending = Ending::new(Outcome::CutByClient, Some(error));
                        Box::pin(record_unused(flow, door, None, ending)).await;
                        return None;
                    }
                    None => {
                        Box::pin(give_up_head(flow, door, down)).await;
                        return None;
                    }
                }
            }
            Err(error) => {
                Box::pin(broken_head(flow, door, &error.to_string(), down)).await;
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
    let seconds = flow.worker.shared.limits.head_time_max.as_secs();
    let detail = format!("the request's head was not whole within {seconds} s (head_seconds)");
    let refusal = refusal_at(door, RefusedBy::HeadTimeout, detail);
    flow.record_refused(&refusal, door.sni().map(HostName::as_str), None).await;
    give(&refusal, None, down).await;
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

/// Whoever sends a request over TLS has accepted our certificate.
fn accepted(flow: &Flow, door: &Door) {
    if door.tls.is_some()
        && let Some(host) = door.asked_host()
    {
        flow.run.distrust.used(host);
    }
}

/// A client that finishes TLS and closes without a word has opened the connection in advance, or
/// does not trust the CA (TLS 1.3 lets it say so only after the handshake).
async fn ended_without_request(flow: &Flow, door: &Door) {
    const UNUSED: &str = "TLS was agreed, then the client closed without a request";
    let mut ending = Ending::new(Outcome::Complete, None);
    if door.tls.is_some()
        && !flow.control.is_aborted()
        && let Some(host) = door.asked_host()
    {
        match flow.run.distrust.unused(host) {
            Unused::InAdvance => {}
            Unused::Unclear => {
                ending.outcome = Outcome::ClientClosedEarly;
                ending.error = Some(format!(
                    "{UNUSED}: it opened the connection in advance, or does not trust agent-gate's CA"
                ));
            }
            Unused::Distrust(times) => {
                ending.outcome = Outcome::ClientClosedEarly;
                ending.flags.push(Flag::ClientDistrust);
                let cure = passthrough_cure(door, door.sni().map(HostName::as_str));
                ending.error = Some(format!(
                    "{UNUSED}, {times} times in a row and never otherwise: it probably does not \
                     trust agent-gate's CA or pins the origin's certificate; {cure}"
                ));
            }
        }
    }
    record_unused(flow, door, None, ending).await;
}

/// How a connection ended that carried no exchange.
pub(super) struct Ending {
    pub(super) outcome: Outcome,
    /// Why, in words.
    pub(super) error: Option<String>,
    /// What is odd about it, besides its names.
    pub(super) flags: Vec<Flag>,
}

impl Ending {
    pub(super) fn new(outcome: Outcome, error: Option<String>) -> Self {
        Self { outcome, error, flags: Vec::new() }
    }
}

/// Records a connection that carried no exchange: as refused, if nothing in it would have passed.
/// `sni`: the name in its hello, where the handshake did not come to its end.
pub(super) async fn record_unused(flow: &Flow, door: &Door, sni: Option<&str>, ending: Ending) {
    let Some(target) = &door.target else { return };
    let Ending { outcome, error, mut flags } = ending;
    let sni = sni.or(door.sni().map(HostName::as_str));
    if let Some(refused) = &door.refused {
        let mut refusal = refused.clone();
        if let Some(error) = error {
            refusal.detail = format!("{}; {error}", refusal.detail);
        }
        flags.retain(|flag| !refusal.flags.contains(flag));
        refusal.flags.append(&mut flags);
        return flow.record_refused(&refusal, sni, None).await;
    }
    if let Some(name) = door.sni() {
        let mut aliases = Aliases::new(target);
        aliases.said(name, target.port);
        flags.extend(aliases.flags());
    }
    flow.record_tunnel(TunnelEnd {
        target,
        address: None,
        via: None,
        sni,
        passthrough: false,
        outcome,
        error,
        flags,
        transferred: Default::default(),
    })
    .await;
}

/// A request that may pass: whom it is for, how long it is, and what is odd about it.
struct Admitted {
    target: Target,
    framing: Framing,
    flags: Vec<Flag>,
}

/// Whom the request is for and how long it is, if policy lets it pass. Every name it goes by is
/// asked about: the strictest answer counts. A host that is to pass unread passes here too, but
/// read: it has come in where it can be.
fn admit(flow: &Flow, door: &Door, head: &RequestHead) -> Result<Admitted, Refusal> {
    let malformed = |target: &Target, detail: &dyn std::fmt::Display| {
        Refusal::of(RefusedBy::BadRequest, target, format!("malformed request: {detail}"))
    };
    let default_port = if door.tls.is_some() { 443 } else { 80 };
    let unknown = Target { host: unknown_host(), port: default_port };
    let at_door = door.target.as_ref().unwrap_or(&unknown);
    let request_target = head.target();
    let absolute = absolute_form(&request_target);
    let target = match &door.target {
        Some(target) => target.clone(),
        None => match absolute {
            Some(("http", authority)) => Target::parse(authority, Some(80)),
            _ => None,
        }
        .ok_or_else(|| malformed(at_door, &NOT_ABSOLUTE))?,
    };
    let mut aliases = Aliases::new(&target);
    if let Some(sni) = door.sni() {
        aliases.said(sni, target.port);
    }
    let host = head.host().map_err(|e| malformed(&target, &e))?;
    let said = host.into_iter().chain(absolute.map(|(_, authority)| authority));
    // Most say what is known already, in just its form.
    for authority in said.filter(|authority| *authority != target.host.as_str()) {
        let named = Target::parse(authority, Some(target.port))
            .ok_or_else(|| malformed(&target, &"bad Host"))?;
        // It is reached by the connection's port, whatever port it names.
        aliases.said(&named.host, target.port);
        aliases.said(&named.host, named.port);
    }
    if let Some(refusal) = aliases.refusal(flow) {
        return Err(refusal);
    }
    if head.is_method("CONNECT") {
        return Err(malformed(&target, &"CONNECT inside a tunnel"));
    }
    let framing = Framing::of_request(head).map_err(|e| malformed(&target, &e))?;
    head.check_authority().map_err(|e| malformed(&target, &e))?;
    let flags = aliases.flags();
    Ok(Admitted { target, framing, flags })
}

const NOT_ABSOLUTE: &str = "this is a proxy; it takes CONNECT and http:// targets";

/// Scheme and authority of a target in absolute form (RFC 9112, section 3.2.2).
fn absolute_form(target: &str) -> Option<(&'static str, &str)> {
    let (scheme, rest) = target.split_once("://")?;
    let scheme = ["http", "https"].into_iter().find(|known| scheme.eq_ignore_ascii_case(known))?;
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    Some((scheme, authority.rsplit_once('@').map_or(authority, |(_, host)| host)))
}

/// Stands where no name can be told.
pub(super) fn unknown_host() -> HostName {
    HostName::parse("unknown.invalid").expect("a valid name")
}

async fn refuse(
    flow: &Flow,
    refusal: &Refusal,
    sni: Option<&str>,
    head: &RequestHead,
    down: &mut Stream,
) {
    flow.record_refused(refusal, sni, Some(head)).await;
    give(refusal, Some(head), down).await;
}

async fn broken_head(flow: &Flow, door: &Door, error: &str, down: &mut Stream) {
    let detail = format!("malformed request: {error}");
    let refusal = refusal_at(door, RefusedBy::BadRequest, detail);
    flow.record_refused(&refusal, door.sni().map(HostName::as_str), None).await;
    give(&refusal, None, down).await;
}

/// Prior knowledge (RFC 9113, section 3.3): the client speaks HTTP/2 without having asked.
async fn refuse_http2(flow: &Flow, door: &Door, down: &mut Stream) {
    let detail = "HTTP/2 with prior knowledge; the gate speaks HTTP/1.1".to_owned();
    let refusal = refusal_at(door, RefusedBy::UnknownProtocol, detail);
    flow.record_refused(&refusal, door.sni().map(HostName::as_str), None).await;
    if down.writer.stage(HTTP2_GOODBYE).is_ok() {
        linger(down).await;
    }
}

/// Why what came in there does not pass: the lists' reason, if they have one, else this.
fn refusal_at(door: &Door, by: RefusedBy, detail: String) -> Refusal {
    let unknown = Target { host: unknown_host(), port: 80 };
    let target = door.target.as_ref().unwrap_or(&unknown);
    door.refused.clone().unwrap_or_else(|| Refusal::of(by, target, detail))
}

/// Sends a refusal and ends the connection.
pub(super) async fn give(refusal: &Refusal, head: Option<&RequestHead>, down: &mut Stream) {
    let answer = answer::refusal(refusal, head);
    if down.writer.stage(&answer.bytes).is_ok() {
        linger(down).await;
    }
}
