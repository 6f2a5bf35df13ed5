//! The origin: small answers, large ones, event streams, WebSockets, and a short answer to every
//! POST.

use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use monoio::net::{TcpListener, TcpStream};
use monoio::time::sleep_until;
use rustls::ServerConfig;

use crate::authority;
use crate::content::{SMALL_BYTES, event_chunk, noise};
use crate::http::Messages;
use crate::role::{self, Ready, Settings};
use crate::runtime;
use crate::stream::Stream;
use crate::websocket;

/// Large answers are written in such pieces.
const PIECE_BYTES: usize = 64 * 1024;

struct Origin {
    tls: Arc<ServerConfig>,
    noise: Vec<u8>,
}

/// Serves until the bench ends.
pub(crate) fn run(settings: &Settings) -> Result<()> {
    let (tls, authority) = authority::server()?;
    let origin = Rc::new(Origin { tls, noise: noise(PIECE_BYTES * 17) });
    role::exit_at_end();
    runtime::block_on(settings.driver, async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        role::say_ready(&Ready { address: listener.local_addr()?, authority, data_dir: None })?;
        loop {
            let (tcp, _) = listener.accept().await?;
            let origin = Rc::clone(&origin);
            monoio::spawn(async move {
                // The load checks every answer; a client that is gone is no news here.
                let _ = origin.serve(tcp).await;
            });
        }
    })?
}

impl Origin {
    async fn serve(&self, tcp: TcpStream) -> io::Result<()> {
        tcp.set_nodelay(true)?;
        let mut messages = Messages::new(Stream::accept(tcp, Arc::clone(&self.tls)).await?);
        while let Some(head) = messages.head().await? {
            messages.skip(head.content_length()?).await?;
            let target = head.start_line().split(' ').nth(1).unwrap_or("/").to_owned();
            let (path, query) = target.split_once('?').unwrap_or((&target, ""));
            match path {
                "/bytes" => {
                    self.bytes(&mut messages, number(query, "n"), number(query, "seed")).await
                }
                "/ws" => return websocket::serve(&mut messages).await,
                "/sse" => events(&mut messages, number(query, "n"), number(query, "ms")).await,
                _ if head.start_line().starts_with("POST ") => answer(&mut messages, b"{}").await,
                _ => answer(&mut messages, &self.noise_as_text()).await,
            }?;
        }
        messages.stream.writer.finish().await
    }

    fn noise_as_text(&self) -> Vec<u8> {
        self.noise[..SMALL_BYTES].iter().map(|byte| b'a' + byte % 26).collect()
    }

    /// `length` bytes, others for each seed.
    async fn bytes(&self, messages: &mut Messages, length: u64, seed: u64) -> io::Result<()> {
        let head = format!(
            "{HEAD}Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n"
        );
        let writer = &mut messages.stream.writer;
        let session = writer.session();
        session.borrow_mut().seal(head.as_bytes())?;
        let (mut left, mut piece) = (length, seed);
        let mut first = Some(seed.to_le_bytes());
        while left > 0 {
            let size = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES);
            let start = usize::try_from(piece % 16).unwrap_or_default() * PIECE_BYTES;
            let start = start + usize::from(size < PIECE_BYTES) * 8;
            match first.take() {
                Some(mark) if size >= mark.len() => {
                    session.borrow_mut().seal(&mark)?;
                    writer.write(&self.noise[start..start + size - mark.len()]).await?;
                }
                _ => writer.write(&self.noise[start..start + size]).await?,
            }
            left -= size as u64;
            piece += 1;
        }
        Ok(())
    }
}

const HEAD: &str = "HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Tue, 24 Nov 2026 10:00:00 GMT\r\n\
                    Request-Id: req_011CSHoEeqs5C35K2UUqR7Fy\r\nCache-Control: no-cache\r\n";

async fn answer(messages: &mut Messages, body: &[u8]) -> io::Result<()> {
    let length = body.len();
    let head = format!("{HEAD}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
    let mut answer = head.into_bytes();
    answer.extend_from_slice(body);
    messages.stream.writer.write(&answer).await
}

/// `count` events, one each `period_ms`, each its own chunk and its own write.
async fn events(messages: &mut Messages, count: u64, period_ms: u64) -> io::Result<()> {
    let writer = &mut messages.stream.writer;
    let head =
        format!("{HEAD}Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
    writer.write(head.as_bytes()).await?;
    let mut due = Instant::now();
    for _ in 0..count {
        due += Duration::from_millis(period_ms);
        sleep_until(due.into()).await;
        writer.write(event_chunk().as_bytes()).await?;
    }
    writer.write(b"0\r\n\r\n").await
}

fn number(query: &str, name: &str) -> u64 {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(0)
}
