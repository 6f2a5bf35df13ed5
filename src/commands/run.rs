//! `agent-gate run`: find or start the gate, build the jail, hand its listeners over, start the
//! command in it, and be its stand-in until it ends.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use agent_gate_jail::{Confined, End, Listener, Plan, Running, StartError, confine, unconfined};
use agent_gate_store::record::Mode;
use agent_gate_store::{Id, Layout};
use anyhow::{Context, bail};

use super::upstream;
use crate::cli::{RunOptions, WantedMode};
use crate::config::Config;
use crate::exit_code::Exit;
use crate::gate::client::Session;
use crate::gate::control::{self, Attach, ListenerKind, Upstream};
use crate::gate::lists_watch;
use crate::terminal;

/// Where HTTP and HTTPS are caught by whatever ignores the proxy variables.
pub(super) const TRANSPARENT_PORTS: [u16; 2] = [80, 443];

/// Runs a command through the gate; its exit code is ours.
///
/// # Errors
/// Whatever kept the command from being started under the gate's eyes.
pub(super) fn run(config: &Config, options: RunOptions) -> anyhow::Result<Exit> {
    let upstream = upstream::read(&options.upstream, config)?;
    // A gate that runs already keeps its last good lists; a new run does not start on bad ones.
    lists_watch::load(&config.paths.config_dir)?;
    let layout = config.create_layout()?;
    config.paths.create_config_dir()?;
    let session = Session::open(config, &layout)?;

    let mut plan = plan(config, &layout, options.argv, &session)?;
    let mut place = Place::prepare(&plan, options.mode)?;
    let listeners = place.listeners();
    let attach = attach(&plan, &place, upstream, &listeners);
    let sockets: Vec<_> = listeners.iter().map(descriptor).collect();
    let (run, proxy_port) = session.attach(attach, &sockets)?;
    // They are the gate's alone now: with it they die.
    drop(listeners);
    plan.proxy_port = proxy_port.unwrap_or(plan.proxy_port);
    announce(&place, run, session.hello().dashboard);

    match place.start(&plan) {
        Ok(running) => follow(running, session),
        Err(error) => Ok(not_started(&error, session)),
    }
}

/// Where the command is to run.
enum Place {
    Jail(Box<Confined>),
    Open {
        /// Why it is no jail, when one was wanted.
        weaker: Option<String>,
    },
}

impl Place {
    fn prepare(plan: &Plan, wanted: WantedMode) -> anyhow::Result<Self> {
        if wanted == WantedMode::Permissive {
            return Ok(Self::Open { weaker: None });
        }
        match confine(plan) {
            Ok(jail) => Ok(Self::Jail(Box::new(jail))),
            Err(error) if wanted == WantedMode::AirtightStrict => {
                bail!("not airtight: {error}; refusing to run (--mode airtight-strict)")
            }
            Err(error) => {
                terminal::note(&format!(
                    "WARNING: not airtight: {error}; running permissive: a command that ignores \
                     the proxy goes unseen"
                ));
                Ok(Self::Open { weaker: Some(error.to_string()) })
            }
        }
    }

    fn mode(&self) -> Mode {
        match self {
            Self::Jail(_) => Mode::Airtight,
            Self::Open { .. } => Mode::Permissive,
        }
    }

    fn listeners(&mut self) -> Vec<Listener> {
        match self {
            Self::Jail(jail) => jail.listeners(),
            Self::Open { .. } => Vec::new(),
        }
    }

    fn start(self, plan: &Plan) -> Result<Running, StartError> {
        match self {
            Self::Jail(jail) => jail.start(),
            Self::Open { .. } => unconfined(plan),
        }
    }
}

fn plan(
    config: &Config,
    layout: &Layout,
    argv: Vec<std::ffi::OsString>,
    session: &Session,
) -> anyhow::Result<Plan> {
    Ok(Plan {
        argv,
        cwd: std::env::current_dir().context("the current folder")?,
        environment: std::env::vars_os().collect(),
        proxy_port: config.settings.ports.proxy,
        transparent_ports: TRANSPARENT_PORTS.to_vec(),
        authority_pem: session.hello().authority_pem.clone(),
        trust_dir: layout.trust_dir().to_owned(),
        hidden: vec![config.paths.config_dir.clone(), config.paths.data_dir.clone()],
    })
}

fn attach(plan: &Plan, place: &Place, upstream: Upstream, listeners: &[Listener]) -> Attach {
    let argv: Vec<_> = plan.argv.iter().map(|it| it.to_string_lossy().into_owned()).collect();
    Attach {
        agent: control::agent_name(&argv),
        argv,
        cwd: plan.cwd.to_string_lossy().into_owned(),
        pid: std::process::id(),
        mode: place.mode(),
        weaker: match place {
            Place::Jail(_) => None,
            Place::Open { weaker } => weaker.clone(),
        },
        upstream,
        listeners: listeners.iter().map(kind).collect(),
    }
}

fn kind(listener: &Listener) -> ListenerKind {
    match listener {
        Listener::Proxy(_) => ListenerKind::Proxy,
        Listener::Transparent(_) => ListenerKind::Transparent,
        Listener::DnsTcp(_) => ListenerKind::DnsTcp,
        Listener::DnsUdp(_) => ListenerKind::DnsUdp,
    }
}

fn descriptor(listener: &Listener) -> BorrowedFd<'_> {
    match listener {
        Listener::Proxy(socket) | Listener::Transparent(socket) | Listener::DnsTcp(socket) => {
            socket.as_fd()
        }
        Listener::DnsUdp(socket) => socket.as_fd(),
    }
}

fn announce(place: &Place, run: Id, dashboard: SocketAddr) {
    let mode = match place.mode() {
        Mode::Airtight => "airtight",
        Mode::Permissive => "permissive",
    };
    terminal::note(&format!("{mode} · run {run} · dashboard http://{dashboard}/"));
}

/// Stands in for the command until it ends, and tells the gate how it ended.
fn follow(running: Running, session: Session) -> anyhow::Result<Exit> {
    let exit = match running.wait(session.lifeline()) {
        Ok(End::Exited(code)) => Exit::Command(code),
        Ok(End::Signaled(signal)) => Exit::CommandSignal(signal),
        Ok(End::GateLost) => bail!("the gate died; the command was stopped (fail closed)"),
        Err(error) => {
            detach(session, Exit::OwnFailure)?;
            return Err(error.into());
        }
    };
    detach(session, exit)?;
    Ok(exit)
}

/// Only what the gate confirms is on disk.
fn detach(session: Session, exit: Exit) -> anyhow::Result<()> {
    session
        .detach(exit.status())
        .context("the command has ended, but what it did last may not be recorded")
}

fn not_started(error: &StartError, session: Session) -> Exit {
    let exit = match error {
        StartError::NotFound(_) => Exit::NotFound,
        StartError::NotExecutable(_) => Exit::NotExecutable,
        StartError::Other(_) => Exit::OwnFailure,
    };
    terminal::note(&error.to_string());
    if let Err(error) = detach(session, exit) {
        terminal::note(&terminal::chain(&error));
    }
    exit
}
