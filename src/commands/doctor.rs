//! `agent-gate doctor`: looks at everything a run stands on, and says what is wrong and what to do.
//!
//! It changes nothing: what is missing is made by the first run. The jail is really built (and
//! taken down with nothing started in it), since nothing less tells whether the kernel allows it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use agent_gate_engine::{Driver, probe};
use agent_gate_jail::Plan;
use agent_gate_store::{HostList, Timestamp};
use anyhow::Context;
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};
use serde::Serialize;

use crate::cli::Cli;
use crate::config::{self, Config, Settings};
use crate::exit_code::Exit;
use crate::gate::client::Session;
use crate::gate::lists_watch;
use crate::paths::Paths;
use crate::terminal;

/// Below this much free space, in bytes, a single large body may fill the disk.
const FREE_BYTES_MIN: u64 = 256 << 20;

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    /// What it is.
    what: &'static str,
    state: State,
    /// What was found.
    found: String,
    /// What to do about it.
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    cure: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// As it should be.
    Ok,
    /// It works, but the user may want to know.
    Note,
    /// It does not work.
    Wrong,
}

impl Check {
    fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, state: State::Ok, found: found.into(), cure: None }
    }

    fn note(what: &'static str, found: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { what, state: State::Note, found: found.into(), cure: Some(cure.into()) }
    }

    fn wrong(what: &'static str, found: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { what, state: State::Wrong, found: found.into(), cure: Some(cure.into()) }
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    checks: &'a [Check],
}

/// Looks at everything and prints a line each.
///
/// # Errors
/// When there is no place to look at, or nobody to print to.
pub(super) fn run(cli: &Cli, json: bool) -> anyhow::Result<Exit> {
    let checks = look(cli)?;
    let is_well = checks.iter().all(|check| check.state != State::Wrong);
    if json {
        let report = Report { ok: is_well, checks: &checks };
        terminal::print(&serde_json::to_string(&report)?)?;
    } else {
        checks.iter().try_for_each(print)?;
    }
    Ok(if is_well { Exit::Success } else { Exit::CheckFailed })
}

fn print(check: &Check) -> anyhow::Result<()> {
    let state = match check.state {
        State::Ok => "ok",
        State::Note => "note",
        State::Wrong => "WRONG",
    };
    terminal::print(&format!("{state:<6} {:<16} {}", check.what, terminal::clean(&check.found)))?;
    match &check.cure {
        Some(cure) => terminal::print(&format!("{:24}-> {}", "", terminal::clean(cure))),
        None => Ok(()),
    }
}

fn look(cli: &Cli) -> anyhow::Result<Vec<Check>> {
    let paths = Paths::find(cli.config_dir.as_deref(), cli.data_dir.as_deref())?;
    let file = paths.config_dir.join(config::FILE);
    let (settings, said) = match Settings::load(&file) {
        Ok(settings) => (settings, settings_found(&file)),
        Err(error) => {
            let cure = "correct it; until then nothing starts";
            (Settings::default(), Check::wrong("settings", terminal::chain(&error), cure))
        }
    };
    let config = Config { paths, settings };
    let mut checks = vec![said];
    checks.extend(lists_watch::FILES.map(|file| list(&config, file)));
    checks.push(data_folder(&config.paths.data_dir));
    checks.push(authority(&config));
    // Before whatever might start a thread: the jail's first process is a copy of this one.
    checks.push(jail(&config));
    checks.push(driver(config.settings.gate.driver));
    checks.push(gate(&config));
    checks.push(disk(&config.paths.data_dir));
    Ok(checks)
}

fn settings_found(file: &Path) -> Check {
    let what = "settings";
    if file.exists() {
        Check::ok(what, file.display().to_string())
    } else {
        Check::ok(what, format!("the defaults ({} is not there)", file.display()))
    }
}

fn list(config: &Config, file: &'static str) -> Check {
    let path = config.paths.config_dir.join(file);
    match HostList::load(&path).map_err(lists_watch::told) {
        Ok(_) if !path.exists() => Check::ok(file, "no such file: an empty list"),
        Ok(list) if list.is_empty() => Check::ok(file, "no entries"),
        Ok(_) => Check::ok(file, path.display().to_string()),
        Err(error) => Check::wrong(
            file,
            terminal::chain(&error),
            "correct the line; until then no run starts, and a running gate keeps the list it has",
        ),
    }
}

fn data_folder(folder: &Path) -> Check {
    let what = "data folder";
    let shown = folder.display();
    let Ok(metadata) = fs::metadata(folder) else {
        let nearest = nearest_existing(folder);
        return match access(nearest, AccessFlags::W_OK | AccessFlags::X_OK) {
            Ok(()) => Check::ok(what, format!("{shown} (the first run makes it)")),
            Err(errno) => Check::wrong(
                what,
                format!("{shown} cannot be made: {}: {}", nearest.display(), errno.desc()),
                "--data-dir chooses another",
            ),
        };
    };
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Check::wrong(
            what,
            format!("{shown} has mode {mode:04o}: others can read what was captured"),
            format!("chmod 700 {shown}"),
        );
    }
    match tempfile::tempfile_in(folder) {
        Ok(_) => Check::ok(what, format!("{shown}, yours alone")),
        Err(error) => Check::wrong(
            what,
            format!("{shown} cannot be written: {}", root_cause(&error)),
            "--data-dir chooses another",
        ),
    }
}

/// Wrappers name temporary files that nobody has heard of; the system's word is enough.
fn root_cause(error: &io::Error) -> String {
    error
        .raw_os_error()
        .map_or_else(|| error.to_string(), |errno| io::Error::from_raw_os_error(errno).to_string())
}

fn nearest_existing(path: &Path) -> &Path {
    path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"))
}

fn authority(config: &Config) -> Check {
    let what = "CA";
    let layout = config.layout();
    let folder = layout.authority_dir();
    match probe::authority_valid_until(folder) {
        Ok(Some(end)) => {
            let cert = folder.join("cert.pem");
            Check::ok(what, format!("{}, valid until {}", cert.display(), day(end)))
        }
        Ok(None) => Check::ok(what, "none that lasts: the next gate makes one"),
        Err(error) => Check::wrong(
            what,
            error.to_string(),
            format!("remove {} to have a new one made", folder.display()),
        ),
    }
}

fn day(moment: SystemTime) -> String {
    let micros = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros();
    let text = Timestamp(i64::try_from(micros).unwrap_or(i64::MAX)).to_string();
    text.get(..10).unwrap_or_default().to_owned()
}

fn jail(config: &Config) -> Check {
    let what = "jail";
    match try_jail(config) {
        Ok(()) => Check::ok(what, "can be made: runs are airtight"),
        Err(error) => Check::wrong(
            what,
            terminal::chain(&error),
            "see docs/jail.md; without it runs are permissive: a command that ignores the proxy \
             goes unseen",
        ),
    }
}

/// Builds the jail that a run would have and takes it down. Only folders that are there are hidden
/// in it, since a jail makes those that are not.
fn try_jail(config: &Config) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir().context("a temporary folder")?;
    let authority = rcgen::generate_simple_self_signed(["agent-gate.invalid".to_owned()])?;
    let folders = [&config.paths.config_dir, &config.paths.data_dir];
    let plan = Plan {
        argv: vec!["true".into()],
        cwd: std::env::current_dir().context("the current folder")?,
        environment: std::env::vars_os().collect(),
        proxy_port: config.settings.ports.proxy,
        transparent_ports: super::run::TRANSPARENT_PORTS.to_vec(),
        authority_pem: authority.cert.pem(),
        trust_dir: scratch.path().join("trust"),
        hidden: folders.into_iter().filter(|folder| folder.is_dir()).cloned().collect(),
    };
    drop(agent_gate_jail::confine(&plan)?);
    Ok(())
}

fn driver(wanted: Driver) -> Check {
    let what = "driver";
    match (wanted, probe::io_uring()) {
        (Driver::Epoll, _) => Check::ok(what, "epoll, as the settings want it"),
        (Driver::Auto, Ok(())) => Check::ok(what, "io_uring"),
        (Driver::IoUring, Ok(())) => Check::ok(what, "io_uring, as the settings want it"),
        (Driver::Auto, Err(error)) => Check::note(
            what,
            format!("epoll, since io_uring is not granted: {error}{}", ring_hint()),
            "nothing: everything works, bulk transfers are somewhat slower",
        ),
        (Driver::IoUring, Err(error)) => Check::wrong(
            what,
            format!("the settings want io_uring, which is not granted: {error}{}", ring_hint()),
            "driver = \"auto\" under [gate] in config.toml",
        ),
    }
}

/// The one setting that forbids io_uring to everyone or to most (kernel 6.6 on).
fn ring_hint() -> String {
    let setting = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    match setting.trim() {
        "" | "0" => String::new(),
        value => format!(" (kernel.io_uring_disabled is {value})"),
    }
}

fn gate(config: &Config) -> Check {
    let what = "gate";
    match Session::with_running(config, &config.layout()) {
        Ok(Some(session)) => {
            Check::ok(what, format!("running; pages on http://{}/", session.hello().dashboard))
        }
        Ok(None) => Check::ok(what, "none is running; `agent-gate run` starts one"),
        Err(error) => Check::wrong(
            what,
            terminal::chain(&error),
            format!("see {}", config.layout().gate_log().display()),
        ),
    }
}

fn disk(folder: &Path) -> Check {
    let what = "disk";
    let place = nearest_existing(folder);
    let free = match statvfs(place) {
        Ok(stat) => stat.blocks_available() * stat.fragment_size(),
        Err(errno) => {
            let found = format!("{}: {}", place.display(), errno.desc());
            return Check::wrong(what, found, "--data-dir chooses another place");
        }
    };
    let found = format!("{} MB free for {}", free / 1_000_000, folder.display());
    if free < FREE_BYTES_MIN {
        Check::wrong(what, found, "make room: when it is full, traffic stops")
    } else {
        Check::ok(what, found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_told_by_the_day() {
        let moment = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(86_400 * 365);
        assert_eq!(day(moment), "1971-01-01");
    }

    #[test]
    fn a_missing_folder_is_looked_for_above() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(nearest_existing(&folder.path().join("a/b/c")), folder.path());
        assert_eq!(data_folder(&folder.path().join("a/b")).state, State::Ok);
    }

    #[test]
    fn a_folder_that_others_may_read_is_wrong() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        for (mode, state) in [(0o700, State::Ok), (0o750, State::Wrong), (0o705, State::Wrong)] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(data_folder(folder.path()).state, state, "{mode:o}");
        }
    }
}
