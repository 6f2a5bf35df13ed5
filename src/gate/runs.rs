//! A run in the gate: its record first, then its listeners; at its end the other way round.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use agent_gate_engine::{Engine, Listener, RunSettings};
use agent_gate_store::record::{Mode, Record, Run, RunEnd};
use agent_gate_store::{
    Committed, Id, Layout, Permit, Reader, Recorder, Stopped, Store, Timestamp,
};
use anyhow::{Context, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls_pki_types::CertificateDer;

use super::control::{Attach, ListenerKind, Upstream, VERSION};
use super::{ports, upstream};

/// About how much a record of a run takes besides its command line, in bytes.
const RECORD_BYTES: usize = 512;

/// How long to wait for recording to go on when it has stopped: the disk may have space again, and
/// the writer looks now and then.
const RECORDING_WAIT: Duration = Duration::from_secs(3);

/// How often that is looked at.
const RECORDING_PAUSE: Duration = Duration::from_millis(50);

/// How long a run's end may wait for the index; the journal, which is the truth, has it by then.
const INDEX_WAIT: Duration = Duration::from_secs(2);

/// The newest runs, among which one that has just ended is looked for in the index.
const NEWEST_RUNS: usize = 200;

/// Where runs attach.
#[derive(Debug)]
pub(crate) struct Runs {
    engine: Engine,
    recorder: Recorder,
    committed: Committed,
    layout: Layout,
    /// Listeners of runs on the host's own network: no proxy for anybody's way out.
    host_proxies: Mutex<HashMap<Id, Vec<SocketAddr>>>,
    /// Ends that could not be recorded yet, because recording had stopped.
    owed: Mutex<Vec<RunEnd<'static>>>,
}

/// A run that has attached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attached {
    /// Its id.
    pub(crate) run: Id,
    /// The port of its proxy on the loopback, where the gate made the listener.
    pub(crate) proxy_port: Option<u16>,
}

impl Runs {
    /// Runs of this engine, recorded here.
    pub(crate) fn new(engine: Engine, store: &Store, layout: Layout) -> Self {
        Self {
            engine,
            recorder: store.recorder(),
            committed: store.committed(),
            layout,
            host_proxies: Mutex::default(),
            owed: Mutex::default(),
        }
    }

    /// The engine that serves them.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Ends the engine; runs that are still attached end with it.
    pub(crate) fn shut_down(self) {
        self.engine.shutdown();
    }

    /// Records a run and serves its listeners; without any, a proxy on a loopback port is made.
    ///
    /// # Errors
    /// When the run cannot be recorded or served as it wants; nothing of it is served then.
    pub(crate) fn attach(
        &self,
        attach: &Attach,
        mut listeners: Vec<Listener>,
    ) -> anyhow::Result<Attached> {
        let run = Id::new();
        let proxy_port = if listeners.is_empty() {
            let (listener, port) = own_proxy().context("the run's proxy port")?;
            listeners.push(listener);
            Some(port)
        } else {
            None
        };
        let own = host_proxies(attach.mode, &listeners);
        let settings = self.settings(run, attach, &own)?;
        self.record(&Record::Run(run_record(run, attach)))?;
        if let Err(error) = self.engine.attach(settings, listeners) {
            let _ = self.record_end(run, None, Some("it could not be served"), 0);
            return Err(error.into());
        }
        self.host_proxies().insert(run, own);
        Ok(Attached { run, proxy_port })
    }

    /// Ends a run and records how; the number of its exchanges. `reason` says why when it was not
    /// the command's own end. All of the run is in the journal then, and on the pages.
    ///
    /// # Errors
    /// When the end could not be recorded; the run has ended all the same.
    pub(crate) fn detach(
        &self,
        run: Id,
        status: Option<i32>,
        reason: Option<&str>,
    ) -> Result<u64, Stopped> {
        let exchanges = self.engine.detach(run);
        self.host_proxies().remove(&run);
        self.record_end(run, status, reason, exchanges)?;
        self.wait_for_index(run);
        Ok(exchanges)
    }

    /// Waits until the pages show the end of this run. A page that is late is no loss, so whatever
    /// goes wrong here is not told.
    fn wait_for_index(&self, run: Id) {
        let Ok(index) = Reader::open(&self.layout) else { return };
        let has_ended = || {
            let runs = index.runs(NEWEST_RUNS).unwrap_or_default();
            runs.iter().find(|row| row.id == run).is_some_and(|row| row.ended_at.is_some())
        };
        let deadline = Instant::now() + INDEX_WAIT;
        loop {
            let committed = self.committed.get();
            let left = deadline.saturating_duration_since(Instant::now());
            if has_ended() || left.is_zero() {
                return;
            }
            self.committed.wait_past(committed, left);
        }
    }

    fn record_end(
        &self,
        run: Id,
        status: Option<i32>,
        reason: Option<&str>,
        exchanges: u64,
    ) -> Result<(), Stopped> {
        let (id, at) = (Id::new(), Timestamp::now());
        let reason = reason.map(|reason| Cow::Owned(reason.to_owned()));
        let end = RunEnd { id, run, at, status, reason, exchanges };
        match self.permit(RECORD_BYTES) {
            Ok(permit) => permit.record_with_receipt(&Record::RunEnd(end)).wait(),
            Err(stopped) => {
                self.owed().push(end);
                Err(stopped)
            }
        }
    }

    /// Records what could not be recorded when it happened, if recording goes on. Does not wait
    /// for the disk.
    pub(crate) fn pay_owed(&self) {
        let mut owed = self.owed();
        while let Some(end) = owed.pop() {
            if self.recorder.stopped().is_none()
                && let Ok(permit) = self.recorder.reserve_blocking(RECORD_BYTES)
            {
                permit.record(&Record::RunEnd(end));
            } else {
                owed.push(end);
                return;
            }
        }
    }

    fn settings(&self, id: Id, attach: &Attach, own: &[SocketAddr]) -> anyhow::Result<RunSettings> {
        let Upstream { enforce_allowlist, cas, insecure, resolve, proxies, client_certificates } =
            &attach.upstream;
        let certificates = client_certificates.iter().map(upstream::client_certificate);
        let own: Vec<_> = self.host_proxies().values().flatten().chain(own).copied().collect();
        Ok(RunSettings {
            id,
            mode: attach.mode,
            enforce_allowlist: *enforce_allowlist,
            upstream_cas: cas.iter().map(|ca| certificate(ca)).collect::<Result<_, _>>()?,
            upstream_insecure: *insecure,
            resolve: resolve.iter().map(|rule| rule.parse()).collect::<Result<_, _>>()?,
            proxies: upstream::proxies(proxies, &own)?,
            client_certificates: certificates.collect::<Result<_, _>>()?,
        })
    }

    /// Changed in one step each time, so it is whole whoever panicked.
    fn host_proxies(&self) -> MutexGuard<'_, HashMap<Id, Vec<SocketAddr>>> {
        self.host_proxies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pushed to and popped from in one step each, so it is whole whoever panicked.
    fn owed(&self) -> MutexGuard<'_, Vec<RunEnd<'static>>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when the record is with the kernel.
    fn record(&self, record: &Record<'_>) -> Result<(), Stopped> {
        let bytes = match record {
            Record::Run(run) => run.argv.iter().map(|argument| argument.len()).sum(),
            _ => 0,
        };
        let permit = self.permit(RECORD_BYTES + bytes)?;
        permit.record_with_receipt(record).wait()
    }

    fn permit(&self, bytes: usize) -> Result<Permit, Stopped> {
        let deadline = Instant::now() + RECORDING_WAIT;
        loop {
            match self.recorder.reserve_blocking(bytes) {
                Err(_) if Instant::now() < deadline => thread::sleep(RECORDING_PAUSE),
                other => return other,
            }
        }
    }
}

/// The sockets that came with an attach, as what they are.
///
/// # Errors
/// When there are more or fewer than announced.
pub(crate) fn listeners(
    kinds: &[ListenerKind],
    sockets: Vec<OwnedFd>,
) -> anyhow::Result<Vec<Listener>> {
    ensure!(
        kinds.len() == sockets.len(),
        "{} listeners announced, {} arrived",
        kinds.len(),
        sockets.len()
    );
    let listener = |(kind, socket): (&ListenerKind, OwnedFd)| match kind {
        ListenerKind::Proxy => Listener::Proxy(socket.into()),
        ListenerKind::Transparent => Listener::Transparent(socket.into()),
        ListenerKind::DnsTcp => Listener::DnsTcp(socket.into()),
        ListenerKind::DnsUdp => Listener::DnsUdp(socket.into()),
    };
    Ok(kinds.iter().zip(sockets).map(listener).collect())
}

/// Those listeners of a run that the host's own programs reach: in a jail the same address means
/// another place.
fn host_proxies(mode: Mode, listeners: &[Listener]) -> Vec<SocketAddr> {
    let address = |listener: &Listener| match listener {
        Listener::Proxy(socket) if mode == Mode::Permissive => socket.local_addr().ok(),
        _ => None,
    };
    listeners.iter().filter_map(address).collect()
}

fn own_proxy() -> std::io::Result<(Listener, u16)> {
    let listener: TcpListener = ports::listen_anywhere()?;
    let port = listener.local_addr()?.port();
    Ok((Listener::Proxy(listener), port))
}

fn run_record(id: Id, attach: &Attach) -> Run<'_> {
    Run {
        id,
        at: Timestamp::now(),
        argv: attach.argv.iter().map(|argument| argument.as_str().into()).collect(),
        cwd: attach.cwd.as_str().into(),
        agent: attach.agent.as_str().into(),
        mode: attach.mode,
        weaker: attach.weaker.as_deref().map(Cow::Borrowed),
        pid: attach.pid,
        version: VERSION.into(),
    }
}

fn certificate(base64: &str) -> anyhow::Result<CertificateDer<'static>> {
    let der = BASE64_STANDARD.decode(base64).context("a certificate that is not base64")?;
    Ok(CertificateDer::from(der))
}
