//! `agent-gate proxy`: a gate in the foreground, with one proxy for commands that are started
//! otherwise. Runs attach to it as to any gate.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use agent_gate_store::Layout;
use agent_gate_store::record::Mode;
use anyhow::Context;
use socket2::{Domain, Socket, Type};

use super::upstream;
use crate::cli::ProxyOptions;
use crate::config::Config;
use crate::exit_code::Exit;
use crate::gate::control::{self, Attach, Upstream};
use crate::gate::process::Gate;
use crate::gate::{client, lock};
use crate::proxies;
use crate::terminal;

/// Serves until Ctrl-C.
///
/// # Errors
/// When a gate is running already, a port is taken, or the gate cannot start.
pub(super) fn run(config: &Config, options: &ProxyOptions) -> anyhow::Result<Exit> {
    let upstream = upstream::read(&options.upstream, config)?;
    let layout = config.create_layout()?;
    config.paths.create_config_dir()?;
    let gate = start(config, &layout, options, upstream)?;
    gate.serve()?;
    Ok(Exit::Success)
}

fn start(
    config: &Config,
    layout: &Layout,
    options: &ProxyOptions,
    upstream: Upstream,
) -> anyhow::Result<Gate> {
    // Runs that start now wait for this gate.
    let _starting = lock::exclusive(layout.start_lock())?;
    client::without_gate(config, layout)?;
    let wanted = options
        .addr
        .unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, config.settings.ports.proxy)));
    let socket = bind(wanted)?;
    let mut gate = Gate::open(config, true)?;
    // Not before: who connects is to find a gate that serves.
    socket.listen(BACKLOG).with_context(|| format!("cannot listen on {wanted}"))?;
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().context("the proxy's address")?;
    gate.attach_own(&attach(upstream)?, listener)?;
    terminal::note(&format!("proxy http://{address}/ · dashboard http://{}/", gate.dashboard()));
    terminal::note(&format!(
        "clients must trust {}; Ctrl-C ends",
        layout.authority_dir().join("cert.pem").display()
    ));
    Ok(gate)
}

/// Takes the address, without listening yet.
fn bind(address: SocketAddr) -> anyhow::Result<Socket> {
    let bind = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        // As std does: connections of an earlier gate that linger do not keep the port.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        Ok(socket)
    };
    bind().map_err(|error| {
        let cure = match error.kind() {
            io::ErrorKind::AddrInUse => "; --addr 127.0.0.1:PORT chooses another port",
            _ => "",
        };
        anyhow::anyhow!("cannot listen on {address}: {error}{cure}")
    })
}

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

fn attach(upstream: Upstream) -> anyhow::Result<Attach> {
    let argv = std::env::args_os().map(|it| it.to_string_lossy().into_owned()).collect();
    let argv = proxies::without_secrets(argv);
    Ok(Attach {
        agent: control::agent_name(&argv),
        argv,
        cwd: std::env::current_dir().context("the current folder")?.to_string_lossy().into_owned(),
        pid: std::process::id(),
        mode: Mode::Permissive,
        weaker: None,
        upstream,
        listeners: vec![control::ListenerKind::Proxy],
    })
}
