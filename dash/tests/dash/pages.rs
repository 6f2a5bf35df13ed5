//! What the pages show, and that captured text can neither become markup nor give credentials away.

use agent_gate_store::record::{
    Body, Field, Flag, Mode, Outcome, Refused, RefusedBy, RunEnd, Transferred, Tunnel,
};
use agent_gate_store::{Id, Record, Timestamp};

use crate::support::{Fixture, content_type, request, response, run};

const SCRIPT: &str = "<script>alert('x')</script>";

#[test]
fn an_empty_store_says_what_to_do() {
    let fixture = Fixture::new();
    assert!(fixture.page("/").contains("agent-gate run -- claude"));
}

/// `<script>` wherever a captured byte can stand, on each page and in the markup of the API.
#[test]
fn captured_text_never_becomes_markup() {
    let fixture = Fixture::new();
    let mut hostile_run = run(SCRIPT);
    hostile_run.cwd = "\" onmouseover=\"alert(1)".into();
    hostile_run.mode = Mode::Permissive;
    hostile_run.weaker = Some(SCRIPT.into());
    fixture.write(&Record::Run(hostile_run.clone()));
    let exchange = write_hostile_exchange(&fixture, hostile_run.id);

    let mut tunnel = tunnel(hostile_run.id);
    tunnel.host = SCRIPT.into();
    tunnel.sni = Some(SCRIPT.into());
    tunnel.error = Some(SCRIPT.into());
    fixture.write(&Record::Tunnel(tunnel.clone()));
    let mut refused = refused(hostile_run.id);
    refused.host = SCRIPT.into();
    refused.detail = SCRIPT.into();
    refused.request = Some(format!("GET /{SCRIPT}").into());
    fixture.write(&Record::Refused(refused.clone()));

    for (name, page) in [
        ("index", fixture.page("/")),
        ("run", fixture.page(&format!("/?run={}", hostile_run.id))),
        ("exchange", fixture.page(&format!("/exchange/{exchange}"))),
        ("tunnel", fixture.page(&format!("/exchange/{}", tunnel.id))),
        ("refused", fixture.page(&format!("/exchange/{}", refused.id))),
        ("changes", markup(&fixture.get("/api/exchanges?after=0").json()["rows"])),
        ("runs", markup(&fixture.get("/api/runs").json())),
    ] {
        assert!(!page.contains("<script>"), "{name}: {page}");
        assert!(page.contains("&lt;script&gt;"), "{name}: {page}");
        assert!(!page.contains("\" onmouseover"), "{name}: {page}");
        assert!(!page.contains("style="), "{name}: {page}");
    }
}

fn write_hostile_exchange(fixture: &Fixture, run: Id) -> Id {
    let mut request = request(run);
    request.host = SCRIPT.into();
    request.scheme = SCRIPT.into();
    request.head.method = SCRIPT.into();
    request.head.target = format!("/{SCRIPT}?a={SCRIPT}\"'").into();
    request.head.version = SCRIPT.into();
    request.head.fields = vec![
        Field::new(SCRIPT, SCRIPT.as_bytes()),
        Field::new("Content-Type", format!("application/json; {SCRIPT}").into_bytes()),
        Field::new("authorization", SCRIPT.as_bytes()),
        Field::new("broken", &b"\xff\xfe<script>alert('x')</script>"[..]),
    ];
    request.body = Body::inline(format!("{{\"{SCRIPT}\":[\"{SCRIPT}\",1]}}").into_bytes());
    request.trailers = vec![Field::new(SCRIPT, SCRIPT.as_bytes())];
    let events = format!("event: {SCRIPT}\nid: {SCRIPT}\ndata: {SCRIPT}\ndata: {SCRIPT}\n\n");
    let body = Body::inline(events.into_bytes());
    let mut answer = response(&request, content_type("text/event-stream"), body);
    answer.error = Some(SCRIPT.into());
    answer.head.as_mut().unwrap().reason = SCRIPT.into();
    fixture.write(&Record::Request(request.clone()));
    fixture.write(&Record::Response(answer));
    request.id
}

/// What the script of the page would put in.
fn markup(rows: &serde_json::Value) -> String {
    rows.as_array().unwrap().iter().map(|row| row["html"].as_str().unwrap()).collect()
}

#[test]
fn credentials_are_masked_wherever_a_page_shows_them() {
    let fixture = Fixture::new();
    let mut request = request(fixture.run("claude"));
    let secret = "made-up-0123456789-wxyz";
    let names =
        ["Authorization", "cookie", "X-Api-Key", "api-key", "x-goog-api-key", "X-Auth-Token"];
    request.head.target = format!("/g?alt=sse&key={secret}").into();
    request.head.fields = names.iter().map(|name| Field::new(*name, secret.as_bytes())).collect();
    request.head.fields.push(Field::new("X-Plain", &b"shown-as-it-is"[..]));
    let fields = vec![Field::new("Set-Cookie", secret.as_bytes()); 2];
    fixture.exchange(&request, fields, Body::empty());

    let page = fixture.page(&format!("/exchange/{}", request.id));
    assert!(!page.contains("0123456789"));
    for name in names {
        assert!(page.contains(&format!("<th>{name}</th><td>••••••wxyz</td>")), "{name}");
    }
    assert_eq!(page.matches("<th>Set-Cookie</th><td>••••••wxyz</td>").count(), 2);
    assert!(page.contains("shown-as-it-is"));
    for target in ["/", "/api/exchanges?after=0"] {
        let page = fixture.page(target);
        assert!(!page.contains("0123456789"), "{target}");
        assert!(page.contains("alt=sse"), "{target}");
    }
}

#[test]
fn fields_are_shown_line_by_line_in_their_order() {
    let fixture = Fixture::new();
    let request = request(fixture.run("claude"));
    let fields = ["1", "2", "3"].map(|value| Field::new("X-Repeat", value.as_bytes()));
    fixture.exchange(&request, fields.to_vec(), Body::empty());
    let page = fixture.page(&format!("/exchange/{}", request.id));
    let place = |value| page.find(&format!("<th>X-Repeat</th><td>{value}</td>")).unwrap();
    assert!([1, 2, 3].map(place).is_sorted());
}

#[test]
fn tunnels_and_refusals_have_one_pane() {
    let fixture = Fixture::new();
    let run = fixture.run("claude");
    let (tunnel, refused) = (tunnel(run), refused(run));
    fixture.write(&Record::Tunnel(tunnel.clone()));
    fixture.write(&Record::Refused(refused.clone()));
    let page = fixture.page(&format!("/exchange/{}", tunnel.id));
    assert!(page.contains("Passed through unread") && page.contains("2.0 KB"));
    let page = fixture.page(&format!("/exchange/{}", refused.id));
    assert!(page.contains("on the denylist") && page.contains("remove it"));
    assert_eq!(fixture.get(&format!("/body/{}/request", tunnel.id)).status, 404);
    assert_eq!(fixture.get(&format!("/body/{}/response", refused.id)).status, 404);
    let index = fixture.page("/");
    assert!(index.contains("tunnel") && index.contains("refused"));
}

#[test]
fn what_is_odd_has_a_label() {
    let fixture = Fixture::new();
    let run = fixture.run("claude");
    let (mut plain, mut odd) = (request(run), request(run));
    (plain.host, odd.host) = ("plain.example".into(), "odd.example".into());
    odd.flags = vec![Flag::HostMismatch];
    let mut tunnel = tunnel(run);
    tunnel.flags = vec![Flag::ClientDistrust];
    let ids = [plain.id, odd.id, tunnel.id];
    fixture.write_all(&[Record::Request(plain), Record::Request(odd), Record::Tunnel(tunnel)]);
    for target in ["/", "/api/exchanges?after=0"] {
        let page = fixture.page(target);
        assert_eq!(page.matches("host mismatch").count(), 1, "{page}");
        assert_eq!(page.matches("client distrust").count(), 1, "{page}");
    }
    let pages = ids.map(|id| fixture.page(&format!("/exchange/{id}")));
    assert!(!pages[0].contains("class=\"flag\""));
    assert!(pages[1].contains("host mismatch") && pages[2].contains("client distrust"));
}

#[test]
fn a_notice_stands_on_every_page_until_it_is_taken_back() {
    let fixture = Fixture::new();
    let request = request(fixture.run("claude"));
    fixture.exchange(&request, Vec::new(), Body::empty());
    let targets = ["/".to_owned(), format!("/exchange/{}", request.id), "/nowhere".to_owned()];
    let stands = || {
        let bodies = targets.iter().map(|target| fixture.get(target).body);
        bodies.filter(|body| String::from_utf8_lossy(body).contains("list:2: &lt;")).count()
    };
    assert_eq!(stands(), 0);
    fixture.notices.set(vec!["list:2: <x> is no host".to_owned()]);
    assert_eq!(stands(), targets.len());
    fixture.notices.set(Vec::new());
    assert_eq!(stands(), 0);
}

#[test]
fn runs_show_their_mode_reason_and_end() {
    let fixture = Fixture::new();
    let mut weaker = run("codex");
    weaker.mode = Mode::Permissive;
    weaker.weaker = Some("no user namespaces".into());
    fixture.write(&Record::Run(weaker.clone()));
    assert!(fixture.page("/").contains("not ended"));
    let end = RunEnd {
        id: Id::new(),
        run: weaker.id,
        at: Timestamp::now(),
        status: Some(130),
        reason: None,
        exchanges: 0,
    };
    fixture.write(&Record::RunEnd(end));
    let page = fixture.page("/");
    for text in ["codex", "mode permissive", "no user namespaces", "exit 130", "0 exchanges"] {
        assert!(page.contains(text), "{text} not in {page}");
    }
}

/// Two runs' exchanges, walked by the links of the pages: each once, newest first.
#[test]
fn older_pages_hold_every_exchange_once() {
    let fixture = Fixture::new();
    let (one, two) = (fixture.run("one"), fixture.run("two"));
    let requests: Vec<_> =
        (0..250).map(|number| request(if number % 5 == 0 { two } else { one })).collect();
    let records: Vec<_> = requests.iter().cloned().map(Record::Request).collect();
    fixture.write_all(&records);
    let ids: Vec<_> = requests.iter().rev().map(|request| (request.id, request.run)).collect();
    for (start, run, pages) in [("/".to_owned(), None, 3), (format!("/?run={one}"), Some(one), 2)] {
        let expected: Vec<_> = ids
            .iter()
            .filter(|(_, of)| run.is_none_or(|run| run == *of))
            .map(|(id, _)| id.to_string())
            .collect();
        let (seen, walked) = walk(&fixture, start);
        assert_eq!(seen, expected);
        assert_eq!(walked, pages);
    }
}

/// The ids on this page and all older ones, and how many pages that were.
fn walk(fixture: &Fixture, start: String) -> (Vec<String>, usize) {
    let (mut seen, mut walked) = (Vec::new(), 0);
    let mut next = Some(start);
    while let Some(target) = next {
        let page = fixture.page(&target);
        seen.extend(page.split("<tr id=\"x-").skip(1).map(|row| row[..26].to_owned()));
        walked += 1;
        let link = page.split("id=\"older\" href=\"").nth(1);
        next = link.map(|rest| rest.split('"').next().unwrap().replace("&amp;", "&"));
    }
    (seen, walked)
}

fn tunnel(run: Id) -> Tunnel<'static> {
    Tunnel {
        id: Id::new(),
        run,
        at: Timestamp::now(),
        client: "127.0.0.1:40000".parse().unwrap(),
        host: "pass.example".into(),
        port: 443,
        address: None,
        via: None,
        sni: None,
        passthrough: true,
        outcome: Outcome::Complete,
        error: None,
        flags: Vec::new(),
        transferred: Transferred { sent: 2000, received: 5 },
        duration_us: 1000,
    }
}

fn refused(run: Id) -> Refused<'static> {
    Refused {
        id: Id::new(),
        run,
        at: Timestamp::now(),
        flow: Id::new(),
        client: "127.0.0.1:40000".parse().unwrap(),
        host: "bad.example".into(),
        port: 443,
        sni: None,
        request: Some("GET /x".into()),
        by: RefusedBy::Denylisted,
        detail: "denylist.txt names bad.example; remove it there to allow it".into(),
        flags: Vec::new(),
    }
}
