//! Answers the gate itself gives: refusals and failures, as JSON that says what and why.

use agent_gate_store::record::{Outcome, RefusedBy};
use serde_json::json;

use super::door::Target;

/// A whole response of the gate's own.
pub(super) struct Answer {
    /// Head and body as they go to the client.
    pub(super) bytes: Vec<u8>,
}

/// Why a request failed, in the field's words, for `X-Agent-Gate-Error` and the body's `code`.
pub(super) fn code(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::NameUnknown => "name_unknown",
        Outcome::Unreachable => "unreachable",
        Outcome::OriginTlsFailed => "origin_tls_failed",
        Outcome::ProxyFailed => "proxy_failed",
        Outcome::OriginBroken => "origin_broken",
        Outcome::OriginSilent => "origin_silent",
        Outcome::CutByOrigin => "cut_by_origin",
        Outcome::RecordingStopped => "recording_stopped",
        _ => "failed",
    }
}

/// The text of a refusal, as in records and headers.
pub(super) fn refusal_code(by: RefusedBy) -> &'static str {
    match by {
        RefusedBy::Denylisted => "denylisted",
        RefusedBy::HostNotAllowlisted => "host_not_allowlisted",
        RefusedBy::AddressRefused => "address_refused",
        RefusedBy::UnknownProtocol => "unknown_protocol",
        RefusedBy::BadRequest => "bad_request",
        RefusedBy::HeadTimeout => "head_timeout",
        RefusedBy::TooManyConnections => "too_many_connections",
        RefusedBy::RecordingStopped => "recording_stopped",
    }
}

/// What a user reads about a refusal: what refused it and how to allow it.
pub(super) fn refusal_detail(by: RefusedBy, target: &Target, why: &str) -> String {
    let Target { host, port } = target;
    let host = host.as_str();
    match by {
        RefusedBy::Denylisted => {
            format!("{host} is on the denylist (denylist.txt); remove the line to allow it")
        }
        RefusedBy::HostNotAllowlisted => format!(
            "the allowlist is enforced and does not name {host}; add a line \"{host}\" to \
             allowlist.txt to allow it"
        ),
        RefusedBy::AddressRefused => format!(
            "{host}:{port} is {why}; add a line \"{host}:{port}\" to allowlist.txt to allow it"
        ),
        _ => why.to_owned(),
    }
}

/// The answer to a request that is not allowed. Agents retry on many codes; the field says that
/// it is of no use, where it is not.
pub(super) fn refusal(by: RefusedBy, target: &Target, detail: &str) -> Answer {
    let status = match by {
        RefusedBy::BadRequest | RefusedBy::UnknownProtocol => 400,
        RefusedBy::HeadTimeout => 408,
        RefusedBy::RecordingStopped | RefusedBy::TooManyConnections => 503,
        _ => 403,
    };
    let retry = match by {
        RefusedBy::HeadTimeout | RefusedBy::TooManyConnections => "",
        _ => "x-should-retry: false\r\n",
    };
    let fields = format!("X-Agent-Gate-Block: {}\r\n{retry}", refusal_code(by));
    build(status, &fields, refusal_code(by), target, detail)
}

/// The answer to a request whose origin failed.
pub(super) fn failure(outcome: Outcome, target: &Target, detail: &str) -> Answer {
    let status = match outcome {
        Outcome::RecordingStopped => 503,
        Outcome::OriginSilent => 504,
        _ => 502,
    };
    let code = code(outcome);
    build(status, &format!("X-Agent-Gate-Error: {code}\r\n"), code, target, detail)
}

fn build(status: u16, fields: &str, code: &str, target: &Target, detail: &str) -> Answer {
    let body = json!({
        "error": {
            "type": "agent_gate_error",
            "code": code,
            "host": target.host.as_str(),
            "port": target.port,
            "message": format!("agent-gate: {detail}"),
        }
    })
    .to_string();
    let reason = match status {
        400 => "Bad Request",
        403 => "Forbidden",
        408 => "Request Timeout",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Bad Gateway",
    };
    let bytes = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         {fields}Connection: close\r\n\r\n{body}",
        body.len()
    );
    Answer { bytes: bytes.into_bytes() }
}
