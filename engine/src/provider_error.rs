//! Error bodies in the shape that the asked provider itself would use, so that agents and their
//! SDKs show the gate's own words instead of "unknown error", and stop instead of retrying.
//!
//! | shape | source |
//! | --- | --- |
//! | Anthropic | <https://docs.anthropic.com/en/api/errors> ("Error shapes") |
//! | OpenAI and compatible | <https://platform.openai.com/docs/guides/error-codes>, `openai-openapi`'s `Error` |
//! | chatgpt.com | codex reads `error.message` (`codex-rs/protocol/src/error.rs`); the web backend says `detail` |
//! | Google | <https://cloud.google.com/apis/design/errors> ("HTTP mapping"), <https://ai.google.dev/gemini-api/docs/troubleshooting> |
//! | Bedrock | <https://smithy.io/2.0/aws/protocols/aws-restjson1-protocol.html> ("Operation error serialization"), <https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html> |
//! | Ollama | <https://docs.ollama.com/api/errors> |
//! | Mistral | <https://docs.mistral.ai/resources/error-glossary> ("Error response format") |
//! | Cohere | <https://docs.cohere.com/reference/errors> |
//! | JSON-RPC (MCP) | <https://modelcontextprotocol.io/specification/2025-06-18/basic/transports> ("Sending Messages to the Server"), <https://www.jsonrpc.org/specification> |

use serde_json::{Value, json};

/// Whom a request is for, as far as the shape of an error depends on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// The host in its canonical form.
    pub(crate) host: &'a str,
    /// The port.
    pub(crate) port: u16,
    /// The path, without query.
    pub(crate) path: &'a str,
    /// Whether the request has the marks of MCP over HTTP.
    pub(crate) is_mcp: bool,
}

/// What went wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Problem<'a> {
    /// The HTTP status of the answer: 400, 403, 502 or 503.
    pub(crate) status: u16,
    /// The gate's word for it, as in `X-Agent-Gate-Block`.
    pub(crate) code: &'a str,
    /// What a user is to read.
    pub(crate) message: &'a str,
}

/// An error body, and a field that goes with it.
#[derive(Debug, PartialEq)]
pub(crate) struct ErrorBody {
    /// The body.
    pub(crate) json: Value,
    /// A field line that this provider's clients read the kind of error from.
    pub(crate) field: Option<(&'static str, &'static str)>,
}

/// The error body for a request to `asked`.
pub(crate) fn error_body(asked: Asked<'_>, problem: Problem<'_>) -> ErrorBody {
    Shape::of(asked).body(asked, problem)
}

/// The families of error bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Anthropic,
    OpenAi,
    ChatGpt,
    Google,
    Bedrock,
    Ollama,
    Mistral,
    Cohere,
    JsonRpc,
    Plain,
}

/// Hosts whose every path speaks one shape; a leading dot stands for all hosts below.
const HOSTS: [(&str, Shape); 15] = [
    (".anthropic.com", Shape::Anthropic),
    (".openai.com", Shape::OpenAi),
    (".openai.azure.com", Shape::OpenAi),
    ("openrouter.ai", Shape::OpenAi),
    ("api.groq.com", Shape::OpenAi),
    ("api.x.ai", Shape::OpenAi),
    ("api.deepseek.com", Shape::OpenAi),
    (".googleapis.com", Shape::Google),
    (".mistral.ai", Shape::Mistral),
    ("api.cohere.com", Shape::Cohere),
    ("api.cohere.ai", Shape::Cohere),
    ("ollama.com", Shape::Ollama),
    ("api.githubcopilot.com", Shape::OpenAi),
    ("api.together.xyz", Shape::OpenAi),
    ("api.fireworks.ai", Shape::OpenAi),
];

/// The port of a local Ollama.
const OLLAMA_PORT: u16 = 11_434;

/// Ends of paths by which gateways and compatible servers are known, on whatever host.
const PATH_ENDS: [(&str, Shape); 10] = [
    ("/v1/messages", Shape::Anthropic),
    ("/v1/messages/count_tokens", Shape::Anthropic),
    ("/chat/completions", Shape::OpenAi),
    ("/v1/completions", Shape::OpenAi),
    ("/v1/responses", Shape::OpenAi),
    ("/v1/embeddings", Shape::OpenAi),
    ("/v1/models", Shape::OpenAi),
    (":generateContent", Shape::Google),
    (":streamGenerateContent", Shape::Google),
    (":countTokens", Shape::Google),
];

impl Shape {
    fn of(asked: Asked<'_>) -> Self {
        let Asked { host, port, path, is_mcp } = asked;
        if is_mcp {
            // Providers host MCP servers too (`mcp.…`, `/mcp`), whose clients expect JSON-RPC.
            return Self::JsonRpc;
        }
        if host == "chatgpt.com" && path.starts_with("/backend-api/") {
            return Self::ChatGpt;
        }
        if host.starts_with("bedrock") && host.contains(".amazonaws.com") {
            return Self::Bedrock;
        }
        if host.starts_with("ollama.") || (port == OLLAMA_PORT && path.starts_with("/api/")) {
            return Self::Ollama;
        }
        let by_host = HOSTS.iter().find(|(known, _)| match known.strip_prefix('.') {
            Some(parent) => host == parent || host.ends_with(known),
            None => host == *known,
        });
        let by_path = || PATH_ENDS.iter().find(|(end, _)| path.ends_with(end));
        by_host.or_else(by_path).map_or(Self::Plain, |(_, shape)| *shape)
    }

    fn body(self, asked: Asked<'_>, problem: Problem<'_>) -> ErrorBody {
        let Problem { status, code, message } = problem;
        let json = match self {
            Self::Anthropic => json!({
                "type": "error",
                "error": { "type": anthropic_type(status), "message": message },
            }),
            Self::OpenAi => openai(problem),
            Self::ChatGpt => {
                let mut json = openai(problem);
                json["detail"] = message.into();
                json
            }
            Self::Google => json!({
                "error": { "code": status, "message": message, "status": google_status(status) },
            }),
            Self::Bedrock | Self::Cohere => json!({ "message": message }),
            Self::Ollama => json!({ "error": message }),
            Self::Mistral => json!({
                "object": "error",
                "message": message,
                "type": openai_type(status),
                "param": null,
                "code": code,
            }),
            Self::JsonRpc => json!({
                "jsonrpc": "2.0",
                "id": null,
                "error": { "code": JSON_RPC_SERVER_ERROR, "message": message },
            }),
            Self::Plain => json!({
                "error": {
                    "type": "agent_gate_error",
                    "code": code,
                    "host": asked.host,
                    "port": asked.port,
                    "message": message,
                },
            }),
        };
        let field = (self == Self::Bedrock).then(|| ("x-amzn-ErrorType", bedrock_type(status)));
        ErrorBody { json, field }
    }
}

/// The range -32000 to -32099 is the server's own (JSON-RPC 2.0, section 5.1).
const JSON_RPC_SERVER_ERROR: i32 = -32000;

fn openai(problem: Problem<'_>) -> Value {
    json!({
        "error": {
            "message": problem.message,
            "type": openai_type(problem.status),
            "param": null,
            "code": problem.code,
        },
    })
}

fn anthropic_type(status: u16) -> &'static str {
    match status {
        400 => "invalid_request_error",
        403 => "permission_error",
        _ => "api_error",
    }
}

fn openai_type(status: u16) -> &'static str {
    match status {
        400 => "invalid_request_error",
        403 => "permission_error",
        _ => "server_error",
    }
}

fn google_status(status: u16) -> &'static str {
    match status {
        400 => "INVALID_ARGUMENT",
        403 => "PERMISSION_DENIED",
        _ => "UNAVAILABLE",
    }
}

fn bedrock_type(status: u16) -> &'static str {
    match status {
        400 => "ValidationException",
        403 => "AccessDeniedException",
        _ => "ServiceUnavailableException",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(host: &str, port: u16, path: &str) -> Shape {
        Shape::of(Asked { host, port, path, is_mcp: false })
    }

    #[test]
    fn hosts_and_paths_tell_the_shape() {
        for (host, port, path, expected) in [
            ("api.anthropic.com", 443, "/v1/messages", Shape::Anthropic),
            ("api.anthropic.com", 443, "/api/event_logging/v2/batch", Shape::Anthropic),
            ("llm.corp.example", 443, "/proxy/v1/messages", Shape::Anthropic),
            ("notanthropic.com", 443, "/", Shape::Plain),
            ("api.openai.com", 443, "/v1/responses", Shape::OpenAi),
            ("x.openai.azure.com", 443, "/openai/deployments/d/chat/completions", Shape::OpenAi),
            ("localhost", 8000, "/v1/chat/completions", Shape::OpenAi),
            ("chatgpt.com", 443, "/backend-api/codex/responses", Shape::ChatGpt),
            ("chatgpt.com", 443, "/", Shape::Plain),
            ("generativelanguage.googleapis.com", 443, "/v1beta/models", Shape::Google),
            ("us-east5-aiplatform.googleapis.com", 443, "/v1/projects/p", Shape::Google),
            ("gemini.corp.example", 443, "/v1beta/models/g:streamGenerateContent", Shape::Google),
            ("bedrock-runtime.us-east-1.amazonaws.com", 443, "/model/m/converse", Shape::Bedrock),
            ("s3.amazonaws.com", 443, "/bucket", Shape::Plain),
            ("localhost", 11_434, "/api/chat", Shape::Ollama),
            ("localhost", 11_434, "/v1/chat/completions", Shape::OpenAi),
            ("api.mistral.ai", 443, "/v1/chat/completions", Shape::Mistral),
            ("api.cohere.com", 443, "/v2/chat", Shape::Cohere),
            ("example.com", 443, "/", Shape::Plain),
        ] {
            assert_eq!(shape(host, port, path), expected, "{host}:{port}{path}");
        }
        let mcp =
            Asked { host: "api.anthropic.com", port: 443, path: "/mcp-registry/x", is_mcp: true };
        assert_eq!(Shape::of(mcp), Shape::JsonRpc);
    }

    #[test]
    fn bodies_are_the_providers_own() {
        let asked = Asked { host: "h.example", port: 443, path: "/", is_mcp: false };
        let denied = Problem { status: 403, code: "denylisted", message: "m" };
        let gone = Problem { status: 502, code: "unreachable", message: "m" };
        for (shape, problem, expected) in [
            (
                Shape::Anthropic,
                denied,
                r#"{"error":{"message":"m","type":"permission_error"},"type":"error"}"#,
            ),
            (
                Shape::Anthropic,
                gone,
                r#"{"error":{"message":"m","type":"api_error"},"type":"error"}"#,
            ),
            (
                Shape::OpenAi,
                denied,
                r#"{"error":{"code":"denylisted","message":"m","param":null,"type":"permission_error"}}"#,
            ),
            (
                Shape::ChatGpt,
                denied,
                r#"{"detail":"m","error":{"code":"denylisted","message":"m","param":null,"type":"permission_error"}}"#,
            ),
            (
                Shape::Google,
                denied,
                r#"{"error":{"code":403,"message":"m","status":"PERMISSION_DENIED"}}"#,
            ),
            (Shape::Google, gone, r#"{"error":{"code":502,"message":"m","status":"UNAVAILABLE"}}"#),
            (Shape::Bedrock, denied, r#"{"message":"m"}"#),
            (Shape::Ollama, denied, r#"{"error":"m"}"#),
            (
                Shape::Mistral,
                denied,
                r#"{"code":"denylisted","message":"m","object":"error","param":null,"type":"permission_error"}"#,
            ),
            (Shape::Cohere, gone, r#"{"message":"m"}"#),
            (
                Shape::JsonRpc,
                denied,
                r#"{"error":{"code":-32000,"message":"m"},"id":null,"jsonrpc":"2.0"}"#,
            ),
            (
                Shape::Plain,
                denied,
                r#"{"error":{"code":"denylisted","host":"h.example","message":"m","port":443,"type":"agent_gate_error"}}"#,
            ),
        ] {
            let body = shape.body(asked, problem);
            let expected: Value = serde_json::from_str(expected).unwrap();
            assert_eq!(body.json, expected, "{shape:?}");
            assert_eq!(body.field.is_some(), shape == Shape::Bedrock);
        }
        let bedrock = Shape::Bedrock.body(asked, denied);
        assert_eq!(bedrock.field, Some(("x-amzn-ErrorType", "AccessDeniedException")));
    }
}
