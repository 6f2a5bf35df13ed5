//! A worker: one thread with its own runtime, connections, upstream pool and leaves.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use agent_gate_store::{HostLists, HostName, Id, Outbox, Record, Recorder};
use arc_swap::ArcSwap;
use monoio::net::{TcpListener, TcpStream};
use monoio::time::sleep;
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};
use nix::sys::socket::{Shutdown, shutdown};
use rustls::crypto::CryptoProvider;

use super::capture::{Capture, Room};
use super::connection::{self, Entrance};
use super::crowd::{self, Count, Place, turn_away};
use super::flow::{FlowControl, Stage};
use super::pool::Pool;
use super::resolver::Resolver;
use super::run::Run;
use crate::Limits;
use crate::cert::leaf::{Leaves, Mint};
use crate::limits::{
    ACCEPT_RETRY, CALLERS_TIME_MAX, POOL_EXPIRY_PERIOD, RECORD_RETRY, RESOLVE_AGE_MAX,
    RESOLVED_NAMES_MAX, RING_ENTRIES, SHORTAGE_PERIOD, STOP_GRACE, SWEEP_PERIOD,
};
use crate::policy::OwnAddresses;

/// What all workers share.
pub(crate) struct Shared {
    pub(crate) recorder: Recorder,
    pub(crate) lists: ArcSwap<HostLists>,
    pub(crate) own: OwnAddresses,
    pub(crate) resolver: Resolver,
    pub(crate) mint: Arc<Mint>,
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) body_bytes_max: u64,
    pub(crate) limits: Limits,
    /// How many workers there are; at least one.
    pub(crate) workers: usize,
    /// Client connections open now, of all runs.
    pub(crate) connections: Count,
    /// A worker has ended that was not told to.
    pub(crate) failed: AtomicBool,
}

/// One thread's own things.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    /// Its records gather until the end of the worker's turn.
    pub(super) recorder: Recorder,
    /// The memory that the bodies under way may hold.
    bodies: Rc<Room>,
    pub(super) leaves: RefCell<Leaves>,
    pub(super) pool: RefCell<Pool>,
    pub(super) flows: RefCell<HashMap<Id, Rc<FlowControl>>>,
    resolved: RefCell<HashMap<HostName, Resolved>>,
    /// Open listeners by their runs.
    listeners: RefCell<HashMap<Id, Vec<RawFd>>>,
    /// Clients that are just being told that they are too many.
    pub(super) turning_away: Cell<usize>,
    /// When a record last told of a lack of descriptors.
    shortage_told: Cell<Option<Instant>>,
    /// The gate is stopping: nothing waits for better times any more.
    stopping: Cell<bool>,
}

/// What the system's resolver said, and when.
type Resolved = (Instant, Rc<[IpAddr]>);

/// What a worker is told.
enum Command {
    Listen(Arc<Run>, Entrance, std::net::TcpListener),
    Detach(Id),
    AbortFlows(Id, Option<Stage>),
    Stop,
}

/// The way to tell a worker something from another thread.
#[derive(Clone, Default)]
pub(crate) struct Inbox(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    commands: Vec<Command>,
    waker: Option<Waker>,
}

impl Inbox {
    /// Takes connections from a listener that belongs to `run`.
    pub(crate) fn listen(&self, run: &Arc<Run>, listener: crate::Listener) {
        let (entrance, socket) = match listener {
            crate::Listener::Proxy(socket) => (Entrance::Proxy, socket),
            crate::Listener::Transparent(socket) => (Entrance::Transparent, socket),
            crate::Listener::DnsTcp(socket) => (Entrance::Dns, socket),
            crate::Listener::DnsUdp(_) => unreachable!("the DNS thread has these"),
        };
        run.listening.fetch_add(1, Ordering::AcqRel);
        self.send(Command::Listen(run.clone(), entrance, socket));
    }

    /// Closes a run's listeners, when what has connected is taken in, and ends those of its flows
    /// that only wait for an origin.
    pub(crate) fn detach(&self, run: Id) {
        self.send(Command::Detach(run));
    }

    /// Ends those of a run's flows that are between exchanges.
    pub(crate) fn abort_idle_flows(&self, run: Id) {
        self.send(Command::AbortFlows(run, Some(Stage::Idle)));
    }

    /// Ends all of a run's flows.
    pub(crate) fn abort_flows(&self, run: Id) {
        self.send(Command::AbortFlows(run, None));
    }

    /// Ends all flows and the worker.
    pub(crate) fn stop(&self) {
        self.send(Command::Stop);
    }

    fn send(&self, command: Command) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.commands.push(command);
        if let Some(waker) = waiting.waker.take() {
            waker.wake();
        }
    }

    fn next(&self) -> impl Future<Output = Vec<Command>> + '_ {
        poll_fn(|cx| {
            let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.commands.is_empty() {
                waiting.waker = Some(cx.waker().clone());
                Poll::Pending
            } else {
                Poll::Ready(std::mem::take(&mut waiting.commands))
            }
        })
    }
}

thread_local! {
    static BY_RING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread's worker waits by io_uring; sockets must then be blocking ones.
pub(super) fn waits_by_ring() -> bool {
    BY_RING.get()
}

/// Starts a worker's thread. `ready` is told once whether it runs.
pub(crate) fn start(
    index: usize,
    by_ring: bool,
    shared: Arc<Shared>,
    inbox: Inbox,
    ready: SyncSender<io::Result<()>>,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        let failed = shared.clone();
        let result = catch_unwind(AssertUnwindSafe(|| run_worker(by_ring, shared, &inbox, &ready)));
        match result {
            Ok(Ok(())) => {}
            // Nobody waits for word any more when the engine gave up starting.
            Ok(Err(error)) => drop(ready.send(Err(error))),
            Err(_) => failed.failed.store(true, Ordering::Release),
        }
    })
}

fn run_worker(
    by_ring: bool,
    shared: Arc<Shared>,
    inbox: &Inbox,
    ready: &SyncSender<io::Result<()>>,
) -> io::Result<()> {
    BY_RING.set(by_ring);
    let main = async {
        // The engine waits for this word.
        let _ = ready.send(Ok(()));
        serve(shared, inbox).await;
    };
    if by_ring {
        let mut runtime = build_ring()?;
        runtime.block_on(main);
    } else {
        let mut runtime = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?;
        runtime.block_on(main);
    }
    Ok(())
}

/// Whether [`build_ring`] works here.
pub(crate) fn try_ring() -> io::Result<()> {
    build_ring().map(drop)
}

/// A runtime on io_uring. Completions wait until the worker asks for them, where the kernel can do
/// that (5.19 on), instead of interrupting it. Locked memory may be short for the larger ring.
fn build_ring() -> io::Result<monoio::Runtime<monoio::time::TimeDriver<IoUringDriver>>> {
    let build = |entries, builder: io_uring::Builder| {
        RuntimeBuilder::<IoUringDriver>::new()
            .uring_builder(builder)
            .with_entries(entries)
            .enable_timer()
            .build()
    };
    let mut cooperative = io_uring::IoUring::builder();
    cooperative.setup_coop_taskrun();
    let [large, small] = RING_ENTRIES;
    build(large, cooperative)
        .or_else(|_| build(large, io_uring::IoUring::builder()))
        .or_else(|_| build(small, io_uring::IoUring::builder()))
}

/// A worker's life.
async fn serve(shared: Arc<Shared>, inbox: &Inbox) {
    let (recorder, outbox) = shared.recorder.gathering();
    let worker = Rc::new(Worker {
        recorder,
        bodies: Room::new(shared.limits.memory_bytes_max / shared.workers),
        leaves: RefCell::new(Leaves::new(shared.mint.clone())),
        pool: RefCell::default(),
        flows: RefCell::default(),
        resolved: RefCell::default(),
        listeners: RefCell::default(),
        turning_away: Cell::default(),
        shortage_told: Cell::default(),
        stopping: Cell::new(false),
        shared,
    });
    monoio::spawn(expire_pool(worker.clone()));
    monoio::spawn(sweep(worker.clone()));
    monoio::spawn(deliver(outbox.clone()));
    let _last = LastDelivery(outbox);
    loop {
        for command in inbox.next().await {
            match command {
                Command::Listen(run, entrance, socket) => worker.listen(run, entrance, socket),
                Command::Detach(run) => {
                    monoio::spawn(detach(worker.clone(), run));
                }
                Command::AbortFlows(run, stage) => worker.abort_flows(|flow| {
                    flow.run == run && stage.is_none_or(|stage| flow.stage() == stage)
                }),
                Command::Stop => return worker.stop().await,
            }
        }
    }
}

/// Hands records to the writer and receipts to their tasks. Woken by the first record of a turn,
/// this runs behind the tasks that were ready before it, so that what they record goes over
/// together.
async fn deliver(outbox: Arc<Outbox>) {
    loop {
        outbox.due().await;
        outbox.deliver();
    }
}

/// A worker that ends, by a panic too, has handed over what it recorded.
struct LastDelivery(Arc<Outbox>);

impl Drop for LastDelivery {
    fn drop(&mut self) {
        self.0.deliver();
    }
}

async fn expire_pool(worker: Rc<Worker>) {
    loop {
        sleep(POOL_EXPIRY_PERIOD).await;
        worker.pool.borrow_mut().expire();
    }
}

/// Wakes the flows that are overdue.
async fn sweep(worker: Rc<Worker>) {
    loop {
        sleep(SWEEP_PERIOD).await;
        let now = Instant::now();
        for flow in worker.flows.borrow().values() {
            flow.alarm.ring_if_due(now);
        }
    }
}

impl Worker {
    /// A capture for one body.
    pub(super) fn capture(&self) -> Capture {
        Capture::new(self.recorder.clone(), self.bodies.clone(), self.shared.body_bytes_max)
    }

    /// Records something that nothing waits for. While recording has stopped (disk full, …) its
    /// connection waits here: what has happened is not forgotten.
    pub(super) async fn record(&self, record: &Record<'_>) {
        loop {
            if let Ok(permit) = self.recorder.reserve(record.memory_bytes()).await {
                return permit.record(record);
            }
            if !self.wait_for_recording().await {
                return;
            }
        }
    }

    /// Waits a moment for recording to work again; `false` when the gate is stopping and it will
    /// not.
    pub(super) async fn wait_for_recording(&self) -> bool {
        if self.stopping.get() {
            return false;
        }
        sleep(RECORD_RETRY).await;
        true
    }

    /// The addresses of `host`, asked of the system or known from a moment ago.
    pub(super) async fn resolve(&self, host: &HostName) -> io::Result<Rc<[IpAddr]>> {
        if let Some((at, addresses)) = self.resolved.borrow().get(host)
            && at.elapsed() < RESOLVE_AGE_MAX
        {
            return Ok(addresses.clone());
        }
        let looking = self.shared.resolver.resolve(host.as_str());
        let addresses: Rc<[IpAddr]> = looking.await?.into();
        if addresses.is_empty() {
            return Ok(addresses); // no answer to keep
        }
        let mut resolved = self.resolved.borrow_mut();
        if resolved.len() >= RESOLVED_NAMES_MAX {
            resolved.clear();
        }
        resolved.insert(host.clone(), (Instant::now(), addresses.clone()));
        Ok(addresses)
    }

    fn listen(self: &Rc<Self>, run: Arc<Run>, entrance: Entrance, socket: std::net::TcpListener) {
        // The engine has made the socket fit the driver; what is left cannot fail but for memory.
        let Ok(listener) = TcpListener::from_std(socket) else {
            run.listening.fetch_sub(1, Ordering::AcqRel);
            return;
        };
        let fd = listener.as_raw_fd();
        self.listeners.borrow_mut().entry(run.id).or_default().push(fd);
        monoio::spawn(accept_all(self.clone(), run, entrance, listener));
    }

    /// Shuts a run's listeners down, which ends their accept loops.
    fn close_listeners(&self, run: Id) {
        for fd in self.listeners.borrow().get(&run).into_iter().flatten() {
            // It is open: the table names no other. Another worker may have been faster.
            let _ = shutdown(*fd, Shutdown::Both);
        }
    }

    /// Takes a listener that is about to be closed out of the table, before its number can come
    /// to mean another socket.
    fn forget_listener(&self, run: Id, fd: RawFd) {
        let mut listeners = self.listeners.borrow_mut();
        if let Some(fds) = listeners.get_mut(&run) {
            fds.retain(|open| *open != fd);
            if fds.is_empty() {
                listeners.remove(&run);
            }
        }
    }

    /// Whether connections to one of the run's listeners wait to be taken in.
    fn has_callers(&self, run: Id) -> bool {
        let listeners = self.listeners.borrow();
        let fds = listeners.get(&run).map(Vec::as_slice).unwrap_or_default();
        fds.iter().any(|fd| super::sys::is_readable(*fd))
    }

    /// New connections wait until a descriptor is free. Idle upstream connections are given up for
    /// that, and a record tells it; not each time, since all listeners feel it again and again.
    async fn short_of_descriptors(&self, run: &Run, error: &io::Error) {
        self.pool.borrow_mut().clear();
        if self.shortage_told.get().is_some_and(|told| told.elapsed() < SHORTAGE_PERIOD) {
            return;
        }
        self.shortage_told.set(Some(Instant::now()));
        let record = crowd::shortage(run, error);
        self.record(&record).await;
    }

    fn abort_flows(&self, of: impl Fn(&FlowControl) -> bool) {
        for flow in self.flows.borrow().values().filter(|flow| of(flow)) {
            flow.abort();
        }
    }

    async fn stop(&self) {
        self.stopping.set(true);
        let runs: Vec<Id> = self.listeners.borrow().keys().copied().collect();
        for run in runs {
            self.close_listeners(run);
        }
        self.abort_flows(|_| true);
        let deadline = Instant::now() + STOP_GRACE;
        while !self.flows.borrow().is_empty() && Instant::now() < deadline {
            sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Ends a run's part in this worker. What its command sent before it ended may still wait to be
/// accepted: that has left, so it is taken in.
async fn detach(worker: Rc<Worker>, run: Id) {
    let deadline = Instant::now() + CALLERS_TIME_MAX;
    while worker.has_callers(run) && Instant::now() < deadline {
        sleep(Duration::from_millis(1)).await;
    }
    worker.close_listeners(run);
    worker.abort_flows(|flow| flow.run == run && flow.stage() == Stage::Waiting);
}

/// Takes a listener's connections until it is shut down.
async fn accept_all(worker: Rc<Worker>, run: Arc<Run>, entrance: Entrance, listener: TcpListener) {
    let [pause_min, pause_max] = ACCEPT_RETRY;
    let mut pause = pause_min;
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                pause = pause_min;
                take_in(&worker, &run, entrance, stream, client);
            }
            Err(_) if run.is_ending() => break,
            // Out of descriptors or memory, or the client is gone already.
            Err(error) => {
                if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
                    worker.short_of_descriptors(&run, &error).await;
                }
                sleep(pause).await;
                pause = (2 * pause).min(pause_max);
            }
        }
    }
    worker.forget_listener(run.id, listener.as_raw_fd());
    drop(listener);
    run.listening.fetch_sub(1, Ordering::AcqRel);
}

fn take_in(
    worker: &Rc<Worker>,
    run: &Arc<Run>,
    entrance: Entrance,
    stream: TcpStream,
    client: SocketAddr,
) {
    let place = match Place::take(worker, run) {
        Ok(place) => place,
        Err(full) => return turn_away(worker, run, entrance, (stream, client), full),
    };
    // Counted here, so that a run that ends now waits for it.
    run.flow_opened();
    let (worker, run) = (worker.clone(), run.clone());
    monoio::spawn(async move {
        connection::serve(worker, run.clone(), entrance, stream, client).await;
        drop(place);
        run.flow_ended();
    });
}
