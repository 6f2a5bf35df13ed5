//! Following one child through its stops and its end. The jail's first process does it for a
//! confined command, `agent-gate run` itself for an unconfined one.

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpgid, getpgrp};

use crate::End;
use crate::sys;
use crate::terminal::Terminal;

/// The command's process.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    stopped: Option<i32>,
    /// The group that held the terminal when the command stopped, if it was one that the command
    /// had made (an interactive shell's).
    held_terminal: Option<Pid>,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It ended.
    Ended(End),
    /// It stopped; `own_group` says that it had left our process group.
    Stopped { signal: i32, own_group: bool },
    /// Asked again, it is still stopped.
    StillStopped { signal: i32 },
}

impl Child {
    /// A child that was just started.
    pub(crate) const fn new(pid: Pid) -> Self {
        Self { pid, stopped: None, held_terminal: None }
    }

    /// Its number, as seen from here.
    pub(crate) const fn pid(&self) -> Pid {
        self.pid
    }

    /// The news, oldest first. As `reaping` pid 1 all children's ends are collected, not only the
    /// command's.
    pub(crate) fn changes(&mut self, reaping: Reaping) -> nix::Result<Vec<Change>> {
        let who = match reaping {
            Reaping::All => -1,
            Reaping::CommandAlone => self.pid.as_raw(),
        };
        let flags = libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED;
        let mut changes = Vec::new();
        loop {
            match sys::wait_status(who, flags) {
                Ok(Some((pid, status))) if pid == self.pid.as_raw() => {
                    changes.extend(self.change(status));
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(Errno::ECHILD) => return Ok(changes),
                Err(error) => return Err(error),
            }
            if let Some(Change::Ended(_)) = changes.last() {
                return Ok(changes);
            }
        }
    }

    fn change(&mut self, status: i32) -> Option<Change> {
        if libc::WIFEXITED(status) {
            return Some(Change::Ended(End::Exited(libc::WEXITSTATUS(status))));
        }
        if libc::WIFSIGNALED(status) {
            return Some(Change::Ended(End::Signaled(libc::WTERMSIG(status))));
        }
        if libc::WIFSTOPPED(status) {
            let signal = libc::WSTOPSIG(status);
            self.stopped = Some(signal);
            return Some(Change::Stopped { signal, own_group: self.own_group().is_some() });
        }
        self.stopped = None; // continued
        None
    }

    /// Whether it is stopped at this moment.
    pub(crate) const fn stopped(&self) -> Option<i32> {
        self.stopped
    }

    /// Passes a signal on.
    pub(crate) fn forward(&self, signal: Signal) {
        let _ = kill(self.pid, signal); // gone already: its end is on its way to us
    }

    /// The command's process group, if it is not ours any more.
    pub(crate) fn own_group(&self) -> Option<Pid> {
        getpgid(Some(self.pid)).ok().filter(|group| *group != getpgrp())
    }

    /// Remembers who holds the terminal, before our caller takes it back.
    pub(crate) fn note_terminal(&mut self) {
        let group = Terminal::open().and_then(|terminal| terminal.foreground());
        // Groups outside a pid namespace show as 0 inside; those are not the command's.
        self.held_terminal = group.filter(|group| group.as_raw() > 0 && *group != getpgrp());
    }

    /// Continues the command; in the `foreground` its own group gets the terminal, if it has one.
    pub(crate) fn resume(
        &mut self,
        foreground: bool,
        reaping: Reaping,
    ) -> nix::Result<Vec<Change>> {
        let changes = self.changes(reaping)?; // a SIGCONT to all of us has reached it by now
        if foreground {
            self.give_terminal();
        }
        if self.stopped.take().is_some() {
            match self.own_group() {
                Some(group) => killpg(group, Signal::SIGCONT),
                None => kill(self.pid, Signal::SIGCONT),
            }
            .or_else(|error| if error == Errno::ESRCH { Ok(()) } else { Err(error) })?;
        }
        Ok(changes)
    }

    fn give_terminal(&mut self) {
        let held = self.held_terminal.take().filter(|group| killpg(*group, None).is_ok());
        let Some(group) = held.or_else(|| self.own_group()) else { return };
        if let Some(terminal) = Terminal::open() {
            terminal.give_to(group);
        }
    }
}

/// Whose ends are collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reaping {
    /// Every child's, as pid 1 must.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    All,
    /// The command's, as a guest in a process that may have other children.
    CommandAlone,
}
