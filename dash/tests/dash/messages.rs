//! Messages of WebSockets: in order on the page of their exchange, each with a page of its own.

use agent_gate_store::Record;
use agent_gate_store::record::{Body, Direction, Flaw, Message, MessageKind, Request};

use crate::support::{Fixture, message, request};

fn write(fixture: &Fixture, request: &Request<'static>, messages: Vec<Message<'static>>) {
    fixture.write(&Record::Request(request.clone()));
    let records: Vec<_> = messages.into_iter().map(Record::Message).collect();
    fixture.write_all(&records);
}

/// The positions that the links of a page name, in order.
fn listed(page: &str, request: &Request<'_>) -> Vec<u64> {
    let link = format!("<a href=\"/exchange/{}/message/", request.id);
    let links = page.split(&link).skip(1);
    links.map(|rest| rest.split('"').next().unwrap().parse().unwrap()).collect()
}

#[test]
fn a_message_is_listed_shown_and_downloaded() {
    let fixture = Fixture::new();
    let request = request(fixture.run("codex"));
    let hello = message(&request, 1, Body::inline(&b"{\"a\":\"<script>\"}"[..]));
    let mut binary = message(&request, 1, Body::inline(vec![0, 0xff, b'<']));
    (binary.kind, binary.direction) = (MessageKind::Binary, Direction::Received);
    (binary.compressed, binary.frames) = (true, 3);
    let mut close = message(&request, 2, Body::empty());
    (close.kind, close.close_code, close.complete) = (MessageKind::Close, Some(1006), false);
    close.flaws = vec![Flaw::CloseCodeInvalid];
    write(&fixture, &request, vec![hello, binary, close]);

    let page = fixture.page(&format!("/exchange/{}", request.id));
    let [first, second, third] = listed(&page, &request)[..] else { panic!("{page}") };
    for text in [
        "1 sent, 1 received",
        "{&quot;a&quot;:&quot;&lt;script&gt;&quot;}",
        "close 1006",
        "status code not allowed, cut",
        "None yet",
    ] {
        assert!(page.contains(text), "{text} not in {page}");
    }
    assert!(!page.contains("<script>"), "{page}");
    let list = fixture.page("/");
    assert_eq!(list.matches("1 msg").count(), 2, "{list}");

    let shown = |seq| fixture.page(&format!("/exchange/{}/message/{seq}", request.id));
    assert!(shown(first).contains("<b>&quot;a&quot;</b>: &quot;&lt;script&gt;&quot;"));
    let binary = shown(second);
    assert!(binary.contains("000000  00 ff 3c") && binary.contains("3 frames, compressed"));
    assert!(shown(third).contains("No body"));
    let raw = fixture.get(&format!("/body/{}/message/{second}", request.id));
    assert_eq!((raw.status, &raw.body[..]), (200, &b"\0\xff<"[..]));
    for target in ["exchange", "body"] {
        for seq in [0, third + 1, u64::MAX] {
            let target = format!("/{target}/{}/message/{seq}", request.id);
            assert_eq!(fixture.get(&target).status, 404, "{target}");
        }
    }
}

#[test]
fn later_pages_hold_every_message_once_and_in_order() {
    let fixture = Fixture::new();
    let request = request(fixture.run("codex"));
    let text = |n: u64| message(&request, n, Body::inline(format!("number {n}").into_bytes()));
    write(&fixture, &request, (1..=450).map(text).collect());
    let (mut seen, mut pages) = (Vec::new(), 0);
    let mut next = Some(format!("/exchange/{}", request.id));
    while let Some(target) = next {
        let page = fixture.page(&target);
        seen.extend(listed(&page, &request));
        pages += 1;
        let link = page.split("id=\"later\" href=\"").nth(1);
        next = link.map(|rest| rest.split('"').next().unwrap().to_owned());
    }
    assert_eq!((seen.len(), pages), (450, 3));
    assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
}
