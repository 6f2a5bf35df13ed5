//! Answers as no server should write them, and as some do: curl, Python and Node each understand
//! some of them. What a client understands without a gate it understands through one.
//!
//! 1. A script per client asks for each answer and says what it made of it.
//! 2. It runs on its own against the origin, then as the command of a run.
//! 3. Wherever the first came to a body, the second came to the same.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::bench::{Bench, finish};
use crate::support::python::interpreter;

/// The bytes of answers whose body is "ok", by name.
const ANSWERS: [(&str, &str); 36] = [
    ("plain", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    ("bare line feeds", "HTTP/1.1 200 OK\nContent-Length: 2\nX: y\n\nok"),
    ("both line ends", "HTTP/1.1 200 OK\nContent-Length: 2\r\nX: y\n\r\nok"),
    ("folded", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\tc\r\nContent-Length: 2\r\n\r\nok"),
    ("folded length", "HTTP/1.1 200 OK\r\nContent-Length:\r\n 2\r\n\r\nok"),
    ("space before colon", "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok"),
    ("space before field", "HTTP/1.1 200 OK\r\n X: y\r\nContent-Length: 2\r\n\r\nok"),
    ("no colon", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nodd\r\n\r\nok"),
    ("space in name", "HTTP/1.1 200 OK\r\nX Y: z\r\nContent-Length: 2\r\n\r\nok"),
    ("no name", "HTTP/1.1 200 OK\r\n: z\r\nContent-Length: 2\r\n\r\nok"),
    ("odd name", "HTTP/1.1 200 OK\r\nX(Y): z\r\nContent-Length: 2\r\n\r\nok"),
    ("8-bit name", "HTTP/1.1 200 OK\r\nXäY: z\r\nContent-Length: 2\r\n\r\nok"),
    ("8-bit value", "HTTP/1.1 200 OK\r\nX: ä\r\nContent-Length: 2\r\n\r\nok"),
    ("NUL", "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok"),
    ("control bytes", "HTTP/1.1 200 OK\r\nX: a\u{1}\u{1b}\u{7f}b\r\nContent-Length: 2\r\n\r\nok"),
    ("bare return", "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nok"),
    ("empty line first", "\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    ("no reason", "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok"),
    ("8-bit reason", "HTTP/1.1 200 Schön\r\nContent-Length: 2\r\n\r\nok"),
    ("control byte in reason", "HTTP/1.1 200 O\u{1}K\r\nContent-Length: 2\r\n\r\nok"),
    ("two spaces", "HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nok"),
    ("status 999", "HTTP/1.1 999 OK\r\nContent-Length: 2\r\n\r\nok"),
    ("length twice", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok"),
    ("list of lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok"),
    (
        "coding and length",
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ),
    (
        "identity and length",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok",
    ),
    (
        "coding twice",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ),
    (
        "coding in HTTP/1.0",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ),
    (
        "padded sizes",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2   \r\nok\r\n0  \r\n\r\n",
    ),
    (
        "bare line feeds in chunks",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nok\n0\n\n",
    ),
    (
        "bare line feed behind a size",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nok\r\n0\r\n\r\n",
    ),
    (
        "extensions",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=\"b;\"\r\nok\r\n0 ; x\r\n\r\n",
    ),
    (
        "folded trailer",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n c\r\n\r\n",
    ),
    (
        "odd trailer",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nodd\r\nA: b\n\r\n",
    ),
    ("until the end", "HTTP/1.1 200 OK\r\n\r\nok"),
    ("until the end, coded", "HTTP/1.1 200 OK\r\nTransfer-Encoding: x-odd\r\n\r\nok"),
];

/// Each asks `base` for the paths in the file `paths`, and prints a JSON object of what came: the
/// body, or `null` where it saw an error.
const CURL: &str = r#"
printf '{'
n=0
while read -r path; do
    [ $n = 0 ] || printf ','
    if body=$(curl -sS "$1$path" 2>/dev/null); then printf '"%s":"%s"' $n "$body"
    else printf '"%s":null' $n; fi
    n=$((n + 1))
done < paths
printf '}'
"#;

const PYTHON: &str = r#"
import http.client, json, sys, urllib.parse
found, url = {}, urllib.parse.urlsplit(sys.argv[1])
for n, path in enumerate(open("paths").read().split()):
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
    try:
        connection.request("GET", path)
        found[str(n)] = connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException): found[str(n)] = None
    connection.close()
print(json.dumps(found))
"#;

const NODE: &str = r#"
const paths = require("fs").readFileSync("paths", "utf8").trim().split("\n");
const ask = async path => {
  try { return await (await fetch(process.argv[1] + path)).text(); } catch { return null; }
};
(async () => {
  const found = {};
  for (const [n, path] of paths.entries()) found[n] = await ask(path);
  console.log(JSON.stringify(found));
})();
"#;

fn understood(argv: &[&str], bench: &Bench) {
    let direct = format!("http://127.0.0.1:{}", bench.origin.http_port);
    let mut command = bench.command(argv[0]);
    command.args(&argv[1..]).arg(direct);
    let direct = found(&finish(command).ok().text());
    let through = found(&bench.run(&[argv, &["http://odd.test"]].concat()).ok().text());
    let understood = direct.values().filter(|body| **body == "ok").count();
    assert!(understood > 12, "{argv:?} understood {understood} on its own: {direct:#?}");
    for (name, body) in direct.iter().filter(|(_, body)| !body.is_null()) {
        assert_eq!(through[name], *body, "{name:?} to {argv:?}");
    }
}

fn found(json: &str) -> BTreeMap<&'static str, Value> {
    let found: BTreeMap<String, Value> =
        serde_json::from_str(json).unwrap_or_else(|e| panic!("{e}: {json}"));
    assert_eq!(found.len(), ANSWERS.len(), "{json}");
    found.into_iter().map(|(n, body)| (ANSWERS[n.parse::<usize>().unwrap()].0, body)).collect()
}

#[test]
fn whoever_understands_an_answer_still_does() {
    let bench = Bench::new();
    let hex = |text: &str| text.bytes().map(|b| format!("{b:02x}")).collect::<String>();
    let paths = ANSWERS.map(|(_, answer)| format!("/raw?hex={}\n", hex(answer)));
    std::fs::write(bench.work().join("paths"), paths.concat()).unwrap();
    understood(&["sh", "-c", CURL, "sh"], &bench);
    understood(&[interpreter(), "-c", PYTHON], &bench);
    understood(&["node", "-e", NODE], &bench);
}

/// HTTP/3 is not advertised to a client in the jail; the record has what the origin said.
#[test]
fn http_3_is_not_advertised() {
    let bench = Bench::new();
    let answer = "HTTP/1.1 200 OK\r\nAlt-Svc: h3=\":443\"; ma=86400,h2=\":443\"\r\nalt-svc: h3=\":8\"\r\n\
                  Content-Length: 2\r\n\r\nok";
    let hex: String = answer.bytes().map(|b| format!("{b:02x}")).collect();
    let target = format!("/raw?hex={hex}");
    let output = bench.run(&["curl", "-sSi", &format!("https://odd.test{target}")]).ok();
    let given = "HTTP/1.1 200 OK\r\nAlt-Svc: h2=\":443\"\r\nContent-Length: 2\r\n\r\nok";
    // Before it, curl shows the head of the tunnel.
    assert!(output.text().ends_with(&format!("\r\n\r\n{given}")), "{output:?}");
    let fields = bench.journal().only(&target).answer()["head"]["fields"].clone();
    let expected = [
        ["Alt-Svc", "h3=\":443\"; ma=86400,h2=\":443\""],
        ["alt-svc", "h3=\":8\""],
        ["Content-Length", "2"],
    ];
    assert_eq!(fields, serde_json::json!(expected));
}
