//! The index is a view: live, rebuilt, caught up or mended, it has the same rows.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use agent_gate_store::record::{Body, Direction, Flag, Flaw, Kept, MessageKind};
use agent_gate_store::{
    ExchangeRow, Filter, Id, Kind, Layout, MessageRow, Options, Reader, Record, RunRow, Store,
    reindex,
};

use support::{Choices, data_dir, history, lines, message, refused, request, response, run};

type Rows = (Vec<RunRow>, Vec<ExchangeRow>, u64, Vec<MessageRow>);

fn rows(layout: &Layout) -> Rows {
    let reader = Reader::open(layout).unwrap();
    let exchanges = reader.exchanges(&Filter::default(), 100_000).unwrap();
    let messages = exchanges.iter().flat_map(|row| reader.messages(row.id, 0, 100_000).unwrap());
    let messages = messages.collect();
    (reader.runs(1000).unwrap(), exchanges, reader.committed().unwrap(), messages)
}

fn record_all(layout: &Layout, records: &[Record<'_>], pause_every: usize) {
    let store = Store::open(layout, Options::default()).unwrap();
    let recorder = store.recorder();
    for (number, record) in records.iter().enumerate() {
        recorder.reserve_blocking(0).unwrap().record(record);
        if number % pause_every == pause_every - 1 {
            // Ends a transaction here, so that pairs are cut apart in many ways.
            let seq = number as u64 + 1;
            store.committed().wait_past(seq - 1, std::time::Duration::from_secs(10));
        }
    }
    store.close().unwrap();
}

#[test]
fn reindexing_gives_the_rows_that_were_there() {
    for (seed, pause_every) in [(1, 3), (2, 50), (3, 100_000)] {
        let (_dir, layout) = data_dir();
        let records = history(&mut Choices(seed), 1500);
        record_all(&layout, &records[..200], pause_every);
        let live = rows(&layout);
        assert_eq!(live.2, 200);
        assert!(live.3.len() > 20, "{} messages", live.3.len());
        let mut told = Vec::new();
        let summary = reindex(&layout, &mut |done, total| told.push((done, total))).unwrap();
        assert_eq!((summary.lines, summary.unreadable), (200, 0));
        assert_eq!(told.last().map(|(done, total)| done == total), Some(true));
        assert_eq!(rows(&layout), live, "seed {seed}");
        if seed == 3 {
            record_all_on(&layout, &records[200..]);
            let live = rows(&layout);
            reindex(&layout, &mut |_, _| ()).unwrap();
            assert_eq!(rows(&layout), live);
        }
        assert!(!layout.data_dir().join("index.db.new").exists());
    }
}

fn record_all_on(layout: &Layout, records: &[Record<'_>]) {
    record_all(layout, records, usize::MAX);
}

#[test]
fn a_response_may_be_alone_or_come_first() {
    let (_dir, layout) = data_dir();
    let (id, run_id) = (Id::new(), Id::new());
    let answer = Record::Response(response(id, run_id, Body::inline(&b"late"[..])));
    let question = Record::Request(request(id, run_id, Body::inline(&b"ask"[..])));
    record_all(&layout, &[run(run_id), answer, question], 1);
    let live = rows(&layout);
    let row = &live.1[0];
    assert_eq!((row.status, row.response_bytes, row.request_bytes), (Some(200), Some(4), 3));
    assert_eq!(row.host, "api.anthropic.com");
    reindex(&layout, &mut |_, _| ()).unwrap();
    assert_eq!(rows(&layout), live);
}

#[test]
fn pages_and_changes() {
    let (_dir, layout) = data_dir();
    let (one, two) = (Id::new(), Id::new());
    let ask = |run| Record::Request(request(Id::new(), run, Body::empty()));
    let asked = [ask(one), ask(two), ask(one), refused(one, Some("GET /a b")), refused(one, None)];
    let mut records = vec![run(one), run(two)];
    records.extend(asked.iter().cloned());
    records.push(Record::Response(response(asked[0].id(), one, Body::empty())));
    record_all(&layout, &records, 1);
    let reader = Reader::open(&layout).unwrap();
    let ids = |rows: Vec<ExchangeRow>| rows.iter().map(|row| row.id).collect::<Vec<_>>();
    let all = reader.exchanges(&Filter::default(), 10).unwrap();
    assert_eq!(all[0].kind, Kind::Refused);
    assert_eq!((all[1].method.as_str(), all[1].path.as_str()), ("GET", "/a b"));
    let newest_first: Vec<Id> = asked.iter().rev().map(Record::id).collect();
    assert_eq!(ids(all), newest_first);
    let of_one = Filter { run: Some(one), before: Some(asked[3].id()) };
    assert_eq!(ids(reader.exchanges(&of_one, 10).unwrap()), [asked[2].id(), asked[0].id()]);
    assert_eq!(ids(reader.exchanges(&of_one, 1).unwrap()), [asked[2].id()]);
    let changed = reader.changed_since(6, 10).unwrap();
    assert_eq!(changed.iter().map(|row| row.seq).collect::<Vec<_>>(), [7, 8]);
    assert_eq!(ids(changed), [asked[4].id(), asked[0].id()]);
    let counts: Vec<u64> = reader.runs(10).unwrap().iter().map(|run| run.exchanges).collect();
    assert_eq!(counts, [1, 2]);
    assert_eq!(reader.runs(1).unwrap().len(), 1);
}

/// An index of the first schema keeps its rows and gains what came later.
#[test]
fn an_older_index_is_brought_up_to_date() {
    let (_dir, layout) = data_dir();
    record_all(&layout, &history(&mut Choices(9), 60), 1000);
    let before = rows(&layout);
    let connection = rusqlite::Connection::open(layout.index_path()).unwrap();
    connection
        .execute_batch("ALTER TABLE exchange DROP COLUMN flags; PRAGMA user_version = 1;")
        .unwrap();
    connection.close().unwrap();
    let run_id = Id::new();
    let mut odd = request(Id::new(), run_id, Body::empty());
    odd.flags = vec![Flag::HostMismatch];
    record_all_on(&layout, &[run(run_id), Record::Request(odd)]);
    let mut now = rows(&layout);
    assert_eq!(now.1.remove(0).flags, [Flag::HostMismatch]);
    assert_eq!(now.1, before.1);
}

/// Missing, torn, newer or ahead of the journal: the index is made anew.
#[test]
fn an_index_that_cannot_be_used_is_rebuilt() {
    let (_dir, layout) = data_dir();
    record_all(&layout, &history(&mut Choices(5), 100), 1000);
    let before = rows(&layout);
    let index = layout.index_path();
    let damages: [&dyn Fn(); 4] = [
        &|| fs::remove_file(index).unwrap(),
        &|| fs::write(index, b"this is no database, whatever it looks like").unwrap(),
        &|| {
            let mut bytes = fs::read(index).unwrap();
            let middle = bytes.len() / 2;
            bytes[100..middle].fill(0xff);
            fs::write(index, bytes).unwrap();
        },
        &|| {
            // `user_version`, big-endian at 60 in SQLite's header.
            let mut bytes = fs::read(index).unwrap();
            bytes[60..64].copy_from_slice(&99_u32.to_be_bytes());
            fs::write(index, bytes).unwrap();
        },
    ];
    for (number, damage) in damages.iter().enumerate() {
        damage();
        Store::open(&layout, Options::default()).unwrap().close().unwrap();
        assert_eq!(rows(&layout), before, "damage {number}");
    }
}

#[test]
fn an_index_ahead_of_the_journal_is_rebuilt() {
    let (_dir, layout) = data_dir();
    record_all(&layout, &history(&mut Choices(6), 100), 1000);
    let file = fs::read_dir(layout.journal_dir())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|e| e == "jsonl"))
        .unwrap();
    let text = lines(&layout)[..40].concat();
    fs::write(&file, text).unwrap();
    record_all(&layout, &[run(Id::new())], 1000);
    let live = rows(&layout);
    assert_eq!(live.2, 41);
    reindex(&layout, &mut |_, _| ()).unwrap();
    assert_eq!(rows(&layout), live);
}

#[test]
fn lines_that_hold_no_record_are_counted_and_passed_over() {
    let (_dir, layout) = data_dir();
    record_all(&layout, &[run(Id::new())], 1);
    let file = fs::read_dir(layout.journal_dir())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|e| e == "jsonl"))
        .unwrap();
    let mut text = fs::read(&file).unwrap();
    text.extend_from_slice(
        b"\xff not a record\n\n{\"v\":2,\"type\":\"run\"}\n{\"v\":1,\"type\":\"new\"}\n",
    );
    fs::write(&file, text).unwrap();
    let ask = Record::Request(request(Id::new(), Id::new(), Body::empty()));
    record_all(&layout, &[ask], 1000);
    let live = rows(&layout);
    assert_eq!((live.1.len(), live.2), (1, 6));
    let summary = reindex(&layout, &mut |_, _| ()).unwrap();
    assert_eq!((summary.lines, summary.unreadable), (6, 4));
    assert_eq!(rows(&layout), live);
}

/// Somebody holds the index; the journal goes on, and the index catches up while more comes in.
#[test]
fn a_locked_index_stops_no_recording_and_catches_up() {
    let (_dir, layout) = data_dir();
    let store = Store::open(&layout, Options::default()).unwrap();
    let (recorder, committed) = (store.recorder(), store.committed());
    let send = || {
        let permit = recorder.reserve_blocking(0).unwrap();
        permit.record_with_receipt(&run(Id::new())).wait().unwrap();
    };
    let other = rusqlite::Connection::open(layout.index_path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for _ in 0..100 {
        send();
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    assert_eq!(committed.get(), 0);
    other.execute_batch("ROLLBACK").unwrap();
    let mut more = 0;
    while committed.get() < 100 {
        send();
        more += 1;
        assert!(more < 20_000, "the index never caught up");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    store.close().unwrap();
    assert_eq!(rows(&layout).0.len(), 100 + more);
    assert!(!layout.data_dir().join("index.db.unusable").exists(), "a lock is no damage");
}

#[test]
fn messages_are_listed_in_order_and_counted() {
    let (_dir, layout) = data_dir();
    let (run_id, id) = (Id::new(), Id::new());
    let long = "é".repeat(150);
    let mut binary = message(id, run_id, 3, Body::inline(vec![0xff; 300]));
    binary.kind = MessageKind::Binary;
    let mut close = message(id, run_id, 4, Body::inline(&b"bye"[..]));
    (close.kind, close.close_code) = (MessageKind::Close, Some(1000));
    let mut rest = message(id, run_id, 5, Body::empty());
    (rest.flaws, rest.complete) = (vec![Flaw::Rest, Flaw::NotInflated], false);
    let mut large = message(id, run_id, 6, Body::empty());
    large.body.kept = Kept::File { bytes: 9, blake3: agent_gate_store::record::Hash::of(b"x") };
    let hello = message(id, run_id, 2, Body::inline(&b"hello"[..]));
    let told = [
        hello.clone(),
        message(id, run_id, 1, Body::inline(long.clone().into_bytes())),
        binary,
        close,
        rest.clone(),
        large,
    ];
    let mut records = vec![run(run_id), Record::Request(request(id, run_id, Body::empty()))];
    records.extend(told.iter().cloned().map(Record::Message));
    records.push(Record::Message(message(Id::new(), run_id, 1, Body::inline(&b"other"[..]))));
    records.push(Record::Response(response(id, run_id, Body::empty())));
    record_all(&layout, &records, 3);

    let reader = Reader::open(&layout).unwrap();
    let listed = reader.messages(id, 0, 100).unwrap();
    assert_eq!(listed.iter().map(|m| m.seq).collect::<Vec<_>>(), [3, 4, 5, 6, 7, 8]);
    let excerpts: Vec<_> = listed.iter().map(|m| m.excerpt.as_deref()).collect();
    assert_eq!(excerpts, [Some("hello"), Some(&long[..200]), None, Some("bye"), None, None]);
    assert_eq!((listed[3].kind, listed[3].close_code), (MessageKind::Close, Some(1000)));
    assert_eq!((&listed[4].flaws, listed[4].complete), (&rest.flaws, false));
    assert_eq!((listed[1].direction, listed[1].bytes), (Direction::Received, 300));
    assert_eq!(reader.messages(id, 4, 2).unwrap(), listed[2..4]);
    assert_eq!(reader.message(id, 3).unwrap(), Some(Record::Message(hello)));
    assert_eq!(reader.message(id, 9).unwrap(), None);
    let row = reader.exchange(id).unwrap().unwrap().row;
    // The close frame and the rest of a message are none.
    assert_eq!((row.messages_sent, row.messages_received), (Some(2), Some(2)));
    assert_eq!((row.seq, row.status), (10, Some(200)));
    let live = rows(&layout);
    reindex(&layout, &mut |_, _| ()).unwrap();
    assert_eq!(rows(&layout), live);
}
