//! Node through the gate: its own `fetch`, and undici by itself. Node reads no proxy variable (Node
//! 20), so it is caught by its destination alone, and its own roots need `NODE_EXTRA_CA_CERTS`;
//! undici can be told to obey the variables, and it can pipeline.

use crate::support::bench::Bench;
use crate::support::content::Noise;
use crate::support::journal::compare;
use crate::support::node::node;

/// Runs a script in which `fs` is there and may be waited.
fn run_script(bench: &Bench, script: &str) {
    let whole = format!("const fs = require('fs');\n(async () => {{{script}}})();\n");
    std::fs::write(bench.work().join("script.js"), whole).unwrap();
    let argv = node(&["script.js"]);
    bench.run(&argv.iter().map(String::as_str).collect::<Vec<_>>()).ok();
}

/// What the scripts left: the noise they downloaded and the pieces they uploaded.
fn check_files(bench: &Bench) {
    let file = |name| std::fs::read(bench.work().join(name)).unwrap();
    assert!(file("downloaded") == Noise::bytes(6, 3_000_000), "the download came changed");
    let upload: Vec<u8> = (0..20).flat_map(|n| [n; 5000]).collect();
    assert!(file("uploaded") == upload, "the upload came back changed");
}

#[test]
fn fetch() {
    const SCRIPT: &str = r#"
  const hello = await fetch("https://node.test/");
  if (await hello.text() !== "hello from the origin\n") throw new Error("hello");
  const json = { method: "POST", body: JSON.stringify({ wort: "grün" }) };
  const echo = await (await fetch("https://node.test/echo?json", json)).json();
  if (echo.wort !== "grün") throw new Error("echo");
  const pieces = async function* () { for (let n = 0; n < 20; n++) yield Buffer.alloc(5000, n); };
  const body = require("stream").Readable.toWeb(require("stream").Readable.from(pieces()));
  const back = await fetch("https://node.test/echo?upload", { method: "POST", body, duplex: "half" });
  fs.writeFileSync("uploaded", Buffer.from(await back.arrayBuffer()));
  const down = await fetch("https://node.test/bytes?n=3000000&seed=6");
  fs.writeFileSync("downloaded", Buffer.from(await down.arrayBuffer()));
  const many = [...Array(20).keys()].map(n => fetch(`https://node.test/slow?ms=5&n=${n}`));
  for (const answer of await Promise.all(many)) await answer.text();
"#;
    let bench = Bench::new();
    run_script(&bench, SCRIPT);
    check_files(&bench);
    assert_eq!(compare(&bench.journal(), &bench.origin), 24);
}

/// By CONNECT, where undici is told to obey the variables.
#[test]
fn undici_with_the_proxy_variables() {
    const SCRIPT: &str = r#"
  const { EnvHttpProxyAgent, request } = require("undici");
  const dispatcher = new EnvHttpProxyAgent();
  const pieces = async function* () { for (let n = 0; n < 20; n++) yield Buffer.alloc(5000, n); };
  const body = require("stream").Readable.from(pieces());
  const back = await request("https://node.test/echo?upload", { method: "POST", body, dispatcher });
  fs.writeFileSync("uploaded", Buffer.from(await back.body.arrayBuffer()));
  const down = await request("https://node.test/bytes?n=3000000&seed=6&frame=chunked", { dispatcher });
  fs.writeFileSync("downloaded", Buffer.from(await down.body.arrayBuffer()));
  await dispatcher.close();
"#;
    let bench = Bench::new();
    run_script(&bench, SCRIPT);
    check_files(&bench);
    assert_eq!(compare(&bench.journal(), &bench.origin), 2);
}

/// Ten requests on one connection, each sent before the answers to those before it have come.
#[test]
fn undici_pipelines() {
    const SCRIPT: &str = r#"
  const { Client } = require("undici");
  const client = new Client("https://node.test", { pipelining: 10 });
  const ask = async n => {
    const answer = await client.request({ path: `/bytes?n=${n * 1000}&seed=${n}`, method: "GET" });
    return Buffer.from(await answer.body.arrayBuffer());
  };
  fs.writeFileSync("all", Buffer.concat(await Promise.all([...Array(10).keys()].map(ask))));
  await client.close();
"#;
    let bench = Bench::new();
    run_script(&bench, SCRIPT);
    let answer = |n: u16| Noise::bytes(n.into(), 1000 * usize::from(n));
    let all: Vec<u8> = (0..10).flat_map(answer).collect();
    let got = std::fs::read(bench.work().join("all")).unwrap();
    assert!(got == all, "answers came changed or in another order");
    assert_eq!(compare(&bench.journal(), &bench.origin), 10);
    let exchanges = bench.journal().exchanges();
    assert!(exchanges.iter().all(|e| e.request["flow"] == exchanges[0].request["flow"]));
}
