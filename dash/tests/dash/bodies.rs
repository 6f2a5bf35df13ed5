//! Bodies: readable on the page within a bound, exact as a download.

use agent_gate_store::Id;
use agent_gate_store::record::{Body, CodingFlaw, Decoded, Field, Request, RequestHead};

use crate::support::{Fixture, content_type, request};

#[test]
fn bodies_are_shown_in_their_most_readable_form() {
    let fixture = Fixture::new();
    let run = fixture.run("claude");
    let unknown = vec![
        Field::new("content-encoding", &b"compress"[..]),
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
        (unknown, b"\x1f\x9d\xff", &["is not known", "(compress)", "1f 9d ff"]),
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

/// What the gate records of a coded body.
fn coded(coding: &str, wire: &[u8], bytes: usize, flaw: Option<CodingFlaw>) -> Body<'static> {
    let decoded = Decoded { codings: vec![coding.to_owned()], bytes: bytes as u64, flaw };
    Body { decoded: Some(decoded), ..Body::inline(wire.to_vec()) }
}

#[test]
fn a_coded_body_is_shown_decoded() {
    let fixture = Fixture::new();
    let run = fixture.run("claude");
    let fields = |kind: &str| {
        let coding = Field::new("Content-Encoding", &b"zstd"[..]);
        [vec![coding], content_type(kind)].concat()
    };
    let plain = br#"{"a":1,"b":"<i>"}"#;
    let wire = zstd::bulk::compress(plain, 3).unwrap();
    let request = Request { body: coded("zstd", &wire, 17, None), ..request(run) };
    let head = RequestHead { fields: fields("application/json"), ..request.head.clone() };
    let request = Request { head, ..request };
    let stream = zstd::bulk::compress(b"event: tick\ndata: 1\n\n", 3).unwrap();
    let answer = coded("zstd", &stream, 22, None);
    fixture.exchange(&request, fields("text/event-stream"), answer);
    let page = fixture.page(&format!("/exchange/{}", request.id));
    for text in [
        "Decoded · 17 B",
        "{\n  <b>&quot;a&quot;</b>: <i>1</i>",
        "&quot;&lt;i&gt;&quot;",
        "<b>tick</b>",
        &format!("href=\"/body/{}/request\">raw bytes", request.id),
        &format!("href=\"/body/{}/response/decoded\">decoded bytes", request.id),
    ] {
        assert!(page.contains(text), "{text} not in {page}");
    }
    let reply = fixture.get(&format!("/body/{}/request", request.id));
    assert_eq!(reply.body, wire);
    let reply = fixture.get(&format!("/body/{}/request/decoded", request.id));
    assert_eq!(reply.body, plain);
    assert_eq!(reply.field("Content-Type"), Some("application/octet-stream"));
    assert!(reply.field("Content-Security-Policy").is_some());
    let disposition = format!("attachment; filename=\"{}-request-decoded.bin\"", request.id);
    assert_eq!(reply.field("Content-Disposition"), Some(disposition.as_str()));
}

#[test]
fn what_is_wrong_with_a_coded_body_is_said() {
    let fixture = Fixture::new();
    let run = fixture.run("claude");
    let mut noise = 1_u32;
    let long: String = std::iter::repeat_with(|| {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        format!("{noise:x} ")
    })
    .take(100_000)
    .collect();
    let whole = zstd::bulk::compress(long.as_bytes(), 1).unwrap();
    let half = &whole[..whole.len() / 2];
    let size = long.len();
    let bomb = Some(CodingFlaw::Bomb);
    let cut = Some(CodingFlaw::Truncated);
    for (body, expected, has_download) in [
        (coded("zstd", &whole, size, None), "Shown: the first 262 KB of ", true),
        (coded("zstd", half, size / 2, cut), "It ends before", false),
        (coded("zstd", &whole, 4 << 20, bomb), "decoding stopped", false),
        (coded("zstd", b"not zstd", 0, Some(CodingFlaw::Corrupt)), "is not what", false),
        // A record of before there was decoding.
        (Body::inline(whole.clone()), "Shown: the first 262 KB.", false),
        (Body::inline(half.to_vec()), "Shown: the first 262 KB.", false),
        (Body::inline(&half[..7]), "It ends before", false),
        // Cut at the capture bound: not a flaw.
        (
            Body { bytes: whole.len() as u64, ..coded("zstd", half, size, None) },
            "were kept (the capture bound)",
            false,
        ),
    ] {
        let request = request(run);
        let fields = vec![Field::new("content-encoding", &b"zstd"[..])];
        let is_bound = body.bytes > body.kept_bytes();
        fixture.exchange(&request, fields, body);
        let page = fixture.page(&format!("/exchange/{}", request.id));
        assert!(page.contains(expected), "{expected} not in {page:.4000}");
        assert!(!is_bound || !page.contains("It ends before"), "{page:.4000}");
        let target = format!("/body/{}/response/decoded", request.id);
        assert_eq!(page.contains(&target), has_download, "{expected}");
        assert_eq!(fixture.get(&target).status, if has_download { 200 } else { 404 });
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
        for coding in ["gzip", "deflate", "br", "zstd", "br, gzip"] {
            let request = Request { id: Id::new(), ..request.clone() };
            let mut fields = content_type(kind);
            fields.push(Field::new("Content-Encoding", coding.as_bytes()));
            fixture.exchange(&request, fields, Body::inline(bytes.clone()));
            fixture.page(&format!("/exchange/{}", request.id));
        }
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
