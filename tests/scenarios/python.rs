//! Python's three HTTP libraries through the gate. requests brings its own roots and a CONNECT without
//! any field; httpx offers another order of protocols; aiohttp is asynchronous and obeys the
//! variables only when told to. Each does the same five things: two requests over one connection, a
//! JSON post, an upload of unknown length, and a download in pieces. What they received they leave in
//! files.

use crate::support::bench::Bench;
use crate::support::content::Noise;
use crate::support::journal::compare;
use crate::support::python::interpreter;

const REQUESTS: &str = r#"
import requests
s = requests.Session()
for n in range(2):
    assert s.get(f"https://py.test/?n={n}").text == "hello from the origin\n"
r = s.post("https://py.test/echo?json", json={"wörter": [1, 2, 3]})
assert r.json() == {"wörter": [1, 2, 3]}, r.text
r = s.post("https://py.test/echo?upload", data=(b"%d\n" % n * 5000 for n in range(20)))
r.raise_for_status()
open("uploaded", "wb").write(r.content)
with s.get("https://py.test/bytes?n=3000000&seed=4&frame=chunked", stream=True) as r:
    open("downloaded", "wb").writelines(r.iter_content(10000))
"#;

const HTTPX: &str = r#"
import httpx
with httpx.Client() as c:
    for n in range(2):
        assert c.get(f"https://py.test/?n={n}").text == "hello from the origin\n"
    r = c.post("https://py.test/echo?json", json={"wörter": [1, 2, 3]})
    assert r.json() == {"wörter": [1, 2, 3]}, r.text
    r = c.post("https://py.test/echo?upload", content=(b"%d\n" % n * 5000 for n in range(20)))
    r.raise_for_status()
    open("uploaded", "wb").write(r.content)
    with c.stream("GET", "https://py.test/bytes?n=3000000&seed=4&frame=chunked") as r:
        open("downloaded", "wb").writelines(r.iter_bytes())
"#;

const AIOHTTP: &str = r#"
import aiohttp, asyncio
async def pieces():
    for n in range(20):
        yield b"%d\n" % n * 5000
async def main():
    async with aiohttp.ClientSession(trust_env=True) as s:
        for n in range(2):
            async with s.get(f"https://py.test/?n={n}") as r:
                assert await r.text() == "hello from the origin\n"
        async with s.post("https://py.test/echo?json", json={"wörter": [1, 2, 3]}) as r:
            assert await r.json() == {"wörter": [1, 2, 3]}, await r.text()
        async with s.post("https://py.test/echo?upload", data=pieces()) as r:
            open("uploaded", "wb").write(await r.read())
        async with s.get("https://py.test/bytes?n=3000000&seed=4&frame=chunked") as r:
            open("downloaded", "wb").writelines([c async for c in r.content.iter_chunked(10000)])
asyncio.run(main())
"#;

fn five_requests(script: &str) {
    let bench = Bench::new();
    bench.run(&[interpreter(), "-c", script]).ok();
    let file = |name| std::fs::read(bench.work().join(name)).unwrap();
    assert!(file("downloaded") == Noise::bytes(4, 3_000_000), "the download came changed");
    let upload: Vec<u8> =
        (0..20).flat_map(|n| format!("{n}\n").repeat(5000).into_bytes()).collect();
    assert!(file("uploaded") == upload, "the upload came back changed");
    assert_eq!(compare(&bench.journal(), &bench.origin), 5);
}

#[test]
fn requests() {
    five_requests(REQUESTS);
}

#[test]
fn httpx() {
    five_requests(HTTPX);
}

#[test]
fn aiohttp() {
    five_requests(AIOHTTP);
}
