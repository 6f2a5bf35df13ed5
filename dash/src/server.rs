//! The server: `tiny_http` on our listener, one thread that takes its requests, and a bounded number
//! of threads that answer them.
//!
//! The gate's audit runs in the same process. What keeps a client of these pages from harming it is
//! told in `lib.rs`.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use agent_gate_store::Layout;
use socket2::SockRef;

use crate::http::{Lost, Request, Response};
use crate::live::{Changes, Live};
use crate::notices::Notices;
use crate::places::{Place, Places};
use crate::route;

/// Stack of a request's thread. Nothing on it recurses over captured data.
const STACK_BYTES: usize = 512 * 1024;

/// How long one write may wait for a client that does not read.
const WRITE_TIME_MAX: Duration = Duration::from_secs(30);

/// How often `tiny_http`'s threads are nudged, see [`nudge`]. A person hardly notices the wait.
const NUDGE_EVERY: Duration = Duration::from_millis(500);

/// How long [`Server::stop`] waits for the port to close, and for requests in work.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);

/// How often it looks whether the port is closed.
const STOP_LOOK: Duration = Duration::from_millis(5);

/// Why the dashboard could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pages hold every captured secret, so they are served to this machine alone.
    #[error("the dashboard must listen on a loopback address, not on {0}")]
    NotLoopback(SocketAddr),
    /// The listener is unusable or a thread could not be started.
    #[error("cannot start the dashboard")]
    Start(#[from] io::Error),
}

/// The running dashboard. Dropping it stops it as [`Server::stop`] does.
pub struct Server {
    site: Arc<Site>,
    /// Owned by the thread that takes the requests: when that ends, the port closes.
    http: Weak<tiny_http::Server>,
    threads: Vec<JoinHandle<()>>,
}

/// What every request shares.
pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    pub(crate) layout: Layout,
    pub(crate) live: Live,
    pub(crate) notices: Notices,
    places: Arc<Places>,
}

impl Server {
    /// Serves the pages over `layout` on `listener`, live by `changes`, with `notices` on each.
    ///
    /// # Errors
    /// When the listener is not on a loopback address, or when no thread can be started.
    pub fn start(
        listener: TcpListener,
        layout: Layout,
        changes: Box<dyn Changes>,
        notices: Notices,
    ) -> Result<Self, Error> {
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            return Err(Error::NotLoopback(address));
        }
        listener.set_nonblocking(false)?;
        prepare_connections(&listener)?;
        let live = Live::new(changes);
        let site = Arc::new(Site { address, layout, live, notices, places: Arc::default() });
        let http = tiny_http::Server::from_listener(listener, None).map_err(io::Error::other)?;
        let http = Arc::new(http);
        let mut server = Self { site, http: Arc::downgrade(&http), threads: Vec::new() };
        server.spawn("dash-live", |site| site.live.watch())?;
        server.spawn("dash-requests", move |site| take_requests(&http, &site))?;
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.site.address
    }

    /// Closes the listener, sends the waiting pages home and ends the threads. Connections that
    /// ask nothing stay open until their clients, or this process, end.
    pub fn stop(self) {
        drop(self);
    }

    fn spawn(
        &mut self,
        name: &str,
        work: impl FnOnce(Arc<Site>) + Send + 'static,
    ) -> io::Result<()> {
        let site = Arc::clone(&self.site);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || work(site))?;
        self.threads.push(thread);
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.site.live.stop();
        self.site.places.close();
        if let Some(http) = self.http.upgrade() {
            http.unblock();
        }
        for thread in self.threads.drain(..) {
            // A panic there was already told by the panic hook; there is nothing left to save.
            let _ = thread.join();
        }
        wait_until_closed(self.site.address);
        self.site.places.wait_until_empty(STOP_TIME_MAX);
    }
}

/// What the connections should have, set on the listener, which `tiny_http` lets us see: Linux hands
/// both down. Where a system does not, a client that reads nothing keeps its place until it ends.
fn prepare_connections(listener: &TcpListener) -> io::Result<()> {
    let socket = SockRef::from(listener);
    socket.set_tcp_nodelay(true)?;
    socket.set_write_timeout(Some(WRITE_TIME_MAX))
}

/// `tiny_http` drops the listener on a thread of its own, some time after the server.
fn wait_until_closed(address: SocketAddr) {
    let deadline = Instant::now() + STOP_TIME_MAX;
    while TcpStream::connect_timeout(&address, STOP_TIME_MAX).is_ok() && Instant::now() < deadline {
        thread::sleep(STOP_LOOK);
    }
}

/// Nothing here waits for a client, so that none can hold up the others.
fn take_requests(http: &Arc<tiny_http::Server>, site: &Arc<Site>) {
    let mut nudged = Instant::now();
    while !site.places.closed() {
        if nudged.elapsed() >= NUDGE_EVERY {
            nudge(site.address);
            nudged = Instant::now();
        }
        // An error is the end of accepting (out of descriptors, mostly): the connections there are
        // may still ask.
        let Ok(Some(request)) = http.recv_timeout(NUDGE_EVERY) else { continue };
        let request = Request::new(request);
        let Some(place) = site.places.take() else { return };
        let (shared, server) = (Arc::clone(site), Arc::downgrade(http));
        let started = thread::Builder::new()
            .name("dash-request".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || serve(request, &place, &shared, &server));
        if started.is_err() {
            note_lost(site, &Arc::downgrade(http));
        }
    }
}

/// Frees a connection that `tiny_http` 0.12 forgot: when several come at once, its pool gives them to
/// the same idle thread, and all but one wait for some other connection to end. So one does.
fn nudge(address: SocketAddr) {
    // Failing, it was too busy to need it, or accepts no more.
    let _ = TcpStream::connect_timeout(&address, NUDGE_EVERY);
}

fn serve(request: Request, place: &Place, site: &Site, http: &Weak<tiny_http::Server>) {
    let response = if place.surplus {
        Response::text(503, "too many requests at once").with("Retry-After", "1")
    } else {
        surviving(|| route::answer(&request, site))
    };
    if let Err(Lost) = request.respond(response) {
        note_lost(site, http);
    }
}

/// A page that panics costs its own request alone.
fn surviving(answer: impl FnOnce() -> Response) -> Response {
    // Whatever is shared between requests holds after every statement (`Places`, `Live`).
    panic::catch_unwind(AssertUnwindSafe(answer))
        .unwrap_or_else(|_| Response::text(500, "this page failed; the gate goes on"))
}

fn note_lost(site: &Site, http: &Weak<tiny_http::Server>) {
    if site.places.lose() {
        site.places.close();
        if let Some(http) = http.upgrade() {
            http.unblock();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panicking_page_is_answered_for() {
        let response = surviving(|| panic!("as the test wants it"));
        assert_eq!(response.status(), 500);
    }
}
