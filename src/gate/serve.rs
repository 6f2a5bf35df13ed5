//! One conversation on the control socket, the gate's side of it: one thread each.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;

use super::control::{Attach, Connection, Error, Hello, Reply, Request, Status, VERSION};
use super::process::{Shared, log};
use super::runs::{self, Attached};

/// A client says hello at once; who does not would keep the gate from ending.
const HELLO_WAIT: Duration = Duration::from_secs(10);

/// How long a client that wants the gate to end waits for others that are on their way out.
const LEAVE_WAIT: Duration = Duration::from_secs(1);

/// Speaks with the client that `number` stands for, until one of both hangs up.
pub(super) fn serve(shared: &Shared, stream: UnixStream, number: u64) {
    let connection = Connection::new(stream);
    match converse(shared, &connection, number) {
        // A client that only looked, or that was ended: nothing was asked for, nothing is owed.
        Ok(()) | Err(Error::Closed) => {}
        Err(error) => log(&format!("control connection: {error}")),
    }
}

fn converse(shared: &Shared, connection: &Connection, number: u64) -> Result<(), Error> {
    connection.wait_at_most(Some(HELLO_WAIT))?;
    if let Err(reason) = welcome(shared, &connection.receive()?.0) {
        return refuse(connection, &reason);
    }
    connection.send(&Reply::Hello(hello(shared)), &[])?;
    connection.wait_at_most(None)?;
    let (request, sockets) = loop {
        match connection.receive()? {
            (Request::Status, _) => connection.send(&Reply::Status(status(shared)), &[])?,
            other => break other,
        }
    };
    match request {
        Request::Attach(attach) => run(shared, connection, &attach, sockets),
        Request::Yield => make_way(shared, connection, number),
        Request::Hello { .. } | Request::Status | Request::Detach { .. } => {
            refuse(connection, &anyhow!("not now: neither attached nor a stranger"))
        }
    }
}

fn status(shared: &Shared) -> Status {
    let engine = shared.runs.engine();
    Status {
        connections: engine.open_connections(),
        connections_max: engine.limits().connections_max,
        connections_per_run_max: engine.limits().connections_per_run_max,
    }
}

fn welcome(shared: &Shared, first: &Request) -> anyhow::Result<()> {
    let Request::Hello { version, config_dir } = first else {
        return Err(anyhow!("the first message must be hello"));
    };
    if version != VERSION {
        return Err(anyhow!(
            "the gate that is running is version {VERSION}, this is {version}: wait for its runs \
             to end, or use another --data-dir"
        ));
    }
    if !is_same_folder(config_dir, &shared.config_dir) {
        return Err(anyhow!(
            "the gate that is running has its settings in {}, this run has them in {}: use another \
             --data-dir too",
            shared.config_dir.display(),
            config_dir.display()
        ));
    }
    Ok(())
}

fn is_same_folder(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn hello(shared: &Shared) -> Hello {
    Hello {
        version: VERSION.to_owned(),
        authority_pem: shared.runs.engine().authority_pem().to_owned(),
        dashboard: shared.dashboard,
    }
}

fn run(
    shared: &Shared,
    connection: &Connection,
    attach: &Attach,
    sockets: Vec<OwnedFd>,
) -> Result<(), Error> {
    let attached = runs::listeners(&attach.listeners, sockets)
        .and_then(|listeners| shared.runs.attach(attach, listeners));
    let Attached { run, proxy_port } = match attached {
        Ok(attached) => attached,
        Err(error) => return refuse(connection, &error),
    };
    let said = connection
        .send(&Reply::Attached { run, proxy_port }, &[])
        .and_then(|()| connection.receive::<Request>());
    match said {
        Ok((Request::Detach { status }, _)) => match shared.runs.detach(run, Some(status), None) {
            Ok(exchanges) => connection.send(&Reply::Detached { exchanges }, &[]),
            Err(stopped) => refuse(connection, &stopped.into()),
        },
        other => {
            let reason = if shared.presence.is_closed() {
                "the gate was told to end"
            } else {
                "agent-gate run ended without a word"
            };
            if let Err(stopped) = shared.runs.detach(run, None, Some(reason)) {
                log(&format!("the end of run {run} is not recorded: {stopped}"));
            }
            other.map(drop)
        }
    }
}

fn make_way(shared: &Shared, connection: &Connection, number: u64) -> Result<(), Error> {
    if shared.keep || !shared.presence.close_for(number, LEAVE_WAIT) {
        return refuse(connection, &anyhow!("the gate is in use"));
    }
    shared.bell.ring(super::bell::Ring::Stop);
    connection.send(&Reply::Yielding, &[])
}

fn refuse(connection: &Connection, reason: &anyhow::Error) -> Result<(), Error> {
    let reason = crate::terminal::chain(reason);
    connection.send(&Reply::Refused { reason }, &[])
}
