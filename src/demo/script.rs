//! The demo's conversation: two turns with one tool call, in the words of the Messages API.
//! Everything in it is made up.

use serde_json::{Value, json};

/// Where requests go.
pub(super) const PATH: &str = "/v1/messages";

/// The file that the agent reads by a tool.
pub(super) const FILE: &str = "notes.txt";

/// What it says.
pub(super) const FILE_TEXT: &str = "Buy oat milk. Call the plumber on Tuesday.\n";

/// What the user wants.
pub(super) const QUESTION: &str = "What is in notes.txt?";

const TOOL: &str = "read_file";
const TOOL_USE_ID: &str = "toolu_demo_1";
const FIRST_TEXT: &str = "I will read the file.";
const LAST_TEXT: &str = "Two things: buy oat milk, and call the plumber on Tuesday.";

/// The body of a request with this conversation so far.
pub(super) fn request(messages: &[Value]) -> Value {
    json!({
        "model": "demo-model",
        "max_tokens": 1024,
        "stream": true,
        "tools": [{
            "name": TOOL,
            "description": "Reads a file of the working folder",
            "input_schema": {
                "type": "object",
                "properties": {"path": {"type": "string"}},
                "required": ["path"]
            }
        }],
        "messages": messages
    })
}

/// The events of the answer to a request: a tool call, or the last words once it has its result.
pub(super) fn answer(request: &Value) -> Vec<String> {
    let has_result = request["messages"]
        .as_array()
        .and_then(|messages| messages.last()?["content"].as_array()?.first().cloned())
        .is_some_and(|part| part["type"] == "tool_result");
    if has_result { last_answer() } else { first_answer() }
}

fn first_answer() -> Vec<String> {
    let mut events = vec![start()];
    events.extend(text_part(0, FIRST_TEXT));
    events.push(event(&json!({
        "type": "content_block_start", "index": 1,
        "content_block": {"type": "tool_use", "id": TOOL_USE_ID, "name": TOOL, "input": {}}
    })));
    for piece in ["{\"path\"", ": \"", FILE, "\"}"] {
        events.push(event(&json!({
            "type": "content_block_delta", "index": 1,
            "delta": {"type": "input_json_delta", "partial_json": piece}
        })));
    }
    events.push(event(&json!({"type": "content_block_stop", "index": 1})));
    events.extend(end("tool_use"));
    events
}

fn last_answer() -> Vec<String> {
    let mut events = vec![start()];
    events.extend(text_part(0, LAST_TEXT));
    events.extend(end("end_turn"));
    events
}

fn start() -> String {
    event(&json!({
        "type": "message_start",
        "message": {
            "id": "msg_demo", "type": "message", "role": "assistant", "model": "demo-model",
            "content": [], "stop_reason": null,
            "usage": {"input_tokens": 40, "output_tokens": 1}
        }
    }))
}

/// Word by word, as tokens come.
fn text_part(index: u32, text: &str) -> Vec<String> {
    let mut events = vec![event(&json!({
        "type": "content_block_start", "index": index,
        "content_block": {"type": "text", "text": ""}
    }))];
    events.extend(text.split_inclusive(' ').map(|word| {
        event(&json!({
            "type": "content_block_delta", "index": index,
            "delta": {"type": "text_delta", "text": word}
        }))
    }));
    events.push(event(&json!({"type": "content_block_stop", "index": index})));
    events
}

fn end(reason: &str) -> Vec<String> {
    vec![
        event(&json!({
            "type": "message_delta", "delta": {"stop_reason": reason},
            "usage": {"output_tokens": 20}
        })),
        event(&json!({"type": "message_stop"})),
    ]
}

/// One server-sent event (WHATWG HTML, 9.2).
fn event(data: &Value) -> String {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_result_ends_the_conversation() {
        let question = json!({"role": "user", "content": QUESTION});
        let result = json!({"role": "user", "content": [{"type": "tool_result"}]});
        let first = answer(&request(std::slice::from_ref(&question))).concat();
        assert!(first.contains("tool_use") && first.starts_with("event: message_start\ndata: {"));
        let last = answer(&request(&[question, result])).concat();
        assert!(last.contains("end_turn") && !last.contains("tool_use"));
    }
}
