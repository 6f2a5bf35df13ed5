//! Listening on loopback: on a wanted port, or the next that is free.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// How far from the wanted port the next free one is looked for.
const NEXT_PORTS: u16 = 50;

/// A listener for the pages: on this port of the loopback, else on the next free one, else on any.
///
/// # Errors
/// When the loopback has no port to give.
pub(crate) fn listen_near(port: u16) -> io::Result<TcpListener> {
    let near = (port..=port.saturating_add(NEXT_PORTS)).take_while(|_| port != 0);
    near.map(listen).find_map(Result::ok).map_or_else(|| listen(0), Ok)
}

/// A listener on any port of the loopback.
///
/// # Errors
/// When the loopback has no port to give.
pub(crate) fn listen_anywhere() -> io::Result<TcpListener> {
    listen(0)
}

fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_passed_over() {
        let taken = listen_anywhere().unwrap();
        let port = taken.local_addr().unwrap().port();
        let next = listen_near(port).unwrap().local_addr().unwrap();
        assert_ne!(next.port(), port);
        assert!(next.ip().is_loopback());
        assert_ne!(listen_near(0).unwrap().local_addr().unwrap().port(), 0);
        assert_ne!(listen_near(u16::MAX).unwrap().local_addr().unwrap().port(), 0);
    }
}
