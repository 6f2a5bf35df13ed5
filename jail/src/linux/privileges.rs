//! Giving up everything that set the jail up, for good: the command has no capability, and no
//! program that it starts can get one.

use caps::CapSet;
use nix::errno::Errno;

use super::sys;

/// Drops all capabilities of this process and its children to come, also for uid 0: the bounding
/// set is empty, root is nobody special at exec, and no exec gains anything (`capabilities(7)`).
pub(super) fn give_up() -> nix::Result<()> {
    nix::sys::prctl::set_no_new_privs()?;
    sys::set_secure_bits(SECURE_BITS)?;
    let kernel_knows = (0..=MAX_CAPABILITY).map(sys::drop_bound);
    for known in kernel_knows {
        if !known? {
            break; // numbers have no gaps
        }
    }
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set).map_err(|_| Errno::last())?;
    }
    Ok(())
}

/// Each bit with its lock beside it: NOROOT, NO_SETUID_FIXUP, (KEEP_CAPS locked off),
/// NO_CAP_AMBIENT_RAISE (`linux/securebits.h`).
const SECURE_BITS: libc::c_ulong = 0b1110_1111;

/// Capabilities are bits of a 64-bit set.
const MAX_CAPABILITY: u8 = 63;
