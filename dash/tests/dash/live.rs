//! The long poll: woken by what is committed, complete, and bounded.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use agent_gate_dash::{Notices, Polling, Server};
use agent_gate_store::record::Body;
use agent_gate_store::{Id, Record};

use crate::support::{Fixture, Reply, request, response};

#[test]
fn a_waiting_page_is_woken_by_each_change_of_a_row() {
    let fixture = Fixture::new();
    let (run, other) = (fixture.run("claude"), fixture.run("other"));
    let request = request(run);
    let wait =
        |after: u64, run: Id| fixture.ask(&format!("/api/exchanges?after={after}&run={run}"));
    let before = fixture.seq();
    let (mine, foreign) = (wait(before, run), wait(before, other));
    fixture.write(&Record::Request(request.clone()));
    let answer = Reply::read(mine).json();
    assert_eq!(answer["rows"][0]["id"], request.id.to_string());
    assert!(answer["rows"][0]["outcome"].is_null());
    assert!(answer["seq"].as_u64().unwrap() > before);
    assert_eq!(Reply::read(foreign).json()["rows"].as_array().unwrap().len(), 0);

    let mine = wait(answer["seq"].as_u64().unwrap(), run);
    fixture.write(&Record::Response(response(&request, Vec::new(), Body::empty())));
    let answer = Reply::read(mine).json();
    assert_eq!(answer["rows"][0]["id"], request.id.to_string());
    assert_eq!(answer["rows"][0]["status"], 200);
    assert_eq!(answer["rows"][0]["outcome"], "complete");
}

#[test]
fn a_page_that_fell_behind_gets_everything_in_turns() {
    let fixture = Fixture::new();
    let run = fixture.run("claude");
    let records: Vec<_> = (0..1100).map(|_| Record::Request(request(run))).collect();
    fixture.write_all(&records);
    let (mut after, mut rows) = (0, 0);
    while after < fixture.seq() {
        let answer = fixture.get(&format!("/api/exchanges?after={after}")).json();
        after = answer["seq"].as_u64().unwrap();
        rows += answer["rows"].as_array().unwrap().len();
    }
    assert_eq!(rows, 1100);
}

/// 70 pages ask, 64 may wait: the surplus is told at once, the others by the next record, and
/// other requests are answered all the while.
#[test]
fn waiting_pages_are_bounded_and_leave_room_for_others() {
    let fixture = Fixture::new();
    let target = format!("/api/exchanges?after={}", fixture.seq());
    let readers: Vec<_> = (0..70)
        .map(|_| fixture.ask(&target))
        .map(|stream| thread::spawn(|| Reply::read(stream).status))
        .collect();
    while readers.iter().filter(|reader| reader.is_finished()).count() < 6 {
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(fixture.get("/").status, 200);
    fixture.run("claude");
    let statuses: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    assert_eq!(statuses.iter().filter(|&&status| status == 503).count(), 6);
    assert_eq!(statuses.iter().filter(|&&status| status == 200).count(), 64);
}

#[test]
fn a_dashboard_without_a_gate_sees_what_another_process_commits() {
    let fixture = Fixture::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let changes = Box::new(Polling::new(fixture.layout.clone()));
    let server =
        Server::start(listener, fixture.layout.clone(), changes, Notices::default()).unwrap();
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let (port, after) = (server.address().port(), fixture.seq());
    write!(
        stream,
        "GET /api/exchanges?after={after} HTTP/1.1\r\nHost: localhost:{port}\r\n\
         Connection: close\r\n\r\n"
    )
    .unwrap();
    fixture.write(&Record::Request(request(Id::new())));
    assert_eq!(Reply::read(stream).json()["rows"].as_array().unwrap().len(), 1);
    server.stop();
}
