//! A bench: a home folder of its own, an origin, and the built binary with at most one gate.
//!
//! Nothing is inherited but `PATH`: a machine's shell may preset proxies and CA files, and a
//! scenario that passes because of them proves nothing. Dropped, the bench ends its gate by SIGTERM
//! and fails the test when any process is left behind.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::journal::Journal;
use super::origin::Origin;
use super::processes::{self, Process};
use super::{PATIENCE, wait_for};

/// The binary under test.
pub(crate) const AGENT_GATE: &str = env!("CARGO_BIN_EXE_agent-gate");

/// Settings of a bench's `config.toml`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Long, so that one gate serves a whole scenario; the bench ends it. Not too long, for when
    /// the tests are killed before.
    pub(crate) linger_seconds: u32,
    pub(crate) body_bytes_max: u64,
    /// Further tables of the file.
    pub(crate) more: &'static str,
}

impl Default for Settings {
    fn default() -> Self {
        Self { linger_seconds: 60, body_bytes_max: 64 << 20, more: "" }
    }
}

/// One scenario's world.
pub(crate) struct Bench {
    pub(crate) origin: Origin,
    pub(crate) proxy_port: u16,
    pub(crate) dashboard_port: u16,
    root: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(Settings::default())
    }

    pub(crate) fn with(settings: Settings) -> Self {
        let root = tempfile::Builder::new().prefix("gate-").tempdir().unwrap();
        let bench = Self {
            origin: Origin::start(&root.path().join("origin")),
            proxy_port: free_port(),
            dashboard_port: free_port(),
            root,
        };
        for folder in ["home", "tmp", "work"] {
            std::fs::create_dir(bench.path(folder)).unwrap();
        }
        bench.write_config(settings);
        bench
    }

    fn write_config(&self, settings: Settings) {
        let (proxy, dashboard) = (self.proxy_port, self.dashboard_port);
        let Settings { linger_seconds, body_bytes_max, more } = settings;
        self.write_setting(
            "config.toml",
            &format!(
                "[ports]\nproxy = {proxy}\ndashboard = {dashboard}\n\
                 [gate]\nlinger_seconds = {linger_seconds}\n\
                 [capture]\nbody_bytes_max = {body_bytes_max}\n{more}"
            ),
        );
    }

    /// Writes a file of the config folder: `config.toml` or a list.
    pub(crate) fn write_setting(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.config_dir()).unwrap();
        std::fs::write(self.config_dir().join(name), text).unwrap();
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// A path below the bench's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// The folder that commands start in.
    pub(crate) fn work(&self) -> PathBuf {
        self.path("work")
    }

    pub(crate) fn config_dir(&self) -> PathBuf {
        self.home().join(".config/agent-gate")
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.home().join(".local/share/agent-gate")
    }

    pub(crate) fn journal(&self) -> Journal {
        Journal::of(&self.data_dir())
    }

    /// Any program in the bench's environment and folder.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home())
            .env("TMPDIR", self.path("tmp"))
            .env("TERM", "dumb")
            .env("LANG", "C.UTF-8")
            .current_dir(self.work())
            .stdin(Stdio::null());
        command
    }

    /// `agent-gate ARGS…`
    pub(crate) fn agent_gate(&self, args: &[&str]) -> Command {
        let mut command = self.command(AGENT_GATE);
        command.args(args);
        command
    }

    /// Options by which every host is found at the origin, on ports 443 and 80.
    pub(crate) fn resolve(&self) -> Vec<String> {
        let (https, http) = (self.origin.https_port, self.origin.http_port);
        vec![
            "--resolve".to_owned(),
            format!("*:443:127.0.0.1:{https}"),
            "--resolve".to_owned(),
            format!("*:80:127.0.0.1:{http}"),
        ]
    }

    /// The same, and trusted.
    pub(crate) fn upstream(&self) -> Vec<String> {
        let mut options = self.resolve();
        options.push("--upstream-ca".to_owned());
        options.push(self.origin.ca_pem().to_str().unwrap().to_owned());
        options
    }

    /// `agent-gate run OPTIONS… -- ARGV…` with the origin found and trusted.
    pub(crate) fn run_command(&self, options: &[&str], argv: &[&str]) -> Command {
        let mut command = self.agent_gate(&["run"]);
        command.args(self.upstream()).args(options).arg("--").args(argv);
        command
    }

    /// Runs it to its end.
    pub(crate) fn run_with(&self, options: &[&str], argv: &[&str]) -> Output {
        finish(self.run_command(options, argv))
    }

    /// `agent-gate run -- ARGV…` to its end.
    pub(crate) fn run(&self, argv: &[&str]) -> Output {
        self.run_with(&[], argv)
    }

    /// `agent-gate run -- sh -c SCRIPT` to its end.
    pub(crate) fn run_sh(&self, script: &str) -> Output {
        self.run(&["sh", "-c", script])
    }

    /// A run that has attached and lasts until [`Held::finish`].
    pub(crate) fn hold_a_run(&self) -> Held {
        let runs = self.journal().of_type("run").len();
        let mut command = self.run_command(&[], &["cat"]);
        command.stdin(Stdio::piped());
        let run = Held(Started::new(command));
        wait_for("the run to attach", || {
            (self.journal().of_type("run").len() > runs).then_some(())
        });
        run
    }

    /// The gate, if one runs: whoever holds its lock.
    pub(crate) fn gate(&self) -> Option<i32> {
        processes::lock_holder(&self.data_dir().join("gate.lock"))
    }

    /// The gate, which must run.
    pub(crate) fn running_gate(&self) -> i32 {
        self.gate().expect("a gate that runs")
    }

    /// Gate processes of this bench, counted without trusting the lock.
    pub(crate) fn gate_processes(&self) -> Vec<Process> {
        processes::touching(self.root())
            .into_iter()
            .filter(|p| p.command.split(' ').any(|word| word == "__gate"))
            .collect()
    }

    /// Ends the gate in order, if one runs, and waits until it is gone.
    pub(crate) fn stop_gate(&self) {
        let Some(gate) = self.gate() else { return };
        processes::signal(gate, Signal::SIGTERM);
        wait_for("the gate to end after SIGTERM", || (!processes::is_alive(gate)).then_some(()));
    }

    /// Ends everything of this bench that still runs; returns what had to be killed.
    fn clear(&self) -> Vec<Process> {
        // By name too: the lock of a gate with mounts of its own is not to be seen from here.
        for gate in self.gate().into_iter().chain(self.gate_processes().iter().map(|p| p.pid)) {
            processes::signal(gate, Signal::SIGTERM);
        }
        // A jail of the run that has just ended may be on its way out still.
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let left = processes::touching(self.root());
            if left.is_empty() || Instant::now() > deadline {
                left.iter().for_each(|p| processes::signal(p.pid, Signal::SIGKILL));
                return left;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let left = self.clear();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.data_dir().join("gate.log"));
            tell(&format!("gate.log: {}", log.unwrap_or_else(|e| e.to_string())));
            tell(&format!("journal:\n{}left: {left:#?}", self.journal().summary()));
        } else {
            assert!(left.is_empty(), "processes left behind, killed: {left:#?}");
            assert_eq!(self.origin.violations(), [""; 0], "the gate broke HTTP's rules");
        }
    }
}

/// What a command did.
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Output {
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Panics with everything it said unless it exited 0.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.exits(0)
    }

    /// Panics with everything it said unless it exited with `code`.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code(), Some(code), "{self:?}");
        self
    }

    /// The lines that agent-gate itself wrote to stderr.
    pub(crate) fn own_lines(&self) -> Vec<&str> {
        self.stderr.lines().filter(|l| l.starts_with("agent-gate: ")).collect()
    }
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = self.text();
        out.truncate(out.floor_char_boundary(4000));
        write!(f, "{}\n--- stdout\n{out}\n--- stderr\n{}", self.status, self.stderr)
    }
}

/// Starts a command with both outputs piped, and waits for it; see [`Started::finish`].
pub(crate) fn finish(command: Command) -> Output {
    Started::new(command).finish()
}

/// A command under way whose outputs are read as they come.
pub(crate) struct Started {
    pub(crate) child: Child,
    shown: String,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
}

impl Started {
    pub(crate) fn new(mut command: Command) -> Self {
        command.stdout(Stdio::piped());
        let mut started = Self::with_stdout_left(command);
        started.stdout = started.child.stdout.take().map(read_all);
        started
    }

    /// Its stdout is the caller's to read, from `child.stdout`.
    pub(crate) fn with_stdout_left(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let shown = format!("{command:?}");
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{shown}: {e}"));
        let stderr = child.stderr.take().map(read_all);
        Self { child, shown, stdout: None, stderr }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Waits for its end and for the end of its outputs. A gate in the background that kept them
    /// open would hang `$(agent-gate run …)` in a shell, so that counts as a hang here too.
    pub(crate) fn finish(mut self) -> Output {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                self.give_up("does not end");
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let readers = [&self.stdout, &self.stderr];
        while readers.iter().any(|r| r.as_ref().is_some_and(|r| !r.is_finished())) {
            if Instant::now() > deadline {
                self.give_up("ended, but something keeps its outputs open");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let text = |reader: Option<JoinHandle<Vec<u8>>>| {
            reader.map(|r| r.join().unwrap()).unwrap_or_default()
        };
        let stderr = String::from_utf8_lossy(&text(self.stderr)).into_owned();
        Output { status, stdout: text(self.stdout), stderr }
    }

    fn give_up(&mut self, what: &str) -> ! {
        let pid = self.pid();
        // Asked first: agent-gate then takes its jail down, and the pipes end.
        processes::signal(pid, Signal::SIGTERM);
        std::thread::sleep(Duration::from_secs(1));
        drop(self.child.kill());
        drop(self.child.wait());
        let mut said = String::new();
        for reader in [self.stdout.take(), self.stderr.take()].into_iter().flatten() {
            if reader.is_finished() {
                let bytes = reader.join().unwrap_or_default();
                write!(said, "\n---\n{}", String::from_utf8_lossy(&bytes)).unwrap();
            }
        }
        panic!("{} {what}{said}", self.shown);
    }
}

/// A run that waits for the end of its input.
pub(crate) struct Held(Started);

impl Held {
    /// Lets it end.
    pub(crate) fn finish(mut self) -> Output {
        drop(self.0.child.stdin.take());
        self.0.finish()
    }
}

fn read_all(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before a failure is worth more than the failure.
        drop(pipe.read_to_end(&mut bytes));
        bytes
    })
}

/// A port of the loopback that is free now and that no other bench of this process is given. Below
/// the range from which the kernel takes ports by itself, so that none is taken in between.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes of two users at the same time start at different places.
    let start = u16::try_from(std::process::id() % 90).expect("small") * 100;
    loop {
        let port = 22_000 + (start + NEXT.fetch_add(1, Ordering::SeqCst)) % 9_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A word for whoever reads a failed test's output.
#[expect(clippy::print_stderr, reason = "the test harness shows it with a failed test")]
pub(crate) fn tell(what: &str) {
    eprintln!("{what}");
}
