//! Answers under content codings, sound and flawed.

use std::io::{self, ErrorKind};

use super::answer::Answer;
use super::log::Seen;
use super::{Shared, routes};
use crate::support::coding::{Encoder, encode, field_value, text};

/// `/coded?as=LIST&of=text|zeros&n=&flaw=`
pub(super) fn body(seen: &Seen, answer: &mut Answer<'_>) -> io::Result<()> {
    let list = seen.query("as").expect("codings");
    let bytes = routes::usize_of(seen.number("n", 100_000));
    let plain = match seen.query("of").unwrap_or("text") {
        "text" => text(bytes),
        "zeros" => vec![0; bytes],
        other => panic!("no content {other:?}"),
    };
    let mut coded = encode(list, &plain);
    let middle = coded.len() / 2;
    match seen.query("flaw").unwrap_or_default() {
        "" => {}
        "truncated" => coded.truncate(middle),
        "corrupt" => coded[middle..middle + 40].fill(0xff),
        "trailing" => coded.extend_from_slice(b"<!-- served by -->"),
        other => panic!("no flaw {other:?}"),
    }
    let value = field_value(seen.query("called").unwrap_or(list));
    answer.whole(200, &[("Content-Encoding", &value), ("Content-Type", "text/plain")], &coded)
}

/// `/coded-sse?as=CODING&n=&steps=`: each event is flushed, and waits for the signal `steps`.
pub(super) fn events(seen: &Seen, answer: &mut Answer<'_>, shared: &Shared) -> io::Result<()> {
    let name = seen.query("as").expect("a coding");
    let fields = [
        ("Content-Type", "text/event-stream"),
        ("Content-Encoding", name),
        ("Transfer-Encoding", "chunked"),
    ];
    answer.head(200, &fields)?;
    let mut encoder = Encoder::new(name);
    for n in 0..seen.number("n", 3) {
        if n > 0 && seen.query("steps").is_some_and(|name| !shared.signals.acquire(name)) {
            return Err(ErrorKind::Interrupted.into());
        }
        let event = format!("event: tick\nid: {n}\ndata: {{\"n\":{n}}}\n\n");
        answer.chunk(&encoder.flush(event.as_bytes()))?;
    }
    let end = encoder.finish();
    if !end.is_empty() {
        answer.chunk(&end)?;
    }
    answer.last_chunk(&[])
}
