//! Into namespaces of our own, under the caller's own user and group.

use std::fs::OpenOptions;
use std::io::{self, Write};

use nix::sched::CloneFlags;
use nix::unistd::{Gid, Uid};

/// What the jail has for itself: users (which lets an ordinary user have the others), network,
/// mounts, processes, System V IPC.
pub(super) fn flags() -> CloneFlags {
    CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
}

/// Maps the caller's user and group to themselves and nothing else: an agent that sees itself as
/// root refuses to work, and tools that look at owners stay right (`user_namespaces(7)`).
pub(super) fn map_identity(user: Uid, group: Gid) -> io::Result<()> {
    // Required before an unprivileged process may write gid_map: it could otherwise drop a group
    // that a file's mode uses to *deny* access.
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/uid_map", &format!("{user} {user} 1"))?;
    write("/proc/self/gid_map", &format!("{group} {group} 1"))
}

/// These files take their content in one write.
fn write(path: &str, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}
