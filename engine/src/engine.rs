//! The engine's face: start, attach and detach runs, change lists, stop.

use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use agent_gate_store::{HostLists, Id, Recorder};
use arc_swap::ArcSwap;
use rustls_pki_types::CertificateDer;

use crate::cert::authority::Authority;
use crate::cert::leaf::Mint;
use crate::limits::{DETACH_GRACE, IDLE_GRACE, STOP_GRACE};
use crate::net::{self, Count, DnsServer, Inbox, Resolver, Run, Shared};
use crate::policy::OwnAddresses;
use crate::{Config, Driver, Error, Limits, Listener, RunSettings};

/// The running workers.
pub struct Engine {
    shared: Arc<Shared>,
    workers: Vec<(Inbox, JoinHandle<()>)>,
    by_ring: bool,
    dns: DnsServer,
    runs: Mutex<HashMap<Id, Arc<Run>>>,
    roots: Vec<CertificateDer<'static>>,
}

impl Engine {
    /// Loads or makes the CA and starts the workers.
    ///
    /// # Errors
    /// When the CA cannot be used, or the kernel grants no way to wait for sockets.
    pub fn start(config: Config, lists: HostLists, recorder: Recorder) -> Result<Self, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let authority = Authority::load_or_create(&config.authority_dir)?;
        let mint = Mint::new(authority, provider.clone()).map_err(|e| Error::Authority {
            path: config.authority_dir.clone(),
            reason: e.to_string(),
        })?;
        let shared = Arc::new(Shared {
            recorder,
            lists: ArcSwap::from_pointee(lists),
            own: OwnAddresses::new(config.own_addresses),
            resolver: Resolver::new(),
            mint: Arc::new(mint),
            provider,
            body_bytes_max: config.body_bytes_max,
            connections: Count::new(config.limits.connections_max),
            limits: config.limits,
            workers: config.workers.max(1),
            failed: AtomicBool::new(false),
        });
        let (by_ring, workers) = start_workers(config.driver, config.workers.max(1), &shared)?;
        Ok(Self {
            shared,
            workers,
            by_ring,
            dns: DnsServer::start().map_err(Error::Worker)?,
            runs: Mutex::default(),
            roots: config.roots,
        })
    }

    /// The CA's certificate as PEM.
    pub fn authority_pem(&self) -> &str {
        self.shared.mint.authority().certificate_pem()
    }

    /// Whether workers wait by io_uring; otherwise by epoll or kqueue.
    pub fn waits_by_ring(&self) -> bool {
        self.by_ring
    }

    /// Serves a run's listeners from now on.
    ///
    /// # Errors
    /// When a socket or a given root cannot be used; nothing is served then.
    pub fn attach(&self, run: RunSettings, listeners: Vec<Listener>) -> Result<(), Error> {
        let id = run.id;
        let connections_max = self.shared.limits.connections_per_run_max;
        let run = Run::new(run, &self.roots, &self.shared.provider, connections_max)?;
        let run = Arc::new(run);
        // First all that may fail.
        let mut shares = Vec::new();
        let mut udp = Vec::new();
        for listener in listeners {
            match listener {
                Listener::DnsUdp(socket) => udp.push(socket),
                listener => {
                    for (inbox, _) in &self.workers {
                        let share = share(&listener, self.by_ring).map_err(Error::Listener)?;
                        shares.push((inbox, share));
                    }
                }
            }
        }
        for socket in udp {
            self.dns.add(run.clone(), socket).map_err(Error::Listener)?;
        }
        for (inbox, listener) in shares {
            inbox.listen(&run, listener);
        }
        self.lock_runs().insert(id, run);
        Ok(())
    }

    /// Ends a run: takes in what has connected, closes its listeners, and ends its connections;
    /// what its command had sent before it ended still goes to its origin, within a short grace.
    /// Returns how many exchanges the run had.
    pub fn detach(&self, id: Id) -> u64 {
        let Some(run) = self.lock_runs().remove(&id) else { return 0 };
        run.end();
        self.dns.remove(id);
        self.tell_all(|inbox| inbox.detach(id));
        if !run.wait_for_flows(IDLE_GRACE) {
            self.tell_all(|inbox| inbox.abort_idle_flows(id));
        }
        if !run.wait_for_flows(DETACH_GRACE) {
            self.tell_all(|inbox| inbox.abort_flows(id));
            run.wait_for_flows(STOP_GRACE);
        }
        run.exchanges()
    }

    /// Puts new lists in force, for connections and requests from now on.
    pub fn set_lists(&self, lists: HostLists) {
        self.shared.lists.store(Arc::new(lists));
    }

    /// Client connections that are open now, of all runs.
    pub fn open_connections(&self) -> usize {
        self.shared.connections.open()
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// Whether a worker has ended that was not told to: the gate must stop.
    pub fn failed(&self) -> bool {
        self.shared.failed.load(Ordering::Acquire)
    }

    /// Ends all connections and the workers.
    pub fn shutdown(self) {
        for run in self.lock_runs().values() {
            run.end();
        }
        self.tell_all(Inbox::stop);
        for (_, thread) in self.workers {
            // A panic has set `failed` already.
            let _ = thread.join();
        }
    }

    fn tell_all(&self, tell: impl Fn(&Inbox)) {
        for (inbox, _) in &self.workers {
            tell(inbox);
        }
    }

    fn lock_runs(&self) -> std::sync::MutexGuard<'_, HashMap<Id, Arc<Run>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

type Workers = Vec<(Inbox, JoinHandle<()>)>;

/// Starts all workers on one driver: they share listening sockets, which must either block or
/// not.
fn start_workers(
    driver: Driver,
    count: usize,
    shared: &Arc<Shared>,
) -> Result<(bool, Workers), Error> {
    if driver != Driver::Epoll {
        match start_workers_on(true, count, shared) {
            Ok(workers) => return Ok((true, workers)),
            Err(error) if driver == Driver::IoUring => return Err(Error::Worker(error)),
            Err(_) => {}
        }
    }
    let workers = start_workers_on(false, count, shared).map_err(Error::Worker)?;
    Ok((false, workers))
}

fn start_workers_on(by_ring: bool, count: usize, shared: &Arc<Shared>) -> io::Result<Workers> {
    let mut workers: Workers = Vec::new();
    let mut start = |index| {
        let (ready, is_ready) = sync_channel(1);
        let inbox = Inbox::default();
        let thread = net::start(index, by_ring, shared.clone(), inbox.clone(), ready)?;
        workers.push((inbox, thread));
        is_ready.recv().unwrap_or_else(|_| Err(io::Error::other("the worker ended at once")))
    };
    match (0..count).try_for_each(&mut start) {
        Ok(()) => Ok(workers),
        Err(error) => {
            for (inbox, _) in &workers {
                inbox.stop();
            }
            Err(error)
        }
    }
}

/// A worker's own handle to a listening socket, fit for its driver.
fn share(listener: &Listener, by_ring: bool) -> io::Result<Listener> {
    let clone = |socket: &TcpListener| -> io::Result<TcpListener> {
        let socket = socket.try_clone()?;
        socket.set_nonblocking(!by_ring)?;
        Ok(socket)
    };
    Ok(match listener {
        Listener::Proxy(socket) => Listener::Proxy(clone(socket)?),
        Listener::Transparent(socket) => Listener::Transparent(clone(socket)?),
        Listener::DnsTcp(socket) => Listener::DnsTcp(clone(socket)?),
        Listener::DnsUdp(socket) => Listener::DnsUdp(socket.try_clone()?),
    })
}
