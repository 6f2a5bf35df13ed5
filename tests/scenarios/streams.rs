//! Server-sent events through the gate: each arrives before the next is sent.
//!
//! Not by the clock: the origin sends an event only after the test has seen the one before it at the
//! client. A gate that held events back would stop the stream for good.

use std::io::{BufRead, BufReader};

use crate::support::bench::{Bench, Started};
use crate::support::journal::compare;

#[test]
fn events_arrive_one_by_one() {
    let bench = Bench::new();
    let url = "https://sse.test/sse?n=12&steps=seen";
    let mut run = Started::with_stdout_left(bench.run_command(&[], &["curl", "-sSfN", url]));
    let mut lines = BufReader::new(run.child.stdout.take().expect("a pipe")).lines();
    for n in 0..12 {
        let expected = format!("data: {{\"n\":{n}}}");
        let found = lines.by_ref().map(Result::unwrap).find(|line| line.starts_with("data:"));
        assert_eq!(found, Some(expected));
        bench.origin.release("seen", 1);
    }
    run.finish().ok();
    assert_eq!(compare(&bench.journal(), &bench.origin), 1);
}

/// One event a second, as an agent's model would send them, and the whole stream on disk.
#[test]
fn an_event_a_second() {
    let bench = Bench::new();
    let output = bench.run_sh("curl -sSfN 'https://sse.test/sse?n=4&ms=1000'").ok().text();
    assert_eq!(output.matches("event: tick").count(), 4, "{output}");
    assert_eq!(compare(&bench.journal(), &bench.origin), 1);
}

/// The form in which Anthropic's Messages API answers.
#[test]
fn a_stream_of_the_messages_api() {
    let bench = Bench::new();
    let script = "curl -sSfN https://api.anthropic.com/v1/messages -H 'x-api-key: made-up' \
                  -H 'anthropic-version: 2023-06-01' -H 'content-type: application/json' \
                  -d '{\"model\":\"claude-test\",\"stream\":true,\"messages\":[]}'";
    let output = bench.run_sh(script).ok().text();
    assert!(output.contains("Grüße") && output.contains("message_stop"), "{output}");
    assert_eq!(compare(&bench.journal(), &bench.origin), 1);
    assert_eq!(bench.journal().exchanges()[0].response_body(), output.as_bytes());
}

/// A stream whose reader leaves is recorded as cut by the client, with what had arrived until then.
#[test]
fn a_stream_that_the_client_leaves() {
    let bench = Bench::new();
    let url = "https://sse.test/sse?n=50&steps=never";
    let script = format!("curl -sSfN '{url}' | head -n 4 >seen; true");
    let mut run = Started::new(bench.run_command(&[], &["timeout", "60", "sh", "-c", &script]));
    // curl notices only when it writes again; the second event makes it.
    crate::support::wait_for("the first event at the client", || {
        let seen = std::fs::read_to_string(bench.work().join("seen")).unwrap_or_default();
        seen.contains("data").then_some(())
    });
    bench.origin.release("never", 1);
    assert!(run.child.wait().unwrap().success());
    bench.origin.release("never", 100);
    drop(run.finish());
    let exchange = bench.journal().only("/sse?n=50&steps=never");
    assert_eq!(exchange.outcome(), "cut_by_client", "{}", exchange.answer());
    assert!(exchange.response_body().starts_with(b"event: tick\nid: 0\n"));
}
