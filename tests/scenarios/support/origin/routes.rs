//! The routes: what the origin answers. The path decides, not the host.
//!
//! | path | answer |
//! | --- | --- |
//! | `/echo` | the request's body |
//! | `/bytes?n=&seed=&frame=length\|chunked\|close` | noise |
//! | `/sse?n=&ms=&steps=` | n events, `ms` apart, each after the first waiting for the signal `steps` |
//! | `/slow?ms=`, `/hold?name=` | 200 after a while, or after the signal |
//! | `/status?code=` | that status |
//! | `/upload` | what arrived: length and hash |
//! | `/interim`, `/trailers`, `/gzip` | 103 before 200; chunked with trailers; a gzip coded body |
//! | `/coded?as=&of=&n=&flaw=&called=` | a body under the codings of a list, sound or not |
//! | `/coded-sse?as=&n=&steps=` | events under a coding, each flushed |
//! | `/abort?after=&frame=`, `/reset?after=` | broken off in mid-body, by an end or a reset |
//! | `/vanish`, `/garbage` | no answer at all; one that is not HTTP |
//! | `/early` | 413 before the request's body is read |
//! | `/reject?code=` | that status in the place of 100, to a request that expects it; else `/echo` |
//! | `/raw?hex=` | these bytes for a whole answer, then the connection's end |
//! | `/upgrade` | 101, then the client's bytes back |
//! | `/ws`, `/ws/received` | 101 to WebSocket, then as the test has laid out; how much of it came |
//! | `/v1/messages` | a small Anthropic Messages stream |
//! | `/NAME.git/…` | git's smart HTTP |
//! | what else names a file | that file (see `Origin::files`) |

use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::time::Duration;

use super::answer::Answer;
use super::log::{Seen, value};
use super::wire::{Fault, Framing, Head, Wire};
use super::{Shared, coded, files, git, websocket};
use crate::support::content::{Content, NOISE_PIECE, Noise};

/// Reads one request and answers it; false when the connection ends with it.
pub(super) fn one_exchange(
    wire: &mut Wire,
    connection: u64,
    sni: Option<&str>,
    shared: &Shared,
) -> Result<bool, Fault> {
    let head = wire.read_head()?;
    let framing = head.framing()?;
    if head.target.starts_with("/early") {
        return refuse_early(wire, framing, shared);
    }
    let expects =
        value(&head.fields, "expect").is_some_and(|e| e.eq_ignore_ascii_case("100-continue"));
    if expects && head.target.starts_with("/reject") {
        return reject(wire, &head, framing, shared);
    }
    if expects && framing != Framing::Length(0) {
        wire.write(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let seen = read_rest(wire, head, framing, connection, sni)?;
    let place = shared.log.received(seen.clone());
    let mut answer = Answer::new(wire, &seen.method, &shared.bytes_sent);
    let result = respond(&seen, &mut answer, shared);
    shared.log.answered(place, std::mem::take(&mut answer.sent));
    match result? {
        Next::Go => Ok(keeps_alive(&seen)),
        Next::End => Ok(false),
        Next::Reset => Err(Fault::Reset),
    }
}

/// What becomes of the connection after an answer.
pub(super) enum Next {
    Go,
    End,
    Reset,
}

fn keeps_alive(seen: &Seen) -> bool {
    let close = seen.field("connection").is_some_and(|c| c.eq_ignore_ascii_case("close"));
    seen.version == "HTTP/1.1" && !close
}

fn read_rest(
    wire: &mut Wire,
    head: Head,
    framing: Framing,
    connection: u64,
    sni: Option<&str>,
) -> Result<Seen, Fault> {
    let mut body = Content::default();
    let trailers = wire.read_body(framing, &mut body)?;
    Ok(Seen {
        connection,
        sni: sni.map(str::to_owned),
        method: head.method,
        target: head.target,
        version: head.version,
        fields: head.fields,
        body,
        trailers,
        sent: None,
    })
}

/// Answers before the body, then reads it all the same, so that no reset overtakes the answer.
fn refuse_early(wire: &mut Wire, framing: Framing, shared: &Shared) -> Result<bool, Fault> {
    let mut answer = Answer::new(wire, "POST", &shared.bytes_sent);
    answer.whole(413, &[("Connection", "close")], b"too much")?;
    wire.socket().shutdown(Shutdown::Write)?;
    wire.read_body(framing, &mut Content::default())?;
    Ok(false)
}

/// Answers in the place of 100 (RFC 9110 section 10.1.1). The client may send its body all the same,
/// and then the connection goes on.
fn reject(wire: &mut Wire, head: &Head, framing: Framing, shared: &Shared) -> Result<bool, Fault> {
    let (_, code) = head.target.split_once("code=").expect("a code");
    let mut answer = Answer::new(wire, &head.method, &shared.bytes_sent);
    answer.whole(code.parse().unwrap(), &[], b"not this")?;
    wire.read_body(framing, &mut Content::default())?;
    Ok(true)
}

fn respond(seen: &Seen, answer: &mut Answer<'_>, shared: &Shared) -> io::Result<Next> {
    match seen.path() {
        "/echo" | "/reject" => {
            let kind = seen.field("content-type").unwrap_or("application/octet-stream");
            answer.whole(200, &[("Content-Type", kind)], seen.body.whole().unwrap_or_default())?;
        }
        "/bytes" => return bytes(seen, answer),
        "/sse" => sse(seen, answer, shared)?,
        "/slow" => {
            std::thread::sleep(Duration::from_millis(seen.number("ms", 100)));
            answer.whole(200, &[], b"at last\n")?;
        }
        "/hold" => {
            if !shared.signals.acquire(seen.query("name").unwrap_or_default()) {
                return Ok(Next::End);
            }
            answer.whole(200, &[], b"released\n")?;
        }
        "/status" => status(seen, answer)?,
        "/upload" => {
            let text = format!(
                "{{\"bytes\":{},\"blake3\":\"{}\"}}\n",
                seen.body.bytes,
                seen.body.blake3()
            );
            answer.whole(200, &[("Content-Type", "application/json")], text.as_bytes())?;
        }
        "/interim" => {
            answer.interim(103, &[("Link", "</style.css>; rel=preload")])?;
            answer.whole(200, &[], b"after the hints\n")?;
        }
        "/trailers" => {
            answer.head(200, &[("Transfer-Encoding", "chunked"), ("Trailer", "X-Sum, X-Last")])?;
            answer.chunk(b"one ")?;
            answer.chunk(b"two\n")?;
            answer.last_chunk(&[("X-Sum", "2"), ("X-Last", "yes")])?;
        }
        "/gzip" => {
            let coded = stored_gzip(b"{\"plain\":\"text under a content coding\"}\n");
            answer.whole(200, &[("Content-Encoding", "gzip")], &coded)?;
        }
        "/coded" => coded::body(seen, answer)?,
        "/coded-sse" => coded::events(seen, answer, shared)?,
        "/abort" => return abort(seen, answer),
        "/reset" => {
            answer.head(200, &[("Content-Length", "1000000")])?;
            answer.bytes(&Noise::bytes(3, usize_of(seen.number("after", 1000))))?;
            return Ok(Next::Reset);
        }
        "/raw" => {
            answer.wire().write(&from_hex(seen.query("hex").unwrap_or_default()))?;
            return Ok(Next::End);
        }
        "/vanish" => return Ok(Next::End),
        "/garbage" => {
            answer.wire().write(b"this is not HTTP at all\r\n\r\n")?;
            return Ok(Next::End);
        }
        "/upgrade" => return upgrade(answer),
        "/ws" => return websocket::serve(seen, answer, shared),
        "/ws/received" => return websocket::tell(seen, answer, shared),
        "/v1/messages" => messages(answer)?,
        path if path.contains(".git/") => git::serve(seen, answer, &shared.folder.join("git"))?,
        "/" => answer.whole(200, &[("Content-Type", "text/plain")], b"hello from the origin\n")?,
        _ => match files::find(seen, &shared.folder.join("files")) {
            Some(file) => files::serve(&file, answer)?,
            None => answer.whole(404, &[], b"no such route\n")?,
        },
    }
    Ok(Next::Go)
}

fn bytes(seen: &Seen, answer: &mut Answer<'_>) -> io::Result<Next> {
    let total = seen.number("n", 1000);
    let length = total.to_string();
    let frame = seen.query("frame").unwrap_or("length");
    let kind = ("Content-Type", "application/octet-stream");
    match frame {
        "length" => answer.head(200, &[kind, ("Content-Length", &length)])?,
        "chunked" => answer.head(200, &[kind, ("Transfer-Encoding", "chunked")])?,
        "close" => answer.head(200, &[kind, ("Connection", "close")])?,
        other => panic!("no framing {other:?}"),
    }
    if !answer.has_body() {
        return Ok(if frame == "close" { Next::End } else { Next::Go });
    }
    let mut noise = Noise::new(seen.number("seed", 1));
    let mut piece = vec![0; NOISE_PIECE];
    let mut left = total;
    while left > 0 {
        let n = usize_of(left).min(NOISE_PIECE);
        noise.fill(&mut piece[..n]);
        if frame == "chunked" {
            answer.chunk(&piece[..n])?;
        } else {
            answer.bytes(&piece[..n])?;
        }
        left -= n as u64;
    }
    match frame {
        "chunked" => answer.last_chunk(&[])?,
        "close" => return Ok(Next::End),
        _ => {}
    }
    Ok(Next::Go)
}

fn sse(seen: &Seen, answer: &mut Answer<'_>, shared: &Shared) -> io::Result<()> {
    answer.head(
        200,
        &[
            ("Content-Type", "text/event-stream"),
            ("Cache-Control", "no-cache"),
            ("Transfer-Encoding", "chunked"),
        ],
    )?;
    for n in 0..seen.number("n", 3) {
        if n > 0 {
            std::thread::sleep(Duration::from_millis(seen.number("ms", 0)));
            if seen.query("steps").is_some_and(|name| !shared.signals.acquire(name)) {
                return Err(ErrorKind::Interrupted.into());
            }
        }
        answer.chunk(format!("event: tick\nid: {n}\ndata: {{\"n\":{n}}}\n\n").as_bytes())?;
    }
    answer.last_chunk(&[])
}

fn status(seen: &Seen, answer: &mut Answer<'_>) -> io::Result<()> {
    let code = u16::try_from(seen.number("code", 200)).unwrap();
    match code {
        // A 304 tells the length of what it does not send (RFC 9110 section 8.6).
        304 => answer.head(304, &[("ETag", "\"abc\""), ("Content-Length", "12345")]),
        204 => answer.head(204, &[("X-Kind", "nothing")]),
        205 => answer.head(205, &[("Content-Length", "0")]),
        426 => answer.whole(426, &[("Connection", "Upgrade"), ("Upgrade", "x/1")], b"not so\n"),
        _ => answer.whole(code, &[("Content-Type", "text/plain")], b"as you asked\n"),
    }
}

fn abort(seen: &Seen, answer: &mut Answer<'_>) -> io::Result<Next> {
    let part = Noise::bytes(2, usize_of(seen.number("after", 1000)));
    if seen.query("frame") == Some("chunked") {
        answer.head(200, &[("Transfer-Encoding", "chunked")])?;
        answer.chunk(&part)?;
    } else {
        answer.head(200, &[("Content-Length", "1000000")])?;
        answer.bytes(&part)?;
    }
    Ok(Next::End)
}

fn upgrade(answer: &mut Answer<'_>) -> io::Result<Next> {
    answer.head(101, &[("Connection", "Upgrade"), ("Upgrade", "echo")])?;
    loop {
        let bytes = answer.wire().read_raw().unwrap_or_default();
        if bytes.is_empty() {
            return Ok(Next::End);
        }
        // Not a body: the log's body stays empty, as the record's does.
        answer.wire().write(&bytes)?;
    }
}

/// The shortest stream that the Messages API would send.
fn messages(answer: &mut Answer<'_>) -> io::Result<()> {
    let events = [
        (
            "message_start",
            r#"{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"claude-test","content":[],"stop_reason":null,"usage":{"input_tokens":9,"output_tokens":1}}}"#,
        ),
        (
            "content_block_start",
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
        ),
        ("ping", r#"{"type":"ping"}"#),
        (
            "content_block_delta",
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Grüße"}}"#,
        ),
        ("content_block_stop", r#"{"type":"content_block_stop","index":0}"#),
        (
            "message_delta",
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":4}}"#,
        ),
        ("message_stop", r#"{"type":"message_stop"}"#),
    ];
    answer.head(
        200,
        &[
            ("content-type", "text/event-stream; charset=utf-8"),
            ("request-id", "req_1"),
            ("transfer-encoding", "chunked"),
        ],
    )?;
    for (name, data) in events {
        answer.chunk(format!("event: {name}\ndata: {data}\n\n").as_bytes())?;
    }
    answer.last_chunk(&[])
}

/// A gzip member with one stored block (RFC 1951 section 3.2.4, RFC 1952).
fn stored_gzip(plain: &[u8]) -> Vec<u8> {
    let length = u16::try_from(plain.len()).expect("a short body");
    let mut coded = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    coded.extend_from_slice(&length.to_le_bytes());
    coded.extend_from_slice(&(!length).to_le_bytes());
    coded.extend_from_slice(plain);
    coded.extend_from_slice(&crc32(plain).to_le_bytes());
    coded.extend_from_slice(&u32::from(length).to_le_bytes());
    coded
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8)
            .fold(crc ^ u32::from(*byte), |c, _| (c >> 1) ^ (0xedb8_8320 & (c & 1).wrapping_neg()))
    })
}

fn from_hex(digits: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}

pub(super) fn usize_of(n: u64) -> usize {
    usize::try_from(n).expect("64 bits")
}
