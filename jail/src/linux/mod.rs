//! The jail on Linux: namespaces that an ordinary user may make, and nothing else.
//!
//! `docs/jail.md` lists the promise, the steps and the limits.

mod init;
mod link;
mod mounts;
mod namespaces;
mod network;
mod privileges;
mod root;
mod sys;

use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid};

use crate::child::Change;
use crate::environment::{self, Settings};
use crate::error::{Error, StartError, Step};
use crate::exec::Exec;
use crate::plan::{Listener, Plan};
use crate::signals::{Blocked, Caught, Received};
use crate::sys::Fork;
use crate::terminal::Found;
use crate::trust::{self, BUNDLE_FILE, Trust};
use crate::wait::{Keeper, Running, wait_error};
use link::{FromInit, Link, ToInit};

/// Builds the jail, with nothing running in it yet.
pub(crate) fn confine(plan: &Plan) -> Result<Confined, Error> {
    let trust = Trust::gather(plan)?;
    mounts::make_missing(&plan.hidden, &plan.trust_dir);
    let jailed = environment::jailed(
        &plan.environment,
        &Settings {
            proxy_port: plan.proxy_port,
            node_extra: &plan.trust_dir.join(trust.node_extra_file()),
            bundle: &plan.trust_dir.join(BUNDLE_FILE),
            java_truststore: None,
        },
    );
    let (ours, theirs) = Link::pair().map_err(|error| failed(Step::Link, error))?;
    // Blocked already when the first process appears: a Ctrl-C now is for us, and ends both.
    let blocked = Blocked::all().map_err(|error| failed(Step::Link, error))?;
    let exec = Exec::new(&plan.argv, &jailed, blocked.before).map_err(Error::Plan)?;
    let orders = init::Orders {
        plan,
        trust: &trust,
        java_stores: trust::java_stores(&plan.environment),
        exec: &exec,
        user: Uid::effective(),
        group: Gid::effective(),
    };
    let cloned = sys::clone_into(namespaces::flags());
    let init = match cloned.map_err(|error| failed(Step::Namespaces, error))? {
        Fork::Parent(pid) => Init { pid, link: ours, gone: false },
        Fork::Child => init::live(&orders, &theirs),
    };
    drop((theirs, blocked));
    let listeners = init.await_listeners()?;
    Ok(Confined { listeners, init, exec })
}

fn failed(step: Step, error: Errno) -> Error {
    Error::setup(step, None, error.into())
}

/// A jail that stands, with nothing started in it yet.
#[derive(Debug)]
pub(crate) struct Confined {
    pub(crate) listeners: Vec<Listener>,
    init: Init,
    exec: Exec,
}

impl Confined {
    /// Starts the command.
    pub(crate) fn start(self) -> Result<Running, StartError> {
        let terminal = Found::look();
        let caught = Caught::begin().map_err(|error| StartError::Other(error.to_string()))?;
        self.init.start(&self.exec)?;
        Ok(Running::new(Box::new(self.init), caught, terminal))
    }
}

/// The jail's first process, seen from outside. Dropped, it is killed, and all the jail with it.
#[derive(Debug)]
struct Init {
    pid: Pid,
    link: Link,
    gone: bool,
}

impl Init {
    fn await_listeners(&self) -> Result<Vec<Listener>, Error> {
        let mut listeners = Vec::new();
        loop {
            let told = self.link.listen(true).map_err(|error| failed(Step::HandOver, error))?;
            match told.ok_or(Error::InitGone)? {
                FromInit::Listeners { kinds, sockets } => {
                    let pairs = kinds.into_iter().zip(sockets);
                    listeners.extend(pairs.filter_map(|(kind, socket)| listener(kind, socket)));
                }
                FromInit::Failed(it) => {
                    let source = std::io::Error::from_raw_os_error(it.errno);
                    return Err(Error::setup(it.step, it.at, source));
                }
                FromInit::Ready => return Ok(listeners),
                _ => return Err(failed(Step::HandOver, Errno::EBADMSG)),
            }
        }
    }

    fn start(&self, exec: &Exec) -> Result<(), StartError> {
        let other = |error: Errno| StartError::Other(format!("cannot reach the jail: {error}"));
        self.link.order(ToInit::Start).map_err(other)?;
        match self.link.listen(true).map_err(other)? {
            Some(FromInit::Started) => Ok(()),
            Some(FromInit::NotStarted(failure)) => Err(exec.start_error(failure)),
            _ => Err(StartError::Other(Error::InitGone.to_string())),
        }
    }

    fn order(&self, order: ToInit) -> Result<(), Error> {
        match self.link.order(order) {
            // It has ended; why is still to be read.
            Ok(()) | Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
            Err(error) => Err(wait_error(error)),
        }
    }

    /// The kernel lets the first process be waited for only when all others in its pid namespace
    /// are gone.
    fn reap(&mut self) {
        let _ = nix::sys::wait::waitpid(self.pid, None);
        self.gone = true;
    }
}

impl Keeper for Init {
    fn events(&self) -> Option<BorrowedFd<'_>> {
        Some(self.link.as_fd())
    }

    fn changes(&mut self) -> Result<Vec<Change>, Error> {
        match self.link.listen(false) {
            Ok(Some(FromInit::Changed(change))) => {
                if let Change::Ended(_) = change {
                    self.reap();
                }
                Ok(vec![change])
            }
            Ok(Some(_)) | Err(Errno::EAGAIN) => Ok(Vec::new()),
            Ok(None) => Err(Error::InitGone),
            Err(error) => Err(wait_error(error)),
        }
    }

    fn forward(&mut self, received: Received) -> Result<(), Error> {
        self.order(ToInit::Forward(received.signal))
    }

    fn confirm_stop(&mut self) -> Result<Option<Change>, Error> {
        self.order(ToInit::ConfirmStop).map(|()| None)
    }

    fn resume(&mut self, foreground: bool) -> Result<(), Error> {
        self.order(ToInit::Resume { foreground })
    }

    fn kill(&mut self) {
        if !self.gone {
            let _ = kill(self.pid, Signal::SIGKILL);
            self.reap();
        }
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        self.kill();
    }
}

fn listener(kind: u8, socket: OwnedFd) -> Option<Listener> {
    Some(match kind {
        network::PROXY => Listener::Proxy(TcpListener::from(socket)),
        network::TRANSPARENT => Listener::Transparent(TcpListener::from(socket)),
        network::DNS_TCP => Listener::DnsTcp(TcpListener::from(socket)),
        network::DNS_UDP => Listener::DnsUdp(UdpSocket::from(socket)),
        _ => return None,
    })
}
