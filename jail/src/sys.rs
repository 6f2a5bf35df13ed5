//! The calls of any Unix that Rust cannot check: forking, waiting with the raw status, signal
//! handlers.
#![allow(unsafe_code)] // fork, sigaction and waitpid have no safe form that says all we need

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal};
use nix::unistd::{ForkResult, Pid};

/// On which side of a fork we are.
pub(crate) enum Fork {
    Parent(Pid),
    Child,
}

/// Forks. The child must end in an exec or in [`exit_now`].
pub(crate) fn fork() -> nix::Result<Fork> {
    // SAFETY: libc's fork keeps the allocator usable in the child, and the child touches no lock
    // that another thread of ours could hold: it execs or exits at once.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Fork::Parent(child)),
        ForkResult::Child => Ok(Fork::Child),
    }
}

/// Ends a forked process without running what its parent registered for its own end.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: _exit takes any status and touches no memory of ours.
    unsafe { libc::_exit(status) }
}

/// `waitpid` without waiting: a child's number and raw status if there is news. Raw, because nix
/// knows no real-time signals and would swallow the status of a child that died by one.
pub(crate) fn wait_status(pid: i32, flags: i32) -> nix::Result<Option<(i32, i32)>> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a live int for the time of the call.
        let pid = unsafe { libc::waitpid(pid, &raw mut status, flags) };
        match Errno::result(pid) {
            Ok(0) => return Ok(None),
            Ok(pid) => return Ok(Some((pid, status))),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Gives a signal its default action.
pub(crate) fn default_action(signal: Signal) {
    let action = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of ours.
    let _ = unsafe { nix::sys::signal::sigaction(signal, &action) };
}

/// Has a signal noted into the pipe of [`note_into`], unless it was ignored when we were started
/// (`nohup`, a shell's background job): then it stays so, for the command too. Returns the former
/// action.
pub(crate) fn catch(signal: Signal) -> nix::Result<Option<SigAction>> {
    let action = SigAction::new(
        SigHandler::SigAction(note),
        SaFlags::SA_RESTART | SaFlags::SA_SIGINFO,
        SigSet::all(),
    );
    // SAFETY: `note` is async-signal-safe: it reads atomics and its own arguments, and writes to
    // a pipe.
    let former = unsafe { nix::sys::signal::sigaction(signal, &action) }?;
    if matches!(former.handler(), SigHandler::SigIgn) && signal != Signal::SIGCHLD {
        restore(signal, &former);
        return Ok(None);
    }
    Ok(Some(former))
}

/// Gives a signal a former action back.
pub(crate) fn restore(signal: Signal, former: &SigAction) {
    // SAFETY: the action was in force before, so its handler, if it has one, is still valid.
    let _ = unsafe { nix::sys::signal::sigaction(signal, former) };
}

/// The pipe that caught signals are noted into; -1 for none.
pub(crate) fn note_into(pipe: RawFd) {
    NOTES.store(pipe, Ordering::SeqCst);
}

static NOTES: AtomicI32 = AtomicI32::new(-1);

/// Length of one note: signal, si_code and sender, each as a native int. Far below `PIPE_BUF`, so
/// notes never mix.
pub(crate) const NOTE_BYTES: usize = 12;

extern "C" fn note(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    let errno = Errno::last_raw();
    // SAFETY: the kernel passes a valid siginfo (SA_SIGINFO); `si_pid` reads plain bytes of it,
    // which mean nothing for some codes but always exist.
    let (code, sender) = unsafe { ((*info).si_code, (*info).si_pid()) };
    let mut note = [0_u8; NOTE_BYTES];
    note[..4].copy_from_slice(&signal.to_ne_bytes());
    note[4..8].copy_from_slice(&code.to_ne_bytes());
    note[8..].copy_from_slice(&sender.to_ne_bytes());
    // SAFETY: `note` outlives the call; a closed or full pipe gives an error that we can ignore.
    let _ = unsafe { libc::write(NOTES.load(Ordering::SeqCst), note.as_ptr().cast(), NOTE_BYTES) };
    Errno::set_raw(errno);
}

/// Has every descriptor above stderr closed by the next exec.
pub(crate) fn close_on_exec_above_stderr() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: the call takes numbers only and changes flags of descriptors.
        let done = unsafe {
            libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
        };
        if done == 0 {
            return Ok(());
        }
    }
    // Before Linux 5.11, and on other systems: one by one.
    for fd in open_descriptors()? {
        // SAFETY: setting a flag on a descriptor that may be closed already gives EBADF at worst.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

/// Closes every descriptor above stderr but one.
#[cfg(target_os = "linux")]
pub(crate) fn close_above_stderr_but(kept: RawFd) -> io::Result<()> {
    let kept_number = u32::try_from(kept).map_err(io::Error::other)?;
    let ranges = [(3, kept_number.saturating_sub(1)), (kept_number.max(2) + 1, u32::MAX)];
    for (first, last) in ranges.into_iter().filter(|(first, last)| first <= last) {
        // SAFETY: the forked process that calls this owns no object that uses a descriptor
        // other than the kept one and the three standard ones.
        let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0_u32) };
        if done != 0 {
            return close_one_by_one(kept);
        }
    }
    Ok(())
}

/// The same before Linux 5.9.
#[cfg(target_os = "linux")]
fn close_one_by_one(kept: RawFd) -> io::Result<()> {
    for fd in open_descriptors()?.into_iter().filter(|fd| *fd != kept) {
        // SAFETY: as in `close_above_stderr_but`.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

fn open_descriptors() -> io::Result<Vec<RawFd>> {
    let names = std::fs::read_dir("/dev/fd")?.flatten().map(|entry| entry.file_name());
    let numbers = names.filter_map(|name| name.to_str()?.parse().ok());
    Ok(numbers.filter(|fd| *fd > 2).collect())
}
