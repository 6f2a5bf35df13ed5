//! The jail's first process, pid 1 of its namespace: sets everything up while it is still capable,
//! starts the command, reaps what dies, and takes all that lives with it when it ends.

use std::fs::OpenOptions;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Gid, Uid, dup2_stderr, dup2_stdin, dup2_stdout};

use super::link::{Failed, FromInit, Link, SOCKETS_PER_MESSAGE_MAX, ToInit};
use super::{mounts, namespaces, network, privileges};
use crate::child::{Change, Child, Reaping};
use crate::error::Step;
use crate::exec::{Exec, Failure};
use crate::plan::Plan;
use crate::sys;
use crate::trust::Trust;

/// All that the first process needs, made ready before it exists.
#[derive(Debug)]
pub(super) struct Orders<'a> {
    pub(super) plan: &'a Plan,
    pub(super) trust: &'a Trust,
    pub(super) java_stores: Vec<PathBuf>,
    pub(super) exec: &'a Exec,
    pub(super) user: Uid,
    pub(super) group: Gid,
}

/// The whole life of the first process. It starts with every signal blocked and keeps them so: to
/// the terminal it belongs to the job, but what Ctrl-C means is for the command to decide.
pub(super) fn live(orders: &Orders<'_>, link: &Link) -> ! {
    let lived =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| match set_up(orders, link) {
            Ok(()) => serve(orders, link),
            Err(failed) => {
                let _ = link.tell(&FromInit::Failed(failed));
            }
        }));
    sys::exit_now(i32::from(lived.is_err()))
}

/// The steps, in order. Each is one call with its own error.
fn set_up(orders: &Orders<'_>, link: &Link) -> Result<(), Failed> {
    let plan = orders.plan;
    tie_to_parent().map_err(Failed::at_step(Step::Tie))?;
    // A pipe of the caller's that we kept open would never end for its reader.
    sys::close_above_stderr_but(link.raw()).map_err(Failed::at_step(Step::Tie))?;
    sys::default_action(Signal::SIGCHLD); // ignored, our children's ends would be lost

    namespaces::map_identity(orders.user, orders.group).map_err(Failed::at_step(Step::Identity))?;
    network::raise_loopback().map_err(Failed::at_step(Step::Loopback))?;
    network::make_all_local().map_err(Failed::at_step(Step::Routes))?;
    let listeners = network::listeners(plan.proxy_port, &plan.transparent_ports)?;

    mounts::lay(&mounts::View {
        hidden: &plan.hidden,
        trust_dir: &plan.trust_dir,
        trust: orders.trust,
        java_stores: &orders.java_stores,
        for_root: orders.user.is_root(),
    })?;
    // By its path: the folder we stand in is the one beneath the masks.
    nix::unistd::chdir(&plan.cwd).map_err(Failed::at_path(Step::Folder, &plan.cwd))?;

    privileges::give_up().map_err(Failed::at_step(Step::Privileges))?;
    // Dropping capabilities may clear the tie, and from here on nothing of ours may be read: the
    // command has our uid.
    tie_to_parent().map_err(Failed::at_step(Step::Privileges))?;
    prctl::set_dumpable(false).map_err(Failed::at_step(Step::Privileges))?;
    let _ = prctl::set_name(c"agent-gate-init");
    hand_over(listeners, link).map_err(Failed::at_step(Step::HandOver))
}

/// We die with `agent-gate run`. Should it have died before this call, the link tells.
fn tie_to_parent() -> nix::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)
}

fn hand_over(mut listeners: Vec<(u8, std::os::fd::OwnedFd)>, link: &Link) -> nix::Result<()> {
    while !listeners.is_empty() {
        let some = listeners.split_off(listeners.len().saturating_sub(SOCKETS_PER_MESSAGE_MAX));
        let (kinds, sockets) = some.into_iter().unzip();
        link.tell(&FromInit::Listeners { kinds, sockets })?;
    }
    link.tell(&FromInit::Ready)
}

/// Starts the command when told to, and lives until it ends or `agent-gate run` is gone.
fn serve(orders: &Orders<'_>, link: &Link) {
    if link.next_order(true) != Ok(Some(ToInit::Start)) {
        return;
    }
    let spawned = orders.exec.spawn(|| Ok(()));
    let started = match spawned.unwrap_or_else(|errno| Err(Failure::before(errno))) {
        Ok(pid) => pid,
        Err(failure) => {
            let _ = link.tell(&FromInit::NotStarted(failure));
            return;
        }
    };
    if link.tell(&FromInit::Started).is_err() {
        return;
    }
    // Whoever reads the command's output must see its end when the command closes it.
    let _ = close_standard_streams();
    let Ok(signals) = SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_NONBLOCK) else { return };
    let mut keeper =
        Keeper { link, signals, child: Child::new(started), group_signals: Vec::new() };
    // Any failure to talk ends the jail: fail closed.
    while let Ok(Flow::Goes) = keeper.turn() {}
}

fn close_standard_streams() -> std::io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    Ok(())
}

/// Keeps the command going.
struct Keeper<'a> {
    link: &'a Link,
    signals: SignalFd,
    child: Child,
    /// Signals that came to us from a `kill` of late, as pid 1 gets them when the whole group is
    /// meant: the command has them too.
    group_signals: Vec<(Signal, Instant)>,
}

/// Whether the jail goes on.
#[derive(PartialEq, Eq)]
enum Flow {
    Goes,
    Ends,
}

impl Keeper<'_> {
    fn turn(&mut self) -> nix::Result<Flow> {
        let mut watched = [
            PollFd::new(self.link.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut watched, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
        self.collect_signals()?;
        if self.report()? == Flow::Ends {
            return Ok(Flow::Ends);
        }
        match self.link.next_order(false) {
            Ok(Some(order)) => self.obey(order),
            Ok(None) => Ok(Flow::Ends),
            Err(Errno::EAGAIN) => Ok(Flow::Goes),
            Err(error) => Err(error),
        }
    }

    /// Tells what became of the command.
    fn report(&mut self) -> nix::Result<Flow> {
        let changes = self.child.changes(Reaping::All)?;
        self.tell(&changes)
    }

    fn tell(&self, changes: &[Change]) -> nix::Result<Flow> {
        for change in changes {
            self.link.tell(&FromInit::Changed(*change))?;
        }
        let ended = matches!(changes.last(), Some(Change::Ended(_)));
        Ok(if ended { Flow::Ends } else { Flow::Goes })
    }

    fn obey(&mut self, order: ToInit) -> nix::Result<Flow> {
        match order {
            ToInit::Start => {}
            ToInit::Forward(signal) => self.forward(signal)?,
            ToInit::ConfirmStop => {
                let flow = self.report()?;
                if let (Flow::Goes, Some(signal)) = (&flow, self.child.stopped()) {
                    self.child.note_terminal();
                    self.link.tell(&FromInit::Changed(Change::StillStopped { signal }))?;
                }
                return Ok(flow);
            }
            ToInit::Resume { foreground } => {
                let changes = self.child.resume(foreground, Reaping::All)?;
                return self.tell(&changes);
            }
        }
        Ok(Flow::Goes)
    }

    /// Passes a signal on that `agent-gate run` was sent, unless it went to the whole process group
    /// and the command is in it: then we got it as well, at the same moment.
    fn forward(&mut self, signal: Signal) -> nix::Result<()> {
        self.collect_signals()?;
        let seen = self.group_signals.iter().position(|(it, _)| *it == signal);
        let to_group = seen.map(|at| self.group_signals.swap_remove(at)).is_some();
        if !to_group || self.child.own_group().is_some() {
            self.child.forward(signal);
        }
        Ok(())
    }

    fn collect_signals(&mut self) -> nix::Result<()> {
        let now = Instant::now();
        self.group_signals.retain(|(_, at)| now.duration_since(*at) < GROUP_SIGNAL_TIME_MAX);
        while let Some(info) = self.signals.read_signal()? {
            let signal =
                i32::try_from(info.ssi_signo).ok().and_then(|it| Signal::try_from(it).ok());
            if let (Some(signal), true) = (signal, info.ssi_code <= 0) {
                self.group_signals.push((signal, now));
            }
        }
        Ok(())
    }
}

/// The two halves of one `kill` of the group reach us within microseconds; what is older was meant
/// for us alone.
const GROUP_SIGNAL_TIME_MAX: Duration = Duration::from_secs(1);
