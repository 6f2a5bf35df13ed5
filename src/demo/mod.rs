//! `agent-gate demo`: the whole way without network, account or agent.
//!
//! An origin of our own (`origin`) plays the Anthropic Messages API by a script (`script`); an
//! agent of our own (`client`) talks to it from inside the jail, through the gate; and what was
//! captured is held against what the origin saw and sent, byte for byte (`check`).

pub(crate) mod client;

mod check;
mod http;
mod origin;
mod script;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::config::{self, Config, Settings};
use crate::exit_code::Exit;
use crate::gate::client::Session;
use crate::gate::lock;
use crate::paths::Paths;
use crate::signals::EndSignals;
use crate::terminal::{self, print};
use origin::Origin;

/// Whom the scripted agent talks to: a name that resolves to our own origin in this run.
const HOST: &str = "api.anthropic.com";

/// Settings of the demo's gate: any dashboard port, no linger beyond the demo itself, and nothing to
/// do with the user's proxies.
const SETTINGS: &str = "[ports]\ndashboard = 0\n[gate]\nlinger_seconds = 0\n\
                        [upstream]\nproxy_from_environment = false\n";

/// Plays the demo; with `once` it ends at once and its exit code says whether all was captured.
///
/// # Errors
/// When a part of it cannot be started.
pub(crate) fn run(once: bool) -> anyhow::Result<Exit> {
    let end = EndSignals::hold()?;
    let place = Place::make()?;
    let origin = Origin::start(HOST).context("the demo's origin")?;
    fs::write(place.origin_ca(), origin.authority_pem()).context("the demo's origin")?;
    let config = place.config()?;
    let layout = config.create_layout()?;
    // Our own conversation with the gate keeps it here for as long as the pages are wanted.
    let gate = Session::open(&config, &layout)?;
    print(&format!("agent-gate demo: a scripted agent talks to {HOST}, played on this machine"))?;
    print("")?;

    let complete = play(&place, &origin)? && check::report(&layout, &origin)?;
    if !once {
        print(&format!("\nlook at it: http://{}/ (Ctrl-C ends)", gate.hello().dashboard))?;
        end.wait()?;
    }
    end_gate(gate, &layout)?;
    Ok(if complete { Exit::Success } else { Exit::CheckFailed })
}

/// Runs the agent in the jail, or loudly without one; whether it had its conversation.
fn play(place: &Place, origin: &Origin) -> anyhow::Result<bool> {
    let strict = place.run(origin, &["--mode", "airtight-strict"], &["__demo-client"])?;
    if strict.success() {
        return Ok(true);
    }
    if strict.code() != Some(Exit::OwnFailure.status()) {
        return Ok(false);
    }
    terminal::note("no jail here (see above): the demo goes on by proxy variables alone");
    let open = place.run(origin, &["--mode", "permissive"], &["__demo-client", "--by-proxy"])?;
    Ok(open.success())
}

/// Waits for the gate's end, so that its folder can be removed.
fn end_gate(gate: Session, layout: &agent_gate_store::Layout) -> anyhow::Result<()> {
    ensure!(gate.ask_to_end()?, "the demo's gate is in use by somebody else");
    lock::wait_for_free(layout.gate_lock(), lock::ENDING_WAIT).context("the demo's gate")?;
    Ok(())
}

/// A temporary place for all that the demo writes; removed when dropped.
struct Place {
    folder: TempDir,
    program: PathBuf,
}

impl Place {
    fn make() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("agent-gate-demo-")
            .tempdir()
            .context("no temporary folder")?;
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let place = Self { folder, program };
        fs::create_dir(place.path("config")).context("no temporary folder")?;
        fs::create_dir(place.path("work")).context("no temporary folder")?;
        fs::write(place.path("config").join(config::FILE), SETTINGS)?;
        fs::write(place.path("work").join(script::FILE), script::FILE_TEXT)?;
        Ok(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn origin_ca(&self) -> PathBuf {
        self.path("origin-ca.pem")
    }

    fn config(&self) -> anyhow::Result<Config> {
        let paths = Paths { config_dir: self.path("config"), data_dir: self.path("data") };
        let settings = Settings::load(&paths.config_dir.join(config::FILE))?;
        Ok(Config { paths, settings })
    }

    /// `agent-gate run OPTIONS -- agent-gate ARGS`, as a user would type it.
    fn run(&self, origin: &Origin, options: &[&str], args: &[&str]) -> anyhow::Result<ExitStatus> {
        let rule = format!("{HOST}:443:127.0.0.1:{}", origin.port());
        Command::new(&self.program)
            .args([Path::new("--config-dir"), &self.path("config")])
            .args([Path::new("--data-dir"), &self.path("data")])
            .arg("run")
            .args(options)
            .args(["--resolve", &rule, "--upstream-ca"])
            .arg(self.origin_ca())
            .arg("--")
            .arg(&self.program)
            .args(args)
            .current_dir(self.path("work"))
            .status()
            .context("cannot start the demo's run")
    }
}

/// How long any part of the demo waits for another. Far more than it takes.
const PATIENCE: Duration = Duration::from_secs(30);
