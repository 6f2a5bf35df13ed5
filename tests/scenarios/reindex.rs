//! The index from the journal alone: `agent-gate reindex` makes the same rows that the gate wrote
//! while traffic passed, also when there is no index left.

use crate::support::bench::{Bench, finish};
use crate::websocket_frames;

#[test]
fn the_same_rows() {
    let bench = Bench::new();
    bench.write_setting("denylist.txt", "denied.test\n");
    bench.write_setting("passthrough.txt", "pinned.test\n");
    traffic(&bench);
    bench.stop_gate();
    let before = dump(&bench);
    assert!(before.len() > 8, "{before:#?}");

    finish(bench.agent_gate(&["reindex"])).ok();
    assert_eq!(dump(&bench), before);

    std::fs::remove_file(bench.data_dir().join("index.db")).unwrap();
    finish(bench.agent_gate(&["reindex"])).ok();
    assert_eq!(dump(&bench), before);
}

/// Some of every kind of record.
fn traffic(bench: &Bench) {
    let ca = bench.origin.ca_pem();
    let script = format!(
        "curl -sSf 'https://one.test/?n=[1-3]' -d hello >/dev/null
         curl -sS 'https://one.test/abort?after=10' >/dev/null
         curl -sS https://denied.test/
         curl -sS https://nowhere.invalid:8443/ >/dev/null
         curl -sSf --cacert {} https://pinned.test/
         curl -sSf 'https://one.test/bytes?n=2000000' >/dev/null",
        ca.display()
    );
    bench.run_sh(&script).ok();
    bench.run_with(&["--mode", "permissive"], &["curl", "-sSf", "https://two.test/?last"]).ok();
    bench.journal().only("/?last");
    let websocket = websocket_frames::a_small_one(bench);
    assert_eq!(bench.journal().messages(&websocket).len(), 6);
    // The passed-through request is the origin's alone.
    let seen = bench.origin.settled();
    assert_eq!(seen.iter().filter(|s| s.host() == "pinned.test").count(), 1);
    bench.journal().wait_for("tunnel", |t| t["host"] == "pinned.test");
}

/// Every row of every table, as text, in a settled order.
fn dump(bench: &Bench) -> Vec<String> {
    let path = bench.data_dir().join("index.db");
    let index =
        rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
            .unwrap();
    let tables: Vec<String> = {
        let mut names = index
            .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
            .unwrap();
        let names = names.query_map([], |row| row.get(0)).unwrap();
        names.map(Result::unwrap).collect()
    };
    tables.iter().flat_map(|table| dump_table(&index, table)).collect()
}

fn dump_table(index: &rusqlite::Connection, table: &str) -> Vec<String> {
    let mut statement = index.prepare(&format!("SELECT * FROM \"{table}\"")).unwrap();
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| {
        let values: Vec<rusqlite::types::Value> =
            (0..columns).map(|n| row.get(n)).collect::<Result<_, _>>()?;
        Ok(format!("{table}: {values:?}"))
    });
    let mut rows: Vec<_> = rows.unwrap().map(Result::unwrap).collect();
    rows.sort();
    rows
}

/// While a gate writes for a run, the index is its own; an idle gate makes way.
#[test]
fn not_beside_a_run() {
    let bench = Bench::new();
    let run = bench.hold_a_run();
    let output = finish(bench.agent_gate(&["reindex"])).exits(125);
    assert_eq!(output.own_lines().len(), 1, "{output:?}");
    run.finish().ok();
    finish(bench.agent_gate(&["reindex"])).ok();
    assert_eq!(bench.gate(), None);
}
