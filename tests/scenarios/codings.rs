//! Content codings: what passes is untouched, `Accept-Encoding` included, and what is read beside it
//! is the text. The origin codes with libraries of its own; the clients decode with theirs.
//!
//! Each scenario compares both sides byte for byte, and then looks at what the record says of the
//! coding and at what the page hands out decoded.

use std::io::{BufRead, BufReader};

use serde_json::{Value, json};

use crate::support::bench::{Bench, Started, finish};
use crate::support::coding::{encode, field_value, text};
use crate::support::http::{Answer, get_page};
use crate::support::journal::{Exchange, compare};
use crate::support::python::interpreter;
use crate::support::wait_for;

/// Codings in the order in which the origin applies them.
const LISTS: [&str; 8] =
    ["gzip", "deflate", "raw", "br", "zstd", "gzip,br", "zstd,deflate,gzip", "br,zstd"];

/// `decoded` of a body that is sound.
fn sound(list: &str, bytes: usize) -> Value {
    let field = field_value(list);
    json!({ "codings": field.split(", ").collect::<Vec<_>>(), "bytes": bytes })
}

/// A page of this exchange, once the index has it.
fn page(bench: &Bench, exchange: &Exchange, path: &str) -> Answer {
    let id = exchange.request["id"].as_str().unwrap();
    wait_for("the exchange on the page", || {
        let answer = get_page(bench.dashboard_port, &path.replace("ID", id));
        (answer.status == 200).then_some(answer)
    })
}

#[test]
fn curl_decodes_and_so_does_the_record() {
    let bench = Bench::new();
    let script: String = LISTS
        .map(|list| format!("curl -sSf --compressed 'https://c.test/coded?as={list}' >{list}\n"))
        .concat();
    bench.run_sh(&format!("set -e\n{script}")).ok();
    assert_eq!(compare(&bench.journal(), &bench.origin), LISTS.len());
    for list in LISTS {
        let plain = text(100_000);
        assert!(std::fs::read(bench.work().join(list)).unwrap() == plain, "{list} at curl");
        let exchange = bench.journal().only(&format!("/coded?as={list}"));
        assert!(exchange.response_body() == encode(list, &plain), "{list} on disk");
        let body = &exchange.answer()["body"];
        assert_eq!(body["decoded"], sound(list, plain.len()), "{list}");
        assert!(exchange.request["body"].get("decoded").is_none());
        assert!(exchange.answer().get("events").is_none());
        let decoded = page(&bench, &exchange, "/body/ID/response/decoded");
        assert!(decoded.body.as_bytes() == plain, "{list} as the page reads it");
        let shown = page(&bench, &exchange, "/exchange/ID");
        assert!(shown.body.contains("{&quot;type&quot;:&quot;text_delta&quot;"), "{list}");
    }
}

/// What a client would take is its own affair, whatever it says and however often.
#[test]
fn accept_encoding_is_never_touched() {
    let bench = Bench::new();
    let urls = ["https://c.test/?usual", "https://c.test/?odd", "https://c.test/?none"];
    let [usual, odd, none] = urls;
    let script = format!(
        "curl -sSf --compressed '{usual}'; \
         curl -sSf -H 'accept-ENCODING: zstd;q=0.5, *;q=0' -H 'Accept-Encoding:  br , foo' '{odd}'; \
         curl -sSf '{none}'"
    );
    bench.run_sh(&script).ok();
    // The same curl, straight to the origin.
    let mut direct = bench.command("curl");
    direct.args(["-sSf", "--compressed", "--cacert"]).arg(bench.origin.ca_pem());
    direct.args(["--connect-to", &format!(":443:127.0.0.1:{}", bench.origin.https_port)]);
    finish({
        direct.arg("https://c.test/?direct");
        direct
    })
    .ok();
    let sent = |target: &str| {
        let fields = bench.origin.only(target).fields;
        let is_it = |(name, _): &(String, String)| name.eq_ignore_ascii_case("accept-encoding");
        fields.into_iter().filter(is_it).collect::<Vec<_>>()
    };
    assert_eq!(sent("/?usual"), sent("/?direct"));
    assert!(!sent("/?usual").is_empty());
    let odd = [("accept-ENCODING", "zstd;q=0.5, *;q=0"), ("Accept-Encoding", "br , foo")];
    assert_eq!(sent("/?odd"), odd.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(sent("/?none"), []);
}

/// Compressed events arrive one by one: the origin sends the next when the client has seen the one
/// before. The record counts them.
#[test]
fn compressed_events_arrive_one_by_one() {
    let bench = Bench::new();
    for name in ["gzip", "deflate", "br", "zstd"] {
        let target = format!("/coded-sse?as={name}&n=12&steps={name}");
        let url = format!("https://sse.test{target}");
        let argv = ["curl", "-sSfN", "--compressed", &url];
        let mut run = Started::with_stdout_left(bench.run_command(&[], &argv));
        let mut lines = BufReader::new(run.child.stdout.take().expect("a pipe")).lines();
        let mut bytes = 0;
        for n in 0..12 {
            let expected = format!("data: {{\"n\":{n}}}");
            let found = lines.by_ref().map(Result::unwrap).find(|line| line.starts_with("data:"));
            assert_eq!(found, Some(expected), "{name}");
            bytes += format!("event: tick\nid: {n}\ndata: {{\"n\":{n}}}\n\n").len();
            bench.origin.release(name, 1);
        }
        run.finish().ok();
        let exchange = bench.journal().only(&target);
        let answer = exchange.answer();
        assert_eq!(answer["body"]["decoded"], sound(name, bytes), "{name}");
        assert_eq!(answer["events"], 12, "{name}");
        assert!(answer.get("events_flaw").is_none(), "{answer}");
        let shown = page(&bench, &exchange, "/exchange/ID").body;
        assert_eq!(shown.matches("<b>tick</b>").count(), 12, "{name}");
    }
    assert_eq!(compare(&bench.journal(), &bench.origin), 4);
}

/// Events without a coding are counted too, and a stream that ends within one says so.
#[test]
fn plain_events_are_counted() {
    let bench = Bench::new();
    std::fs::write(bench.work().join("cut"), "data: 1\n\ndata: 2\n\ndata: 3\n").unwrap();
    let script = "curl -sSf 'https://sse.test/sse?n=7'; curl -sSf -H \
                  'Content-Type: text/event-stream' --data-binary @cut https://sse.test/echo?cut; \
                  curl -sSfI 'https://sse.test/coded?as=gzip'";
    bench.run_sh(script).ok();
    let whole = bench.journal().only("/sse?n=7");
    assert_eq!(whole.answer()["events"], 7);
    let cut = bench.journal().only("/echo?cut");
    assert_eq!(cut.answer()["events"], 2);
    assert_eq!(cut.answer()["events_flaw"], "unfinished");
    // A head alone has a coding and nothing under it.
    let head = bench.journal().only("/coded?as=gzip");
    assert!(head.answer()["body"].get("decoded").is_none(), "{}", head.answer());
}

/// codex sends zstd, some send gzip: what was said can be read.
#[test]
fn request_bodies_are_read_decoded() {
    let bench = Bench::new();
    let plain = text(300_000);
    let lists = ["gzip", "zstd", "br", "deflate,zstd"];
    for list in lists {
        std::fs::write(bench.work().join(list), encode(list, &plain)).unwrap();
    }
    let script: String = lists
        .map(|list| {
            let (field, url) = (field_value(list), format!("https://up.test/upload?{list}"));
            format!("curl -sSf -H 'Content-Encoding: {field}' --data-binary @{list} '{url}'\n")
        })
        .concat();
    bench.run_sh(&format!("set -e\n{script}")).ok();
    assert_eq!(compare(&bench.journal(), &bench.origin), lists.len());
    for list in lists {
        let exchange = bench.journal().only(&format!("/upload?{list}"));
        assert_eq!(exchange.request["body"]["decoded"], sound(list, plain.len()), "{list}");
        let decoded = page(&bench, &exchange, "/body/ID/request/decoded");
        assert!(decoded.body.as_bytes() == plain, "{list}");
    }
}

/// What is wrong passes as it is, and is told.
#[test]
fn flawed_bodies_pass_as_they_are() {
    let bench = Bench::new();
    let plain = text(100_000);
    let mut cases = Vec::new();
    for list in ["gzip", "deflate", "raw", "br", "zstd", "zstd,gzip"] {
        for flaw in ["truncated", "corrupt", "trailing"] {
            if (list, flaw) == ("raw", "corrupt") {
                // Without a sum nothing may be wrong with it.
                continue;
            }
            cases.push((format!("/coded?as={list}&flaw={flaw}"), flaw));
        }
    }
    cases.push(("/coded?as=gzip&called=compress".to_owned(), "unsupported"));
    cases.push(("/coded?as=gzip&called=gzip,utf-8".to_owned(), "unsupported"));
    cases.push(("/coded?as=gzip&called=br".to_owned(), "corrupt"));
    cases.push(("/coded?as=wide".to_owned(), "window"));
    let urls: String =
        cases.iter().map(|(target, _)| format!(" 'https://f.test{target}'")).collect();
    bench.run_sh(&format!("curl -sSf {urls} >all")).ok();
    assert_eq!(compare(&bench.journal(), &bench.origin), cases.len());
    let mut arrived = Vec::new();
    for (target, flaw) in &cases {
        let exchange = bench.journal().only(target);
        arrived.extend(exchange.response_body());
        let decoded = &exchange.answer()["body"]["decoded"];
        assert_eq!(decoded["flaw"], **flaw, "{target}: {decoded}");
        assert_eq!(exchange.outcome(), "complete", "{target}");
        let bytes = decoded["bytes"].as_u64().unwrap();
        match *flaw {
            "trailing" => assert_eq!(bytes, plain.len() as u64, "{target}"),
            "unsupported" | "window" => assert_eq!(bytes, 0, "{target}"),
            // A sum that is wrong comes last.
            _ => assert!(bytes <= plain.len() as u64, "{target}: {bytes}"),
        }
        let shown = page(&bench, &exchange, "/exchange/ID").body;
        assert!(shown.contains("note bad"), "{target}: {shown}");
    }
    assert!(std::fs::read(bench.work().join("all")).unwrap() == arrived, "curl got something else");
}

/// A body that swells a thousandfold and more: the client gets it as ever, and decodes it; the
/// record says what it was. What follows on the same connection is not harmed.
#[test]
fn bombs_pass_and_are_told() {
    let bench = Bench::new();
    let bombs = [
        ("gzip", 10_000_000),
        ("gzip,gzip", 10_000_000),
        ("br", 10_000_000),
        ("zstd", 1_000_000_000),
        ("zstd,br", 500_000_000),
    ];
    let urls: String = bombs
        .iter()
        .map(|(list, n)| {
            let of = format!("/coded?as={list}&of=zeros&n={n}");
            format!(" 'https://b.test{of}' 'https://b.test/?after={list}'")
        })
        .collect();
    let script = format!(
        "curl -sSf {urls} >/dev/null && curl -sSf --compressed \
         'https://b.test/coded?as=gzip&of=zeros&n=10000001' | wc -c"
    );
    assert_eq!(bench.run_sh(&script).ok().text().trim(), "10000001");
    assert_eq!(compare(&bench.journal(), &bench.origin), 2 * bombs.len() + 1);
    for (list, n) in bombs {
        let exchange = bench.journal().only(&format!("/coded?as={list}&of=zeros&n={n}"));
        let decoded = &exchange.answer()["body"]["decoded"];
        assert_eq!(decoded["flaw"], "bomb", "{list}: {decoded}");
        let bytes = decoded["bytes"].as_u64().unwrap();
        assert!(bytes < 32_000_000, "{list}: {bytes} bytes were decoded");
    }
}

const PYTHON: &str = r#"
import gzip, httpx, requests, zstandard
def check(library, codings, get, post):
    for coding in codings:
        r = get(f"https://py.test/coded?as={coding}&by={library}")
        assert len(r.content) == 100000 and r.content.startswith(b'{"type":"text_delta"'), r.headers
    for coding, encode in [("gzip", gzip.compress), ("zstd", zstandard.compress)]:
        body = encode(b'{"wort":"gruen"}' * 1000)
        r = post(f"https://py.test/upload?{coding}&by={library}", body, {"Content-Encoding": coding})
        assert r.json()["bytes"] == len(body), r.text
with httpx.Client() as c:
    codings = ["gzip", "deflate", "br", "zstd", "gzip,br"]
    check("httpx", codings, c.get, lambda url, body, fields: c.post(url, content=body, headers=fields))
with requests.Session() as s:
    codings = ["gzip", "deflate", "br", "gzip,br"]
    check("requests", codings, s.get, lambda url, body, fields: s.post(url, data=body, headers=fields))
"#;

#[test]
fn python() {
    let bench = Bench::new();
    bench.run(&[interpreter(), "-c", PYTHON]).ok();
    assert_eq!(compare(&bench.journal(), &bench.origin), 13);
    let coded = ["gzip", "deflate", "br", "gzip,br"].map(|list| ("requests", list));
    let coded =
        [&coded[..], &coded.map(|(_, list)| ("httpx", list)), &[("httpx", "zstd")]].concat();
    for (library, list) in coded {
        let exchange = bench.journal().only(&format!("/coded?as={list}&by={library}"));
        assert_eq!(exchange.answer()["body"]["decoded"], sound(list, 100_000), "{library}");
    }
    for library in ["httpx", "requests"] {
        for list in ["gzip", "zstd"] {
            let exchange = bench.journal().only(&format!("/upload?{list}&by={library}"));
            assert_eq!(exchange.request["body"]["decoded"], sound(list, 16_000), "{library}");
        }
    }
}

const NODE: &str = r#"
const zlib = require("zlib");
(async () => {
  for (const coding of ["gzip", "deflate", "br", "gzip,br"]) {
    const text = await (await fetch(`https://node.test/coded?as=${coding}`)).text();
    if (text.length !== 100000 || !text.startsWith('{"type":"text_delta"')) throw new Error(coding);
  }
  const body = zlib.gzipSync('{"wort":"grün"}'.repeat(1000));
  const upload = { method: "POST", body, headers: { "Content-Encoding": "gzip" } };
  const told = await (await fetch("https://node.test/upload?gzip", upload)).json();
  if (told.bytes !== body.length) throw new Error("upload");
})();
"#;

#[test]
fn node() {
    let bench = Bench::new();
    std::fs::write(bench.work().join("script.js"), NODE).unwrap();
    bench.run(&["node", "script.js"]).ok();
    assert_eq!(compare(&bench.journal(), &bench.origin), 5);
    for list in ["gzip", "deflate", "br", "gzip,br"] {
        let exchange = bench.journal().only(&format!("/coded?as={list}"));
        assert_eq!(exchange.answer()["body"]["decoded"], sound(list, 100_000));
    }
    let exchange = bench.journal().only("/upload?gzip");
    let bytes = "{\"wort\":\"grün\"}".len() * 1000;
    assert_eq!(exchange.request["body"]["decoded"], sound("gzip", bytes));
}
