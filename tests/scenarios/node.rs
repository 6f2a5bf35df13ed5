//! Node's fetch through the gate. It reads no proxy variable (Node 20), so it is caught by its
//! destination alone, and its own roots need `NODE_EXTRA_CA_CERTS`.

use crate::support::bench::Bench;
use crate::support::content::Noise;
use crate::support::journal::compare;

const SCRIPT: &str = r#"
const fs = require("fs");
(async () => {
  const hello = await fetch("https://node.test/");
  if (await hello.text() !== "hello from the origin\n") throw new Error("hello");
  const json = { method: "POST", body: JSON.stringify({ wort: "grün" }) };
  const echo = await (await fetch("https://node.test/echo?json", json)).json();
  if (echo.wort !== "grün") throw new Error("echo");
  const pieces = async function* () { for (let n = 0; n < 20; n++) yield Buffer.alloc(5000, n); };
  const upload = { method: "POST", body: ReadableStream.from(pieces()), duplex: "half" };
  const back = await fetch("https://node.test/echo?upload", upload);
  fs.writeFileSync("uploaded", Buffer.from(await back.arrayBuffer()));
  const down = await fetch("https://node.test/bytes?n=3000000&seed=6");
  fs.writeFileSync("downloaded", Buffer.from(await down.arrayBuffer()));
  const many = [...Array(20).keys()].map(n => fetch(`https://node.test/slow?ms=5&n=${n}`));
  for (const answer of await Promise.all(many)) await answer.text();
})();
"#;

#[test]
fn fetch() {
    let bench = Bench::new();
    std::fs::write(bench.work().join("script.js"), SCRIPT).unwrap();
    bench.run(&["node", "script.js"]).ok();
    let file = |name| std::fs::read(bench.work().join(name)).unwrap();
    assert!(file("downloaded") == Noise::bytes(6, 3_000_000), "the download came changed");
    let upload: Vec<u8> = (0..20).flat_map(|n| [n; 5000]).collect();
    assert!(file("uploaded") == upload, "the upload came back changed");
    assert_eq!(compare(&bench.journal(), &bench.origin), 24);
}
