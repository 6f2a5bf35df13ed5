//! The calls of Linux that Rust cannot check: clone into namespaces, privilege bits, descriptors
//! that arrive over a socket.
#![allow(unsafe_code)] // raw clone, prctl and received descriptors have no safe form

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::unistd::Pid;

use crate::sys::Fork;

/// A fork whose child is the first process of new namespaces.
///
/// Raw, because glibc's `clone` wants a stack and a function, and `unshare` would need a second
/// fork for the pid namespace and leave a process between us and it. The caller has one thread:
/// glibc's fork handlers do not run, so a lock another thread held would stay locked in the child.
pub(crate) fn clone_into(namespaces: CloneFlags) -> nix::Result<Fork> {
    let flags = libc::c_long::from(namespaces.bits() | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and with no stack the child continues here on a copy of our memory,
    // as after fork. All other arguments are zero, so their order (which differs between
    // architectures) does not matter.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, 0_usize, 0_usize, 0_usize) };
    match Errno::result(pid)? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(Pid::from_raw(i32::try_from(pid).map_err(|_| Errno::EOVERFLOW)?))),
    }
}

/// Takes a capability out of the bounding set; false if the kernel knows none of that number.
pub(crate) fn drop_bound(capability: u8) -> nix::Result<bool> {
    // SAFETY: this prctl takes numbers only.
    let done =
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) };
    match Errno::result(done) {
        Ok(_) => Ok(true),
        Err(Errno::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sets the secure bits of this process.
pub(crate) fn set_secure_bits(bits: libc::c_ulong) -> nix::Result<()> {
    // SAFETY: this prctl takes numbers only.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, bits, 0, 0, 0) }).map(drop)
}

/// Takes ownership of descriptors that the kernel has just installed for us.
pub(crate) fn own(received: Vec<RawFd>) -> Vec<OwnedFd> {
    // SAFETY: the numbers come straight from an SCM_RIGHTS message, so each is open and has no
    // other owner.
    received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect()
}
