//! What a user looks at: `tail`, the dashboard, `demo`, `version`.

use std::io::{BufRead, BufReader};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::bench::{Bench, Started, finish};
use crate::support::http::{get, get_page};
use crate::support::processes;
use crate::support::wait_for;
use crate::websocket_frames;

/// Follows the next three exchanges; returns the lines that `tail` printed of them.
fn tail(options: &[&str]) -> Vec<String> {
    let bench = Bench::new();
    bench.run_sh("curl -sSf https://before.test/?before").ok();
    bench.journal().only("/?before");
    let args = [&["tail"], options].concat();
    let mut tail = Started::with_stdout_left(bench.agent_gate(&args));
    let mut lines = BufReader::new(tail.child.stdout.take().expect("a pipe")).lines();
    // Whether it starts with what is there already is its own affair: follow until the last.
    let mut found = Vec::new();
    for n in 0..3 {
        bench.run_sh(&format!("curl -sSf -d hi 'https://tail{n}.test/?n={n}'")).ok();
        let line = lines.by_ref().map(Result::unwrap).find(|l| !l.contains("before.test"));
        found.push(line.expect("a line"));
    }
    processes::signal(tail.pid(), Signal::SIGTERM);
    drop(tail.finish());
    found
}

#[test]
fn tail_prints_one_line_an_exchange() {
    for (n, line) in tail(&[]).iter().enumerate() {
        for part in ["POST", "200", &format!("tail{n}.test")] {
            assert!(line.contains(part), "{part} is not in {line:?}");
        }
    }
}

#[test]
fn tail_prints_json() {
    for (n, line) in tail(&["--json"]).iter().enumerate() {
        let row: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert_eq!(row["host"], format!("tail{n}.test"), "{row}");
        assert_eq!(row["status"], 200, "{row}");
    }
}

/// One line, when it has ended, with its messages instead of its bytes; and the page has them all.
#[test]
fn a_websocket_is_told_by_its_messages() {
    let bench = Bench::new();
    bench.run_sh("curl -sSf https://before.test/?before").ok();
    bench.journal().only("/?before");
    let mut tail = Started::with_stdout_left(bench.agent_gate(&["tail"]));
    let mut lines = BufReader::new(tail.child.stdout.take().expect("a pipe")).lines();
    let exchange = websocket_frames::a_small_one(&bench);
    let line = lines.by_ref().map(Result::unwrap).find(|line| line.contains("/ws?"));
    let line = line.expect("a line");
    assert!(
        line.contains("GET http://ws.test/ws?") && line.contains(" 101 3+2 messages"),
        "{line}"
    );
    processes::signal(tail.pid(), Signal::SIGTERM);
    drop(tail.finish());

    let id = exchange.request["id"].as_str().unwrap();
    let page = get_page(bench.dashboard_port, &format!("/exchange/{id}"));
    assert_eq!(page.status, 200, "{page:?}");
    for text in [">one<", ">two<", ">three<", ">there?<", ">empty<", "3 sent, 2 received"] {
        assert!(page.body.contains(text), "{text} is not in {page:?}");
    }
}

#[test]
fn the_dashboard_shows_runs_exchanges_and_bodies() {
    let bench = Bench::new();
    let body = "<script>alert('from the body')</script>";
    let script = format!("curl -sSf -d \"{body}\" 'https://page.test/echo?seen=on-the-page'");
    bench.run_sh(&script).ok();
    let exchange = bench.journal().only("/echo?seen=on-the-page");
    // The index follows the journal, and the page the index.
    let home = wait_for("the exchange on the page", || {
        let home = get_page(bench.dashboard_port, "/");
        assert_eq!(home.status, 200, "{home:?}");
        home.body.contains("page.test").then_some(home)
    });
    let head = home.head.to_ascii_lowercase();
    assert!(head.contains("content-security-policy:"), "{head}");
    assert!(!head.contains("unsafe-inline"), "{head}");

    // The page of the exchange is linked; its bodies are text, whatever they hold.
    let id = exchange.request["id"].as_str().unwrap();
    let link = home
        .body
        .split('"')
        .find(|part| part.starts_with('/') && part.contains(id))
        .expect("a link")
        .to_owned();
    let page = get_page(bench.dashboard_port, &link);
    assert_eq!(page.status, 200, "{page:?}");
    assert!(page.body.contains("on-the-page"), "{page:?}");
    assert!(page.body.contains("alert("), "the body is on the page: {page:?}");
    assert!(!page.body.contains(body), "the body is markup: {page:?}");
}

/// Only a browser that was pointed here may read: another host name (DNS rebinding) and another
/// site's origin are turned away.
#[test]
fn the_dashboard_checks_who_asks() {
    let bench = Bench::new();
    bench.run(&["true"]).ok();
    let port = bench.dashboard_port;
    for fields in [
        "Host: evil.test\r\n".to_owned(),
        format!("Host: evil.test:{port}\r\n"),
        String::new(),
        format!("Host: 127.0.0.1:{port}\r\nOrigin: https://evil.test\r\n"),
        format!("Host: 127.0.0.1:{port}\r\nOrigin: null\r\n"),
    ] {
        let answer = get(port, "/", &fields);
        assert!((400..500).contains(&answer.status), "{fields:?}: {answer:?}");
        assert!(!answer.body.contains("/runs"), "{fields:?}: {answer:?}");
    }
    for fields in [format!("Host: localhost:{port}\r\n"), format!("Host: 127.0.0.1:{port}\r\n")] {
        assert_eq!(get(port, "/", &fields).status, 200, "{fields:?}");
    }
}

/// The pages over the data folder when no gate runs.
#[test]
fn a_dashboard_without_a_gate() {
    let bench = Bench::new();
    bench.run_sh("curl -sSf https://later.test/?later").ok();
    bench.journal().only("/?later");
    bench.stop_gate();
    let dashboard = Started::new(bench.agent_gate(&["dashboard"]));
    let home = wait_for("the dashboard to listen", || {
        std::net::TcpStream::connect(("127.0.0.1", bench.dashboard_port)).ok()?;
        Some(get_page(bench.dashboard_port, "/"))
    });
    assert!(home.body.contains("later.test"), "{home:?}");
    processes::signal(dashboard.pid(), Signal::SIGTERM);
    drop(dashboard.finish());
}

/// README's first command and the smoke test: it needs nothing and leaves nothing.
#[test]
fn demo_once() {
    let bench = Bench::new();
    let mut demo = bench.agent_gate(&["demo", "--once"]);
    // Nothing of it leaves this machine, so the user's proxies are no concern of it.
    demo.env("ALL_PROXY", "socks5://nowhere.invalid:1");
    let output = finish(demo).ok();
    let text = output.text().to_ascii_lowercase();
    assert!(text.contains("/v1/messages"), "{output:?}");
    assert!(!bench.data_dir().join("journal").exists(), "the demo has a folder of its own");
    let left: Vec<_> = std::fs::read_dir(bench.path("tmp")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn version() {
    let bench = Bench::new();
    let output = finish(bench.agent_gate(&["version"])).ok();
    assert!(output.text().contains(env!("CARGO_PKG_VERSION")), "{output:?}");
}

#[test]
fn unknown_options_are_refused() {
    let bench = Bench::new();
    let output = finish(bench.agent_gate(&["run", "--no-such-option", "--", "true"])).exits(125);
    assert!(output.stderr.contains("--no-such-option"), "{output:?}");
}
