//! `agent-gate dashboard`: the pages over what is on disk, while no gate serves them.

use agent_gate_dash::{Notices, Polling, Server};
use anyhow::Context;

use crate::config::Config;
use crate::exit_code::Exit;
use crate::gate::client::Session;
use crate::gate::ports;
use crate::signals::EndSignals;
use crate::terminal;

/// Serves the pages until Ctrl-C, or says where a running gate has them.
///
/// # Errors
/// When there is no port to be had, or the gate that is running does not answer.
pub(super) fn run(config: &Config) -> anyhow::Result<Exit> {
    let layout = config.layout();
    if let Some(gate) = Session::with_running(config, &layout)? {
        let address = gate.hello().dashboard;
        terminal::print(&format!("the gate that is running serves http://{address}/"))?;
        return Ok(Exit::Success);
    }
    let end = EndSignals::hold()?;
    let listener = ports::listen_near(config.settings.ports.dashboard)
        .context("no loopback port for the dashboard")?;
    let changes = Box::new(Polling::new(layout.clone()));
    let pages = Server::start(listener, layout, changes, Notices::default())?;
    terminal::print(&format!("http://{}/ (Ctrl-C ends)", pages.address()))?;
    end.wait()?;
    pages.stop();
    Ok(Exit::Success)
}
