//! The client's side of the control socket: find the gate, or start one, and speak with it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use agent_gate_store::{Id, Layout};
use anyhow::{Context, bail};

use super::control::{Attach, Connection, Error, Hello, Reply, Request, VERSION};
use super::{lock, socket, start};
use crate::config::Config;

/// A gate answers at once; this long means that something is stuck.
const ANSWER_SECONDS_MAX: u64 = 30;

/// The last records of a run wait for the disk, and open exchanges for their grace.
const DETACH_SECONDS_MAX: u64 = 120;

/// Each try meets a gate that ends just then at worst; a gate lives for its linger at least.
const TRIES_MAX: u32 = 10;

/// A conversation with a gate. The gate stays for as long as it lasts.
#[derive(Debug)]
pub(crate) struct Session {
    connection: Connection,
    hello: Hello,
}

impl Session {
    /// With the running gate, or with a new one.
    ///
    /// # Errors
    /// When there is no gate and none can be started, or the one there is will not have us.
    pub(crate) fn open(config: &Config, layout: &Layout) -> anyhow::Result<Self> {
        for _ in 0..TRIES_MAX {
            if let Some(session) = Self::with_running(config, layout)? {
                return Ok(session);
            }
            // One client starts a gate, the others wait here and then find it. The lock is held
            // until the gate has answered: a gate that is about to end takes it first.
            let _lock = lock::exclusive(layout.start_lock())?;
            if let Some(session) = Self::with_running(config, layout)? {
                return Ok(session);
            }
            start::in_background(config, layout)?;
            if let Some(session) = Self::with_running(config, layout)? {
                return Ok(session);
            }
        }
        bail!("the gate ended {TRIES_MAX} times while we said hello; {}", log_hint(layout))
    }

    /// With the gate that is running, if one is.
    ///
    /// # Errors
    /// When there is one but it will not have us.
    pub(crate) fn with_running(config: &Config, layout: &Layout) -> anyhow::Result<Option<Self>> {
        let path = layout.control_socket();
        let connected = socket::connect(path)
            .with_context(|| format!("cannot connect to the gate at {}", path.display()))?;
        let Some(stream) = connected else { return Ok(None) };
        let connection = Connection::new(stream);
        match hello(&connection, config) {
            Ok(Reply::Hello(hello)) => Ok(Some(Self { connection, hello })),
            Ok(other) => Err(unexpected(other)),
            // It was ending when we came, or died: as if nobody had been there.
            Err(Error::Closed) => Ok(None),
            Err(Error::Silent) => bail!(
                "the gate has not answered for {ANSWER_SECONDS_MAX} s; end it (it listens on {}) and try again",
                path.display()
            ),
            Err(error) => Err(error).context("the gate's answer"),
        }
    }

    /// What the gate said of itself.
    pub(crate) fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Hangs up when the gate dies.
    pub(crate) fn lifeline(&self) -> BorrowedFd<'_> {
        self.connection.stream().as_fd()
    }

    /// Announces a run and hands its listeners over; the id, and the proxy's port where the gate
    /// made the listener itself.
    ///
    /// # Errors
    /// When the gate refuses it or is gone.
    pub(crate) fn attach(
        &self,
        attach: Attach,
        listeners: &[BorrowedFd<'_>],
    ) -> anyhow::Result<(Id, Option<u16>)> {
        let request = Request::Attach(Box::new(attach));
        match self.ask(&request, listeners, ANSWER_SECONDS_MAX).context("attach to the gate")? {
            Reply::Attached { run, proxy_port } => Ok((run, proxy_port)),
            other => Err(unexpected(other)),
        }
    }

    /// Ends the run; returns when all of it is on disk.
    ///
    /// # Errors
    /// When the gate is gone, or cannot say that it is.
    pub(crate) fn detach(self, status: i32) -> anyhow::Result<()> {
        match self.ask(&Request::Detach { status }, &[], DETACH_SECONDS_MAX)? {
            Reply::Detached { .. } => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Asks the gate to end; whether it will.
    ///
    /// # Errors
    /// When its answer cannot be read.
    pub(crate) fn ask_to_end(self) -> anyhow::Result<bool> {
        match self.ask(&Request::Yield, &[], ANSWER_SECONDS_MAX) {
            Ok(Reply::Yielding) | Err(Error::Closed) => Ok(true),
            Ok(Reply::Refused { .. }) => Ok(false),
            Ok(other) => Err(unexpected(other)),
            Err(error) => Err(error.into()),
        }
    }

    fn ask(
        &self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
        seconds_max: u64,
    ) -> Result<Reply, Error> {
        self.connection.wait_at_most(Some(Duration::from_secs(seconds_max)))?;
        self.connection.send(request, descriptors)?;
        Ok(self.connection.receive()?.0)
    }
}

fn hello(connection: &Connection, config: &Config) -> Result<Reply, Error> {
    connection.wait_at_most(Some(Duration::from_secs(ANSWER_SECONDS_MAX)))?;
    let config_dir = config.paths.config_dir.clone();
    connection.send(&Request::Hello { version: VERSION.to_owned(), config_dir }, &[])?;
    Ok(connection.receive()?.0)
}

fn unexpected(reply: Reply) -> anyhow::Error {
    match reply {
        Reply::Refused { reason } => anyhow::Error::msg(reason),
        other => anyhow::anyhow!("the gate gave an answer that was not asked for: {other:?}"),
    }
}

/// Where to read on.
fn log_hint(layout: &Layout) -> String {
    format!("see {}", layout.gate_log().display())
}

/// Makes sure that no gate is running, asking an idle one to end and waiting for it.
///
/// # Errors
/// When a gate is in use; the message says where its pages are and what to do.
pub(crate) fn without_gate(config: &Config, layout: &Layout) -> anyhow::Result<()> {
    let Some(session) = Session::with_running(config, layout)? else { return Ok(()) };
    let dashboard = session.hello().dashboard;
    if !session.ask_to_end()? {
        bail!(
            "a gate is running (dashboard http://{dashboard}/): wait for its runs to end, or use \
             another --data-dir"
        );
    }
    lock::wait_for_free(layout.gate_lock(), lock::ENDING_WAIT).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => anyhow::anyhow!("the gate that is running does not end"),
        _ => error.into(),
    })
}
