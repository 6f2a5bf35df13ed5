//! Borrowing the descriptor of a monoio socket, which monoio hands out as a bare number only.
#![allow(unsafe_code)] // the reason is the line above

use std::os::fd::{AsRawFd, BorrowedFd};

use monoio::net::TcpStream;

/// The stream's descriptor, for options that monoio has no call for.
pub(super) fn borrow(stream: &TcpStream) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open for as long as the stream lives, and the result borrows the
    // stream.
    unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }
}
