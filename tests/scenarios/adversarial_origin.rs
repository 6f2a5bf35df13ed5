//! An origin that cuts at every place, resets, floods, lies about lengths, or says nothing.
//!
//! 1. Each case is one exchange, in clear text and in TLS, with an origin that plays its script.
//! 2. The client never takes for whole what was not: it has an answer of the gate's own, or a
//!    message that breaks off. What was whole, it has whole.
//! 3. After each case an ordinary request works.
//! 4. The record of each says how it ended, in a word and in words.
//! 5. At the end the gate has no connection and no descriptor more than before.

use std::io::{Read, Write};
use std::time::Duration;

use crate::support::adversary::{Adversary, Step};
use crate::support::bench::Bench;
use crate::support::journal::Exchange;
use crate::support::outside::{End, Outside, read_answer, read_head, read_rest};
use crate::support::{processes, wait_for};
use Step::{AwaitEnd, Cut, Drip, Finish, Flood, HalfTls, Read as Take, ReadHead, Reset};
use Step::{Send, SendHalfRecord, SendRaw, Tls, Wait};

const HOST: &str = "evil.test";
const LENGTH: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
const CLOSE: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";

/// What the client is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sees {
    /// This body, whole.
    Whole(&'static str),
    /// A 502 of the gate's own.
    Failure,
    /// The beginning of a message that breaks off.
    Broken,
    /// One of the last two: a reset may overtake what was sent before it.
    FailureOrBroken,
}

/// What the origin does and what is to come of it.
#[derive(Debug, Clone)]
struct Case {
    script: Vec<Step>,
    sees: Sees,
    outcome: &'static str,
    /// Part of the record's words.
    words: &'static str,
}

fn case(script: &[Step], sees: Sees, outcome: &'static str, words: &'static str) -> Case {
    Case { script: script.to_vec(), sees, outcome, words }
}

fn send(text: &str) -> Step {
    Send(text.as_bytes().to_vec())
}

/// A gate, the adversary behind it, and what the gate had before.
struct Stage<'a> {
    bench: &'a Bench,
    gate: Outside<'a>,
    origin: Adversary,
    descriptors: usize,
}

impl<'a> Stage<'a> {
    fn new(bench: &'a Bench) -> Self {
        let origin = Adversary::start(bench.origin.server_config());
        let rule = |port| format!("{HOST}:{port}:127.0.0.1:{}", origin.port);
        let options = ["--resolve".to_owned(), rule(80), "--resolve".to_owned(), rule(443)];
        let gate = Outside::start(bench, &options);
        gate.get_ok("/");
        gate.settle();
        let descriptors = processes::descriptors(gate.pid()).len();
        Self { bench, gate, origin, descriptors }
    }

    /// Plays all cases, in clear text or in TLS, and then looks at what is left of them.
    fn play(self, cases: &[Case], tls: bool) {
        for (n, case) in cases.iter().enumerate() {
            self.origin.play(&self.script(case, tls));
            let request =
                format!("GET {{}}/{n} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
            let (answer, end) = self.ask(&request, tls);
            check_seen(case, &answer, end);
            self.gate.get_ok("/");
        }
        self.check_left();
        for (n, case) in cases.iter().enumerate() {
            check_record(case, &self.bench.journal().only(&format!("/{n}")));
        }
    }

    fn script(&self, case: &Case, tls: bool) -> Vec<Step> {
        let before = if tls { &[Tls, ReadHead][..] } else { &[ReadHead] };
        match case.script[0] {
            // It says by itself how it begins.
            HalfTls(_) | SendRaw(_) | Take(_) | Tls => case.script.clone(),
            _ => [before, &case.script[..]].concat(),
        }
    }

    /// Sends a request, with a scheme and host where `{}` stands, and reads until the end.
    fn ask(&self, request: &str, tls: bool) -> (Vec<u8>, End) {
        if tls {
            let mut stream = self.gate.secure(HOST);
            stream.write_all(request.replace("{}", "").as_bytes()).unwrap();
            read_rest(&mut stream)
        } else {
            let mut stream = self.gate.connect();
            let absolute = request.replace("{}", &format!("http://{HOST}"));
            stream.write_all(absolute.as_bytes()).unwrap();
            read_rest(&mut stream)
        }
    }

    /// Nothing is left behind.
    fn check_left(&self) {
        self.gate.settle();
        wait_for("the gate to close what it opened", || {
            let open = processes::descriptors(self.gate.pid()).len();
            (open <= self.descriptors).then_some(())
        });
        wait_for("the origin's connections to end", || self.origin.is_done().then_some(()));
    }
}

#[track_caller]
fn check_seen(case: &Case, answer: &[u8], end: End) {
    let text = String::from_utf8_lossy(answer);
    let text = text.get(..2000).unwrap_or(&text);
    let about = format!("{case:?}\nthe client has, to a {end:?} end: {text:?}");
    let failure = text.starts_with("HTTP/1.1 502 ") && text.contains("X-Agent-Gate-Error: ");
    let whole = whole_body(answer, end);
    let broken = !failure && whole.is_none();
    match case.sees {
        Sees::Whole(body) => assert_eq!(whole.as_deref(), Some(body.as_bytes()), "{about}"),
        Sees::Failure => assert!(failure && whole.is_some(), "{about}"),
        Sees::Broken => assert!(broken && !answer.is_empty(), "{about}"),
        Sees::FailureOrBroken => assert!(failure || broken, "{about}"),
    }
}

fn check_record(case: &Case, exchange: &Exchange) {
    let answer = exchange.answer();
    assert_eq!(exchange.outcome(), case.outcome, "{case:?}: {answer}");
    let error = answer["error"].as_str().unwrap_or_default();
    assert!(error.contains(case.words), "{case:?}: {answer}");
    assert_eq!(error.is_empty(), case.words.is_empty(), "{case:?}: {answer}");
}

/// The body as a client would take it from the last of these messages; `None` when it would not
/// take it for whole.
fn whole_body(answer: &[u8], end: End) -> Option<Vec<u8>> {
    let at = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&answer[..at]).to_ascii_lowercase();
    let body = &answer[at..];
    if head.starts_with("http/1.1 1") {
        return whole_body(body, end);
    }
    if head.contains("transfer-encoding: chunked") {
        return chunked_body(body);
    }
    match head.lines().find_map(|line| line.strip_prefix("content-length: ")) {
        Some(length) => body.get(..length.parse().ok()?).map(<[u8]>::to_vec),
        None => (end == End::Clean).then(|| body.to_vec()),
    }
}

fn chunked_body(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = String::from_utf8_lossy(&rest[..line]).into_owned();
        let size = usize::from_str_radix(size.split(';').next()?, 16).ok()?;
        rest = &rest[line + 2..];
        if size == 0 {
            let ended =
                rest.starts_with(b"\r\n") || rest.windows(4).any(|four| four == b"\r\n\r\n");
            return ended.then_some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

/// A message of known length and one in chunks with trailers, cut after each of their bytes.
fn cut_everywhere(ends: &[Step]) -> Vec<Case> {
    let mut cases = Vec::new();
    let whole = [
        (LENGTH.len(), format!("{LENGTH}hello")),
        (CHUNKED.len(), format!("{CHUNKED}5;x=y\r\nhello\r\n3\r\nyou\r\n0\r\nX-Sum: 2\r\n\r\n")),
    ];
    for (head, message) in whole {
        for at in 0..message.len() {
            let sees = if at < head { Sees::Failure } else { Sees::Broken };
            let end = ends[at % ends.len()].clone();
            let sees = if matches!(end, Reset) { Sees::FailureOrBroken } else { sees };
            cases.push(case(&[send(&message[..at]), end], sees, "cut_by_origin", "origin"));
        }
        cases.push(case(&[send(&message), Finish], Sees::Whole(body_of(&message)), "complete", ""));
    }
    cases
}

fn body_of(message: &str) -> &'static str {
    if message.contains("chunked") { "helloyou" } else { "hello" }
}

#[test]
fn cut_in_clear_text() {
    let bench = Bench::new();
    Stage::new(&bench).play(&cut_everywhere(&[Finish, Finish, Reset]), false);
}

#[test]
fn cut_in_tls() {
    let bench = Bench::new();
    Stage::new(&bench).play(&cut_everywhere(&[Finish, Cut, Reset]), true);
}

/// A body that ends with its connection: an end is an end, a reset is none, and neither is TLS
/// without close_notify.
fn cut_at_the_end_of_the_connection(tls: bool) -> Vec<Case> {
    let begun = send(&format!("{CLOSE}hello"));
    let mut cases = vec![
        case(&[begun.clone(), Finish], Sees::Whole("hello"), "complete", ""),
        case(&[begun.clone(), Wait, Reset], Sees::Broken, "cut_by_origin", "mid-body"),
    ];
    if tls {
        cases.push(case(&[begun, Cut], Sees::Broken, "complete", "without saying so"));
    }
    cases
}

#[test]
fn bodies_that_end_with_their_connection() {
    for tls in [false, true] {
        let bench = Bench::new();
        let stage = Stage::new(&bench);
        stage.origin.go_on();
        stage.play(&cut_at_the_end_of_the_connection(tls), tls);
    }
}

/// What is no HTTP, in the head and after it.
fn garbage() -> Vec<Case> {
    let mut cases = Vec::new();
    for text in [
        "\0\u{1}\u{2}garbage\r\n\r\n",
        "SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/3.0 200 OK\r\n\r\n",
        "HTTP/1.1 200OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    ] {
        cases.push(case(&[send(text), AwaitEnd], Sees::Failure, "origin_broken", "broken"));
    }
    for text in ["zz\r\n", "-1\r\nx", "5\r\nhello!!", "ffffffffffffffffff\r\n", "5\rhello\r\n"] {
        let script = [send(CHUNKED), send(text), AwaitEnd];
        cases.push(case(&script, Sees::Broken, "origin_broken", "broken"));
    }
    cases
}

/// What does not end by itself.
fn floods() -> Vec<Case> {
    let flood = |text: &str| Flood(text.repeat(1 + 8192 / text.len()).into_bytes());
    let broken = "origin_broken";
    let begun = "HTTP/1.1 200 OK\r\n";
    vec![
        case(&[send(begun), flood("X-A: b\r\n")], Sees::Failure, broken, "more than"),
        case(&[send(begun), send("X-A: "), flood("b")], Sees::Failure, broken, "longer than"),
        case(&[flood("\r\n")], Sees::Failure, broken, "broken"),
        case(
            &[flood("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")],
            Sees::Broken,
            broken,
            "too many interim",
        ),
        case(&[send(CHUNKED), send("5;"), flood("x")], Sees::Broken, broken, "broken"),
        case(&[send(CHUNKED), send("0\r\n"), flood("X-T: y\r\n")], Sees::Broken, broken, "broken"),
    ]
}

/// More than was announced goes nowhere; what comes slowly comes whole.
fn lengths_and_pace() -> Vec<Case> {
    let message = format!("{LENGTH}hello").into_bytes();
    vec![
        case(
            &[send(&format!("{LENGTH}hello and more")), Finish],
            Sees::Whole("hello"),
            "complete",
            "",
        ),
        case(
            &[Drip(message, Duration::from_millis(20)), Finish],
            Sees::Whole("hello"),
            "complete",
            "",
        ),
    ]
}

#[test]
fn nonsense_in_clear_text() {
    let bench = Bench::new();
    Stage::new(&bench).play(&[garbage(), floods(), lengths_and_pace()].concat(), false);
}

#[test]
fn nonsense_in_tls() {
    let bench = Bench::new();
    let mut cases = [garbage(), floods(), lengths_and_pace()].concat();
    let half = |length| [send(LENGTH), SendHalfRecord(b"hello".to_vec(), length), Cut];
    for length in [1, 4, 5, 6, 20] {
        cases.push(case(&half(length), Sees::Broken, "cut_by_origin", "mid-body"));
    }
    let raw = [send(LENGTH), SendRaw(b"no TLS record at all".to_vec()), AwaitEnd];
    cases.push(case(&raw, Sees::Broken, "cut_by_origin", "mid-body"));
    Stage::new(&bench).play(&cases, true);
}

/// The handshake cut at some of its places, reset, refused by an alert, or no TLS at all.
#[test]
fn handshakes() {
    let bench = Bench::new();
    let mut cases = Vec::new();
    for length in [0, 1, 5, 6, 50, 130, 500] {
        for end in [Cut, Reset] {
            cases.push(case(&[HalfTls(length), end], Sees::Failure, "origin_tls_failed", "TLS"));
        }
    }
    let alert = vec![21, 3, 3, 0, 2, 2, 40];
    for bytes in [alert, b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), vec![0; 300]] {
        let script = [SendRaw(bytes), Cut];
        cases.push(case(&script, Sees::Failure, "origin_tls_failed", "TLS"));
    }
    Stage::new(&bench).play(&cases, true);
}

/// A request that is larger than all buffers on its way, whose origin has enough of it in the middle.
#[test]
fn in_the_middle_of_a_request() {
    const BYTES: usize = 40_000_000;
    let bench = Bench::new();
    let stage = Stage::new(&bench);
    let large = "HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nmuch";
    let cut = |script: &[Step]| case(script, Sees::FailureOrBroken, "cut_by_origin", "");
    let cases = [
        cut(&[Take(10), Reset]),
        cut(&[Take(20_000), Cut]),
        cut(&[Take(20_000), Reset]),
        case(&[Take(20_000), send(large), Wait], Sees::Whole("much"), "cut_by_origin", "before"),
    ];
    for (n, case) in cases.iter().enumerate() {
        stage.origin.play(&case.script);
        let mut stream = stage.gate.connect();
        let mut writing = stream.try_clone().unwrap();
        let writer = std::thread::spawn(move || {
            let head = format!(
                "POST http://{HOST}/{n} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {BYTES}\r\n\r\n"
            );
            // The gate ends the connection when the origin does.
            let _ = writing.write_all(head.as_bytes());
            let _ = writing.write_all(&vec![b'x'; BYTES]);
        });
        let (answer, end) = read_rest(&mut stream);
        writer.join().unwrap();
        check_seen(case, &answer, end);
        stage.gate.get_ok("/");
        let exchange = bench.journal().only(&format!("/{n}"));
        assert_eq!(exchange.outcome(), case.outcome, "{}", exchange.answer());
        let error = exchange.answer()["error"].as_str().unwrap();
        assert!(error.contains(case.words), "{}", exchange.answer());
    }
    stage.origin.go_on();
    stage.check_left();
}

/// No answer, or half of one, until the client has enough and goes: the origin's connection goes
/// with it.
#[test]
fn until_the_client_gives_up() {
    let bench = Bench::new();
    let stage = Stage::new(&bench);
    for (n, begun) in ["", "HTTP/1.1 2", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"]
        .into_iter()
        .enumerate()
    {
        for tls in [false, true] {
            let before = if tls { &[Tls, ReadHead][..] } else { &[ReadHead] };
            stage.origin.play(&[before, &[send(begun), AwaitEnd]].concat());
            let accepted = stage.origin.accepted();
            let target = format!("/{n}?tls={tls}");
            let request = format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
            let awaited = begun.len() > 20;
            if tls {
                let mut stream = stage.gate.secure(HOST);
                stream.write_all(request.as_bytes()).unwrap();
                wait_for("the request to arrive", || {
                    (stage.origin.accepted() > accepted).then_some(())
                });
                if awaited {
                    read_head(&mut stream);
                }
            } else {
                let mut stream = stage.gate.connect();
                let request = request.replace(&target, &format!("http://{HOST}{target}"));
                stream.write_all(request.as_bytes()).unwrap();
                wait_for("the request to arrive", || {
                    (stage.origin.accepted() > accepted).then_some(())
                });
                if awaited {
                    read_head(&mut stream);
                }
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
            stage.gate.get_ok("/");
            let exchange = bench.journal().only(&target);
            assert_eq!(exchange.outcome(), "cut_by_client", "{}", exchange.answer());
            assert!(exchange.answer()["error"].as_str().unwrap().contains("client"));
        }
    }
    stage.check_left();
}

/// Bytes after the end of an answer are an answer to nothing (RFC 9112, section 9.2): whether they
/// come with it or later, on a connection that waits for its client or in the pool, the next request
/// goes out by another connection.
#[test]
fn answers_to_nothing() {
    let bench = Bench::new();
    let stage = Stage::new(&bench);
    let first = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst";
    let smuggled = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled";
    let second = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nsecond";
    let good = [Tls, ReadHead, send(second), Finish];
    let get = |stream: &mut dyn ReadWrite| {
        write!(stream, "GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").unwrap();
    };
    let body =
        |mut stream: &mut dyn ReadWrite| String::from_utf8(read_answer(&mut stream).1).unwrap();

    // With the answer; the client's connection stays.
    stage.origin.play(&[Tls, ReadHead, send(&format!("{first}{smuggled}")), AwaitEnd]);
    stage.origin.play(&good);
    let mut stream = stage.gate.secure(HOST);
    get(&mut stream);
    assert_eq!(body(&mut stream), "first");
    get(&mut stream);
    assert_eq!(body(&mut stream), "second");
    drop(stream);

    // Later, while the client holds its connection: that ends, as it would without a gate.
    stage.origin.play(&[Tls, ReadHead, send(first), Wait, send(smuggled), AwaitEnd]);
    stage.origin.play(&good);
    let mut stream = stage.gate.secure(HOST);
    get(&mut stream);
    assert_eq!(body(&mut stream), "first");
    stage.origin.go_on();
    assert_eq!(read_rest(&mut stream), (Vec::new(), End::Clean));
    let mut stream = stage.gate.secure(HOST);
    get(&mut stream);
    assert_eq!(body(&mut stream), "second");
    drop(stream);

    // Later, while the connection is in the pool.
    stage.origin.play(&[Tls, ReadHead, send(first), Wait, send(smuggled), AwaitEnd]);
    stage.origin.play(&good);
    let mut stream = stage.gate.secure(HOST);
    get(&mut stream);
    assert_eq!(body(&mut stream), "first");
    drop(stream);
    stage.gate.settle();
    let sends = stage.origin.sends();
    stage.origin.go_on();
    wait_for("the origin to send it", || (stage.origin.sends() > sends).then_some(()));
    let mut stream = stage.gate.secure(HOST);
    get(&mut stream);
    assert_eq!(body(&mut stream), "second");
    drop(stream);
    assert_eq!(stage.origin.accepted(), 6);
    stage.check_left();
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}
