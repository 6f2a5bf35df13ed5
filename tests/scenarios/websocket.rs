//! WebSockets between real clients and real servers: `websockets` and aiohttp from Python, `ws` from
//! Node. A client sends the same conversation each time, the server sends every message back: short,
//! empty, repeated, binary, fragmented, 20 MB long; a ping, and the closing handshake. What each end
//! sent, what the other received and what the journal has are one and the same.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::bench::{Bench, Started, finish};
use crate::support::journal::Exchange;
use crate::support::node::node;
use crate::support::origin::SERVER_NAME;
use crate::support::python::interpreter;

/// A file of messages: for each a kind, a length and its bytes.
const PYTHON_NOTES: &str = r#"
import asyncio, random, ssl, struct, sys
def note(name, message):
    kind, data = (b"t", message.encode()) if isinstance(message, str) else (b"b", bytes(message))
    with open(name, "ab") as file:
        file.write(kind + struct.pack(">Q", len(data)) + data)
words = " ".join(f"word{n % 700}" for n in range(3000))
conversation = ["hello", "", "wörter ☃ 𝄞", words, words, bytes(range(256)) * 300,
                random.Random(7).randbytes(20 << 20)]
"#;

const NODE_NOTES: &str = r#"
const fs = require("fs");
const crypto = require("crypto");
const { WebSocket, WebSocketServer } = require("ws");
function note(name, data, isBinary) {
  const head = Buffer.alloc(9);
  head.write(isBinary ? "b" : "t");
  head.writeBigUInt64BE(BigInt(data.length), 1);
  fs.appendFileSync(name, Buffer.concat([head, data]));
}
const words = [...Array(3000).keys()].map(n => `word${n % 700}`).join(" ");
const bytes = Buffer.from([...Array(76800).keys()].map(n => n & 255));
const conversation = ["hello", "", "wörter ☃ 𝄞", words, words, bytes, crypto.randomBytes(20 << 20)];
"#;

const WEBSOCKETS_CLIENT: &str = r#"
from websockets.asyncio.client import connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
async def main():
    # Its own default is a window of 4 KiB, which the words do not fit into.
    deflate = [ClientPerMessageDeflateFactory(client_max_window_bits=True)]
    async with connect("wss://server.test/chat", max_size=None, extensions=deflate) as ws:
        for message in conversation:
            await ws.send(message)
            note("client.sent", message)
            note("client.received", await ws.recv())
        await ws.send(["in ", "three ", "frames"])
        note("client.sent", "in three frames")
        note("client.received", await ws.recv())
        await (await ws.ping(b"are you there"))
        await ws.close(1000, "that is all")
asyncio.run(main())
"#;

const AIOHTTP_CLIENT: &str = r#"
import aiohttp
async def main():
    async with aiohttp.ClientSession(trust_env=True) as session:
        url = "https://server.test/chat"
        async with session.ws_connect(url, compress=15, max_msg_size=0) as ws:
            for message in conversation:
                await (ws.send_str if isinstance(message, str) else ws.send_bytes)(message)
                note("client.sent", message)
                note("client.received", (await ws.receive()).data)
            await ws.ping(b"are you there")
            await ws.close(code=1000, message=b"that is all")
asyncio.run(main())
"#;

const WS_CLIENT: &str = r#"
const ws = new WebSocket("wss://server.test/chat");
const answers = [];
ws.on("message", (data, isBinary) => { note("client.received", data, isBinary); answers.shift()(); });
function say(message) {
  const answered = new Promise(done => answers.push(done));
  ws.send(message);
  note("client.sent", Buffer.from(message), typeof message !== "string");
  return answered;
}
ws.on("open", async () => {
  for (const message of conversation) await say(message);
  ws.send("in ", { fin: false });
  ws.send("three ", { fin: false });
  const answered = new Promise(done => answers.push(done));
  ws.send("frames", { fin: true });
  note("client.sent", Buffer.from("in three frames"), false);
  await answered;
  const pong = new Promise(done => ws.on("pong", done));
  ws.ping("are you there");
  await pong;
  ws.close(1000, "that is all");
});
"#;

/// Sends back what it receives, on a port that it tells, and ends with its first connection.
const WEBSOCKETS_SERVER: &str = r#"
from websockets.asyncio.server import serve
async def main():
    over = asyncio.get_running_loop().create_future()
    async def echo(ws):
        async for message in ws:
            note("server.received", message)
            await ws.send(message)
            note("server.sent", message)
        over.set_result(None)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(sys.argv[1], sys.argv[2])
    async with serve(echo, "127.0.0.1", 0, ssl=tls, max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await over
asyncio.run(main())
"#;

const WS_SERVER: &str = r#"
const [certificate, key, takeover] = process.argv.slice(2);
const tls = { cert: fs.readFileSync(certificate), key: fs.readFileSync(key) };
const server = require("https").createServer(tls);
const perMessageDeflate = { threshold: 0 };
if (takeover === "none") {
  perMessageDeflate.serverNoContextTakeover = true;
  perMessageDeflate.clientNoContextTakeover = true;
}
new WebSocketServer({ server, perMessageDeflate, maxPayload: 1 << 30 }).on("connection", ws => {
  ws.on("message", (data, isBinary) => {
    note("server.received", data, isBinary);
    ws.send(data, { binary: isBinary });
    note("server.sent", data, isBinary);
  });
  ws.on("close", () => server.close());
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
"#;

#[test]
fn websockets_to_ws() {
    let sent =
        converse(&python("client.py", WEBSOCKETS_CLIENT), &javascript("server.js", WS_SERVER), "");
    // What is repeated costs next to nothing, for it is in the window.
    assert!(wire_bytes(&sent[4]) * 5 < wire_bytes(&sent[3]), "{sent:#?}");
    // The library ends the last message with an empty frame.
    assert_eq!(sent.last().unwrap()["frames"], 4, "{sent:#?}");
}

/// The server's own default is a window of 4 KiB.
#[test]
fn ws_to_websockets() {
    let sent =
        converse(&javascript("client.js", WS_CLIENT), &python("server.py", WEBSOCKETS_SERVER), "");
    assert!(wire_bytes(&sent[4]) * 2 < sent[4]["body"]["bytes"].as_u64().unwrap(), "{sent:#?}");
    assert_eq!(sent.last().unwrap()["frames"], 3, "{sent:#?}");
}

/// Without context takeover: each message is compressed by itself.
#[test]
fn aiohttp_to_ws() {
    let sent =
        converse(&python("client.py", AIOHTTP_CLIENT), &javascript("server.js", WS_SERVER), "none");
    assert_eq!(sent[3]["compressed"], true, "{sent:#?}");
    assert_eq!(wire_bytes(&sent[3]), wire_bytes(&sent[4]), "{sent:#?}");
}

/// A script and what runs it.
struct Program {
    argv: Vec<String>,
    file: &'static str,
    text: String,
}

fn python(file: &'static str, script: &str) -> Program {
    let argv = vec![interpreter().to_owned(), file.to_owned()];
    Program { argv, file, text: format!("{PYTHON_NOTES}{script}") }
}

fn javascript(file: &'static str, script: &str) -> Program {
    Program { argv: node(&[file]), file, text: format!("{NODE_NOTES}{script}") }
}

fn wire_bytes(record: &Value) -> u64 {
    record["wire_bytes"].as_u64().expect("a number")
}

/// Holds a conversation through the gate. Returns the records of what the client sent, without
/// control frames.
fn converse(client: &Program, server: &Program, takeover: &str) -> Vec<Value> {
    let bench = Bench::new();
    for Program { file, text, .. } in [client, server] {
        std::fs::write(bench.work().join(file), text).unwrap();
    }
    let (server, port) = start_server(&bench, &server.argv, takeover);
    let mut run = bench.agent_gate(&["run"]);
    run.args(["--resolve", &format!("{SERVER_NAME}:443:127.0.0.1:{port}")]);
    run.arg("--upstream-ca").arg(bench.origin.ca_pem()).arg("--").args(&client.argv);
    finish(run).ok();
    server.finish().ok();
    check(&bench)
}

/// Starts the server outside the jail; the port it listens on.
fn start_server(bench: &Bench, argv: &[String], takeover: &str) -> (Started, String) {
    let mut command: Command = bench.command(&argv[0]);
    command.args(&argv[1..]).args(bench.origin.server_pem()).arg(takeover);
    let mut server = Started::with_stdout_left(command);
    let mut port = String::new();
    let stdout = server.child.stdout.take().expect("a pipe");
    BufReader::new(stdout).read_line(&mut port).unwrap();
    (server, port.trim().to_owned())
}

fn check(bench: &Bench) -> Vec<Value> {
    let exchange = bench.journal().only("/chat");
    assert_eq!((exchange.status(), exchange.outcome()), (Some(101), "complete"));
    let all = bench.journal().messages(&exchange);
    let mut records = Vec::new();
    for (direction, from, to) in [("sent", "client", "server"), ("received", "server", "client")] {
        let sent = notes(&bench.work().join(format!("{from}.sent")));
        let received = notes(&bench.work().join(format!("{to}.received")));
        assert!(sent == received, "{direction}: not what was sent arrived");
        let mine: Vec<_> =
            all.iter().filter(|(record, _)| record["direction"] == direction).collect();
        let is_data = |record: &Value| record["kind"] == "text" || record["kind"] == "binary";
        let data: Vec<_> = mine.iter().filter(|(record, _)| is_data(record)).collect();
        assert_eq!(data.len(), sent.len(), "{direction}");
        for ((record, content), (kind, bytes)) in data.iter().zip(&sent) {
            assert_eq!(record["kind"], *kind, "{record}");
            assert!(content == bytes, "{direction}: the journal has other content: {record}");
        }
        check_records(&exchange, &mine.iter().map(|(record, _)| record).collect::<Vec<_>>());
        assert_eq!(exchange.answer()["messages"][direction], sent.len(), "{}", exchange.answer());
        records.push(data.iter().map(|(record, _)| record.clone()).collect::<Vec<_>>());
    }
    let close = all.iter().find(|(record, _)| record["kind"] == "close").expect("a close");
    assert_eq!((&close.0["close_code"], &close.1[..]), (&1000.into(), &b"that is all"[..]));
    let ping = all.iter().find(|(record, _)| record["kind"] == "ping").expect("a ping");
    assert_eq!((&ping.0["direction"], &ping.1[..]), (&"sent".into(), &b"are you there"[..]));
    records.swap_remove(0)
}

/// What holds for every record of one direction of a sound WebSocket.
fn check_records(exchange: &Exchange, records: &[&Value]) {
    let mut payload = 0;
    for (place, record) in records.iter().enumerate() {
        assert_eq!(record["seq"], place + 1, "{record}");
        assert_eq!(record["complete"], true, "{record}");
        assert_eq!(record.get("flaws"), None, "{record}");
        for member in ["run", "flow"] {
            assert_eq!(record[member], exchange.request[member], "{record}");
        }
        payload += wire_bytes(record);
    }
    let relayed = exchange.answer()["upgraded"][records[0]["direction"].as_str().unwrap()].clone();
    assert!(relayed.as_u64().unwrap() > payload, "{relayed} for {payload} bytes of payload");
    assert_eq!(records.last().unwrap()["kind"], "close");
}

/// The messages that a script has noted.
fn notes(file: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let bytes = std::fs::read(file).unwrap();
    let (mut rest, mut notes) = (&bytes[..], Vec::new());
    while let Some((head, behind)) = rest.split_at_checked(9) {
        let length = u64::from_be_bytes(head[1..].try_into().unwrap());
        let (content, behind) = behind.split_at(usize::try_from(length).unwrap());
        notes.push((if head[0] == b't' { "text" } else { "binary" }, content.to_vec()));
        rest = behind;
    }
    assert!(rest.is_empty() && !notes.is_empty(), "{file:?} is no file of notes");
    notes
}
