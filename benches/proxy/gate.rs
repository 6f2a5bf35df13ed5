//! The gate: engine and store as `agent-gate proxy` has them, in a data folder of its own.

use std::net::{Ipv4Addr, TcpListener};

use agent_gate_engine::{Config, Driver, Engine, Limits, Listener, RunSettings, UpstreamProxies};
use agent_gate_store::record::{self, Mode};
use agent_gate_store::{HostList, HostLists, Id, Layout, Options, Record, Store, Timestamp};
use anyhow::{Context as _, Result};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::authority::HOST;
use crate::role::{self, Ready, Settings};

/// Serves until the bench ends, then leaves nothing behind.
pub(crate) fn run(settings: Settings) -> Result<()> {
    let (origin, origin_authority) = settings.origin.context("the gate needs an origin")?;
    let dir = tempfile::Builder::new().prefix("agent-gate-bench-").tempdir()?;
    let layout = Layout::new(dir.path().join("data"));
    let store = Store::open(&layout, Options::default())?;
    let config = Config {
        workers: settings.workers,
        driver: match settings.driver {
            role::Driver::Auto => Driver::Auto,
            role::Driver::IoUring => Driver::IoUring,
            role::Driver::Epoll => Driver::Epoll,
        },
        authority_dir: layout.authority_dir().to_owned(),
        roots: Vec::new(),
        body_bytes_max: settings.body_bytes_max,
        limits: Limits { connections_per_run_max: usize::MAX, ..Limits::default() },
        own_addresses: Vec::new(),
    };
    let mut lists = HostLists::default();
    if settings.passes_through {
        lists.pass = HostList::parse(HOST).context("the list of one host")?;
    }
    let engine = Engine::start(config, lists, store.recorder())?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let id = Id::new();
    record_run(&store, id)?;
    let run = RunSettings {
        id,
        mode: Mode::Permissive,
        enforce_allowlist: false,
        upstream_cas: vec![origin_authority],
        upstream_insecure: false,
        resolve: vec![format!("*:*:{}:{}", origin.ip(), origin.port()).parse()?],
        proxies: UpstreamProxies::default(),
        client_certificates: Vec::new(),
    };
    engine.attach(run, vec![Listener::Proxy(listener)])?;
    let authority = CertificateDer::from_pem_slice(engine.authority_pem().as_bytes())
        .context("read the gate's CA")?;
    let data_dir = Some(layout.data_dir().to_owned());
    role::say_ready(&Ready { address, authority, data_dir })?;
    role::wait_for_end();
    engine.detach(id);
    let failed = engine.failed();
    engine.shutdown();
    store.close()?;
    anyhow::ensure!(!failed, "a worker failed");
    Ok(dir.close()?)
}

fn record_run(store: &Store, id: Id) -> Result<()> {
    let run = Record::Run(record::Run {
        id,
        at: Timestamp::now(),
        argv: vec!["bench".into()],
        cwd: "/".into(),
        agent: "bench".into(),
        mode: Mode::Permissive,
        weaker: None,
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").into(),
    });
    let permit = store.recorder().reserve_blocking(run.memory_bytes());
    permit.map_err(|stopped| anyhow::anyhow!(stopped.0))?.record(&run);
    Ok(())
}
