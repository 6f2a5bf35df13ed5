//! What the scenarios share: who calls, a home for the run, its output, a terminal.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tempfile::TempDir;

use crate::run;

/// Who runs `agent-gate run`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Root, if the tests run as root.
    Root,
    /// Somebody without a name, or the user who runs the tests.
    User(u32),
}

/// A user id that no system gives out.
const NOBODY_IN_PARTICULAR: u32 = 54_321;

impl Caller {
    pub(crate) fn all() -> Vec<Self> {
        let me = nix::unistd::Uid::effective();
        if me.is_root() {
            vec![Self::User(NOBODY_IN_PARTICULAR), Self::Root]
        } else {
            vec![Self::User(me.as_raw())]
        }
    }

    pub(crate) fn id(self) -> u32 {
        match self {
            Self::Root => 0,
            Self::User(id) => id,
        }
    }

    fn apply(self, command: &mut Command) {
        if nix::unistd::Uid::effective().as_raw() != self.id() {
            command.uid(self.id()).gid(self.id());
        }
    }
}

impl std::fmt::Display for Caller {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(if *self == Self::Root { "root" } else { "user" })
    }
}

/// A home directory with a gate's folders in it, and the stand-in binary where the caller reaches
/// it. Gone with the test.
pub(crate) struct Home {
    pub(crate) caller: Caller,
    folder: TempDir,
}

impl Home {
    pub(crate) fn new(caller: Caller) -> Self {
        let folder = tempfile::Builder::new().prefix("jail-test-").tempdir().unwrap();
        let home = Self { caller, folder };
        home.write(".config/agent-gate/allowlist.txt", "secret.example\n");
        home.write(".local/share/agent-gate/journal/today.jsonl", "{}\n");
        home.write("project/file.txt", "here\n");
        home.own(home.path());
        home
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn trust(&self) -> PathBuf {
        self.path().join(".local/share/agent-gate/trust")
    }

    /// A file for the caller, with the folders it needs.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        self.own(&path);
    }

    pub(crate) fn executable(&self, name: &str, text: &str) {
        self.write(name, text);
        fs::set_permissions(self.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn own(&self, path: &Path) {
        if nix::unistd::Uid::effective().as_raw() == self.caller.id() {
            return;
        }
        std::os::unix::fs::lchown(path, Some(self.caller.id()), Some(self.caller.id())).unwrap();
        if path.is_dir() {
            fs::read_dir(path).unwrap().flatten().for_each(|entry| self.own(&entry.path()));
        }
    }

    /// The words that start a run of `command`, for a shell or an exec.
    pub(crate) fn words(&self, settings: &[&str], command: &[&str]) -> Vec<String> {
        let mut words = vec![binary().display().to_string(), run::MARK.to_owned()];
        words.push(format!("trust={}", self.trust().display()));
        for hidden in [".config/agent-gate", ".local/share/agent-gate"] {
            words.push(format!("hidden={}", self.path().join(hidden).display()));
        }
        words.extend(settings.iter().map(ToString::to_string));
        words.push("--".to_owned());
        words.extend(command.iter().map(ToString::to_string));
        words
    }

    /// A run with an environment of its own, in the folder `project`.
    pub(crate) fn command(&self, settings: &[&str], command: &[&str]) -> Command {
        self.prepare(&self.words(settings, command))
    }

    fn prepare(&self, words: &[impl AsRef<OsStr>]) -> Command {
        let mut prepared = Command::new(words[0].as_ref());
        prepared.args(&words[1..]).env_clear();
        prepared.env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
        prepared.env("HOME", self.path()).current_dir(self.path().join("project"));
        self.caller.apply(&mut prepared);
        prepared
    }

    /// A shell outside any jail, as the caller.
    pub(crate) fn prepare_shell(&self, script: &str) -> Command {
        self.prepare(&["bash", "-c", script])
    }

    /// The output of a shell script in a jail.
    pub(crate) fn script(&self, script: &str) -> Answer {
        Answer::of(&self.command(&[], &["bash", "-c", script]).output().unwrap())
    }

    /// A shell on a terminal, as a user has it. `sh` and the like may stand for it.
    pub(crate) fn on_terminal(&self, words: &[impl AsRef<OsStr>]) -> OnTerminal {
        let (master, slave) = pseudo_terminal();
        let mut setsid = self.prepare(&["setsid", "--ctty", "--wait"]);
        if self.caller.id() != nix::unistd::Uid::effective().as_raw() {
            // As login does: the terminal belongs to its user.
            let id = Some(self.caller.id());
            std::os::unix::fs::fchown(&slave, id, id).unwrap();
        }
        let child = setsid
            .args(words)
            .env("TERM", "dumb")
            .env("PS1", "$ ")
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(slave)
            .spawn()
            .unwrap();
        OnTerminal { child, terminal: master, seen: String::new() }
    }
}

/// This very binary, where an ordinary user reaches it too: root's target folder may be closed.
/// Copied once, before the tests' threads start: a file that is still open for writing in some
/// child that another thread has just forked cannot be executed.
pub(crate) fn binary() -> &'static Path {
    &BINARY.get_or_init(copy_binary).1
}

static BINARY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();

fn copy_binary() -> (TempDir, PathBuf) {
    let folder = tempfile::Builder::new().prefix("jail-test-").tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let binary = folder.path().join("run");
    fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    (folder, binary)
}

/// Removes the copy.
pub(crate) fn clean_up() {
    let _ = fs::remove_dir_all(binary().parent().unwrap());
}

/// What a run said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Answer {
    pub(crate) fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// The output of a command that succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }
}

/// Both ends, closed in the children of other tests.
fn pseudo_terminal() -> (File, File) {
    use nix::fcntl::OFlag;
    use std::os::unix::fs::OpenOptionsExt;
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = nix::pty::posix_openpt(flags).unwrap();
    nix::pty::grantpt(&master).unwrap();
    nix::pty::unlockpt(&master).unwrap();
    let name = nix::pty::ptsname_r(&master).unwrap();
    let mut how = fs::OpenOptions::new();
    let slave = how.read(true).write(true).custom_flags(libc::O_NOCTTY).open(name).unwrap();
    let master = std::os::fd::AsFd::as_fd(&master).try_clone_to_owned().unwrap();
    (File::from(master), slave)
}

/// A program on a terminal of its own.
pub(crate) struct OnTerminal {
    child: Child,
    terminal: File,
    seen: String,
}

impl OnTerminal {
    pub(crate) fn type_in(&mut self, text: &str) {
        self.terminal.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until the terminal shows `text`; what was shown up to there is not looked at again.
    #[track_caller]
    pub(crate) fn expect(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return;
            }
            assert!(self.read_on(deadline), "no {text:?} in {:?}", self.seen);
        }
    }

    fn read_on(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut watched = [PollFd::new(self.terminal.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(left).unwrap();
        if poll(&mut watched, timeout) != Ok(1) {
            return false;
        }
        let mut bytes = [0; 4096];
        match self.terminal.read(&mut bytes) {
            Ok(length @ 1..) => {
                self.seen.push_str(&String::from_utf8_lossy(&bytes[..length]));
                true
            }
            _ => false, // EIO: nobody holds the other side any more
        }
    }

    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        let size = format!("rows {rows} cols {columns}");
        let mut stty = Command::new("stty");
        stty.args(size.split(' ')).stdin(self.terminal.try_clone().unwrap());
        assert!(stty.status().unwrap().success());
    }

    #[track_caller]
    pub(crate) fn exit_code(mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        while self.read_on(deadline) {}
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "it does not end; it shows {:?}", self.seen);
            std::thread::sleep(Duration::from_millis(5));
        }
        self.child.wait().unwrap().code()
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill(); // the session leader: what it led gets SIGHUP
        let _ = self.child.wait();
    }
}

/// How long anything may take on a slow machine before we call it stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

#[track_caller]
pub(crate) fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Reads one line of a child's output.
pub(crate) fn line(out: &mut impl Read) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while out.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

/// Processes of the host whose command line holds `mark`.
pub(crate) fn processes_with(mark: &str) -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(mark)).count()
}

/// Piped standard streams, for a run that is watched while it lives.
pub(crate) fn piped(command: &mut Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// A gate's end of the line to a run.
pub(crate) fn gate_socket(home: &Home) -> (std::os::unix::net::UnixListener, String) {
    let path = home.path().join("gate.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    (listener, format!("gate={}", path.display()))
}
