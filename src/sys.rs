//! The one place of this crate with `unsafe`: taking ownership of descriptors the kernel gave us.
#![allow(unsafe_code)] // recvmsg(2) hands out bare numbers; nothing in std or nix owns them for us

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessageOwned, RecvMsg};

/// The descriptors that came with a message, owned, so that every way out closes them.
///
/// # Errors
/// `ENOBUFS` when more came than the buffer held (the kernel has then closed the rest).
pub(crate) fn take_descriptors<S>(message: &RecvMsg<'_, '_, S>) -> nix::Result<Vec<OwnedFd>> {
    let mut taken = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control {
            taken.extend(descriptors.into_iter().map(own));
        }
    }
    Ok(taken)
}

fn own(descriptor: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just opened this descriptor for this process alone and reported it in
    // this one control message, which is read once; nobody else knows its number.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}
