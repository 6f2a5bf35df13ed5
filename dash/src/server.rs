//! The server: one accepting thread, a thread for each connection, and a bound on how many.
//!
//! The gate's audit runs in the same process, so nothing a client of these pages does may cost it
//! more than the bounds below: connections, bytes of a head, time for a head, time for a write.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use agent_gate_store::Layout;

use crate::http::{Connection, Received};
use crate::live::{Changes, Live};
use crate::route;

/// How many connections are served at once; the next ones wait in the listener's queue, and an idle
/// one is closed after `http::HEAD_TIME_MAX`.
pub(crate) const CONNECTIONS_MAX: usize = 192;

/// Stack of a connection's thread. Nothing on it recurses over captured data.
const STACK_BYTES: usize = 512 * 1024;

/// How long to leave the listener alone after it failed (out of descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long [`Server::stop`] waits for connections that are busy with a page.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);

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
    threads: Vec<JoinHandle<()>>,
}

/// What every connection shares.
pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    pub(crate) layout: Layout,
    pub(crate) live: Live,
    open: Mutex<Open>,
    /// Told whenever a connection ended or the server stops.
    freed: Condvar,
}

#[derive(Default)]
struct Open {
    /// By a number of our own; the streams are here so that stopping can shut them down.
    streams: HashMap<u64, Arc<TcpStream>>,
    next: u64,
    stopped: bool,
}

impl Server {
    /// Serves the pages over `layout` on `listener`, live by `changes`.
    ///
    /// # Errors
    /// When the listener is not on a loopback address, or when no thread can be started.
    pub fn start(
        listener: TcpListener,
        layout: Layout,
        changes: Box<dyn Changes>,
    ) -> Result<Self, Error> {
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            return Err(Error::NotLoopback(address));
        }
        listener.set_nonblocking(false)?;
        let site = Arc::new(Site {
            address,
            layout,
            live: Live::new(changes),
            open: Mutex::default(),
            freed: Condvar::new(),
        });
        let mut server = Self { site, threads: Vec::new() };
        server.spawn("dash-live", |site| site.live.watch())?;
        server.spawn("dash-accept", move |site| accept(&listener, &site))?;
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.site.address
    }

    /// Closes the listener and ends all connections and threads.
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
        self.site.stop();
        for thread in self.threads.drain(..) {
            // A panic there was already told by the panic hook; there is nothing left to save.
            let _ = thread.join();
        }
        self.site.wait_until_empty();
    }
}

impl Site {
    fn stop(&self) {
        let mut open = self.lock();
        open.stopped = true;
        for stream in open.streams.values() {
            // Already gone is as good.
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(open);
        self.freed.notify_all();
        self.live.stop();
        // `accept` has no other way to learn of it; if this fails it was not waiting there.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }

    fn wait_until_empty(&self) {
        let open = self.lock();
        let _ = self.freed.wait_timeout_while(open, STOP_TIME_MAX, |open| !open.streams.is_empty());
    }

    /// Waits for a free place; false when the server stops.
    fn wait_for_place(&self) -> bool {
        let open = self
            .freed
            .wait_while(self.lock(), |open| open.streams.len() >= CONNECTIONS_MAX && !open.stopped)
            .unwrap_or_else(PoisonError::into_inner);
        !open.stopped
    }

    /// Takes the stream into the books; none when the server stops.
    fn admit(self: &Arc<Self>, stream: TcpStream) -> Option<Place> {
        let mut open = self.lock();
        if open.stopped {
            return None;
        }
        let number = open.next;
        open.next += 1;
        let stream = Arc::new(stream);
        open.streams.insert(number, Arc::clone(&stream));
        Some(Place { site: Arc::clone(self), number, stream })
    }

    /// Each change of the books is one statement: a poisoned lock is usable.
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the places for a connection, given back on drop, also when its thread panics.
struct Place {
    site: Arc<Site>,
    number: u64,
    stream: Arc<TcpStream>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.site.lock().streams.remove(&self.number);
        self.site.freed.notify_all();
    }
}

fn accept(listener: &TcpListener, site: &Arc<Site>) {
    while site.wait_for_place() {
        let Ok((stream, _)) = listener.accept() else {
            thread::sleep(ACCEPT_PAUSE);
            continue;
        };
        let Some(place) = site.admit(stream) else { return };
        // Without a thread the connection is closed, which is all that can be done for it.
        let _ = thread::Builder::new()
            .name("dash-connection".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || serve(&place));
    }
}

fn serve(place: &Place) {
    let Ok(mut connection) = Connection::new(&place.stream) else { return };
    loop {
        let kept_open = match connection.receive() {
            Received::Closed => return,
            Received::Unusable(response) => connection.send_last(response),
            Received::Request(request) => {
                let response = route::answer(&request, &place.site);
                connection.send(&request, response)
            }
        };
        if !matches!(kept_open, Ok(true)) {
            return;
        }
    }
}
