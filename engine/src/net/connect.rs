//! Opening a connection to one of several addresses: happy eyeballs (RFC 8305).

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use monoio::net::TcpStream;
use monoio::time::{sleep, timeout};
use nix::sys::socket::{getsockopt, sockopt};
use socket2::{Domain, Socket, Type};

use super::sys;
use super::worker::waits_by_ring;
use crate::limits::CONNECT_STAGGER;

type Attempt = Pin<Box<dyn Future<Output = (SocketAddr, io::Result<TcpStream>)>>>;

/// Connects to the first of `addresses` that answers: each next one is tried when the one before
/// has failed, or beside it when it is slow. Each has `time_max`.
pub(super) async fn connect_any(
    addresses: &[SocketAddr],
    time_max: Duration,
) -> io::Result<(SocketAddr, TcpStream)> {
    let mut untried = interleaved(addresses).into_iter();
    let mut attempts: Vec<Attempt> = Vec::new();
    let mut last_error = io::Error::new(io::ErrorKind::NotFound, "no address to connect to");
    loop {
        if let Some(address) = untried.next() {
            attempts.push(Box::pin(async move { (address, connect(address, time_max).await) }));
        } else if attempts.is_empty() {
            return Err(last_error);
        }
        let more = untried.len() > 0;
        loop {
            let Some((address, result)) = first_or_stagger(&mut attempts, more).await else {
                break; // slow: start the next one beside it
            };
            match result {
                Ok(stream) => return Ok((address, stream)),
                Err(error) => last_error = error,
            }
            if more || attempts.is_empty() {
                break;
            }
        }
    }
}

/// The first attempt to end, or `None` after the stagger when there are `more` to start.
async fn first_or_stagger(
    attempts: &mut Vec<Attempt>,
    more: bool,
) -> Option<(SocketAddr, io::Result<TcpStream>)> {
    let first = std::future::poll_fn(|cx| {
        for (index, attempt) in attempts.iter_mut().enumerate() {
            if let std::task::Poll::Ready(done) = attempt.as_mut().poll(cx) {
                drop(attempts.swap_remove(index));
                return std::task::Poll::Ready(done);
            }
        }
        std::task::Poll::Pending
    });
    if !more {
        return Some(first.await);
    }
    match select(std::pin::pin!(first), std::pin::pin!(sleep(CONNECT_STAGGER))).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(_) => None,
    }
}

/// Families take turns, beginning with the family the system put first.
fn interleaved(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.iter().copied().partition(|a| a.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut order = Vec::with_capacity(addresses.len());
    loop {
        let (a, b) = (first.next(), second.next());
        if a.is_none() && b.is_none() {
            return order;
        }
        order.extend(a.into_iter().chain(b));
    }
}

/// One attempt. It waits for writability rather than for the connect operation, because a wait
/// may be dropped and the operation may not.
async fn connect(address: SocketAddr, time_max: Duration) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&address.into()) {
        Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => return Err(e),
        _ => {}
    }
    let stream = TcpStream::from_std(socket.into())?;
    timeout(time_max, stream.writable(true))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer to the connection"))??;
    match getsockopt(&sys::borrow(&stream), sockopt::SocketError)? {
        0 => {}
        error => return Err(io::Error::from_raw_os_error(error)),
    }
    if waits_by_ring() {
        // On a descriptor that must not block, the ring would give up instead of waiting.
        nix::fcntl::fcntl(
            sys::borrow(&stream),
            nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty()),
        )?;
    }
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::CONNECT_TIME_MAX;

    fn connect_to(addresses: &[SocketAddr]) -> io::Result<SocketAddr> {
        let mut runtime =
            monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().enable_timer().build().unwrap();
        runtime.block_on(connect_any(addresses, CONNECT_TIME_MAX)).map(|(address, _)| address)
    }

    fn listener() -> (std::net::TcpListener, SocketAddr) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// An address at which nobody answers a SYN: its listener's queue is full.
    fn silent() -> (Socket, Vec<std::net::TcpStream>, SocketAddr) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let wait = std::time::Duration::from_millis(200);
        let mut queued = Vec::new();
        while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, wait) {
            queued.push(stream);
        }
        (socket, queued, address)
    }

    #[test]
    fn the_first_that_answers_is_taken() {
        let (_good, good) = listener();
        let refused = listener().1;
        let (_socket, _queued, silent) = silent();
        for (addresses, expected) in [
            (&[good][..], Some(good)),
            (&[refused, good], Some(good)),
            (&[silent, good], Some(good)),
            (&[silent, refused, good], Some(good)),
            (&[refused, silent, refused, good], Some(good)),
            (&[refused, refused], None),
            (&[], None),
        ] {
            assert_eq!(connect_to(addresses).ok(), expected, "{addresses:?}");
        }
    }

    #[test]
    fn families_take_turns() {
        let parse = |list: &[&str]| list.iter().map(|a| a.parse().unwrap()).collect::<Vec<_>>();
        let given = parse(&["[::1]:1", "[::2]:1", "1.1.1.1:1", "[::3]:1", "2.2.2.2:1"]);
        let order = parse(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"]);
        assert_eq!(interleaved(&given), order);
        assert_eq!(interleaved(&[]), []);
    }
}
