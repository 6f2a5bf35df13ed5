//! A TCP socket on a worker: the one place that submits reads and writes to monoio.
//!
//! On io_uring a read that is dropped while the kernel works on it takes its bytes along. So the
//! read operation lives in a small pump that belongs to the connection, not in the future that
//! waits for it: who waits by [`Inbound::poll_fill`] may stop at any time and loses nothing. Writes
//! are never raced; a write that must end early is ended by [`Handle::abort`], which shuts the socket down.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use monoio::buf::{IoBufMut, SliceMut};
use monoio::io::{AsyncReadRent, AsyncWriteRentExt, OwnedReadHalf, OwnedWriteHalf, Splitable};
use monoio::net::TcpStream;
use nix::sys::socket::{Shutdown, shutdown};

use super::sys;
use crate::limits::{READ_BYTES_MAX, READ_BYTES_MIN};

/// Splits a connected socket into what reads it, what writes it, and what ends it.
pub(super) fn split(stream: TcpStream) -> (Inbound, Outbound, Rc<Handle>) {
    let fd = stream.as_raw_fd();
    let (read, write) = stream.into_split();
    let handle = Rc::new(Handle { fd, aborted: Cell::new(false), _alive: write.0.clone() });
    (Inbound::new(read), Outbound { half: write, handle: handle.clone() }, handle)
}

/// Ends a connection from outside its reads and writes.
pub(super) struct Handle {
    fd: RawFd,
    aborted: Cell<bool>,
    /// Keeps the descriptor open, so that its number means this socket.
    _alive: Rc<UnsafeCell<TcpStream>>,
}

impl Handle {
    /// Shuts both directions down: pending reads and writes end at once.
    pub(super) fn abort(&self) {
        self.aborted.set(true);
        // Fails only when the peer was faster.
        let _ = shutdown(self.fd, Shutdown::Both);
    }

    /// The same, but the peer sees a reset and no end. What is still on its way to it is lost.
    pub(super) fn reset(&self) {
        sys::reset(self.fd);
        self.abort();
    }

    /// Whether it was aborted from this side.
    pub(super) fn is_aborted(&self) -> bool {
        self.aborted.get()
    }

    fn finish_writing(&self) {
        let _ = shutdown(self.fd, Shutdown::Write);
    }
}

/// The reading side.
pub(super) struct Inbound {
    pump: Pin<Box<dyn Future<Output = ()>>>,
    slot: Rc<RefCell<Slot>>,
    /// How much the next read asks for, in bytes.
    room: usize,
}

/// Between the one who waits and the pump.
enum Slot {
    Idle,
    Wanted(Vec<u8>),
    Reading,
    Done(io::Result<usize>, Vec<u8>),
}

impl Inbound {
    fn new(half: OwnedReadHalf<TcpStream>) -> Self {
        let slot = Rc::new(RefCell::new(Slot::Idle));
        Self { pump: Box::pin(pump(half, slot.clone())), slot, room: READ_BYTES_MIN }
    }

    /// Appends what arrives next to `buffer` and returns its length; 0 at the end of the stream.
    /// Who stops asking loses nothing: while a read is under way `buffer` is empty, and the next
    /// call gives it back with what arrived.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        if matches!(*self.slot.borrow(), Slot::Idle) {
            *self.slot.borrow_mut() = Slot::Wanted(with_room(std::mem::take(buffer), self.room));
        }
        // The pump never ends, so its output says nothing.
        let _ = self.pump.as_mut().poll(cx);
        let done = {
            let mut slot = self.slot.borrow_mut();
            match std::mem::replace(&mut *slot, Slot::Idle) {
                Slot::Done(result, filled) => Some((result, filled)),
                other => {
                    *slot = other;
                    None
                }
            }
        };
        let Some((result, filled)) = done else { return Poll::Pending };
        *buffer = filled;
        if let Ok(length) = result {
            self.adapt(length);
        }
        Poll::Ready(result)
    }

    /// Reads that come back full grow, small ones shrink again.
    fn adapt(&mut self, length: usize) {
        if length >= self.room {
            self.room = (self.room * 4).min(READ_BYTES_MAX);
        } else if length < self.room / 4 {
            self.room = (self.room / 2).max(READ_BYTES_MIN);
        }
    }
}

/// `buffer` with at least `room` spare bytes; an empty one is no larger than that, so that a
/// connection that was busy once does not hold memory while it idles.
fn with_room(mut buffer: Vec<u8>, room: usize) -> Vec<u8> {
    if buffer.is_empty() && buffer.capacity() > 2 * room {
        return Vec::with_capacity(room);
    }
    buffer.reserve(room);
    buffer
}

async fn pump(mut half: OwnedReadHalf<TcpStream>, slot: Rc<RefCell<Slot>>) {
    loop {
        let buffer = poll_fn(|_| {
            let mut slot = slot.borrow_mut();
            match std::mem::replace(&mut *slot, Slot::Reading) {
                Slot::Wanted(buffer) => Poll::Ready(buffer),
                other => {
                    *slot = other;
                    Poll::Pending
                }
            }
        })
        .await;
        let length = buffer.len();
        let (result, buffer) = half.read(buffer.slice_mut(length..)).await;
        *slot.borrow_mut() = Slot::Done(result, SliceMut::into_inner(buffer));
    }
}

/// The writing side.
pub(super) struct Outbound {
    half: OwnedWriteHalf<TcpStream>,
    handle: Rc<Handle>,
}

impl Outbound {
    /// Writes all of `buffer` and gives it back. Not to be dropped while the connection is to be
    /// used further.
    pub(super) async fn write_all(&mut self, buffer: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        let (result, buffer) = self.half.write_all(buffer).await;
        (result.map(drop), buffer)
    }

    /// Tells the peer that nothing more is coming.
    pub(super) fn finish(&self) {
        self.handle.finish_writing();
    }

    /// What ends this connection.
    pub(super) fn handle(&self) -> &Rc<Handle> {
        &self.handle
    }
}
