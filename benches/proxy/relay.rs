//! The floor: an interceptor that answers CONNECT, ends TLS on both sides and copies bytes. It
//! parses nothing, keeps nothing and knows one origin.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures_util::future::join;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use rustls::{ClientConfig, ServerConfig};

use crate::authority::{self, HOST};
use crate::role::{self, Ready, Settings};
use crate::runtime;
use crate::stream::{Reader, Stream, Writer};

struct Relay {
    origin: SocketAddr,
    downstream: Arc<ServerConfig>,
    upstream: Arc<ClientConfig>,
}

/// Serves until the bench ends.
pub(crate) fn run(settings: &Settings) -> Result<()> {
    let (origin, origin_authority) =
        settings.origin.as_ref().context("the relay needs an origin")?;
    let (downstream, authority) = authority::server()?;
    let upstream = authority::client(origin_authority, true)?;
    let relay = Rc::new(Relay { origin: *origin, downstream, upstream });
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
        let down = Stream::accept(tcp, Arc::clone(&self.downstream)).await?;
        let tcp = TcpStream::connect_addr(self.origin).await?;
        tcp.set_nodelay(true)?;
        let up = Stream::connect(tcp, Arc::clone(&self.upstream), HOST).await?;
        let (sent, received) =
            join(copy(down.reader, up.writer), copy(up.reader, down.writer)).await;
        sent.and(received)
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
