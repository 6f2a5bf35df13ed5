//! Whoever runs the tests: as root and as an ordinary user the same scenarios run, and none is
//! skipped. Where one needs its own mounts, root makes a mount namespace and a user makes a user
//! namespace for it first.

use super::bench::Bench;
use std::process::Command;

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A shell script in a mount namespace of its own, in the bench's environment.
pub(crate) fn with_own_mounts(bench: &Bench, script: &str) -> Command {
    unshared(
        bench,
        if is_root() { &["--mount"] } else { &["--user", "--map-root-user", "--mount"] },
        script,
    )
}

/// A shell script where no user namespace can be made: in one that permits none below itself.
pub(crate) fn without_user_namespaces(bench: &Bench, script: &str) -> Command {
    let script = format!("echo 0 >/proc/sys/user/max_user_namespaces && {script}");
    unshared(bench, &["--user", "--map-root-user"], &script)
}

fn unshared(bench: &Bench, options: &[&str], script: &str) -> Command {
    let mut command = bench.command("unshare");
    command.args(options).args(["sh", "-euc", script]);
    command
}
