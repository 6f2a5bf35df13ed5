//! What a gate would find here, looked at without starting one.

use std::io;
use std::path::Path;
use std::time::SystemTime;

use crate::cert::authority::Authority;
use crate::{Error, net};

/// Until when the CA in `folder` is valid; `None` when there is none that a gate would use, so that
/// the next one makes a new one.
///
/// # Errors
/// When it is there and cannot be used: unreadable, broken, or a key that others may read.
pub fn authority_valid_until(folder: &Path) -> Result<Option<SystemTime>, Error> {
    Authority::valid_until(folder)
}

/// Whether workers can wait by io_uring here.
///
/// # Errors
/// Why the kernel does not grant it; workers then wait by epoll.
pub fn io_uring() -> io::Result<()> {
    net::try_ring()
}
