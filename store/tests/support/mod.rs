//! Made-up records and a data directory, for the tests of the store.

#![allow(dead_code, clippy::unwrap_used, reason = "each test binary uses its part")]

use std::borrow::Cow;

use agent_gate_store::record::{
    Body, Direction, Field, Flaw, Hash, Kept, Message, MessageKind, Mode, Outcome, Record, Refused,
    RefusedBy, Request, RequestHead, Response, ResponseHead, Run, RunEnd, Timings, Tls,
    Transferred, Tunnel,
};
use agent_gate_store::{Id, Layout, Timestamp};

/// A data directory that goes with the test.
pub(crate) fn data_dir() -> (tempfile::TempDir, Layout) {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path().join("data"));
    layout.create().unwrap();
    (dir, layout)
}

/// Every line of the journal, oldest first.
pub(crate) fn lines(layout: &Layout) -> Vec<Vec<u8>> {
    let mut files: Vec<_> = std::fs::read_dir(layout.journal_dir())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "jsonl"))
        .collect();
    files.sort();
    let text: Vec<u8> = files.iter().flat_map(|file| std::fs::read(file).unwrap()).collect();
    text.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect()
}

/// Each line names the hash of the one before it.
pub(crate) fn assert_chained(layout: &Layout) {
    let mut last = Hash::ZERO;
    for line in lines(layout) {
        let line = line.strip_suffix(b"\n").expect("every line is whole");
        let value: serde_json::Value = serde_json::from_slice(line).unwrap();
        assert_eq!(value["prev"], last.to_string());
        last = Hash::of(line);
    }
}

/// A generator of tests' choices (SplitMix64): the same seed, the same records.
pub(crate) struct Choices(pub(crate) u64);

impl Choices {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = self.below(300);
        match self.below(3) {
            0 => (0..length).map(|_| self.below(256).to_le_bytes()[0]).collect(),
            1 => "a \"quote\"\n\u{1}\\ é 漢 \u{2028}\0"
                .repeat(1 + usize::try_from(self.below(4)).unwrap())
                .into_bytes(),
            _ => b"x".repeat(usize::try_from(length).unwrap()),
        }
    }

    pub(crate) fn body(&mut self) -> Body<'static> {
        let bytes = self.bytes();
        let mut body = Body::inline(bytes.clone());
        match self.below(5) {
            0 => body.kept = Kept::File { bytes: body.bytes, blake3: body.blake3 },
            1 => {
                body.bytes += 10;
                body.kept = Kept::File { bytes: body.bytes - 10, blake3: Hash::of(b"kept") };
            }
            2 if !bytes.is_empty() => {
                body.kept = Kept::Inline(Cow::Owned(bytes[..bytes.len() / 2].to_vec()));
            }
            _ => {}
        }
        body
    }

    fn fields(&mut self) -> Vec<Field<'static>> {
        (0..self.below(4)).map(|_| Field::new("X-Any", self.bytes())).collect()
    }
}

pub(crate) fn run(id: Id) -> Record<'static> {
    Record::Run(Run {
        id,
        at: Timestamp::now(),
        argv: vec!["claude".into(), "--p=\"x\"".into()],
        cwd: "/home/me/é".into(),
        agent: "claude".into(),
        mode: Mode::Permissive,
        weaker: Some("no user namespaces".into()),
        pid: 7,
        version: "0.1.0".into(),
    })
}

pub(crate) fn run_end(run: Id) -> Record<'static> {
    Record::RunEnd(RunEnd {
        id: Id::new(),
        run,
        at: Timestamp::now(),
        status: Some(130),
        reason: None,
        exchanges: 3,
    })
}

pub(crate) fn request(id: Id, run: Id, body: Body<'static>) -> Request<'static> {
    Request {
        id,
        run,
        at: Timestamp::now(),
        flow: Id::new(),
        client: "10.0.0.2:40000".parse().unwrap(),
        scheme: "https".into(),
        host: "api.anthropic.com".into(),
        port: 443,
        address: Some("[2001:db8::1]:443".parse().unwrap()),
        via: Some("proxy.example:3128".into()),
        tls: Some(Tls {
            version: "1.3".into(),
            sni: Some("api.anthropic.com".into()),
            alpn: Some("http/1.1".into()),
        }),
        head: RequestHead {
            method: "POST".into(),
            target: "/v1/messages?beta=true".into(),
            version: "HTTP/1.1".into(),
            fields: [
                ("Host", "api.anthropic.com"),
                ("User-Agent", "claude-cli/2.0.1 (external, cli)"),
                ("Content-Type", "application/json"),
                ("Accept", "application/json"),
                ("anthropic-version", "2023-06-01"),
                ("Content-Length", "100"),
            ]
            .map(|(name, value)| Field::new(name, value.as_bytes()))
            .to_vec(),
        },
        body,
        trailers: Vec::new(),
        complete: true,
        flags: Vec::new(),
        duration_us: 120,
    }
}

pub(crate) fn response(id: Id, run: Id, body: Body<'static>) -> Response<'static> {
    Response {
        id,
        run,
        at: Timestamp::now(),
        address: Some("192.0.2.1:443".parse().unwrap()),
        outcome: Outcome::Complete,
        error: None,
        by_gate: false,
        interim: Vec::new(),
        head: Some(ResponseHead {
            version: "HTTP/1.1".into(),
            status: 200,
            reason: "OK".into(),
            fields: vec![
                Field::new("Content-Type", &b"application/json"[..]),
                Field::new("Date", &b"Tue, 24 Nov 2026 09:00:00 GMT"[..]),
            ],
        }),
        body,
        trailers: Vec::new(),
        events: None,
        events_flaw: None,
        timings: Timings { first_byte_us: Some(800), total_us: 1200, ..Timings::default() },
        upgraded: None,
        messages: None,
    }
}

pub(crate) fn message(exchange: Id, run: Id, seq: u64, body: Body<'static>) -> Message<'static> {
    Message {
        id: Id::new(),
        run,
        at: Timestamp::now(),
        exchange,
        flow: Id::new(),
        direction: if seq.is_multiple_of(2) { Direction::Sent } else { Direction::Received },
        seq,
        kind: MessageKind::Text,
        opcode: None,
        body,
        wire_bytes: 4,
        frames: 2,
        compressed: true,
        close_code: None,
        flaws: Vec::new(),
        complete: true,
        duration_us: 17,
    }
}

pub(crate) fn tunnel(run: Id) -> Record<'static> {
    Record::Tunnel(Tunnel {
        id: Id::new(),
        run,
        at: Timestamp::now(),
        client: "127.0.0.1:1".parse().unwrap(),
        host: "pinned.example".into(),
        port: 443,
        address: None,
        via: None,
        sni: None,
        passthrough: true,
        outcome: Outcome::CutByClient,
        error: Some("reset".into()),
        flags: Vec::new(),
        transferred: Transferred { sent: 10, received: 20 },
        duration_us: 30,
    })
}

pub(crate) fn refused(run: Id, request: Option<&'static str>) -> Record<'static> {
    Record::Refused(Refused {
        id: Id::new(),
        run,
        at: Timestamp::now(),
        flow: Id::new(),
        client: "127.0.0.1:1".parse().unwrap(),
        host: "bad.example".into(),
        port: 80,
        sni: None,
        request: request.map(Into::into),
        by: RefusedBy::Denylisted,
        detail: "denylist.txt names it".into(),
        flags: Vec::new(),
    })
}

fn some_message(choices: &mut Choices, exchange: Id, run: Id) -> Message<'static> {
    let body = choices.body();
    let mut message = message(exchange, run, choices.below(100), body);
    match choices.below(5) {
        0 => {
            message.kind = MessageKind::Close;
            message.close_code = Some(1000);
        }
        1 => message.flaws = vec![Flaw::NotUtf8, Flaw::Rest],
        2 => message.kind = MessageKind::Ping,
        _ => {}
    }
    message
}

/// A history of one run: pairs, requests without response, responses without request, messages
/// of exchanges that are open, over or not there, tunnels, refusals; bodies of every form; field values that are not UTF-8.
pub(crate) fn history(choices: &mut Choices, records: usize) -> Vec<Record<'static>> {
    let id = Id::new();
    let mut history = vec![run(id)];
    let mut open: Vec<Id> = Vec::new();
    while history.len() < records {
        match choices.below(10) {
            0..3 => {
                let mut request = request(Id::new(), id, choices.body());
                request.head.fields = choices.fields();
                request.trailers = choices.fields();
                open.push(request.id);
                history.push(Record::Request(request));
            }
            3..6 if !open.is_empty() => {
                let place = usize::try_from(choices.below(open.len() as u64)).unwrap();
                let mut response = response(open.swap_remove(place), id, choices.body());
                if choices.below(3) == 0 {
                    response.head = None;
                    response.outcome = Outcome::NameUnknown;
                    response.error = Some("no such \"name\"".into());
                }
                history.push(Record::Response(response));
            }
            6 => history.push(Record::Response(response(Id::new(), id, choices.body()))),
            7 => history.push(tunnel(id)),
            8 | 9 => {
                let known = usize::try_from(choices.below(history.len() as u64)).unwrap();
                let exchange = if choices.below(9) == 0 { Id::new() } else { history[known].id() };
                history.push(Record::Message(some_message(choices, exchange, id)));
            }
            _ => history.push(refused(id, Some("GET /x y"))),
        }
    }
    history.push(run_end(id));
    history
}
