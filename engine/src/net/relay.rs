//! Bytes both ways, unread: passthrough tunnels and what follows a 101.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::rc::Rc;

use agent_gate_store::record::Transferred;
use futures_util::future::{Either, select};
use monoio::time::timeout;

use super::socket::Handle;
use super::stream::{Reader, Stream, Writer};
use crate::limits::{LINGER_TIME_MAX, WRITE_BYTES_MAX};

/// How a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RelayEnd {
    /// Both sides finished.
    Both,
    /// The client's connection failed.
    ClientGone,
    /// The origin's did.
    OriginGone,
}

/// Copies until both directions have ended, handing each end on by itself. A direction that
/// fails takes the other along. `seen` is shown what the client sends.
pub(super) async fn relay(
    down: &mut Stream,
    up: &mut Stream,
    seen: impl FnMut(&[u8]),
) -> (RelayEnd, Transferred) {
    let (sent, received) = (Cell::new(0), Cell::new(0));
    let handles = [down.handle().clone(), up.handle().clone()];
    let upward = copy(&mut down.reader, &mut up.writer, &sent, seen);
    let downward = copy(&mut up.reader, &mut down.writer, &received, |_| ());
    let (upward, downward) = both_ways(&handles, upward, downward).await;
    let end = match (upward, downward) {
        (Ok(()), Ok(())) => RelayEnd::Both,
        // A client that had said goodbye already does not take the origin's.
        (Ok(()), Err(CopyError::Sink)) => RelayEnd::Both,
        (Err(CopyError::Source), _) | (_, Err(CopyError::Sink)) => RelayEnd::ClientGone,
        _ => RelayEnd::OriginGone,
    };
    (end, Transferred { sent: sent.get(), received: received.get() })
}

/// Carries both directions to their ends. The first that fails ends the connections, and so the
/// other direction.
pub(super) async fn both_ways<E>(
    handles: &[Rc<Handle>; 2],
    upward: impl Future<Output = Result<(), E>>,
    downward: impl Future<Output = Result<(), E>>,
) -> (Result<(), E>, Result<(), E>) {
    let abort = || handles.iter().for_each(|handle| handle.abort());
    let (upward, downward) = (std::pin::pin!(upward), std::pin::pin!(downward));
    match select(upward, downward).await {
        Either::Left((first, rest)) => {
            if first.is_err() {
                abort();
            }
            (first, rest.await)
        }
        Either::Right((first, rest)) => {
            if first.is_err() {
                abort();
            }
            (rest.await, first)
        }
    }
}

/// Which side of a copy failed.
#[derive(Debug, Clone, Copy)]
pub(super) enum CopyError {
    /// The one that is read.
    Source,
    /// The one that is written.
    Sink,
}

async fn copy(
    reader: &mut Reader,
    writer: &mut Writer,
    bytes: &Cell<u64>,
    mut seen: impl FnMut(&[u8]),
) -> Result<(), CopyError> {
    let sink = |_: io::Error| CopyError::Sink;
    loop {
        if reader.data().is_empty() {
            writer.flush().await.map_err(sink)?;
            if !reader.fill().await.map_err(|_| CopyError::Source)? {
                return writer.finish().await.map_err(sink);
            }
        }
        let length = reader.data().len();
        seen(reader.data());
        writer.stage(reader.data()).map_err(sink)?;
        reader.consume(length);
        bytes.set(bytes.get() + length as u64);
        if writer.staged() >= WRITE_BYTES_MAX {
            writer.flush().await.map_err(sink)?;
        }
    }
}

/// Says goodbye to a client after an answer it may not have expected: what it still sends is read
/// and dropped for a while, so that no reset overtakes the answer.
pub(super) async fn linger(stream: &mut Stream) {
    let Stream { reader, writer } = stream;
    if writer.finish().await.is_err() {
        return;
    }
    let reading = async {
        loop {
            let length = reader.data().len();
            reader.consume(length);
            if !matches!(reader.fill().await, Ok(true)) {
                return;
            }
        }
    };
    // When the time is up, the client has had its chance to read.
    let _ = timeout(LINGER_TIME_MAX, reading).await;
}
