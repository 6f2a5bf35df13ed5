//! Standing in for the command: signals go to it, its stops become ours, the terminal is as it
//! would be if the command had been started directly, and when the gate dies it ends.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::child::Change;
use crate::error::Error;
use crate::signals::{Caught, Received};
use crate::terminal::Found;

/// A command that runs. Dropped, it is killed.
#[derive(Debug)]
pub struct Running {
    keeper: Box<dyn Keeper>,
    caught: Caught,
    terminal: Option<Found>,
    /// When we were continued without having stopped by ourselves.
    continued: Option<Instant>,
}

/// News of a stop may be this old when it is read, by a process that was stopped itself.
const STALE_STOP_MAX: Duration = Duration::from_millis(300);

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with this exit code.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
    /// The gate died, so the command and all that it had started were killed.
    GateLost,
}

/// What keeps the command: the jail's first process, or ourselves. Dropped, it kills the command.
pub(crate) trait Keeper: std::fmt::Debug {
    /// What becomes readable when there is news; none where SIGCHLD tells.
    fn events(&self) -> Option<BorrowedFd<'_>>;
    /// The news.
    fn changes(&mut self) -> Result<Vec<Change>, Error>;
    /// Passes a signal on, unless the command got it by itself.
    fn forward(&mut self, received: Received) -> Result<(), Error>;
    /// Asks whether the command is still stopped; the answer may also come with the news.
    fn confirm_stop(&mut self) -> Result<Option<Change>, Error>;
    /// Continues the command.
    fn resume(&mut self, foreground: bool) -> Result<(), Error>;
    /// Kills the command and all that it started, and waits until they are gone.
    fn kill(&mut self);
}

impl Running {
    pub(crate) fn new(keeper: Box<dyn Keeper>, caught: Caught, terminal: Option<Found>) -> Self {
        Self { keeper, caught, terminal, continued: None }
    }

    /// Waits until the command ended, or until `gate` hangs up: a pipe or a socket whose other end
    /// the gate holds. Data that arrives on it is left alone.
    ///
    /// # Errors
    /// If the kernel refuses to wait, or the jail's first process vanished. The command is dead
    /// then.
    pub fn wait(mut self, gate: BorrowedFd<'_>) -> Result<End, Error> {
        let end = self.wait_for_end(gate);
        if !matches!(end, Ok(End::Exited(_) | End::Signaled(_))) {
            self.keeper.kill();
        }
        if let Some(terminal) = &self.terminal {
            terminal.take_back();
            if !matches!(end, Ok(End::Exited(_))) {
                terminal.put_modes_back();
            }
        }
        end
    }

    fn wait_for_end(&mut self, gate: BorrowedFd<'_>) -> Result<End, Error> {
        loop {
            if self.wait_for_news(gate)? {
                return Ok(End::GateLost);
            }
            self.take_signals()?;
            for change in self.keeper.changes()? {
                if let Some(end) = self.act(change)? {
                    return Ok(end);
                }
            }
        }
    }

    /// Passes on what was sent to us, and notes what concerns ourselves.
    fn take_signals(&mut self) -> Result<(), Error> {
        while let Some(received) = self.caught.next() {
            match received.signal {
                Signal::SIGCHLD => {}
                Signal::SIGCONT => self.continued = Some(Instant::now()),
                _ if received.sender.is_some() => self.keeper.forward(received)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Stops us as the command has stopped, unless somebody has just continued us: a command that
    /// stops its whole group stops us as well, perhaps before we read of it, and whoever has
    /// continued us since does not want us to stop once more.
    fn stop_along(&mut self, signal: i32) -> Result<(), Error> {
        self.take_signals()?;
        if self.continued.take().is_none_or(|at| at.elapsed() > STALE_STOP_MAX) {
            self.caught.stop_self(signal);
            self.take_signals()?;
            self.continued = None;
        }
        Ok(())
    }

    /// Sleeps until something happened; true if the gate hung up.
    fn wait_for_news(&self, gate: BorrowedFd<'_>) -> Result<bool, Error> {
        let mut watched =
            vec![PollFd::new(gate, HANG_UP), PollFd::new(self.caught.as_fd(), PollFlags::POLLIN)];
        watched.extend(self.keeper.events().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        match poll(&mut watched, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(false),
            Err(error) => return Err(Error::Wait(error.into())),
        }
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
        // nix gives none for flags it does not know, and RDHUP is the only such that we asked for.
        Ok(watched[0].revents().is_none_or(|seen| seen.intersects(gone)))
    }

    fn act(&mut self, change: Change) -> Result<Option<End>, Error> {
        match change {
            Change::Ended(end) => return Ok(Some(end)),
            Change::Stopped { signal, own_group } => {
                if own_group && wants_terminal(signal) && self.in_foreground() {
                    // A shell that makes a group of its own and then reaches for the terminal:
                    // our group has it, and the command is our group's only purpose.
                    self.keeper.resume(true)?;
                } else if let Some(answer) = self.keeper.confirm_stop()? {
                    return self.act(answer);
                }
            }
            Change::StillStopped { signal } => {
                self.stop_along(signal)?;
                self.keeper.resume(self.in_foreground())?;
            }
        }
        Ok(None)
    }

    fn in_foreground(&self) -> bool {
        self.terminal.as_ref().is_some_and(Found::is_ours)
    }
}

/// Whether a command was stopped because the terminal was not its own.
fn wants_terminal(signal: i32) -> bool {
    signal == libc::SIGTTIN || signal == libc::SIGTTOU
}

/// The end of a stream shows as RDHUP where Linux tells it without reading, as HUP elsewhere.
#[cfg(target_os = "linux")]
const HANG_UP: PollFlags = PollFlags::from_bits_retain(libc::POLLRDHUP);
#[cfg(not(target_os = "linux"))]
const HANG_UP: PollFlags = PollFlags::POLLHUP;

/// A failed wait as the crate's error.
pub(crate) fn wait_error(error: impl Into<io::Error>) -> Error {
    Error::Wait(error.into())
}
