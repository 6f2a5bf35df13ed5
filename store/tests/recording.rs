//! Recording from outside: order, room in the queue, receipts, side files, one writer.

#![allow(clippy::unwrap_used)]

mod support;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use agent_gate_store::record::{Body, Hash, Kept};
use agent_gate_store::{Error, Id, Options, Reader, Record, Reserve, Store};

use support::{Choices, assert_chained, data_dir, history, lines, request, run};

struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn waker() -> (Arc<Count>, Waker) {
    let count = Arc::new(Count(AtomicUsize::new(0)));
    (Arc::clone(&count), Waker::from(count))
}

fn poll(
    reserve: &mut Reserve,
    waker: &Waker,
) -> Poll<Result<agent_gate_store::Permit, agent_gate_store::Stopped>> {
    Pin::new(reserve).poll(&mut Context::from_waker(waker))
}

fn tiny(records: usize, bytes: usize) -> Options {
    Options { queue_records_max: records, queue_bytes_max: bytes }
}

/// A record that is receipted is in the file, whatever happens to the process then.
#[test]
fn a_receipt_means_the_bytes_are_in_the_file() {
    let (_dir, layout) = data_dir();
    let store = Store::open(&layout, Options::default()).unwrap();
    let recorder = store.recorder();
    for number in 0..50_usize {
        let record = Record::Request(request(Id::new(), Id::new(), Body::empty()));
        recorder.reserve_blocking(0).unwrap().record_with_receipt(&record).wait().unwrap();
        let lines = lines(&layout);
        assert_eq!(lines.len(), number + 1);
        assert!(String::from_utf8_lossy(&lines[number]).contains(&record.id().to_string()));
    }
    store.close().unwrap();
    assert_chained(&layout);
}

/// Many threads through a queue of two: nothing lost, nothing twice, all in order per thread.
#[test]
fn a_tiny_queue_loses_nothing() {
    let (_dir, layout) = data_dir();
    let store = Store::open(&layout, tiny(2, 4096)).unwrap();
    let mut sent: Vec<Id> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let recorder = store.recorder();
                scope.spawn(move || {
                    (0..200)
                        .map(|_| {
                            let body = Body::inline(vec![b'x'; 3000]);
                            let record = Record::Request(request(Id::new(), Id::new(), body));
                            recorder.reserve_blocking(3000).unwrap().record(&record);
                            record.id()
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    store.close().unwrap();
    let mut kept: Vec<Id> = lines(&layout)
        .iter()
        .map(|line| {
            let value: serde_json::Value = serde_json::from_slice(line).unwrap();
            value["id"].as_str().unwrap().parse().unwrap()
        })
        .collect();
    sent.sort();
    kept.sort();
    assert_eq!(sent, kept);
    assert_chained(&layout);
}

#[test]
fn room_is_given_in_order_of_asking() {
    let (_dir, layout) = data_dir();
    let store = Store::open(&layout, tiny(1, 1000)).unwrap();
    let recorder = store.recorder();
    let held = recorder.reserve_blocking(10).unwrap();
    let (woken, waker) = waker();
    let mut first = recorder.reserve(900);
    let mut second = recorder.reserve(1);
    assert!(poll(&mut first, &waker).is_pending());
    assert!(poll(&mut second, &waker).is_pending());
    drop(held);
    assert_eq!(woken.0.load(Ordering::SeqCst), 1, "one waiter is told, not all");
    assert!(poll(&mut second, &waker).is_pending(), "the small one does not overtake");
    let Poll::Ready(Ok(permit)) = poll(&mut first, &waker) else { panic!("its turn") };
    drop(permit);
    assert!(poll(&mut second, &waker).is_ready());
    store.close().unwrap();
}

/// A waiter may go away at any moment: before its turn, or between its turn and its look.
#[test]
fn a_dropped_waiter_stops_nobody() {
    let (_dir, layout) = data_dir();
    let store = Store::open(&layout, tiny(1, 1000)).unwrap();
    let recorder = store.recorder();
    let (_, waker) = waker();

    let held = recorder.reserve_blocking(0).unwrap();
    let mut gone = recorder.reserve(1);
    let mut stays = recorder.reserve(1);
    assert!(poll(&mut gone, &waker).is_pending());
    assert!(poll(&mut stays, &waker).is_pending());
    drop(gone);
    drop(held);
    assert!(poll(&mut stays, &waker).is_ready(), "whoever left before its turn is skipped");

    let held = recorder.reserve_blocking(0).unwrap();
    let mut granted = recorder.reserve(1);
    let mut next = recorder.reserve(1);
    assert!(poll(&mut granted, &waker).is_pending());
    assert!(poll(&mut next, &waker).is_pending());
    drop(held);
    drop(granted);
    assert!(poll(&mut next, &waker).is_ready(), "a turn nobody took passes on");

    let (_, other) = self::waker();
    let big = recorder.reserve_blocking(5_000_000).unwrap();
    let mut small = recorder.reserve(1);
    assert!(poll(&mut small, &other).is_pending(), "one above the bound passes alone");
    drop(big);
    assert!(poll(&mut small, &other).is_ready());
    store.close().unwrap();
}

#[test]
fn a_dropped_receipt_stops_nobody() {
    let (_dir, layout) = data_dir();
    let store = Store::open(&layout, Options::default()).unwrap();
    let recorder = store.recorder();
    let record = run(Id::new());
    let (_, waker) = waker();
    let mut receipt = recorder.reserve_blocking(0).unwrap().record_with_receipt(&record);
    let _ = Pin::new(&mut receipt).poll(&mut Context::from_waker(&waker));
    drop(receipt);
    recorder.reserve_blocking(0).unwrap().record_with_receipt(&run(Id::new())).wait().unwrap();
    store.close().unwrap();
    assert_eq!(lines(&layout).len(), 2);
}

#[test]
fn after_the_close_nothing_is_promised() {
    let (_dir, layout) = data_dir();
    let store = Store::open(&layout, Options::default()).unwrap();
    let recorder = store.recorder();
    let permit = recorder.reserve_blocking(0).unwrap();
    store.close().unwrap();
    assert!(permit.record_with_receipt(&run(Id::new())).wait().is_err());
    assert!(recorder.reserve_blocking(0).is_err());
    assert!(recorder.stopped().is_some());
}

#[test]
fn a_second_writer_is_refused_and_a_dropped_store_makes_room() {
    let (_dir, layout) = data_dir();
    let store = Store::open(&layout, Options::default()).unwrap();
    let error = Store::open(&layout, Options::default()).unwrap_err();
    assert!(matches!(error, Error::Busy(_)), "{error}");
    let busy = agent_gate_store::reindex(&layout, &mut |_, _| ()).unwrap_err();
    assert!(matches!(busy, Error::Busy(_)), "{busy}");
    store.recorder().reserve_blocking(0).unwrap().record(&run(Id::new()));
    drop(store);
    Store::open(&layout, Options::default()).unwrap().close().unwrap();
    assert_eq!(lines(&layout).len(), 1);
}

#[test]
fn side_files_stand_before_their_record_and_once_a_content() {
    let (_dir, layout) = data_dir();
    let store = Store::open(&layout, Options::default()).unwrap();
    let recorder = store.recorder();
    let content = vec![0xfe; 300_000];
    let blake3 = Hash::of(&content);
    for _ in 0..2 {
        let file = recorder.side_file();
        for piece in content.chunks(65_536) {
            recorder.reserve_blocking(piece.len()).unwrap().piece(&file, piece.to_vec());
        }
        file.finish(blake3);
        let body = Body {
            bytes: 300_000,
            blake3,
            kept: Kept::File { bytes: 300_000, blake3 },
            decoded: None,
        };
        let record = Record::Request(request(Id::new(), Id::new(), body));
        recorder.reserve_blocking(0).unwrap().record_with_receipt(&record).wait().unwrap();
        assert_eq!(std::fs::read(layout.body_path(blake3)).unwrap(), content);
    }
    let unfinished = recorder.side_file();
    recorder.reserve_blocking(1).unwrap().piece(&unfinished, vec![1]);
    drop(unfinished);
    let empty = recorder.side_file();
    empty.finish(Hash::of(b""));
    store.close().unwrap();
    assert_eq!(std::fs::read_dir(layout.bodies_dir()).unwrap().count(), 2);
    assert_eq!(std::fs::read(layout.body_path(Hash::of(b""))).unwrap(), b"");
}

#[test]
fn what_a_crash_left_of_a_side_file_goes() {
    let (_dir, layout) = data_dir();
    let store = Store::open(&layout, Options::default()).unwrap();
    let recorder = store.recorder();
    let left = recorder.side_file();
    recorder.reserve_blocking(1).unwrap().piece(&left, vec![1]);
    std::mem::forget(left);
    store.close().unwrap();
    assert_eq!(std::fs::read_dir(layout.bodies_dir()).unwrap().count(), 1);
    Store::open(&layout, Options::default()).unwrap().close().unwrap();
    assert_eq!(std::fs::read_dir(layout.bodies_dir()).unwrap().count(), 0);
}

/// Every form of record comes back from disk as it was recorded.
#[test]
fn records_read_back_as_they_were() {
    let (_dir, layout) = data_dir();
    let store = Store::open(&layout, Options::default()).unwrap();
    let recorder = store.recorder();
    let records = history(&mut Choices(7), 300);
    for record in &records {
        recorder.reserve_blocking(0).unwrap().record(record);
    }
    store.close().unwrap();
    assert_chained(&layout);
    let reader = Reader::open(&layout).unwrap();
    for (seq, record) in (1..).zip(&records) {
        if let Record::Message(message) = record {
            let read = reader.message(message.exchange, seq).unwrap();
            assert_eq!(read.as_ref(), Some(record));
            continue;
        }
        let Some(exchange) = reader.exchange(record.id()).unwrap() else {
            assert!(matches!(record, Record::Run(_) | Record::RunEnd(_)));
            continue;
        };
        if matches!(record, Record::Run(_) | Record::RunEnd(_)) {
            continue; // a message's exchange may have any id
        }
        let read = match record {
            Record::Response(_) => exchange.response,
            _ => exchange.request,
        };
        assert_eq!(read.as_ref(), Some(record));
    }
}

#[cfg(unix)]
#[test]
fn nobody_else_can_read_what_is_kept() {
    use std::os::unix::fs::PermissionsExt as _;
    fn check(path: &std::path::Path) {
        let mode = std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        if path.is_dir() {
            assert_eq!(mode, 0o700, "{}", path.display());
            std::fs::read_dir(path).unwrap().for_each(|entry| check(&entry.unwrap().path()));
        } else {
            assert_eq!(mode, 0o600, "{}", path.display());
        }
    }
    let (_dir, layout) = data_dir();
    let store = Store::open(&layout, Options::default()).unwrap();
    let recorder = store.recorder();
    let file = recorder.side_file();
    recorder.reserve_blocking(1).unwrap().piece(&file, vec![1]);
    recorder.reserve_blocking(0).unwrap().record(&run(Id::new()));
    store.committed().wait_past(0, std::time::Duration::from_secs(10));
    assert!(layout.data_dir().join("index.db-wal").exists());
    check(layout.data_dir());
    drop(file);
    store.close().unwrap();
}

/// A gate that is killed leaves the data directory as it is at that moment. A copy taken while the
/// store works is just that; each opens, keeps every receipted record, and goes on.
#[test]
fn a_killed_gate_loses_nothing_that_was_receipted() {
    let (dir, layout) = data_dir();
    let store = Store::open(&layout, Options::default()).unwrap();
    let recorder = store.recorder();
    let mut sent = 0;
    for round in 0..5 {
        for _ in 0..40 {
            let record = run(Id::new());
            recorder.reserve_blocking(0).unwrap().record_with_receipt(&record).wait().unwrap();
            sent += 1;
        }
        let left = agent_gate_store::Layout::new(dir.path().join(format!("left-{round}")));
        left.create().unwrap();
        let mut journal = lines(&layout).concat();
        journal.extend_from_slice(b"{\"v\":1,\"type\":\"requ");
        let day = std::fs::read_dir(layout.journal_dir())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .find(|name| name.to_string_lossy().ends_with(".jsonl"))
            .unwrap();
        std::fs::write(left.journal_dir().join(day), journal).unwrap();
        let again = Store::open(&left, Options::default()).unwrap();
        assert_eq!(again.committed().get(), sent);
        again.recorder().reserve_blocking(0).unwrap().record(&run(Id::new()));
        again.close().unwrap();
        assert_chained(&left);
        assert_eq!(Reader::open(&left).unwrap().runs(1000).unwrap().len() as u64, sent + 1);
    }
    store.close().unwrap();
}
