//! A record as the line it becomes, made on the thread that records, and back.

use std::net::SocketAddr;

use serde::Deserialize;

use crate::body::push_body;
use crate::object::Object;
use crate::record::{
    Field, Hash, Message, Record, Request, RequestHead, Response, ResponseHead, Timings, Tls,
    VERSION,
};

/// The line of `record` without its last member `prev`, its closing brace and its line feed,
/// which the writer adds when it knows the line before.
pub(crate) fn line(record: &Record<'_>) -> Vec<u8> {
    // Escapes make a body about an eighth longer; the rest are heads.
    let body = record.memory_bytes();
    let mut line = Vec::with_capacity(body + body / 8 + 1536);
    let mut object = Object::begin(&mut line);
    object.number("v", VERSION.into());
    match record {
        Record::Request(request) => push_request(&mut object, request),
        Record::Response(response) => push_response(&mut object, response),
        Record::Message(message) => push_message(&mut object, message),
        other => push_other(&mut object, other),
    }
    line
}

fn push_request(object: &mut Object<'_>, request: &Request<'_>) {
    let Request {
        id,
        run,
        at,
        flow,
        client,
        scheme,
        host,
        port,
        address,
        via,
        tls,
        head,
        body,
        trailers,
        complete,
        flags,
        duration_us,
    } = request;
    object.text("type", "request");
    object.id("id", *id);
    object.id("run", *run);
    object.time("at", *at);
    object.id("flow", *flow);
    object.address("client", *client);
    object.text("scheme", scheme);
    object.text("host", host);
    object.number("port", (*port).into());
    push_address(object, *address);
    object.optional_text("via", via.as_deref());
    if let Some(Tls { version, sni, alpn }) = tls {
        let mut tls = Object::begin(object.member("tls"));
        tls.text("version", version);
        tls.optional_text("sni", sni.as_deref());
        tls.optional_text("alpn", alpn.as_deref());
        tls.end();
    }
    let RequestHead { method, target, version, fields } = head;
    let mut head = Object::begin(object.member("head"));
    head.text("method", method);
    head.text("target", target);
    head.text("version", version);
    head.fields("fields", fields);
    head.end();
    push_trailers(object, trailers);
    object.flag("complete", *complete);
    if !flags.is_empty() {
        object.serialized("flags", flags);
    }
    object.number("duration_us", *duration_us);
    push_body(object.member("body"), body);
}

fn push_response(object: &mut Object<'_>, response: &Response<'_>) {
    let Response {
        id,
        run,
        at,
        address,
        outcome,
        error,
        by_gate,
        interim,
        head,
        body,
        trailers,
        events,
        events_flaw,
        timings,
        upgraded,
        messages,
    } = response;
    object.text("type", "response");
    object.id("id", *id);
    object.id("run", *run);
    object.time("at", *at);
    push_address(object, *address);
    object.serialized("outcome", outcome);
    object.optional_text("error", error.as_deref());
    if *by_gate {
        object.flag("by_gate", true);
    }
    if !interim.is_empty() {
        object.serialized("interim", interim);
    }
    if let Some(ResponseHead { version, status, reason, fields }) = head {
        let mut head = Object::begin(object.member("head"));
        head.text("version", version);
        head.number("status", (*status).into());
        head.text("reason", reason);
        head.fields("fields", fields);
        head.end();
    }
    push_trailers(object, trailers);
    object.optional_number("events", *events);
    if let Some(flaw) = events_flaw {
        object.serialized("events_flaw", flaw);
    }
    let Timings { dns_us, connect_us, tls_us, first_byte_us, total_us } = timings;
    let mut timings = Object::begin(object.member("timings"));
    timings.optional_number("dns_us", *dns_us);
    timings.optional_number("connect_us", *connect_us);
    timings.optional_number("tls_us", *tls_us);
    timings.optional_number("first_byte_us", *first_byte_us);
    timings.number("total_us", *total_us);
    timings.end();
    if let Some(upgraded) = upgraded {
        object.serialized("upgraded", upgraded);
    }
    if let Some(messages) = messages {
        object.serialized("messages", messages);
    }
    push_body(object.member("body"), body);
}

fn push_message(object: &mut Object<'_>, message: &Message<'_>) {
    let Message {
        id,
        run,
        at,
        exchange,
        flow,
        direction,
        seq,
        kind,
        opcode,
        body,
        wire_bytes,
        frames,
        compressed,
        close_code,
        flaws,
        complete,
        duration_us,
    } = message;
    object.text("type", "message");
    object.id("id", *id);
    object.id("run", *run);
    object.time("at", *at);
    object.id("exchange", *exchange);
    object.id("flow", *flow);
    object.serialized("direction", direction);
    object.number("seq", *seq);
    object.serialized("kind", kind);
    object.optional_number("opcode", opcode.map(u64::from));
    object.number("wire_bytes", *wire_bytes);
    object.number("frames", *frames);
    if *compressed {
        object.flag("compressed", true);
    }
    object.optional_number("close_code", close_code.map(u64::from));
    if !flaws.is_empty() {
        object.serialized("flaws", flaws);
    }
    object.flag("complete", *complete);
    object.number("duration_us", *duration_us);
    push_body(object.member("body"), body);
}

fn push_address(object: &mut Object<'_>, address: Option<SocketAddr>) {
    if let Some(address) = address {
        object.address("address", address);
    }
}

fn push_trailers(object: &mut Object<'_>, trailers: &[Field<'_>]) {
    if !trailers.is_empty() {
        object.fields("trailers", trailers);
    }
}

/// Rare records are written as their types say.
fn push_other(object: &mut Object<'_>, record: &Record<'_>) {
    let text = serde_json::to_string(record).expect("records have string keys only");
    object.members(&text[1..text.len() - 1]);
}

/// What ends every line.
pub(crate) fn line_end(prev: Hash) -> String {
    format!(",\"prev\":\"{prev}\"}}\n")
}

/// The record in a line, or why it is none that this version knows.
pub(crate) fn record(line: &[u8]) -> Result<Record<'static>, String> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }

    let Version { v } = serde_json::from_slice(line).map_err(|e| e.to_string())?;
    if v != VERSION {
        return Err(format!("journal format {v} is not known to this agent-gate"));
    }
    serde_json::from_slice(line).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// One with every member there is, one with none that may be missing.
    const LINES: [&str; 7] = [
        r#"{"v":1,"type":"request","id":"01ARZ3NDEKTSV4RRFFQ69G5FAV","run":"01ARZ3NDEKTSV4RRFFQ69G5FAW",
        "at":"2026-11-24T01:02:03.000004Z","flow":"01ARZ3NDEKTSV4RRFFQ69G5FAX","client":"10.0.0.1:5",
        "scheme":"https","host":"a.example","port":443,"address":"[2001:db8::1]:443",
        "via":"proxy.example:3128","tls":{"version":"1.3","sni":"a.example","alpn":"http/1.1"},
        "head":{"method":"PO\"ST","target":"/\\u0001","version":"HTTP/1.1",
        "fields":[["A","b"],["c",{"base64":"/w=="}],["D","\u00e9\t"]]},
        "trailers":[["T","u"]],"complete":true,"flags":["host_mismatch","client_distrust"],
        "duration_us":18446744073709551615,
        "body":{"bytes":2,"blake3":"BLAKE3","text":"\"\n"}}"#,
        r#"{"v":1,"type":"request","id":"01ARZ3NDEKTSV4RRFFQ69G5FAV","run":"01ARZ3NDEKTSV4RRFFQ69G5FAW",
        "at":"1969-12-31T23:59:59.999999Z","flow":"01ARZ3NDEKTSV4RRFFQ69G5FAX","client":"[::1]:65535",
        "scheme":"http","host":"::1","port":1,
        "head":{"method":"","target":"","version":"HTTP/1.0","fields":[]},
        "complete":false,"duration_us":0,"body":{"bytes":1,"blake3":"BLAKE3","base64":"/w=="}}"#,
        r#"{"v":1,"type":"response","id":"01ARZ3NDEKTSV4RRFFQ69G5FAV","run":"01ARZ3NDEKTSV4RRFFQ69G5FAW",
        "at":"2026-11-24T01:02:03.999999Z","address":"255.254.10.0:80","outcome":"cut_by_origin",
        "error":"it \"broke\"","by_gate":true,
        "interim":[{"version":"HTTP/1.1","status":103,"reason":"","fields":[["A","b"]]}],
        "head":{"version":"HTTP/1.1","status":200,"reason":"O\u00ffK","fields":[["A","b"]]},
        "trailers":[["T","u"]],"events":3,"events_flaw":"unfinished",
        "timings":{"dns_us":1,"connect_us":2,"tls_us":3,"first_byte_us":4,"total_us":5},
        "upgraded":{"sent":1,"received":2},"messages":{"sent":3,"received":4},
        "body":{"bytes":9,"blake3":"BLAKE3","kept":4,"file":true,"kept_blake3":"KEPT",
        "decoded":{"codings":["br","gzip"],"bytes":7,"flaw":"truncated"}}}"#,
        r#"{"v":1,"type":"response","id":"01ARZ3NDEKTSV4RRFFQ69G5FAV","run":"01ARZ3NDEKTSV4RRFFQ69G5FAW",
        "at":"2026-11-24T01:02:03.000000Z","outcome":"complete","timings":{"total_us":5},
        "body":{"bytes":0,"blake3":"BLAKE3","text":""}}"#,
        r#"{"v":1,"type":"message","id":"01ARZ3NDEKTSV4RRFFQ69G5FAV","run":"01ARZ3NDEKTSV4RRFFQ69G5FAW",
        "at":"2026-11-24T01:02:03.000004Z","exchange":"01ARZ3NDEKTSV4RRFFQ69G5FAX",
        "flow":"01ARZ3NDEKTSV4RRFFQ69G5FAY","direction":"sent","seq":3,"kind":"reserved","opcode":11,
        "wire_bytes":4,"frames":5,"compressed":true,"close_code":1000,
        "flaws":["unknown_opcode","not_utf8"],"complete":false,"duration_us":6,
        "body":{"bytes":2,"blake3":"BLAKE3","text":"\"\n"}}"#,
        r#"{"v":1,"type":"message","id":"01ARZ3NDEKTSV4RRFFQ69G5FAV","run":"01ARZ3NDEKTSV4RRFFQ69G5FAW",
        "at":"2026-11-24T01:02:03.000004Z","exchange":"01ARZ3NDEKTSV4RRFFQ69G5FAX",
        "flow":"01ARZ3NDEKTSV4RRFFQ69G5FAY","direction":"received","seq":1,"kind":"text",
        "wire_bytes":0,"frames":1,"complete":true,"duration_us":0,
        "body":{"bytes":0,"blake3":"BLAKE3","text":""}}"#,
        r#"{"v":1,"type":"run_end","id":"01ARZ3NDEKTSV4RRFFQ69G5FAV","run":"01ARZ3NDEKTSV4RRFFQ69G5FAW",
        "at":"2026-11-24T01:02:03.000004Z","status":3,"reason":"x","exchanges":7}"#,
    ];

    #[test]
    fn every_member_is_written_as_it_is_read() {
        let hash = Hash::of(b"").to_string();
        for text in LINES {
            let text = text.replace("BLAKE3", &hash).replace("KEPT", &Hash::of(b"x").to_string());
            let read = record(text.as_bytes()).unwrap();
            let mut written = line(&read);
            written.push(b'}');
            let written: Value = serde_json::from_slice(&written).unwrap();
            assert_eq!(written, serde_json::from_str::<Value>(&text).unwrap());
        }
    }
}
