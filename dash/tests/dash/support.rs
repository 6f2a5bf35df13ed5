//! A real store and a real dashboard in a temporary directory, and a client that speaks raw HTTP.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use agent_gate_dash::{Notices, Server};
use agent_gate_store::record::{
    Body, Direction, Field, Hash, Kept, Message, MessageKind, Mode, Outcome, Request, RequestHead,
    Response, ResponseHead, Run, Timings,
};
use agent_gate_store::{Committed, Id, Layout, Options, Record, Recorder, Store, Timestamp};

/// How long a test waits for what must come: a bound for failures, not a measurement.
const PATIENCE: Duration = Duration::from_secs(20);

/// A store with a dashboard over it. Fields end in this order.
pub(crate) struct Fixture {
    pub(crate) server: Option<Server>,
    pub(crate) notices: Notices,
    pub(crate) recorder: Recorder,
    pub(crate) layout: Layout,
    committed: Committed,
    written: AtomicU64,
    _store: Store,
    _directory: tempfile::TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path().join("data"));
        layout.create().unwrap();
        let store = Store::open(&layout, Options::default()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let notices = Notices::default();
        let changes = Box::new(store.committed());
        let server = Server::start(listener, layout.clone(), changes, notices.clone()).unwrap();
        Self {
            server: Some(server),
            notices,
            recorder: store.recorder(),
            layout,
            committed: store.committed(),
            written: AtomicU64::new(0),
            _store: store,
            _directory: directory,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.server.as_ref().unwrap().address().port()
    }

    pub(crate) fn seq(&self) -> u64 {
        self.committed.get()
    }

    /// Records and returns once the index has it.
    pub(crate) fn write(&self, record: &Record<'_>) {
        self.write_all(std::slice::from_ref(record));
    }

    /// Records all and returns once the index has them.
    pub(crate) fn write_all(&self, records: &[Record<'_>]) {
        for record in records {
            self.recorder.reserve_blocking(1024).unwrap().record(record);
        }
        let more = records.len() as u64;
        let count = self.written.fetch_add(more, Ordering::Relaxed) + more;
        let mut committed = self.committed.get();
        while committed < count {
            let before = committed;
            committed = self.committed.wait_past(before, PATIENCE);
            assert!(committed > before, "not committed in time");
        }
    }

    pub(crate) fn run(&self, agent: &str) -> Id {
        let run = run(agent);
        self.write(&Record::Run(run.clone()));
        run.id
    }

    /// A whole exchange with these bodies and response fields.
    pub(crate) fn exchange(&self, request: &Request<'_>, fields: Vec<Field<'_>>, body: Body<'_>) {
        self.write(&Record::Request(request.clone()));
        self.write(&Record::Response(response(request, fields, body)));
    }

    /// A side file with these bytes, as a body.
    pub(crate) fn side_file(&self, bytes: &[u8]) -> Body<'static> {
        let file = self.recorder.side_file();
        for piece in bytes.chunks(1 << 20) {
            self.recorder.reserve_blocking(piece.len()).unwrap().piece(&file, piece.to_vec());
        }
        let blake3 = Hash::of(bytes);
        file.finish(blake3);
        let bytes = bytes.len() as u64;
        Body { bytes, blake3, kept: Kept::File { bytes, blake3 }, decoded: None }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port())).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Asks and leaves the answer to be read.
    pub(crate) fn ask(&self, target: &str) -> TcpStream {
        let mut stream = self.connect();
        let port = self.port();
        write!(
            stream,
            "GET {target} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        stream
    }

    /// Sends exactly that and reads until the server closes.
    pub(crate) fn raw(&self, message: &str) -> Reply {
        let mut stream = self.connect();
        stream.write_all(message.as_bytes()).unwrap();
        Reply::read(stream)
    }

    pub(crate) fn request(&self, method: &str, target: &str, fields: &str) -> Reply {
        let port = self.port();
        self.raw(&format!(
            "{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n{fields}\r\n"
        ))
    }

    pub(crate) fn get(&self, target: &str) -> Reply {
        self.request("GET", target, "")
    }

    /// The text of a page that must be there.
    pub(crate) fn page(&self, target: &str) -> String {
        let reply = self.get(target);
        assert_eq!(reply.status, 200, "{target}: {}", reply.text());
        reply.text()
    }
}

/// What came back on a connection.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn read(mut stream: TcpStream) -> Self {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head");
        let head = String::from_utf8(bytes[..end + 2].to_vec()).unwrap();
        let status = head[9..12].parse().unwrap();
        Self { status, head, body: bytes[end + 4..].to_vec() }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

pub(crate) fn run(agent: &str) -> Run<'static> {
    Run {
        id: Id::new(),
        at: Timestamp::now(),
        argv: vec![agent.to_owned().into()],
        cwd: "/home/someone/project".into(),
        agent: agent.to_owned().into(),
        mode: Mode::Airtight,
        weaker: None,
        pid: 1,
        version: "0.1.0".into(),
    }
}

pub(crate) fn request(run: Id) -> Request<'static> {
    Request {
        id: Id::new(),
        run,
        at: Timestamp::now(),
        flow: Id::new(),
        client: "127.0.0.1:40000".parse().unwrap(),
        scheme: "https".into(),
        host: "api.example".into(),
        port: 443,
        address: None,
        via: None,
        tls: None,
        head: RequestHead {
            method: "POST".into(),
            target: "/v1/messages".into(),
            version: "HTTP/1.1".into(),
            fields: vec![Field::new("Host", &b"api.example"[..])],
        },
        body: Body::empty(),
        trailers: Vec::new(),
        complete: true,
        flags: Vec::new(),
        duration_us: 1500,
    }
}

pub(crate) fn response<'a>(
    request: &Request<'_>,
    fields: Vec<Field<'a>>,
    body: Body<'a>,
) -> Response<'a> {
    Response {
        id: request.id,
        run: request.run,
        at: Timestamp::now(),
        address: Some("192.0.2.7:443".parse().unwrap()),
        outcome: Outcome::Complete,
        error: None,
        by_gate: false,
        interim: Vec::new(),
        head: Some(ResponseHead {
            version: "HTTP/1.1".into(),
            status: 200,
            reason: "OK".into(),
            fields,
        }),
        body,
        trailers: Vec::new(),
        events: None,
        events_flaw: None,
        timings: Timings { total_us: 312_000, ..Timings::default() },
        upgraded: None,
        messages: None,
    }
}

pub(crate) fn message(request: &Request<'_>, seq: u64, body: Body<'static>) -> Message<'static> {
    Message {
        id: Id::new(),
        run: request.run,
        at: Timestamp::now(),
        exchange: request.id,
        flow: request.flow,
        direction: Direction::Sent,
        seq,
        kind: MessageKind::Text,
        opcode: None,
        wire_bytes: body.bytes,
        body,
        frames: 1,
        compressed: false,
        close_code: None,
        flaws: Vec::new(),
        complete: true,
        duration_us: 20,
    }
}

pub(crate) fn content_type(value: &str) -> Vec<Field<'static>> {
    vec![Field::new("Content-Type", value.as_bytes().to_vec())]
}
