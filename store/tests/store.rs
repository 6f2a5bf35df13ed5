//! The store from outside: what is recorded is read back, survives, and can be indexed anew.

#![allow(clippy::unwrap_used)]

use std::future::Future;
use std::io::Read;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use agent_gate_store::journal::Lines;
use agent_gate_store::record::{
    Body, CodingFlaw, Decoded, EventsFlaw, Field, Hash, Kept, Mode, Outcome, Refused, RefusedBy,
    Request, RequestHead, Response, ResponseHead, Run, RunEnd, Timings, Transferred, Tunnel,
};
use agent_gate_store::{
    Error, Filter, Id, Layout, Options, Reader, Record, Store, Timestamp, reindex,
};

struct Place {
    _dir: tempfile::TempDir,
    layout: Layout,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path().join("data"));
    Place { _dir: dir, layout }
}

fn open(place: &Place) -> Store {
    Store::open(&place.layout, Options::default()).unwrap()
}

fn run(id: Id) -> Record<'static> {
    Record::Run(Run {
        id,
        at: Timestamp::now(),
        argv: vec!["claude".into(), "-p".into(), "say \"hi\"\n".into()],
        cwd: "/home/me".into(),
        agent: "claude".into(),
        mode: Mode::Airtight,
        weaker: None,
        pid: 7,
        version: "0.1.0".into(),
    })
}

fn request<'a>(id: Id, run: Id, body: Body<'a>) -> Record<'a> {
    Record::Request(Request {
        id,
        run,
        at: Timestamp::now(),
        flow: Id::new(),
        client: ([127, 0, 0, 1], 4000).into(),
        scheme: "https".into(),
        host: "api.example".into(),
        port: 443,
        address: Some(([203, 0, 113, 1], 443).into()),
        via: None,
        tls: None,
        head: RequestHead {
            method: "POST".into(),
            target: "/v1/messages?beta=true".into(),
            version: "HTTP/1.1".into(),
            fields: vec![
                Field::new("Host", &b"api.example"[..]),
                Field::new("x-odd", &b"caf\xe9"[..]),
                Field::new("X-Odd", &b""[..]),
            ],
        },
        body,
        trailers: vec![],
        complete: true,
        flags: Vec::new(),
        duration_us: 12,
    })
}

fn response(id: Id, run: Id, body: Body<'_>) -> Record<'_> {
    Record::Response(Response {
        id,
        run,
        at: Timestamp::now(),
        address: None,
        outcome: Outcome::Complete,
        error: None,
        by_gate: false,
        interim: vec![],
        head: Some(ResponseHead {
            version: "HTTP/1.1".into(),
            status: 200,
            reason: "OK".into(),
            fields: vec![Field::new("Content-Type", &b"text/plain"[..])],
        }),
        body,
        trailers: vec![Field::new("x-sum", &b"1"[..])],
        events: None,
        events_flaw: None,
        timings: Timings { total_us: 34, ..Timings::default() },
        upgraded: None,
        messages: None,
    })
}

fn write(store: &Store, record: &Record<'_>) {
    store.recorder().reserve_blocking(0).unwrap().record_with_receipt(record).wait().unwrap();
}

/// Records of every type, with bodies of every kind.
fn write_some(store: &Store, exchanges: usize) {
    let run_id = Id::new();
    write(store, &run(run_id));
    for i in 0..exchanges {
        let id = Id::new();
        let body: Vec<u8> = match i % 4 {
            0 => format!("{{\"n\":{i},\"t\":\"a\\nb\"}}").into_bytes(),
            1 => (0..=255).collect(),
            2 => Vec::new(),
            _ => "é\u{0}\u{1f}\u{2028}".repeat(50).into_bytes(),
        };
        if i % 7 != 0 {
            write(store, &request(id, run_id, Body::inline(&body[..])));
        }
        if i % 5 != 0 {
            write(store, &response(id, run_id, Body::inline(&body[..])));
        }
    }
    write(store, &tunnel(run_id));
    write(store, &refused(run_id));
    let end = RunEnd {
        id: Id::new(),
        run: run_id,
        at: Timestamp::now(),
        status: Some(130),
        reason: None,
        exchanges: exchanges as u64,
    };
    write(store, &Record::RunEnd(end));
}

fn tunnel(run: Id) -> Record<'static> {
    Record::Tunnel(Tunnel {
        id: Id::new(),
        run,
        at: Timestamp::now(),
        client: ([127, 0, 0, 1], 4001).into(),
        host: "pinned.example".into(),
        port: 443,
        address: None,
        via: Some("proxy.example:3128".into()),
        sni: Some("pinned.example".into()),
        passthrough: true,
        outcome: Outcome::Complete,
        error: None,
        flags: Vec::new(),
        transferred: Transferred { sent: 5, received: 6 },
        duration_us: 7,
    })
}

fn refused(run: Id) -> Record<'static> {
    Record::Refused(Refused {
        id: Id::new(),
        run,
        at: Timestamp::now(),
        flow: Id::new(),
        client: ([127, 0, 0, 1], 4002).into(),
        host: "bad.example".into(),
        port: 443,
        sni: None,
        request: Some("GET /x".into()),
        by: RefusedBy::Denylisted,
        detail: "on the denylist".into(),
        flags: Vec::new(),
    })
}

#[test]
fn what_is_recorded_is_read_back() {
    let place = place();
    let store = open(&place);
    let (run_id, id) = (Id::new(), Id::new());
    let (up, down) = (b"{\"a\": \"\\u00e9\"}".to_vec(), vec![0, 159, 146, 150]);
    let records = [
        run(run_id),
        request(id, run_id, Body::inline(&up[..])),
        response(id, run_id, Body::inline(&down[..])),
    ];
    records.iter().for_each(|r| write(&store, r));
    store.close().unwrap();

    let reader = Reader::open(&place.layout).unwrap();
    let found = reader.exchange(id).unwrap().unwrap();
    assert_eq!(found.request.as_ref(), Some(&records[1]));
    assert_eq!(found.response.as_ref(), Some(&records[2]));
    assert_eq!((found.row.status, found.row.request_bytes), (Some(200), up.len() as u64));
    let runs = reader.runs(10).unwrap();
    assert_eq!((runs.len(), runs[0].id, runs[0].exchanges), (1, run_id, 1));
    assert_eq!(runs[0].argv[2], "say \"hi\"\n");
    assert_eq!(reader.exchange(Id::new()).unwrap(), None);
}

#[test]
fn every_line_is_chained_to_the_one_before() {
    let place = place();
    for _ in 0..3 {
        let store = open(&place);
        write_some(&store, 10);
        store.close().unwrap();
    }
    let mut lines = Lines::from(&place.layout, None).unwrap();
    let mut last = Hash([0; 32]).to_string();
    while let Some(line) = lines.next_line().unwrap() {
        let value: serde_json::Value = serde_json::from_slice(&line.bytes).unwrap();
        assert_eq!((&value["v"], &value["prev"]), (&1.into(), &last.into()));
        last = Hash::of(&line.bytes).to_string();
    }
}

/// All rows, as pages see them.
fn rows(layout: &Layout) -> (Vec<agent_gate_store::RunRow>, Vec<agent_gate_store::ExchangeRow>) {
    let reader = Reader::open(layout).unwrap();
    (reader.runs(1000).unwrap(), reader.exchanges(&Filter::default(), 10_000).unwrap())
}

#[test]
fn an_index_made_anew_has_the_same_rows() {
    let place = place();
    let store = open(&place);
    write_some(&store, 100);
    write_some(&store, 33);
    store.close().unwrap();
    let live = rows(&place.layout);
    let mut told = (0, 0);
    let summary = reindex(&place.layout, &mut |done, total| told = (done, total)).unwrap();
    assert_eq!(rows(&place.layout), live);
    assert_eq!(summary.unreadable, 0);
    assert!(told.0 == told.1 && told.1 > 0);
    assert_eq!(Reader::open(&place.layout).unwrap().committed().unwrap(), summary.lines);
}

#[test]
fn a_missing_or_broken_index_is_made_anew_at_opening() {
    let place = place();
    let store = open(&place);
    write_some(&store, 20);
    store.close().unwrap();
    let live = rows(&place.layout);
    for damage in [None, Some(&b"not a database, not at all, by no means"[..])] {
        match damage {
            None => std::fs::remove_file(place.layout.index_path()).unwrap(),
            Some(garbage) => std::fs::write(place.layout.index_path(), garbage).unwrap(),
        }
        open(&place).close().unwrap();
        assert_eq!(rows(&place.layout), live);
    }
}

#[test]
fn lines_that_are_no_records_are_passed_over() {
    let place = place();
    let store = open(&place);
    write_some(&store, 3);
    store.close().unwrap();
    let day = agent_gate_store::journal::days(&place.layout).unwrap()[0];
    let path = day.path(&place.layout);
    let mut journal = std::fs::read(&path).unwrap();
    journal.extend_from_slice(
        b"garbage\n{\"v\":9,\"type\":\"request\"}\n{\"v\":1,\"type\":\"new\"}\n",
    );
    std::fs::write(&path, journal).unwrap();
    assert_eq!(reindex(&place.layout, &mut |_, _| ()).unwrap().unreadable, 3);
    let store = open(&place);
    write_some(&store, 1);
    store.close().unwrap();
}

#[test]
fn a_second_writer_is_refused() {
    let place = place();
    let store = open(&place);
    assert!(matches!(Store::open(&place.layout, Options::default()), Err(Error::Busy(_))));
    assert!(matches!(reindex(&place.layout, &mut |_, _| ()), Err(Error::Busy(_))));
    store.close().unwrap();
    open(&place).close().unwrap();
}

#[test]
fn a_receipt_means_that_the_line_is_in_the_file() {
    let place = place();
    let store = open(&place);
    let recorder = store.recorder();
    let days = || agent_gate_store::journal::days(&place.layout).unwrap();
    for n in 1..=50 {
        let receipt =
            recorder.reserve_blocking(0).unwrap().record_with_receipt(&refused(Id::new()));
        receipt.wait().unwrap();
        let journal = std::fs::read(days()[0].path(&place.layout)).unwrap();
        assert_eq!(journal.iter().filter(|b| **b == b'\n').count(), n);
    }
    store.close().unwrap();
}

#[test]
fn followers_see_a_row_when_it_begins_and_when_it_ends() {
    let place = place();
    let store = open(&place);
    let committed = store.committed();
    let (run_id, id) = (Id::new(), Id::new());
    write(&store, &request(id, run_id, Body::empty()));
    let first = committed.wait_past(0, Duration::from_secs(10));
    let reader = Reader::open(&place.layout).unwrap();
    let begun = reader.changed_since(0, 10).unwrap();
    assert_eq!((begun.len(), begun[0].outcome), (1, None));
    write(&store, &response(id, run_id, Body::empty()));
    committed.wait_past(first, Duration::from_secs(10));
    let ended = reader.changed_since(begun[0].seq, 10).unwrap();
    assert_eq!((ended.len(), ended[0].outcome), (1, Some(Outcome::Complete)));
    store.close().unwrap();
}

#[test]
fn pages_go_back_by_key() {
    let place = place();
    let store = open(&place);
    let runs = [Id::new(), Id::new()];
    for i in 0..20 {
        write(&store, &request(Id::new(), runs[i % 2], Body::empty()));
    }
    store.close().unwrap();
    let reader = Reader::open(&place.layout).unwrap();
    for (run, count) in [(None, 20), (Some(runs[1]), 10)] {
        let (mut filter, mut seen) = (Filter { run, before: None }, Vec::new());
        loop {
            let page = reader.exchanges(&filter, 3).unwrap();
            let Some(last) = page.last() else { break };
            filter.before = Some(last.id);
            seen.extend(page.into_iter().map(|row| row.id));
        }
        assert!(seen.len() == count && seen.is_sorted_by(|a, b| a > b), "{run:?}");
    }
}

#[test]
fn a_long_body_goes_to_a_side_file() {
    let place = place();
    let store = open(&place);
    let recorder = store.recorder();
    let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let hash = Hash::of(&content);
    for _ in 0..2 {
        let file = recorder.side_file();
        for piece in content.chunks(100_000) {
            recorder.reserve_blocking(piece.len()).unwrap().piece(&file, piece.to_vec());
        }
        file.finish(hash);
    }
    let abandoned = recorder.side_file();
    recorder.reserve_blocking(1).unwrap().piece(&abandoned, vec![1]);
    drop(abandoned);
    let kept = Kept::File { bytes: content.len() as u64, blake3: hash };
    let body = Body { bytes: content.len() as u64, blake3: hash, kept, decoded: None };
    let id = Id::new();
    write(&store, &request(id, Id::new(), body));
    store.close().unwrap();

    let reader = Reader::open(&place.layout).unwrap();
    let Some(Record::Request(request)) = reader.exchange(id).unwrap().unwrap().request else {
        panic!("no request")
    };
    let mut read = Vec::new();
    reader.body(&request.body).unwrap().read_to_end(&mut read).unwrap();
    assert!(read == content);
    let names: Vec<_> = std::fs::read_dir(place.layout.bodies_dir()).unwrap().collect();
    assert_eq!(names.len(), 1);
}

#[test]
fn a_coded_body_is_read_decoded() {
    let place = place();
    let store = open(&place);
    let plain: Vec<u8> = (0..200_000_u32).flat_map(|n| format!("{n},").into_bytes()).collect();
    let coded = zstd::bulk::compress(&plain, 1).unwrap();
    let codings = vec!["zstd".to_owned()];
    let whole = Decoded { codings: codings.clone(), bytes: plain.len() as u64, flaw: None };
    let cut = Decoded { codings, bytes: 9, flaw: Some(CodingFlaw::Truncated) };
    let (id, run) = (Id::new(), Id::new());
    let file = store.recorder().side_file();
    store.recorder().reserve_blocking(coded.len()).unwrap().piece(&file, coded.clone());
    file.finish(Hash::of(&coded));
    let (bytes, blake3) = (coded.len() as u64, Hash::of(&coded));
    let kept = Kept::File { bytes, blake3 };
    let in_file = Body { bytes, blake3, kept, decoded: Some(whole) };
    let inline = Body { decoded: Some(cut), ..Body::inline(&coded[..coded.len() / 2]) };
    write(&store, &request(id, run, in_file.clone()));
    let Record::Response(mut answer) = response(id, run, inline.clone()) else { unreachable!() };
    answer.events = Some(3);
    answer.events_flaw = Some(EventsFlaw::Unfinished);
    write(&store, &Record::Response(answer));
    store.close().unwrap();

    let reader = Reader::open(&place.layout).unwrap();
    let found = reader.exchange(id).unwrap().unwrap();
    let (Some(Record::Request(request)), Some(Record::Response(response))) =
        (found.request, found.response)
    else {
        panic!("not both records")
    };
    assert_eq!((&request.body, &response.body), (&in_file, &inline));
    assert_eq!((response.events, response.events_flaw), (Some(3), Some(EventsFlaw::Unfinished)));

    let fields = [Field::new("Content-Encoding", &b"zstd"[..])];
    let mut body = reader.decoded(&request.body, &fields).unwrap().expect("a coding");
    let mut read = Vec::new();
    body.read_to_end(&mut read).unwrap();
    assert!(read == plain && body.flaw().is_none());
    let mut body = reader.decoded(&response.body, &fields).unwrap().expect("a coding");
    let mut read = Vec::new();
    body.read_to_end(&mut read).unwrap();
    assert!(read.len() > 100_000 && plain.starts_with(&read), "{}", read.len());
    assert_eq!(body.flaw(), Some(CodingFlaw::Truncated));
    // As much as is wanted, and no more.
    let mut start = vec![0; 1000];
    let mut body = reader.decoded(&request.body, &fields).unwrap().expect("a coding");
    body.read_exact(&mut start).unwrap();
    assert_eq!(start, plain[..1000]);
    assert!(reader.decoded(&request.body, &[]).unwrap().is_none());
}

#[cfg(unix)]
#[test]
fn nobody_else_can_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let place = place();
    let store = open(&place);
    write_some(&store, 3);
    let mut dirs = vec![place.layout.data_dir().to_owned()];
    while let Some(dir) = dirs.pop() {
        assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700, "{dir:?}");
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            if path.is_dir() {
                dirs.push(path);
            } else {
                assert_eq!(mode, 0o600, "{path:?}");
            }
        }
    }
    store.close().unwrap();
}

/// Counts its wakes.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_full_queue_parks_callers_in_order_and_forgets_those_that_left() {
    let place = place();
    let options = Options { queue_records_max: 1, queue_bytes_max: 1000 };
    let store = Store::open(&place.layout, options).unwrap();
    let recorder = store.recorder();
    let held = recorder.reserve_blocking(10).unwrap();
    let wakes: Vec<Arc<Wakes>> = (0..3).map(|_| Arc::default()).collect();
    let wakers: Vec<Waker> = wakes.iter().map(|w| Waker::from(Arc::clone(w))).collect();
    let mut first = pin!(recorder.reserve(10));
    let mut leaver = Box::pin(recorder.reserve(10));
    let mut last = pin!(recorder.reserve(10));
    assert!(first.as_mut().poll(&mut Context::from_waker(&wakers[0])).is_pending());
    assert!(leaver.as_mut().poll(&mut Context::from_waker(&wakers[1])).is_pending());
    assert!(last.as_mut().poll(&mut Context::from_waker(&wakers[2])).is_pending());
    drop(leaver);
    drop(held);
    let count = |i: usize| wakes[i].0.load(Ordering::SeqCst);
    assert_eq!((count(0), count(1), count(2)), (1, 0, 0));
    let Poll::Ready(Ok(permit)) = first.as_mut().poll(&mut Context::from_waker(&wakers[0])) else {
        panic!("its turn had come")
    };
    assert!(last.as_mut().poll(&mut Context::from_waker(&wakers[2])).is_pending());
    drop(permit);
    assert_eq!(count(2), 1);
    assert!(last.as_mut().poll(&mut Context::from_waker(&wakers[2])).is_ready());
    store.close().unwrap();
}

#[test]
fn many_threads_lose_nothing_through_a_narrow_queue() {
    let place = place();
    let options = Options { queue_records_max: 4, queue_bytes_max: 4000 };
    let store = Store::open(&place.layout, options).unwrap();
    let run = Id::new();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let recorder = store.recorder();
            scope.spawn(move || {
                for i in 0..200 {
                    let body = "x".repeat(i % 50);
                    let record = request(Id::new(), run, Body::inline(body.as_bytes()));
                    let permit = recorder.reserve_blocking(i % 50).unwrap();
                    if i % 2 == 0 {
                        permit.record_with_receipt(&record).wait().unwrap();
                    } else {
                        permit.record(&record);
                    }
                }
            });
        }
    });
    store.close().unwrap();
    let reader = Reader::open(&place.layout).unwrap();
    assert_eq!(reader.exchanges(&Filter::default(), 5000).unwrap().len(), 1600);
}
