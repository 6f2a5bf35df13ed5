//! The gate process: it puts store, engine, dashboard and control socket together, stays while it
//! is needed, and takes them apart in order.

use std::io::{self, PipeReader};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use agent_gate_dash::{Notices, Server};
use agent_gate_engine::{Engine, Limits, Listener};
use agent_gate_store::{HostLists, Layout, Options, Store, Timestamp};
use anyhow::{Context, anyhow, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};

use super::bell::{self, Bell, Ring};
use super::control::Attach;
use super::lists_watch::ListsWatch;
use super::lock::{self, Lock};
use super::presence::Presence;
use super::runs::{Attached, Runs};
use super::{ports, serve, socket, start};
use crate::config::Config;
use crate::exit_code::Exit;
use crate::terminal;

/// How often the main loop looks at what does not ring: lists, workers, the linger.
const TICK_MS: u16 = 250;

/// How long runs may take to be ended when the gate ends.
const SEND_HOME_WAIT: Duration = Duration::from_secs(10);

/// How long the whole of an ending may take before the process is ended as it is.
const STOP_TIME_MAX: Duration = Duration::from_secs(30);

/// How long to leave the listener alone after it failed (out of descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What every conversation shares.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) runs: Runs,
    pub(super) presence: Presence,
    pub(super) bell: Bell,
    pub(super) dashboard: SocketAddr,
    pub(super) config_dir: PathBuf,
    /// Whether the gate stays until it is told to end.
    pub(super) keep: bool,
}

/// A gate that listens.
pub(crate) struct Gate {
    shared: Arc<Shared>,
    layout: Layout,
    linger: Duration,
    listener: UnixListener,
    rings: PipeReader,
    lists: ListsWatch,
    notices: Notices,
    pages: Server,
    store: Store,
    /// A run of the gate's own (`proxy`).
    own_run: Option<Attached>,
    /// Last, so that the next gate begins when all of this one is gone.
    _lock: Lock,
}

/// The process that `run` starts: tells its starter how it went, and serves.
///
/// # Errors
/// Why it could not start, or what ended it before its time.
pub(crate) fn in_background(cli: &crate::cli::Cli) -> anyhow::Result<Exit> {
    start::become_background()?;
    let opened = Config::load(cli).and_then(|config| Gate::open(&config, false));
    match opened {
        Ok(gate) => {
            start::tell_ready();
            gate.serve().map(|()| Exit::Success)
        }
        Err(error) => {
            start::tell_failed(&error);
            Err(error)
        }
    }
}

impl Gate {
    /// Brings a gate up to the point where it is found by others. With `keep` it is a foreground
    /// gate that stays until it is told to end; otherwise it ends when it is not needed any more.
    ///
    /// # Errors
    /// Whatever of its parts cannot start, in words for the user.
    pub(crate) fn open(config: &Config, keep: bool) -> anyhow::Result<Self> {
        // Before the first thread: it inherits both.
        let (bell, rings) = Bell::new().context("pipe")?;
        bell::ring_for_signals(&bell, keep)?;
        umask(Mode::from_bits_truncate(0o077));
        let descriptors = raise_descriptor_limit();

        let layout = config.create_layout()?;
        let lock = take_lock(&layout)?;
        let (lists, now) = ListsWatch::start(&config.paths.config_dir)?;
        let store = open_store(config, &layout)?;
        let pages_listener = ports::listen_near(config.settings.ports.dashboard)
            .context("no loopback port for the dashboard")?;
        let own = vec![pages_listener.local_addr().context("dashboard")?];
        let limits = connection_limits(config, descriptors);
        let engine = start_engine(config, &layout, now, &store, (own, limits))?;
        let notices = Notices::default();
        let changes = Box::new(store.committed());
        let pages = Server::start(pages_listener, layout.clone(), changes, notices.clone())?;
        let listener = socket::bind(layout.control_socket())
            .with_context(|| format!("cannot listen on {}", layout.control_socket().display()))?;
        let shared = Shared {
            runs: Runs::new(engine, &store, layout.clone()),
            presence: Presence::new(),
            bell,
            dashboard: pages.address(),
            config_dir: config.paths.config_dir.clone(),
            keep,
        };
        let linger = config.settings.gate.linger;
        Ok(Self {
            shared: Arc::new(shared),
            layout,
            linger,
            listener,
            rings,
            lists,
            notices,
            pages,
            store,
            own_run: None,
            _lock: lock,
        })
    }

    /// Where the pages are.
    pub(crate) fn dashboard(&self) -> SocketAddr {
        self.shared.dashboard
    }

    /// Attaches a run of the gate's own, which lasts as long as the gate.
    ///
    /// # Errors
    /// As of any run.
    pub(crate) fn attach_own(
        &mut self,
        attach: &Attach,
        listener: TcpListener,
    ) -> anyhow::Result<()> {
        let attached = self.shared.runs.attach(attach, vec![Listener::Proxy(listener)])?;
        self.own_run = Some(attached);
        Ok(())
    }

    /// Serves until it is told to end or nobody needs it any more.
    ///
    /// # Errors
    /// What ended it before its time.
    pub(crate) fn serve(mut self) -> anyhow::Result<()> {
        let ended = self.until_end();
        let stopped = self.stop();
        ended.and(stopped)
    }

    fn until_end(&mut self) -> anyhow::Result<()> {
        loop {
            let rung = self.wait().context("waiting")?;
            self.accept_all();
            match rung {
                Some(Ring::Stop) => return Ok(()),
                Some(Ring::Broken) => bail!("a thread of the gate panicked"),
                Some(Ring::Left) | None => {}
            }
            if self.shared.runs.engine().failed() {
                bail!("a worker of the gate has failed; traffic stops (fail closed)");
            }
            self.shared.runs.pay_owed();
            self.look_at_lists();
            if self.is_over() {
                return Ok(());
            }
        }
    }

    /// Sleeps until there is a connection, a ring, or a tick has passed.
    fn wait(&mut self) -> io::Result<Option<Ring>> {
        let mut watched = [
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.rings.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut watched, PollTimeout::from(TICK_MS)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let rung = watched[1].revents().is_some_and(|seen| seen.contains(PollFlags::POLLIN));
        if rung { bell::heard(&mut self.rings) } else { Ok(None) }
    }

    /// Takes in all who wait at the door; whether there were any.
    fn accept_all(&self) -> bool {
        let mut any = false;
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    any = true;
                    if let Err(error) = take_in(&self.shared, stream) {
                        log(&format!("control connection: {error}"));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return any,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    log(&format!("control socket: {error}"));
                    thread::sleep(ACCEPT_PAUSE);
                    return any;
                }
            }
        }
    }

    fn look_at_lists(&mut self) {
        match self.lists.changed() {
            None => {}
            Some(Ok(lists)) => {
                self.shared.runs.engine().set_lists(lists);
                self.notices.set(Vec::new());
            }
            Some(Err(error)) => {
                let notice = format!("{}; the lists before stay in force", terminal::chain(&error));
                log(&notice);
                self.notices.set(vec![notice]);
            }
        }
    }

    /// Whether nobody needs this gate any more. If so, nobody finds it from now on.
    fn is_over(&self) -> bool {
        let idle = self.shared.presence.idle_for();
        if self.shared.keep || idle.is_none_or(|idle| idle < self.linger) {
            return false;
        }
        // Whoever starts a gate holds this lock until it has an answer: it may be about to come.
        let Ok(Some(_starting)) = lock::try_exclusive(self.layout.start_lock()) else {
            return false;
        };
        if self.accept_all() {
            return false;
        }
        self.hide();
        true
    }

    /// Takes the socket's name away. The gate's lock is ours, so the socket is too.
    fn hide(&self) {
        match std::fs::remove_file(self.layout.control_socket()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                log(&format!("control socket: {error}"));
            }
            _ => {}
        }
    }

    fn stop(self) -> anyhow::Result<()> {
        end_at_last();
        self.hide();
        // Who waits at the door has had no answer to hello, and starts over.
        drop(self.listener);
        let all_gone = self.shared.presence.send_home(SEND_HOME_WAIT);
        if let Some(own) = self.own_run
            && let Err(stopped) = self.shared.runs.detach(own.run, Some(0), None)
        {
            log(&format!("the end of run {} is not recorded: {stopped}", own.run));
        }
        self.pages.stop();
        match alone(self.shared).filter(|_| all_gone) {
            Some(shared) => {
                shared.runs.pay_owed();
                shared.runs.shut_down();
            }
            None => log("a run does not end; the gate ends without it"),
        }
        Ok(self.store.close()?)
    }
}

/// What is shared, once the threads that have said good-bye have let go of it.
fn alone(mut shared: Arc<Shared>) -> Option<Shared> {
    for _ in 0..LET_GO_TRIES {
        match Arc::try_unwrap(shared) {
            Ok(shared) => return Some(shared),
            Err(still) => shared = still,
        }
        thread::sleep(Duration::from_millis(1));
    }
    None
}

/// A thread lets go as its last act, right after its good-bye.
const LET_GO_TRIES: u32 = 1000;

fn take_lock(layout: &Layout) -> anyhow::Result<Lock> {
    let path = layout.gate_lock();
    lock::exclusive_within(path, lock::ENDING_WAIT).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            anyhow!("another gate holds {} and does not answer; end it", path.display())
        }
        _ => anyhow::Error::new(error).context(format!("lock {}", path.display())),
    })
}

fn open_store(config: &Config, layout: &Layout) -> anyhow::Result<Store> {
    let storage = &config.settings.storage;
    let options = Options {
        queue_records_max: storage.queue_records_max,
        queue_bytes_max: storage.queue_bytes_max,
    };
    Ok(Store::open(layout, options)?)
}

fn start_engine(
    config: &Config,
    layout: &Layout,
    lists: HostLists,
    store: &Store,
    (own_addresses, limits): (Vec<SocketAddr>, Limits),
) -> anyhow::Result<Engine> {
    let gate = &config.settings.gate;
    let engine = agent_gate_engine::Config {
        workers: workers(gate.workers),
        driver: gate.driver,
        authority_dir: layout.authority_dir().to_owned(),
        roots: system_roots(),
        body_bytes_max: config.settings.capture.body_bytes_max,
        limits,
        own_addresses,
    };
    Ok(Engine::start(engine, lists, store.recorder())?)
}

fn workers(wanted: usize) -> usize {
    if wanted == 0 { thread::available_parallelism().map_or(1, Into::into) } else { wanted }
}

/// Without any, every origin's certificate is refused unless a run brings its own roots.
fn system_roots() -> Vec<rustls_pki_types::CertificateDer<'static>> {
    let loaded = rustls_native_certs::load_native_certs();
    for error in &loaded.errors {
        log(&format!("the system's certificates: {error}"));
    }
    if loaded.certs.is_empty() {
        log("the system has no certificates: no origin is trusted but by --upstream-ca");
    }
    loaded.certs
}

/// Raises the limit of open files as far as the system lets us: the usual soft one of 1024 is for
/// `select`. What it is then.
fn raise_descriptor_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return u64::MAX };
    if soft >= hard {
        return soft;
    }
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(errno) => {
            log(&format!("the limit of open files stays {soft}: {errno}"));
            soft
        }
    }
}

/// The limits as the settings have them, less what so many descriptors cannot carry; that is told
/// where somebody asked for more.
fn connection_limits(config: &Config, descriptors: u64) -> Limits {
    let wanted = Limits::from(&config.settings.limits);
    let limits = wanted.within_descriptors(descriptors, workers(config.settings.gate.workers));
    let asked_for = wanted.connections_max != Limits::default().connections_max;
    if asked_for && limits.connections_max < wanted.connections_max {
        log(&format!(
            "connections_max is {}, not {}, and {} of one run: this user may have {descriptors} \
             open files (ulimit -Hn)",
            limits.connections_max, wanted.connections_max, limits.connections_per_run_max
        ));
    }
    limits
}

fn take_in(shared: &Arc<Shared>, stream: UnixStream) -> io::Result<()> {
    if !socket::is_of_this_user(&stream)? {
        return Err(io::Error::other("somebody else's"));
    }
    // BSDs hand the listener's non-blocking mode down.
    stream.set_nonblocking(false)?;
    let Some(number) = shared.presence.enter(stream.try_clone()?) else { return Ok(()) };
    let guest = Guest { shared: Arc::clone(shared), number };
    thread::Builder::new().name("control".into()).spawn(move || {
        serve::serve(&guest.shared, stream, guest.number);
    })?;
    Ok(())
}

/// A client that is counted for as long as this lives.
struct Guest {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.shared.presence.leave(self.number);
        let broken = thread::panicking();
        self.shared.bell.ring(if broken { Ring::Broken } else { Ring::Left });
    }
}

/// Whatever hangs, a gate that should be gone does not stay: the next one waits for its lock.
fn end_at_last() {
    let wait = || {
        thread::sleep(STOP_TIME_MAX);
        log("the gate does not end in order; it is ended now");
        std::process::exit(Exit::OwnFailure.status());
    };
    // Without the thread the ending is only less certain.
    let _ = thread::Builder::new().name("end-at-last".into()).spawn(wait);
}

/// A line of `gate.log`, or on the terminal of a gate in the foreground.
pub(super) fn log(text: &str) {
    terminal::note(&format!("{} {text}", Timestamp::now()));
}
