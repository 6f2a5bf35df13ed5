//! The controlling terminal: who is in its foreground, and in which modes we found it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, killpg, sigprocmask};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};

/// Our controlling terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    device: File,
}

impl Terminal {
    /// The terminal, if there is one.
    pub(crate) fn open() -> Option<Self> {
        let flags = libc::O_NOCTTY | libc::O_CLOEXEC;
        let mut how = OpenOptions::new();
        let device = how.read(true).write(true).custom_flags(flags).open("/dev/tty").ok()?;
        Some(Self { device })
    }

    /// The group in the foreground.
    pub(crate) fn foreground(&self) -> Option<Pid> {
        tcgetpgrp(&self.device).ok()
    }

    /// Whether that is our own group.
    pub(crate) fn is_ours(&self) -> bool {
        self.foreground() == Some(getpgrp())
    }

    /// Puts a group into the foreground, also from the background.
    pub(crate) fn give_to(&self, group: Pid) {
        let mut stop = SigSet::empty();
        stop.add(Signal::SIGTTOU); // what the kernel stops us with for asking from the background
        let mut before = SigSet::empty();
        let _ = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&stop), Some(&mut before));
        let _ = tcsetpgrp(&self.device, group);
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None);
    }
}

/// The terminal as it was before the command, to be put back after it.
#[derive(Debug)]
pub(crate) struct Found {
    terminal: Terminal,
    modes: Option<Termios>,
}

impl Found {
    /// Takes note of the terminal, if there is one.
    pub(crate) fn look() -> Option<Self> {
        let terminal = Terminal::open()?;
        let modes = tcgetattr(&terminal.device).ok();
        Some(Self { terminal, modes })
    }

    /// Whether our own group is in the foreground now.
    pub(crate) fn is_ours(&self) -> bool {
        self.terminal.is_ours()
    }

    /// Takes the terminal back from a group that is no more: an interactive shell in a jail cannot
    /// do it when it ends, since our group has no number in its pid namespace.
    pub(crate) fn take_back(&self) {
        let Some(holder) = self.terminal.foreground() else { return };
        if holder != getpgrp() && killpg(holder, None) == Err(Errno::ESRCH) {
            self.terminal.give_to(getpgrp());
        }
    }

    /// Puts the modes back after a command that was killed: our caller's shell does this for a
    /// command that died by a signal, but it will see us exit. From the background we may not.
    pub(crate) fn put_modes_back(&self) {
        if let Some(modes) = self.modes.as_ref().filter(|_| self.is_ours()) {
            let _ = tcsetattr(&self.terminal.device, SetArg::TCSADRAIN, modes);
        }
    }
}
