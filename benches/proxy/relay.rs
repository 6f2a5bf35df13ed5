//! The floor: an interceptor that answers CONNECT, ends TLS on both sides and copies bytes, or lets
//! TLS pass and only copies. It parses nothing, keeps nothing and knows one origin.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures_util::future::join;
use monoio::io::{
    AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt, OwnedReadHalf, OwnedWriteHalf, Splitable,
};
use monoio::net::{TcpListener, TcpStream};
use rustls::{ClientConfig, ServerConfig};

use crate::authority::{self, HOST};
use crate::role::{self, Ready, Settings};
use crate::runtime;
use crate::stream::{Reader, Stream, Writer};

/// Bytes asked for by one plain read, at first and at most.
const READ_BYTES_MIN: usize = 2 * 1024;
const READ_BYTES_MAX: usize = 64 * 1024;

struct Relay {
    origin: SocketAddr,
    passes_through: bool,
    downstream: Arc<ServerConfig>,
    upstream: Arc<ClientConfig>,
}

/// Serves until the bench ends.
pub(crate) fn run(settings: &Settings) -> Result<()> {
    let (origin, origin_authority) =
        settings.origin.as_ref().context("the relay needs an origin")?;
    let (downstream, authority) = authority::server()?;
    let upstream = authority::client(origin_authority, true)?;
    let passes_through = settings.passes_through;
    let relay = Rc::new(Relay { origin: *origin, passes_through, downstream, upstream });
    role::exit_at_end();
    runtime::block_on(settings.driver, async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        role::say_ready(&Ready { address: listener.local_addr()?, authority, data_dir: None })?;
        loop {
            let (tcp, _) = listener.accept().await?;
            let relay = Rc::clone(&relay);
            monoio::spawn(async move {
                // Whoever was at the other end knows; a relay keeps no account.
                let _ = relay.serve(tcp).await;
            });
        }
    })?
}

impl Relay {
    async fn serve(&self, tcp: TcpStream) -> io::Result<()> {
        tcp.set_nodelay(true)?;
        let tcp = answer_connect(tcp).await?;
        if self.passes_through {
            return self.pass_through(tcp).await;
        }
        let down = Stream::accept(tcp, Arc::clone(&self.downstream)).await?;
        let tcp = TcpStream::connect_addr(self.origin).await?;
        tcp.set_nodelay(true)?;
        let up = Stream::connect(tcp, Arc::clone(&self.upstream), HOST).await?;
        let (sent, received) =
            join(copy(down.reader, up.writer), copy(up.reader, down.writer)).await;
        sent.and(received)
    }

    async fn pass_through(&self, down: TcpStream) -> io::Result<()> {
        let up = TcpStream::connect_addr(self.origin).await?;
        up.set_nodelay(true)?;
        let ((down_read, down_write), (up_read, up_write)) = (down.into_split(), up.into_split());
        let (sent, received) =
            join(copy_plain(down_read, up_write), copy_plain(up_read, down_write)).await;
        sent.and(received)
    }
}

async fn copy_plain(
    mut from: OwnedReadHalf<TcpStream>,
    mut to: OwnedWriteHalf<TcpStream>,
) -> io::Result<()> {
    let (mut buffer, mut room) = (Vec::new(), READ_BYTES_MIN);
    loop {
        buffer.clear();
        if buffer.capacity() < room {
            buffer = Vec::with_capacity(room);
        }
        let (result, filled) = from.read(buffer).await;
        let length = result?;
        if length == 0 {
            return to.shutdown().await;
        }
        let (result, written) = to.write_all(filled).await;
        result?;
        buffer = written;
        if length >= room {
            room = (room * 4).min(READ_BYTES_MAX);
        }
    }
}

async fn answer_connect(mut tcp: TcpStream) -> io::Result<TcpStream> {
    let mut head = Vec::with_capacity(1024);
    while !head.ends_with(b"\r\n\r\n") {
        let (result, buffer) = tcp.read(Vec::with_capacity(1024)).await;
        if result? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(&buffer);
    }
    tcp.write_all(&b"HTTP/1.1 200 OK\r\n\r\n"[..]).await.0?;
    Ok(tcp)
}

/// Copies to the end, and tells the other side that it is one.
async fn copy(mut from: Reader, mut to: Writer) -> io::Result<()> {
    let session = to.session();
    let mut seal = |plain: &[u8]| session.borrow_mut().seal(plain);
    loop {
        let more = from.read(&mut seal).await;
        if !matches!(more, Ok(true)) {
            to.finish().await?;
            return more.map(drop);
        }
        to.flush().await?;
    }
}
