//! Reading back what a gate left on disk, as plain JSON, and holding it against what the origin
//! saw and sent.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde_json::Value;

use super::content::Content;
use super::origin::{Fields, Seen, Sent};
use super::wait_for;

/// The data folder of one gate.
pub(crate) struct Journal {
    data_dir: PathBuf,
}

impl Journal {
    pub(crate) fn of(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned() }
    }

    /// The journal's files, oldest first.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.data_dir.join("journal")) else { return Vec::new() };
        let mut files: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
        files.retain(|f| f.extension().is_some_and(|e| e == "jsonl"));
        files.sort();
        files
    }

    /// All whole lines, in order, as bytes without their ends.
    pub(crate) fn lines(&self) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        for file in self.files() {
            let bytes = fs::read(file).unwrap();
            let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            lines.extend(
                bytes[..whole]
                    .split_inclusive(|b| *b == b'\n')
                    .map(|l| l.strip_suffix(b"\n").expect("cut after line ends").to_vec()),
            );
        }
        lines
    }

    pub(crate) fn records(&self) -> Vec<Value> {
        let parse = |line: &Vec<u8>| {
            serde_json::from_slice(line)
                .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(line)))
        };
        self.lines().iter().map(parse).collect()
    }

    /// The records of one type, in order.
    pub(crate) fn of_type(&self, kind: &str) -> Vec<Value> {
        self.records().into_iter().filter(|r| r["type"] == kind).collect()
    }

    /// One line a record, for whoever reads a failed test's output.
    pub(crate) fn summary(&self) -> String {
        let line = |r: &Value| {
            let about = [&r["host"], &r["head"]["target"], &r["head"]["status"], &r["outcome"]];
            format!("  {} {} {about:?}\n", r["type"], r["id"])
        };
        self.records().iter().rev().take(30).rev().map(line).collect()
    }

    /// Requests in order, each with its response if that is there.
    pub(crate) fn exchanges(&self) -> Vec<Exchange> {
        let records = self.records();
        let mut responses: HashMap<String, Value> = records
            .iter()
            .filter(|r| r["type"] == "response")
            .map(|r| (id_of(r), r.clone()))
            .collect();
        let requests = records.into_iter().filter(|r| r["type"] == "request");
        requests
            .map(|request| {
                let response = responses.remove(&id_of(&request));
                Exchange { request, response, data_dir: self.data_dir.clone() }
            })
            .collect()
    }

    /// The exchanges that have their response, once there are at least `n`: the client has its
    /// answer before the record of it is on disk.
    pub(crate) fn ended(&self, n: usize) -> Vec<Exchange> {
        wait_for(&format!("{n} ended exchanges in the journal"), || {
            let mut exchanges = self.exchanges();
            exchanges.retain(|e| e.response.is_some());
            (exchanges.len() >= n).then_some(exchanges)
        })
    }

    /// The one exchange with this target, once it has ended.
    pub(crate) fn only(&self, target: &str) -> Exchange {
        wait_for(&format!("the end of {target} in the journal"), || {
            let mut found = self.exchanges();
            found.retain(|e| e.target() == target);
            assert!(found.len() < 2, "{target} is there more than once");
            found.pop().filter(|e| e.response.is_some())
        })
    }

    /// The messages of the WebSocket that this exchange opened, in order, with their content.
    pub(crate) fn messages(&self, exchange: &Exchange) -> Vec<(Value, Vec<u8>)> {
        let mut messages = self.of_type("message");
        messages.retain(|message| message["exchange"] == exchange.request["id"]);
        messages
            .into_iter()
            .map(|message| {
                let content = exchange.body(&message["body"]);
                (message, content)
            })
            .collect()
    }

    /// The first record of this type for which `is_it` holds, once it is there.
    pub(crate) fn wait_for(&self, kind: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        wait_for(&format!("a record {kind} in the journal"), || {
            self.of_type(kind).into_iter().find(&is_it)
        })
    }

    /// Each line names the hash of the line before it: nothing was cut out, changed or torn.
    pub(crate) fn check_chain(&self) {
        // The first line has nobody before it.
        let mut before = "0".repeat(64);
        for line in self.lines() {
            let record: Value = serde_json::from_slice(&line).unwrap();
            assert_eq!(record["v"], 1, "{record}");
            assert_eq!(record["prev"], before[..], "chain broken at {record}");
            before = blake3::hash(&line).to_hex().to_string();
        }
        for file in self.files() {
            assert!(fs::read(&file).unwrap().ends_with(b"\n"), "{file:?} has a torn tail");
        }
    }
}

fn id_of(record: &Value) -> String {
    record["id"].as_str().expect("every record has an id").to_owned()
}

/// A request and what became of it.
pub(crate) struct Exchange {
    pub(crate) request: Value,
    pub(crate) response: Option<Value>,
    data_dir: PathBuf,
}

impl Exchange {
    /// The target in origin form, also when the client spoke to a proxy.
    pub(crate) fn target(&self) -> &str {
        let target = self.request["head"]["target"].as_str().expect("a target");
        match target.strip_prefix("http://") {
            Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
            None => target,
        }
    }

    pub(crate) fn host(&self) -> &str {
        self.request["host"].as_str().expect("a host")
    }

    pub(crate) fn method(&self) -> &str {
        self.request["head"]["method"].as_str().expect("a method")
    }

    /// The response, which must be there.
    pub(crate) fn answer(&self) -> &Value {
        self.response.as_ref().expect("a response")
    }

    pub(crate) fn outcome(&self) -> &str {
        self.answer()["outcome"].as_str().expect("an outcome")
    }

    pub(crate) fn status(&self) -> Option<u64> {
        self.answer()["head"]["status"].as_u64()
    }

    pub(crate) fn request_body(&self) -> Vec<u8> {
        self.body(&self.request["body"])
    }

    pub(crate) fn response_body(&self) -> Vec<u8> {
        self.body(&self.answer()["body"])
    }

    /// What was kept of a body, from the record or from its side file, checked against its hash.
    fn body(&self, body: &Value) -> Vec<u8> {
        let cut = body.get("kept").is_some_and(|kept| kept != &body["bytes"]);
        let bytes = if let Some(text) = body["text"].as_str() {
            text.as_bytes().to_vec()
        } else if let Some(text) = body["base64"].as_str() {
            base64::engine::general_purpose::STANDARD.decode(text).unwrap()
        } else if body["file"] == true {
            let name = if cut { &body["kept_blake3"] } else { &body["blake3"] };
            fs::read(self.data_dir.join("bodies").join(name.as_str().unwrap())).unwrap()
        } else {
            assert_eq!(body["bytes"], 0, "{body}");
            Vec::new()
        };
        if !cut {
            assert_eq!(body["bytes"], bytes.len() as u64, "{body}");
            assert_eq!(body["blake3"], Content::of(&bytes).blake3()[..], "{body}");
        }
        bytes
    }
}

/// Holds every request that the origin received against the journal: heads, bodies and trailers of
/// both directions, byte for byte. Returns the number of exchanges compared.
pub(crate) fn compare(journal: &Journal, origin: &super::origin::Origin) -> usize {
    let all = origin.settled();
    let mut exchanges = journal.ended(all.len());
    for seen in &all {
        let at = exchanges
            .iter()
            .position(|e| is_same(e, seen))
            .unwrap_or_else(|| panic!("not in the journal: {seen:#?}"));
        compare_one(&exchanges.remove(at), seen);
    }
    all.len()
}

fn is_same(exchange: &Exchange, seen: &Seen) -> bool {
    exchange.target() == seen.target
        && exchange.method() == seen.method
        && exchange.host() == seen.host()
        && exchange.request["body"]["blake3"] == seen.body.blake3()[..]
}

/// One exchange on disk against the origin's own memory of it.
pub(crate) fn compare_one(exchange: &Exchange, seen: &Seen) {
    let about = format!("{} {}{}", seen.method, seen.host(), seen.target);
    let request = &exchange.request;
    assert_eq!(request["complete"], true, "{about}");
    let (recorded, sent) = (&request["head"], seen);
    assert_eq!(end_to_end(&recorded["fields"]), end_to_end_of(&sent.fields), "{about}");
    compare_body(&about, &request["body"], &exchange.request_body(), &seen.body);
    assert_eq!(all_fields(&request["trailers"]), seen.trailers, "{about}");
    let sent = seen.sent.as_ref().expect("a settled answer");
    compare_answer(&about, exchange, sent);
}

fn compare_answer(about: &str, exchange: &Exchange, sent: &Sent) {
    let answer = exchange.answer();
    assert_ne!(answer["by_gate"], true, "{about}: {answer}");
    assert_eq!(exchange.status(), Some(u64::from(sent.status)), "{about}: {answer}");
    assert_eq!(end_to_end(&answer["head"]["fields"]), end_to_end_of(&sent.fields), "{about}");
    compare_body(about, &answer["body"], &exchange.response_body(), &sent.body);
    assert_eq!(all_fields(&answer["trailers"]), sent.trailers, "{about}");
}

fn compare_body(about: &str, recorded: &Value, kept: &[u8], content: &Content) {
    assert_eq!(recorded["bytes"], content.bytes, "{about}: length");
    assert_eq!(recorded["blake3"], content.blake3()[..], "{about}: hash");
    match content.whole() {
        Some(bytes) if kept.len() as u64 == content.bytes => {
            assert!(kept == bytes, "{about}: bytes on disk differ");
        }
        _ => {}
    }
}

/// Field lines of a record, in order.
fn all_fields(value: &Value) -> Fields {
    let lines = value.as_array().cloned().unwrap_or_default();
    let text = |v: &Value| v.as_str().expect("scenarios send UTF-8").to_owned();
    lines.iter().map(|line| (text(&line[0]), text(&line[1]))).collect()
}

fn end_to_end(value: &Value) -> Fields {
    end_to_end_of(&all_fields(value))
}

/// Without the fields that speak of one connection only, and so are the gate's own on each side
/// (RFC 9110 section 7.6.1).
fn end_to_end_of(fields: &Fields) -> Fields {
    let hops = [
        "connection",
        "proxy-connection",
        "keep-alive",
        "te",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
    ];
    let ends = |name: &str| !hops.contains(&&name.to_ascii_lowercase()[..]);
    fields.iter().filter(|f| ends(&f.0)).cloned().collect()
}
