//! Becoming the command: looked up in the jailed `PATH`, with a shell's rules for what is missing
//! and what cannot be run.

use std::ffi::{CString, OsStr, OsString};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::{AccessFlags, Pid, access, execve};

use crate::environment;
use crate::error::StartError;
use crate::sys::{self, Fork};

/// All that an exec needs, made ready before the fork.
#[derive(Debug)]
pub(crate) struct Exec {
    name: OsString,
    candidates: Vec<CString>,
    argv: Vec<CString>,
    environment: Vec<CString>,
    /// The signal mask that `agent-gate run` was started with; the command gets the same.
    mask: SigSet,
}

impl Exec {
    /// Checks command, arguments and environment.
    pub(crate) fn new(
        argv: &[OsString],
        jailed: &[(OsString, OsString)],
        mask: SigSet,
    ) -> Result<Self, String> {
        let name = argv.first().ok_or("no command was given")?;
        let environment = jailed.iter().map(|(name, value)| {
            let mut pair = name.clone();
            pair.push("=");
            pair.push(value);
            text(&pair)
        });
        Ok(Self {
            name: name.clone(),
            candidates: candidates(name, environment::value(jailed, "PATH"))?,
            argv: argv.iter().map(|argument| text(argument)).collect::<Result<_, _>>()?,
            environment: environment.collect::<Result<_, _>>()?,
            mask,
        })
    }

    /// Forks and executes; returns when the command runs. `in_child` is what the child does first.
    /// All signals must be blocked.
    pub(crate) fn spawn(
        &self,
        in_child: impl FnOnce() -> nix::Result<()>,
    ) -> nix::Result<Result<Pid, Failure>> {
        let (reader, writer) = private_pipe()?;
        let pid = match sys::fork()? {
            Fork::Parent(pid) => pid,
            Fork::Child => {
                let failure = match in_child() {
                    Ok(()) => self.replace_process(),
                    Err(errno) => Failure::before(errno),
                };
                let _ = std::fs::File::from(writer).write_all(&failure.to_bytes());
                sys::exit_now(127);
            }
        };
        drop(writer);
        let mut told = Vec::new();
        // The pipe closes with the exec; until then it may carry the reason why there was none.
        let _ = std::fs::File::from(reader).read_to_end(&mut told);
        match Failure::from_bytes(&told) {
            None => Ok(Ok(pid)),
            Some(failure) => {
                let _ = sys::wait_status(pid.as_raw(), 0);
                Ok(Err(failure))
            }
        }
    }

    /// What a failure means to the user.
    pub(crate) fn start_error(&self, failure: Failure) -> StartError {
        let name = self.name.display();
        let reason = std::io::Error::from_raw_os_error(failure.errno);
        match (failure.kind, Errno::from_raw(failure.errno)) {
            (Kind::Before, _) => StartError::Other(format!("cannot prepare {name}: {reason}")),
            (Kind::Interpreter, _) => StartError::NotExecutable(format!(
                "{name}: its interpreter or loader is missing: {reason}"
            )),
            (Kind::Exec, Errno::ENOENT | Errno::ENOTDIR) => {
                StartError::NotFound(self.name.to_string_lossy().into_owned())
            }
            (Kind::Exec, _) => StartError::NotExecutable(format!("{name}: {reason}")),
        }
    }

    /// Only returns if no candidate could be executed.
    fn replace_process(&self) -> Failure {
        // Rust's start-up code ignores SIGPIPE; the command expects the default. What our caller
        // ignored (nohup) stays ignored.
        sys::default_action(Signal::SIGPIPE);
        sys::default_action(Signal::SIGCHLD);
        if let Err(error) = sys::close_on_exec_above_stderr() {
            return Failure { errno: error.raw_os_error().unwrap_or(0), kind: Kind::Before };
        }
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.mask), None);
        let mut worst = Failure { errno: libc::ENOENT, kind: Kind::Exec };
        for candidate in &self.candidates {
            let errno = self.try_one(candidate);
            match errno {
                Errno::ENOENT if access(candidate.as_c_str(), AccessFlags::F_OK).is_ok() => {
                    return Failure { errno: errno as i32, kind: Kind::Interpreter };
                }
                // As a shell does: look on, but remember that there was one.
                Errno::ENOENT | Errno::ENOTDIR => {}
                Errno::EACCES => worst = Failure { errno: errno as i32, kind: Kind::Exec },
                _ => return Failure { errno: errno as i32, kind: Kind::Exec },
            }
        }
        worst
    }

    fn try_one(&self, candidate: &CString) -> Errno {
        match execve(candidate, &self.argv, &self.environment) {
            // A script without a first line that names its interpreter: the shell's, by custom.
            Err(Errno::ENOEXEC) => {
                let mut argv = vec![c"/bin/sh".to_owned(), candidate.clone()];
                argv.extend(self.argv.iter().skip(1).cloned());
                let Err(errno) = execve(c"/bin/sh", &argv, &self.environment);
                errno
            }
            Err(errno) => errno,
        }
    }
}

/// Why there was no exec.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failure {
    pub(crate) errno: i32,
    pub(crate) kind: Kind,
}

/// At what it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Something of ours, before the exec.
    Before,
    /// The exec itself.
    Exec,
    /// The file is there, but what its head asks for is not.
    Interpreter,
}

impl Failure {
    /// One that came before the command's own process did.
    pub(crate) const fn before(errno: Errno) -> Self {
        Self { errno: errno as i32, kind: Kind::Before }
    }

    pub(crate) fn to_bytes(self) -> [u8; 5] {
        let [a, b, c, d] = self.errno.to_ne_bytes();
        [a, b, c, d, self.kind as u8]
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, d, kind] = *bytes else { return None };
        let kinds = [Kind::Before, Kind::Exec, Kind::Interpreter];
        let kind = kinds.into_iter().find(|it| *it as u8 == kind)?;
        Some(Self { errno: i32::from_ne_bytes([a, b, c, d]), kind })
    }
}

/// A pipe that no exec hands on. (Not every Unix can make one in a single call.)
pub(crate) fn private_pipe() -> nix::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = nix::unistd::pipe()?;
    for end in [&reader, &writer] {
        fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    Ok((reader, writer))
}

/// Where a command may be: itself if it has a slash, otherwise in each folder of `PATH`.
fn candidates(name: &OsStr, path: Option<&OsStr>) -> Result<Vec<CString>, String> {
    if name.is_empty() {
        return Ok(Vec::new());
    }
    if name.as_bytes().contains(&b'/') {
        return Ok(vec![text(name)?]);
    }
    let path = path.unwrap_or(OsStr::new(DEFAULT_PATH));
    path.as_bytes()
        .split(|byte| *byte == b':')
        .map(|folder| {
            // An empty entry is the working folder.
            let mut whole = if folder.is_empty() { b".".to_vec() } else { folder.to_vec() };
            whole.push(b'/');
            whole.extend(name.as_bytes());
            text(&OsString::from_vec(whole))
        })
        .collect()
}

/// What the C library searches where there is no `PATH`.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

fn text(text: &OsStr) -> Result<CString, String> {
    CString::new(text.as_bytes()).map_err(|_| format!("{}: a zero byte in it", text.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_up_as_a_shell_does() {
        let cases: [(&str, Option<&str>, &[&str]); 6] = [
            ("/bin/ls", Some("/usr/bin"), &["/bin/ls"]),
            ("./ls", Some("/usr/bin"), &["./ls"]),
            ("ls", Some("/a:/b"), &["/a/ls", "/b/ls"]),
            ("ls", Some(":/b"), &["./ls", "/b/ls"]),
            ("ls", None, &["/bin/ls", "/usr/bin/ls"]),
            ("", Some("/a"), &[]),
        ];
        for (name, path, wanted) in cases {
            let found = candidates(OsStr::new(name), path.map(OsStr::new)).unwrap();
            let found: Vec<_> = found.iter().map(|it| it.to_str().unwrap()).collect();
            assert_eq!(found, wanted, "{name}");
        }
    }

    #[test]
    fn what_cannot_be_passed_to_the_kernel_is_refused() {
        assert!(Exec::new(&[], &[], SigSet::empty()).is_err());
        assert!(Exec::new(&["a\0b".into()], &[], SigSet::empty()).is_err());
        assert!(Exec::new(&["a".into()], &[("A".into(), "\0".into())], SigSet::empty()).is_err());
    }

    #[test]
    fn a_failure_survives_its_pipe() {
        let failure = Failure { errno: libc::EACCES, kind: Kind::Interpreter };
        let back = Failure::from_bytes(&failure.to_bytes()).unwrap();
        assert_eq!((back.errno, back.kind), (failure.errno, failure.kind));
        assert!(Failure::from_bytes(b"").is_none());
        assert!(Failure::from_bytes(&[0, 0, 0, 0, 9]).is_none());
    }
}
