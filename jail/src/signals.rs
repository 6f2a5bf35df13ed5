//! The signals that `agent-gate run` gets while its command runs: noted, not obeyed, so that the
//! command decides what they mean.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{SigAction, SigSet, SigmaskHow, Signal, raise, sigprocmask};
use nix::unistd::{Pid, read};

use crate::exec::private_pipe;
use crate::sys;

/// Signals are caught as long as this lives. One at a time in a process.
#[derive(Debug)]
pub(crate) struct Caught {
    reader: OwnedFd,
    _writer: OwnedFd,
    former: Vec<(Signal, SigAction)>,
}

/// One signal that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) signal: Signal,
    /// The process that sent it with `kill` (0 if it is in no namespace of ours); none for what
    /// the terminal sends, which reaches the command by itself.
    pub(crate) sender: Option<Pid>,
}

impl Caught {
    /// Begins to catch.
    pub(crate) fn begin() -> nix::Result<Self> {
        let (reader, writer) = private_pipe()?;
        for end in [&reader, &writer] {
            fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        sys::note_into(writer.as_raw_fd());
        let mut caught = Self { reader, _writer: writer, former: Vec::new() };
        for signal in FORWARDED.into_iter().chain([Signal::SIGCHLD, Signal::SIGCONT]) {
            if let Some(former) = sys::catch(signal)? {
                caught.former.push((signal, former));
            }
        }
        Ok(caught)
    }

    /// The next signal, if one has come.
    pub(crate) fn next(&self) -> Option<Received> {
        let mut note = [0_u8; sys::NOTE_BYTES];
        loop {
            match read(&self.reader, &mut note) {
                Ok(sys::NOTE_BYTES) => {}
                Err(Errno::EINTR) => continue,
                _ => return None,
            }
            let word = |at: usize| {
                i32::from_ne_bytes(note[at..at + 4].try_into().expect("a note has three words"))
            };
            let Ok(signal) = Signal::try_from(word(0)) else { continue };
            let sent = SENT.contains(&word(4));
            return Some(Received { signal, sender: sent.then(|| Pid::from_raw(word(8))) });
        }
    }

    /// In a forked child, before it takes up its own mask: nothing may be noted for its parent.
    pub(crate) fn forget_in_child(&self) {
        for (signal, _) in &self.former {
            sys::default_action(*signal);
        }
    }

    /// Stops this process as `signal` would have without us; returns when it is continued.
    pub(crate) fn stop_self(&self, signal: i32) {
        let signal = Signal::try_from(signal).unwrap_or(Signal::SIGSTOP);
        let caught = self.former.iter().any(|(it, _)| *it == signal);
        if caught {
            sys::default_action(signal);
        }
        let mut only = SigSet::empty();
        only.add(signal);
        let _ = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&only), None);
        let _ = raise(signal);
        if caught {
            let _ = sys::catch(signal);
        }
    }
}

impl AsFd for Caught {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

impl Drop for Caught {
    fn drop(&mut self) {
        for (signal, former) in &self.former {
            sys::restore(*signal, former);
        }
        sys::note_into(-1);
    }
}

/// What a command may be sent by `kill` to the process that the user sees.
const FORWARDED: [Signal; 10] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
];

/// What `si_code` says of signals that a process sent: `kill`, `sigqueue`, `tgkill`.
#[cfg(target_os = "linux")]
const SENT: [i32; 3] = [libc::SI_USER, libc::SI_QUEUE, libc::SI_TKILL];
/// The BSDs' numbers for the first two.
#[cfg(not(target_os = "linux"))]
const SENT: [i32; 2] = [0x1_0001, 0x1_0002];

/// Blocks every signal as long as it lives, and knows the mask before.
#[derive(Debug)]
pub(crate) struct Blocked {
    pub(crate) before: SigSet,
}

impl Blocked {
    pub(crate) fn all() -> nix::Result<Self> {
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
        Ok(Self { before })
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None);
    }
}
