//! The load's side of a connection: one implementation for all ways to the origin.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::TcpStream;
use rustls::ClientConfig;

use crate::authority::HOST;
use crate::content::{EVENT_BYTES, event_age};
use crate::http::Messages;
use crate::journal::Passed;
use crate::options::Kind;
use crate::stream::Stream;
use crate::websocket::{self, TEXT_BYTES, UPGRADE};

/// Large bodies are written in such pieces.
const PIECE_BYTES: usize = 64 * 1024;

/// A way to the origin, and what has passed on it.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) kind: Kind,
    /// The origin, or what stands before it.
    pub(crate) address: SocketAddr,
    pub(crate) tls: Arc<ClientConfig>,
    /// The process that is measured.
    pub(crate) pid: u32,
    pub(crate) passed: Rc<Cell<Passed>>,
}

/// One connection.
pub(crate) struct Connection {
    messages: Messages,
    passed: Rc<Cell<Passed>>,
}

impl Connection {
    /// Opens a connection up to the end of TLS.
    pub(crate) async fn open(way: &Way) -> io::Result<Self> {
        let tcp = TcpStream::connect_addr(way.address).await?;
        tcp.set_nodelay(true)?;
        let tcp = if way.kind == Kind::Direct { tcp } else { connect(tcp).await? };
        let stream = Stream::connect(tcp, Arc::clone(&way.tls), HOST).await?;
        Ok(Self { messages: Messages::new(stream), passed: Rc::clone(&way.passed) })
    }

    /// Gets `target`, whose answer says its length; how long that took.
    pub(crate) async fn get(&mut self, target: &str) -> io::Result<Duration> {
        self.exchange(head("GET", target, "").as_bytes(), 0).await
    }

    /// Posts a body that is said to be JSON; how long its end and the answer took.
    pub(crate) async fn post(&mut self, target: &str, body: &[u8]) -> io::Result<Duration> {
        let length = body.len();
        let fields = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
        let writer = &mut self.messages.stream.writer;
        let session = writer.session();
        session.borrow_mut().seal(head("POST", target, &fields).as_bytes())?;
        let (earlier, last) = body.split_at(length.saturating_sub(1) / PIECE_BYTES * PIECE_BYTES);
        for piece in earlier.chunks(PIECE_BYTES) {
            writer.write(piece).await?;
        }
        self.exchange(last, length as u64).await
    }

    /// Gets a stream of events to its end. Returns when its first byte came, and how old each
    /// event was.
    pub(crate) async fn events(&mut self, target: &str) -> io::Result<(Duration, Vec<Duration>)> {
        let sent = Instant::now();
        self.messages.stream.writer.write(head("GET", target, "").as_bytes()).await?;
        self.answer_head().await?;
        let first_byte = sent.elapsed();
        let mut ages = Vec::new();
        let mut last = false;
        loop {
            let (age, is_end) = self
                .messages
                .line(|line| (event_age(line), (line == b"0", line.is_empty())))
                .await?;
            ages.extend(age);
            if last && is_end.1 {
                self.count(0, (ages.len() * EVENT_BYTES) as u64);
                return Ok((first_byte, ages));
            }
            last = is_end.0;
        }
    }

    /// Opens a WebSocket, over which `count` texts go and come back; how long each took.
    pub(crate) async fn texts(&mut self, count: usize) -> io::Result<Vec<Duration>> {
        self.messages.stream.writer.write(head("GET", "/ws", UPGRADE).as_bytes()).await?;
        let head = self.messages.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if !head.start_line().starts_with("HTTP/1.1 101 ") {
            return Err(io::Error::other(format!("answered with {head:?}")));
        }
        let mut times = Vec::with_capacity(count);
        for number in 0..count as u64 {
            times.push(websocket::echo(&mut self.messages, number).await?);
        }
        let bytes = (count * TEXT_BYTES) as u64;
        self.count(bytes, bytes);
        let mut passed = self.passed.get();
        passed.messages += 2 * count as u64;
        self.passed.set(passed);
        Ok(times)
    }

    /// Says goodbye.
    pub(crate) async fn close(mut self) {
        // The answers are here; how the connection ends is the other side's affair.
        let _ = self.messages.stream.writer.finish().await;
        while let Ok(true) = self.messages.fill().await {}
    }

    async fn exchange(&mut self, bytes: &[u8], body_length: u64) -> io::Result<Duration> {
        let sent = Instant::now();
        self.messages.stream.writer.write(bytes).await?;
        let length = self.answer_head().await?;
        self.messages.skip(length).await?;
        self.count(body_length, length);
        Ok(sent.elapsed())
    }

    /// Reads the head of a good answer; the length of its body.
    async fn answer_head(&mut self) -> io::Result<u64> {
        let head = self.messages.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if !head.start_line().starts_with("HTTP/1.1 200 ") {
            return Err(io::Error::other(format!("answered with {head:?}")));
        }
        head.content_length()
    }

    fn count(&self, sent: u64, received: u64) {
        let mut passed = self.passed.get();
        passed.exchanges += 1;
        passed.sent += sent;
        passed.received += received;
        self.passed.set(passed);
    }
}

/// About what an agent's HTTP library sends.
fn head(method: &str, target: &str, fields: &str) -> String {
    format!(
        "{method} {target} HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: bench/1.0 (linux; x64)\r\n\
         Accept: application/json\r\nAuthorization: Bearer bench-bench-bench-bench-bench\r\n\
         X-Request-Attempt: 0\r\n{fields}\r\n"
    )
}

/// Asks a proxy for a tunnel to the origin.
async fn connect(mut tcp: TcpStream) -> io::Result<TcpStream> {
    let request = format!("CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n");
    tcp.write_all(request.into_bytes()).await.0?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let (result, buffer) = tcp.read(Vec::with_capacity(1024)).await;
        if result? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&buffer);
    }
    if !answer.starts_with(b"HTTP/1.1 200 ") {
        return Err(io::Error::other(String::from_utf8_lossy(&answer).into_owned()));
    }
    Ok(tcp)
}
