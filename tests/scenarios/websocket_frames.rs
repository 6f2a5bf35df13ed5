//! WebSockets frame by frame: a client and an origin that send whatever bytes the test lays out, sound
//! or not, cut in any way. Every byte arrives as it was sent, and the journal tells each message with
//! what was wrong with it; what a killed gate had let out is there; while nothing can be recorded,
//! nothing passes.

use std::collections::HashSet;

use flate2::{Compress, Compression, FlushCompress};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::bench::{Bench, Started};
use crate::support::content::Noise;
use crate::support::journal::Exchange;
use crate::support::processes;
use crate::support::python::interpreter;
use crate::support::wait_for;

/// Arguments: target, size of a piece, bytes to receive at least, how to end. Sends the file `up`
/// while it receives into the file `down`.
const CLIENT: &str = r#"
import os, socket, struct, sys, threading
target, step, expect, end = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
up = open("up", "rb").read()
s = socket.create_connection(("ws.test", 80))
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
s.sendall(f"GET {target} HTTP/1.1\r\nHost: ws.test\r\nConnection: keep-alive, Upgrade\r\n"
          "Upgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n"
          "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
          "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n".encode())
got = b""
while b"\r\n\r\n" not in got:
    got += s.recv(65536)
got = got.split(b"\r\n\r\n", 1)[1]
def send():
    for at in range(0, len(up), step):
        s.sendall(up[at:at + step])
    if end == "half":
        s.shutdown(socket.SHUT_WR)
sender = threading.Thread(target=send)
sender.start()
with open("down", "wb") as down:
    while True:
        down.write(got)
        expect -= len(got)
        if expect <= 0 and end != "half":
            break
        got = s.recv(65536)
        if not got:
            break
sender.join()
if end == "reset":
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
s.close()
"#;

/// A frame as a client masks it, or as an origin does not.
fn frame(first: u8, payload: &[u8], masked: bool) -> Vec<u8> {
    let mask_bit = if masked { 0x80 } else { 0 };
    let length = (payload.len() as u64).to_be_bytes();
    let mut out = match payload.len() {
        0..126 => vec![first, mask_bit | length[7]],
        126..65_536 => [&[first, mask_bit | 126], &length[6..]].concat(),
        _ => [&[first, mask_bit | 127], &length[..]].concat(),
    };
    let key = if masked { [0x5a, 0, 0xff, 0x21] } else { [0; 4] };
    if masked {
        out.extend_from_slice(&key);
    }
    out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]));
    out
}

fn sent(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(first, payload, true)
}

fn received(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(first, payload, false)
}

/// What goes each way, and how.
struct Plan<'a> {
    up: &'a [u8],
    down: &'a [u8],
    /// The client sends in pieces of so many bytes.
    step: usize,
    /// More of the target's query, for the origin.
    query: &'a str,
    /// How the client ends: `close`, `half` or `reset`.
    end: &'a str,
}

impl Default for Plan<'_> {
    fn default() -> Self {
        Self { up: &[], down: &[], step: usize::MAX >> 1, query: "", end: "close" }
    }
}

/// Carries the plan out; every byte must arrive. Returns the exchange.
fn carry_out(bench: &Bench, plan: &Plan<'_>) -> Exchange {
    let (received, exchange) = carry_out_in_part(bench, plan);
    assert!(received == plan.up, "{} bytes came of {}", received.len(), plan.up.len());
    let down = std::fs::read(bench.work().join("down")).unwrap();
    assert!(down == plan.down, "{} bytes came of {}", down.len(), plan.down.len());
    exchange
}

/// The same, but perhaps not to the end; what the origin received too.
fn carry_out_in_part(bench: &Bench, plan: &Plan<'_>) -> (Vec<u8>, Exchange) {
    let target = start(bench, plan);
    let (step, down) = (plan.step.to_string(), plan.down.len().to_string());
    let argv = [interpreter(), "-c", CLIENT, &target, &step, &down, plan.end];
    bench.run(&argv).ok();
    (bench.origin.received_in_all("blob"), bench.journal().only(&target))
}

/// A small WebSocket: three messages and a ping sent, two messages received, the last one empty.
pub(crate) fn a_small_one(bench: &Bench) -> Exchange {
    let texts = ["one", "two", "three"].map(|text| sent(0x81, text.as_bytes()));
    let up = [&texts.concat()[..], &sent(0x89, b"there?")].concat();
    let down = [received(0x82, &[0xff; 9]), received(0x81, b"")].concat();
    carry_out(bench, &Plan { up: &up, down: &down, ..Plan::default() })
}

/// Lays the bytes out; the target.
fn start(bench: &Bench, plan: &Plan<'_>) -> String {
    bench.origin.lay_out("blob", plan.down);
    std::fs::write(bench.work().join("up"), plan.up).unwrap();
    format!("/ws?name=blob&expect={}{}", plan.up.len(), plan.query)
}

/// Kind, content, flaws and whether it was complete, of each message that went that way.
type Told = (String, Vec<u8>, Vec<String>, bool);

fn told(bench: &Bench, exchange: &Exchange, direction: &str) -> Vec<Told> {
    let mut messages = bench.journal().messages(exchange);
    messages.retain(|(record, _)| record["direction"] == direction);
    let text = |value: &Value| value.as_str().expect("a word").to_owned();
    let flaws = |record: &Value| {
        record["flaws"].as_array().map(|all| all.iter().map(text).collect()).unwrap_or_default()
    };
    messages
        .into_iter()
        .map(|(record, content)| {
            (text(&record["kind"]), content, flaws(&record), record["complete"] == true)
        })
        .collect()
}

fn message(kind: &str, content: &[u8], flaws: &[&str]) -> Told {
    let flaws = flaws.iter().map(|flaw| (*flaw).to_owned()).collect();
    (kind.to_owned(), content.to_vec(), flaws, true)
}

/// Frames of every sort, as one side sends them, and what is told of them.
fn all_sorts(
    frame: fn(u8, &[u8]) -> Vec<u8>,
    other: fn(u8, &[u8]) -> Vec<u8>,
    mask: &str,
) -> (Vec<u8>, Vec<Told>) {
    let long = Noise::bytes(5, 70_000);
    let input = [
        frame(0x81, "grüße".as_bytes()),
        frame(0x01, b"in "),
        frame(0x89, b"between"),
        frame(0x00, b"three "),
        frame(0x80, b"frames"),
        frame(0x82, &long),
        other(0x81, b"masked wrongly"),
        frame(0xb1, b"reserved bits"),
        frame(0x81, b"not \xff UTF-8"),
        frame(0x8a, &[b'p'; 126]),
        frame(0x09, b"in pieces?"),
        frame(0x83, b"what is it"),
        frame(0x80, b"of what"),
        frame(0x01, b"broken "),
        frame(0x81, b"off"),
        frame(0xc1, b"this is no deflate"),
        frame(0x88, b"\x03\xedwhy"),
        frame(0x81, b"too late"),
    ]
    .concat();
    let mut told = vec![
        message("text", "grüße".as_bytes(), &[]),
        message("ping", b"between", &[]),
        message("text", b"in three frames", &[]),
        message("binary", &long, &[]),
        message("text", b"masked wrongly", &[mask]),
        message("text", b"reserved bits", &["reserved_bits"]),
        message("text", b"not \xff UTF-8", &["not_utf8"]),
        message("pong", &[b'p'; 126], &["control_too_long"]),
        message("ping", b"in pieces?", &["control_fragmented"]),
        message("reserved", b"what is it", &["unknown_opcode"]),
        message("continuation", b"of what", &["continuation_without_start"]),
        message("text", b"broken ", &["interrupted"]),
        message("text", b"off", &[]),
        message("text", b"", &["inflate_failed"]),
        message("text", b"this is no deflate", &["rest", "not_inflated"]),
        message("close", b"why", &["close_code_invalid"]),
        message("text", b"too late", &["after_close"]),
    ];
    told[11].3 = false;
    told[13].3 = false;
    (input, told)
}

/// Whatever frames are sent, they arrive, and the journal says what they were.
#[test]
fn all_sorts_of_frames() {
    let (up, told_up) = all_sorts(sent, received, "unmasked");
    let (down, told_down) = all_sorts(received, sent, "masked");
    let bench = Bench::new();
    let query = "&ext=permessage-deflate";
    let plan = Plan { up: &up, down: &down, query, ..Plan::default() };
    let exchange = carry_out(&bench, &plan);
    assert_eq!(told(&bench, &exchange, "sent"), told_up);
    assert_eq!(told(&bench, &exchange, "received"), told_down);
    let answer = exchange.answer();
    for (direction, bytes) in [("sent", up.len()), ("received", down.len())] {
        assert_eq!(answer["upgraded"][direction], bytes, "{answer}");
        // Neither control frames nor the rest of a message are counted.
        assert_eq!(answer["messages"][direction], 12, "{answer}");
    }
}

/// One byte in a write, from both sides, the head of the 101 too.
#[test]
fn byte_by_byte() {
    let deflated = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let again = [0xf2, 0x00, 0x11, 0x00, 0x00];
    let both = |frame: fn(u8, &[u8]) -> Vec<u8>| {
        [frame(0xc1, &deflated), frame(0x41, &again[..2]), frame(0x80, &again[2..])].concat()
    };
    let (up, down) = (both(sent), both(received));
    let bench = Bench::new();
    let query = "&ext=permessage-deflate&step=1&head=bytes";
    let plan = Plan { up: &up, down: &down, step: 1, query, ..Plan::default() };
    let exchange = carry_out(&bench, &plan);
    for direction in ["sent", "received"] {
        let hello = message("text", b"Hello", &[]);
        assert_eq!(told(&bench, &exchange, direction), [hello.clone(), hello], "{direction}");
    }
}

/// A thousand messages in one write, each way.
#[test]
fn a_thousand_at_once() {
    let texts: Vec<_> = (0..1000).map(|n| format!("message {n}")).collect();
    let all = |frame: fn(u8, &[u8]) -> Vec<u8>| -> Vec<u8> {
        texts.iter().flat_map(|text| frame(0x81, text.as_bytes())).collect()
    };
    let (up, down) = (all(sent), all(received));
    let bench = Bench::new();
    let exchange = carry_out(&bench, &Plan { up: &up, down: &down, ..Plan::default() });
    for direction in ["sent", "received"] {
        let told = told(&bench, &exchange, direction);
        let expected: Vec<_> =
            texts.iter().map(|text| message("text", text.as_bytes(), &[])).collect();
        assert!(told == expected, "{direction}: {} messages", told.len());
        assert_eq!(exchange.answer()["messages"][direction], 1000);
    }
}

/// A length of 2^63 has no end: whatever follows belongs to it, passes, and is kept.
#[test]
fn an_impossible_length() {
    let noise = Noise::bytes(11, 3 << 20);
    let head = b"\x82\x7f\x80\0\0\0\0\0\0\0";
    let down = [&received(0x81, b"before")[..], head, &noise, &received(0x81, b"behind")].concat();
    let up = [&sent(0x81, b"before")[..], b"\x82\xff\x80\0\0\0\0\0\0\0\0\0\0\0", &noise].concat();
    let bench = Bench::new();
    let exchange = carry_out(&bench, &Plan { up: &up, down: &down, ..Plan::default() });
    let mut endless = message("binary", &noise, &["length_out_of_range"]);
    endless.3 = false;
    assert!(told(&bench, &exchange, "sent") == [message("text", b"before", &[]), endless.clone()]);
    endless.1.extend(received(0x81, b"behind"));
    assert!(told(&bench, &exchange, "received") == [message("text", b"before", &[]), endless]);
}

/// A message that inflates a thousandfold passes, is told as what it is, and so are those after it.
#[test]
fn a_deflate_bomb() {
    let bomb = bomb();
    let up = [sent(0xc1, &bomb), sent(0xc1, b"\0"), sent(0x81, b"plain")].concat();
    let bench = Bench::new();
    let query = "&ext=permessage-deflate";
    let exchange = carry_out(&bench, &Plan { up: &up, query, ..Plan::default() });
    let told = told(&bench, &exchange, "sent");
    let flaws: Vec<_> = told.iter().map(|told| told.2.join(" ")).collect();
    assert_eq!(flaws, ["inflate_bomb", "rest not_inflated", "not_inflated", ""]);
    assert!(told[0].1.len() > 4 << 20 && told[0].1.len() < 8 << 20, "{}", told[0].1.len());
    assert!(told[0].1.iter().all(|byte| *byte == 0));
    assert!(bomb.ends_with(&told[1].1), "the rest is kept as it was on the wire");
    assert_eq!((&told[2].1[..], &told[3].1[..]), (&b"\0"[..], &b"plain"[..]));
    assert_eq!(exchange.answer()["messages"]["sent"], 3);
}

/// 32 MiB of zeros as one compressed payload.
fn bomb() -> Vec<u8> {
    let mut payload = Vec::with_capacity(1 << 20);
    let mut compress = Compress::new(Compression::best(), false);
    compress.compress_vec(&vec![0; 32 << 20], &mut payload, FlushCompress::Sync).unwrap();
    payload.truncate(payload.len() - 4); // as the sender of a message does
    payload
}

/// A message that was not whole when its connection ended is kept as far as it had come; who ended
/// it is told.
#[test]
fn cut_in_mid_message() {
    let whole = [sent(0x81, b"whole"), sent(0x82, &[b'x'; 5000])].concat();
    let half = &whole[..whole.len() - 1000];
    let down = [received(0x81, b"whole"), received(0x02, b"ha")].concat();
    for (query, end, outcome) in [
        ("", "close", "cut_by_client"),
        ("", "reset", "cut_by_client"),
        ("&end=reset", "half", "cut_by_origin"),
    ] {
        let bench = Bench::new();
        let plan = Plan { up: half, down: &down, query, end, ..Plan::default() };
        let (received, exchange) = carry_out_in_part(&bench, &plan);
        assert!(received == half, "{query} {end}: {} bytes", received.len());
        assert_eq!(exchange.outcome(), outcome, "{query} {end}: {}", exchange.answer());
        let mut cut = message("binary", &[b'x'; 4000], &[]);
        cut.3 = false;
        let expected = [message("text", b"whole", &[]), cut];
        assert_eq!(told(&bench, &exchange, "sent"), expected, "{query} {end}");
        let mut cut = message("binary", b"ha", &[]);
        cut.3 = false;
        assert_eq!(told(&bench, &exchange, "received")[1], cut, "{query} {end}");
    }
}

/// A client's half-close is handed on; what the origin still says arrives.
#[test]
fn half_closed() {
    let up = sent(0x81, b"the last I say");
    let down = received(0x81, b"and I");
    let bench = Bench::new();
    let exchange =
        carry_out(&bench, &Plan { up: &up, down: &down, end: "half", ..Plan::default() });
    assert_eq!(exchange.outcome(), "complete");
    assert_eq!(told(&bench, &exchange, "received"), [message("text", b"and I", &[])]);
}

/// Other upgrades, and those that are none, are relayed and counted as before.
#[test]
fn a_101_without_its_accept_is_no_websocket() {
    let up = sent(0x81, b"whatever this is");
    let bench = Bench::new();
    let exchange = carry_out(&bench, &Plan { up: &up, query: "&accept=no", ..Plan::default() });
    assert!(bench.journal().of_type("message").is_empty());
    let answer = exchange.answer();
    assert_eq!((&answer["upgraded"]["sent"], answer.get("messages")), (&up.len().into(), None));
}

/// A client guard counts the reads that the head of the 101 takes: over TLS it comes in one record,
/// however the origin sent it. TLS 1.2, where nothing else of that type comes before it.
#[test]
fn the_101_is_one_tls_record() {
    const SCRIPT: &str = r#"
import socket, ssl
context = ssl.create_default_context()
context.maximum_version = ssl.TLSVersion.TLSv1_2
raw = socket.create_connection(("ws.test", 443))
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
tls = context.wrap_bio(incoming, outgoing, server_hostname="ws.test")
def record():
    head = raw.recv(5, socket.MSG_WAITALL)
    return head + raw.recv(int.from_bytes(head[3:5], "big"), socket.MSG_WAITALL)
while True:
    try:
        tls.do_handshake()
        break
    except ssl.SSLWantReadError:
        raw.sendall(outgoing.read())
        incoming.write(record())
tls.write(b"GET /ws?name=tls&head=bytes&expect=0&end=close HTTP/1.1\r\nHost: ws.test\r\n"
          b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
raw.sendall(outgoing.read())
first = record()
assert first[0] == 23, first
incoming.write(first)
head = tls.read(65536)
assert head.startswith(b"HTTP/1.1 101 ") and head.endswith(b"\r\n\r\n"), head
raw.close()
"#;
    let bench = Bench::new();
    bench.run(&[interpreter(), "-c", SCRIPT]).ok();
}

/// A client that never ends: it keeps sending numbered messages, in pieces of several.
const FLOOD: &str = r#"
import socket
s = socket.create_connection(("ws.test", 80))
s.sendall(b"GET /ws?name=blob HTTP/1.1\r\nHost: ws.test\r\nConnection: Upgrade\r\n"
          b"Upgrade: websocket\r\n\r\n")
head = b""
while not head.endswith(b"\r\n\r\n"): head += s.recv(65536)
n = 0
while True:
    piece = b""
    for _ in range(7):
        text = b"number %07d" % n
        piece += bytes([0x81, 0x80 | len(text)]) + b"\0\0\0\0" + text
        n += 1
    s.sendall(piece)
"#;

/// What a client sent and the origin has, the journal has too, whenever the gate is killed.
#[test]
fn a_killed_gate_has_recorded_what_it_let_out() {
    let bench = Bench::new();
    let run = Started::new(bench.run_command(&[], &[interpreter(), "-c", FLOOD]));
    wait_for("messages at the origin", || {
        (bench.origin.received("blob").len() > 30_000).then_some(())
    });
    processes::signal(bench.running_gate(), Signal::SIGKILL);
    run.finish().exits(125);
    let received = bench.origin.received_in_all("blob");
    let whole: Vec<_> = received.chunks_exact(20).map(|frame| frame[6..].to_vec()).collect();
    assert!(whole.len() > 1000 && whole[999] == b"number 0000999", "{} messages", whole.len());

    // The next gate mends what the kill may have torn.
    bench.run_sh("true").ok();
    bench.journal().check_chain();
    let kept: HashSet<_> = bench
        .journal()
        .of_type("message")
        .iter()
        .map(|record| record["body"]["text"].as_str().unwrap().as_bytes().to_vec())
        .collect();
    let lost = whole.iter().filter(|text| !kept.contains(*text)).count();
    assert_eq!(lost, 0, "of {}", whole.len());
}
