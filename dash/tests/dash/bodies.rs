//! Bodies: readable on the page within a bound, exact as a download.

use agent_gate_store::Id;
use agent_gate_store::record::{Body, Field, Request};

use crate::support::{Fixture, content_type, request};

#[test]
fn bodies_are_shown_in_their_most_readable_form() {
    let fixture = Fixture::new();
    let run = fixture.run("claude");
    let gzip = vec![
        Field::new("content-encoding", &b"gzip"[..]),
        Field::new("content-type", &b"application/json"[..]),
    ];
    let stream = "event: delta\ndata: {\"text\":\ndata: \"hé\"}\n\ndata: cut";
    let cases: [(Vec<Field<'_>>, &[u8], &[&str]); 9] = [
        (
            content_type("application/json"),
            br#"{"a":[1,"b"]}"#,
            &["<b>&quot;a&quot;</b>: [\n    <i>1</i>,\n    &quot;b&quot;\n  ]"],
        ),
        (Vec::new(), br#"{"a":1}"#, &["{\n  <b>"]),
        (content_type("application/json"), b"not json", &["<pre>not json</pre>"]),
        (
            content_type("text/event-stream"),
            stream.as_bytes(),
            &["<b>&quot;text&quot;</b>: &quot;hé&quot;", "<b>message</b> <em>unfinished</em>"],
        ),
        (gzip, b"\x1f\x8b\x08", &["Encoded (gzip)"]),
        (
            content_type("image/png"),
            b"\x89PNG\0<b>",
            &["000000  89 50 4e 47 00 3c 62 3e", "·PNG·&lt;b&gt;"],
        ),
        (content_type("text/plain"), b"\xff\xfeok\x07", &["\u{fffd}\u{fffd}ok\u{2407}"]),
        (content_type("text/plain"), "ünï\u{202e}".as_bytes(), &["ünï\u{27e8}U+202E\u{27e9}"]),
        (content_type("application/octet-stream"), b"plain after all", &["<pre>plain after all"]),
    ];
    for (fields, body, expected) in cases {
        let request = request(run);
        fixture.exchange(&request, fields, Body::inline(body));
        let page = fixture.page(&format!("/exchange/{}", request.id));
        for text in expected {
            assert!(page.contains(text), "{text} not in {page}");
        }
    }
}

#[test]
fn any_bytes_under_any_type_make_a_page() {
    let fixture = Fixture::new();
    let run = fixture.run("claude");
    let mut state = 1_u32;
    for kind in ["application/json", "text/event-stream", "text/html", "image/png", ""] {
        let bytes: Vec<_> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .take(4096)
        .collect();
        let request = request(run);
        fixture.exchange(&request, content_type(kind), Body::inline(bytes.clone()));
        fixture.page(&format!("/exchange/{}", request.id));
        let reply = fixture.get(&format!("/body/{}/response", request.id));
        assert_eq!(reply.body, bytes, "{kind}");
    }
}

/// Neither the stack nor the page grows with the nesting of what was captured.
#[test]
fn deep_nesting_makes_a_page() {
    let fixture = Fixture::new();
    let request = request(fixture.run("claude"));
    for depth in [1000, 100_000, 300_000] {
        let body = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let stream = format!("data: {body}\n\n");
        for (kind, body) in [("application/json", body), ("text/event-stream", stream)] {
            let request = Request { id: Id::new(), ..request.clone() };
            fixture.exchange(&request, content_type(kind), Body::inline(body.into_bytes()));
            fixture.page(&format!("/exchange/{}", request.id));
        }
    }
}

#[test]
fn raw_bodies_are_exact_downloads() {
    let fixture = Fixture::new();
    let mut request = request(fixture.run("claude"));
    let all: Vec<u8> = (0..=255).collect();
    request.body = Body::inline(all.clone());
    fixture.exchange(&request, content_type("text/html"), Body::empty());
    let reply = fixture.get(&format!("/body/{}/request", request.id));
    assert_eq!(reply.body, all);
    assert_eq!(reply.field("Content-Type"), Some("application/octet-stream"));
    let disposition = format!("attachment; filename=\"{}-request.bin\"", request.id);
    assert_eq!(reply.field("Content-Disposition"), Some(disposition.as_str()));
    let reply = fixture.get(&format!("/body/{}/response", request.id));
    assert_eq!((reply.status, reply.body.len()), (200, 0));
}

#[test]
fn a_big_body_is_shown_in_part_and_downloaded_whole() {
    let fixture = Fixture::new();
    let request = request(fixture.run("claude"));
    // 23 bytes: a two-byte character stands across the end of what is shown.
    let line = "0123456789abcdef\u{fc}\u{fc}\u{fc}x";
    let text: String = std::iter::repeat_n(line, 12 * 1024 * 1024 / line.len()).collect();
    let body = fixture.side_file(text.as_bytes());
    fixture.exchange(&request, content_type("text/plain"), body);
    let page = fixture.page(&format!("/exchange/{}", request.id));
    assert!(page.contains("Shown: the first 262 KB of 12 MB"));
    assert!(page.len() < 300 * 1024);
    assert!(!page.contains('\u{fffd}'));
    let reply = fixture.get(&format!("/body/{}/response", request.id));
    assert!(reply.body == text.as_bytes());
}

#[test]
fn a_body_that_is_gone_costs_only_its_pane() {
    let fixture = Fixture::new();
    let request = request(fixture.run("claude"));
    let body = fixture.side_file(b"soon gone");
    fixture.exchange(&request, content_type("text/plain"), body);
    std::fs::remove_dir_all(fixture.layout.bodies_dir()).unwrap();
    let page = fixture.page(&format!("/exchange/{}", request.id));
    assert!(page.contains("It cannot be read"));
    assert_eq!(fixture.get(&format!("/body/{}/response", request.id)).status, 503);
}
