//! Calls on the descriptors of monoio's sockets, which monoio hands out as bare numbers only.
#![allow(unsafe_code)] // the reason is the line above

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use monoio::net::TcpStream;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The stream's descriptor, for options that monoio has no call for.
pub(super) fn borrow(stream: &TcpStream) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open for as long as the stream lives, and the result borrows the
    // stream.
    unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }
}

/// Resets a connection: connecting it to nowhere is how Linux is asked to do that at once (connect(2),
/// `AF_UNSPEC`). Elsewhere nothing may come of it. `fd` comes from a handle, which keeps it open.
pub(super) fn reset(fd: RawFd) {
    let family = libc::sa_family_t::try_from(libc::AF_UNSPEC).unwrap_or_default();
    // SAFETY: an address is plain numbers, for which zeros are a value; the call reads as many bytes
    // of it as it is told, and keeps none.
    unsafe {
        let mut nowhere: libc::sockaddr = std::mem::zeroed();
        nowhere.sa_family = family;
        let length = libc::socklen_t::try_from(size_of::<libc::sockaddr>()).unwrap_or_default();
        // Fails only when the peer was faster, and then there is nothing to reset.
        libc::connect(fd, &raw const nowhere, length);
    }
}

/// Whether a listening socket of this worker has a connection to accept. `fd` comes from the
/// worker's table, which names open listeners only.
pub(super) fn is_readable(fd: RawFd) -> bool {
    // SAFETY: listeners leave the table before they are closed, and this thread alone does both;
    // the descriptor is used for this one call, which does not wait.
    let listener = unsafe { BorrowedFd::borrow_raw(fd) };
    let mut fds = [PollFd::new(listener, PollFlags::POLLIN)];
    matches!(poll(&mut fds, PollTimeout::ZERO), Ok(n) if n > 0)
}
