//! Answers the gate itself gives: refusals and failures, as JSON that says what and why.

use agent_gate_store::record::{Flag, Outcome, RefusedBy};

use super::door::Target;
use crate::proto::head::RequestHead;
use crate::provider_error::{Asked, Problem, error_body};

/// A whole response of the gate's own.
pub(super) struct Answer {
    /// Head and body as they go to the client.
    pub(super) bytes: Vec<u8>,
}

/// Why something does not pass.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    /// Whom it was for: the name that is not allowed, where it goes by several.
    pub(super) target: Target,
    /// By what.
    pub(super) by: RefusedBy,
    /// What a user reads.
    pub(super) detail: String,
    /// What is odd about it.
    pub(super) flags: Vec<Flag>,
}

impl Refusal {
    /// A refusal of `target` by one of the lists.
    pub(super) fn by_list(by: RefusedBy, target: &Target, flags: Vec<Flag>) -> Self {
        Self { target: target.clone(), by, detail: refusal_detail(by, target, ""), flags }
    }

    /// A refusal of what breaks a protocol or is none that we know.
    pub(super) fn of(by: RefusedBy, target: &Target, detail: String) -> Self {
        Self { target: target.clone(), by, detail, flags: Vec::new() }
    }
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
pub(super) fn refusal(refusal: &Refusal, head: Option<&RequestHead>) -> Answer {
    let Refusal { target, by, detail, .. } = refusal;
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
    let code = refusal_code(*by);
    let fields = format!("X-Agent-Gate-Block: {code}\r\n{retry}");
    build(Problem { status, code, message: detail }, &fields, target, head)
}

/// The answer to a request whose origin failed.
pub(super) fn failure(
    outcome: Outcome,
    target: &Target,
    detail: &str,
    head: &RequestHead,
) -> Answer {
    let status = match outcome {
        Outcome::RecordingStopped => 503,
        Outcome::OriginSilent => 504,
        _ => 502,
    };
    let code = code(outcome);
    let fields = format!("X-Agent-Gate-Error: {code}\r\n");
    build(Problem { status, code, message: detail }, &fields, target, Some(head))
}

fn build(
    problem: Problem<'_>,
    fields: &str,
    target: &Target,
    head: Option<&RequestHead>,
) -> Answer {
    let message = format!("agent-gate: {}", problem.message);
    let path = head.map(|head| head.target().into_owned()).unwrap_or_default();
    let asked = Asked {
        host: target.host.as_str(),
        port: target.port,
        path: path_of(&path),
        is_mcp: head.is_some_and(is_mcp),
    };
    let body = error_body(asked, Problem { message: &message, ..problem });
    let field = body.field.map(|(name, value)| format!("{name}: {value}\r\n")).unwrap_or_default();
    let json = body.json.to_string();
    // What follows a head that answers HEAD is the next message (RFC 9112, section 6.3).
    let sent = if head.is_some_and(|head| head.is_method("HEAD")) { "" } else { json.as_str() };
    let reason = match problem.status {
        400 => "Bad Request",
        403 => "Forbidden",
        408 => "Request Timeout",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Bad Gateway",
    };
    let bytes = format!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         {fields}{field}Connection: close\r\n\r\n{sent}",
        problem.status,
        json.len()
    );
    Answer { bytes: bytes.into_bytes() }
}

/// The path of a request target in origin or absolute form.
fn path_of(target: &str) -> &str {
    let target = match target.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("", |at| &rest[at..]),
        None => target,
    };
    target.split(['?', '#']).next().unwrap_or_default()
}

/// The marks of MCP's Streamable HTTP: its own fields, or a message to which both forms of an
/// answer are welcome, which the protocol demands of every POST.
fn is_mcp(head: &RequestHead) -> bool {
    let has = |name: &str| head.head.values(name).next().is_some();
    let accepts = |media: &str| {
        head.head.members("accept").any(|member| {
            let end = member.iter().position(|&b| b == b';').unwrap_or(member.len());
            member[..end].trim_ascii().eq_ignore_ascii_case(media.as_bytes())
        })
    };
    has("mcp-protocol-version")
        || has("mcp-session-id")
        || (head.is_method("POST") && accepts("application/json") && accepts("text/event-stream"))
}

/// The client preface of HTTP/2 up to its first empty line (RFC 9113, section 3.4).
pub(super) const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// How HTTP/2 without asking is turned down in its own words: an empty SETTINGS frame, then GOAWAY
/// with HTTP_1_1_REQUIRED (RFC 9113, sections 6.5, 6.8 and 7).
pub(super) const HTTP2_GOODBYE: &[u8] = &[
    0, 0, 0, 4, 0, 0, 0, 0, 0, // SETTINGS
    0, 0, 8, 7, 0, 0, 0, 0, 0, // GOAWAY
    0, 0, 0, 0, 0, 0, 0, 0x0d, // last stream 0, HTTP_1_1_REQUIRED
];

/// A fatal TLS alert in clear (RFC 8446, section 6): the last word where nothing else can be said.
pub(super) fn alert(description: Alert) -> [u8; 7] {
    [21, 3, 3, 0, 2, 2, description as u8]
}

/// The alerts we send before there is a handshake (RFC 8446, section 6.2).
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(super) enum Alert {
    /// Policy says no.
    AccessDenied = 49,
    /// The hello is not one.
    DecodeError = 50,
    /// There can be no certificate for that name.
    UnrecognizedName = 112,
}

#[cfg(test)]
mod tests {
    use agent_gate_store::HostName;

    use super::*;

    fn head(text: &str) -> RequestHead {
        RequestHead::parse(text.as_bytes()).unwrap().unwrap().0
    }

    fn denied(host: &str, request: &str) -> String {
        let target = Target { host: HostName::parse(host).unwrap(), port: 443 };
        let refused = Refusal::by_list(RefusedBy::Denylisted, &target, Vec::new());
        String::from_utf8(refusal(&refused, Some(&head(request))).bytes).unwrap()
    }

    #[test]
    fn a_refusal_has_the_shape_of_its_provider() {
        for (host, request, part) in [
            (
                "api.anthropic.com",
                "POST /v1/messages?beta=true HTTP/1.1\r\n\r\n",
                "permission_error",
            ),
            (
                "g.example",
                "POST http://g.example/v1/m:generateContent HTTP/1.1\r\n\r\n",
                "PERMISSION",
            ),
            (
                "bedrock-runtime.x.amazonaws.com",
                "POST /model/m/invoke HTTP/1.1\r\n\r\n",
                "x-amzn-ErrorType: Access",
            ),
            (
                "m.example",
                "POST / HTTP/1.1\r\nAccept: application/json;q=1, text/event-stream\r\n\r\n",
                "jsonrpc",
            ),
            ("m.example", "GET /sse HTTP/1.1\r\nmcp-session-id: 1\r\n\r\n", "jsonrpc"),
            ("m.example", "GET / HTTP/1.1\r\nAccept: application/json\r\n\r\n", "agent_gate_error"),
        ] {
            let answer = denied(host, request);
            assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
            assert!(answer.contains("x-should-retry: false\r\n"), "{answer}");
            assert!(answer.contains("X-Agent-Gate-Block: denylisted\r\n"), "{answer}");
            assert!(answer.contains(part), "{part} is not in {answer}");
            assert!(answer.contains(&format!("{host} is on the denylist")), "{answer}");
        }
    }

    #[test]
    fn an_answer_to_head_has_no_body() {
        let answer = denied("a.example", "HEAD / HTTP/1.1\r\n\r\n");
        assert!(answer.ends_with("\r\n\r\n") && !answer.contains("Content-Length: 0"), "{answer}");
    }
}
