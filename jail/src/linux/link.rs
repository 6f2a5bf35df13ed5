//! The socket between `agent-gate run` and the jail's first process, and what is said over it.
//! Both ends are the same program, so the form is as plain as it can be: a letter and numbers.

use std::ffi::OsStr;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};

use super::sys;
use crate::End;
use crate::child::Change;
use crate::error::Step;
use crate::exec;

/// One end.
#[derive(Debug)]
pub(super) struct Link(OwnedFd);

/// What the first process tells.
#[derive(Debug)]
pub(super) enum FromInit {
    /// A step of the set-up failed.
    Failed(Failed),
    /// Some of the listening sockets; the letters say of which kind each is.
    Listeners { kinds: Vec<u8>, sockets: Vec<OwnedFd> },
    /// All is set up.
    Ready,
    /// The command runs.
    Started,
    /// It does not.
    NotStarted(exec::Failure),
    /// News of the command.
    Changed(Change),
}

/// Which step failed, on what, and why.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) step: Step,
    pub(super) errno: i32,
    pub(super) at: Option<PathBuf>,
}

impl Failed {
    /// Names the step that an error belongs to.
    pub(super) fn at_step<E: Into<io::Error>>(step: Step) -> impl Fn(E) -> Self {
        move |error| Self { step, errno: number(&error.into()), at: None }
    }

    /// Names the step, and the path it was about.
    pub(super) fn at_path<E: Into<io::Error>>(step: Step, path: &Path) -> impl Fn(E) -> Self {
        move |error| Self { step, errno: number(&error.into()), at: Some(path.to_owned()) }
    }
}

/// Errors that the kernel did not make (a path with a zero byte) have no number.
fn number(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EINVAL)
}

/// What it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ToInit {
    Start,
    Forward(Signal),
    ConfirmStop,
    Resume { foreground: bool },
}

/// The kernel takes up to 253 descriptors in one message (SCM_MAX_FD).
pub(super) const SOCKETS_PER_MESSAGE_MAX: usize = 64;

/// The longest message is a failure with a path in it.
const MESSAGE_BYTES_MAX: usize = 8192;

impl Link {
    /// Both ends. Packets keep their bounds, and a vanished peer shows as an empty one.
    pub(super) fn pair() -> nix::Result<(Self, Self)> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok((Self(a), Self(b)))
    }

    pub(super) fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    pub(super) fn tell(&self, message: &FromInit) -> nix::Result<()> {
        let mut bytes = Vec::new();
        let mut sockets: Vec<RawFd> = Vec::new();
        match message {
            FromInit::Failed(failed) => {
                bytes.extend([b'F', failed.step as u8]);
                bytes.extend(failed.errno.to_ne_bytes());
                let at = failed.at.as_deref().map_or(&[][..], |at| at.as_os_str().as_bytes());
                bytes.extend(&at[..at.len().min(MESSAGE_BYTES_MAX - bytes.len())]);
            }
            FromInit::Listeners { kinds, sockets: owned } => {
                bytes.push(b'L');
                bytes.extend(kinds);
                sockets.extend(owned.iter().map(AsRawFd::as_raw_fd));
            }
            FromInit::Ready => bytes.push(b'R'),
            FromInit::Started => bytes.push(b'S'),
            FromInit::NotStarted(failure) => {
                bytes.push(b'N');
                bytes.extend(failure.to_bytes());
            }
            FromInit::Changed(change) => put_change(&mut bytes, *change),
        }
        self.send(&bytes, &sockets)
    }

    pub(super) fn order(&self, order: ToInit) -> nix::Result<()> {
        let bytes = match order {
            ToInit::Start => [b'S', 0],
            ToInit::Forward(signal) => [b'F', u8::try_from(signal as i32).unwrap_or_default()],
            ToInit::ConfirmStop => [b'C', 0],
            ToInit::Resume { foreground } => [b'R', u8::from(foreground)],
        };
        self.send(&bytes, &[])
    }

    fn send(&self, bytes: &[u8], sockets: &[RawFd]) -> nix::Result<()> {
        let rights = [ControlMessage::ScmRights(sockets)];
        let rights = if sockets.is_empty() { &[] } else { &rights[..] };
        let parts = [IoSlice::new(bytes)];
        retry(|| sendmsg::<()>(self.raw(), &parts, rights, MsgFlags::MSG_NOSIGNAL, None)).map(drop)
    }

    /// The next word of the first process; `None` when it is gone. Waits unless told not to.
    pub(super) fn listen(&self, wait: bool) -> nix::Result<Option<FromInit>> {
        let Some((bytes, sockets)) = self.receive(wait)? else { return Ok(None) };
        read_from_init(&bytes, sockets).map(Some).ok_or(Errno::EBADMSG)
    }

    /// The next order; `None` when `agent-gate run` is gone.
    pub(super) fn next_order(&self, wait: bool) -> nix::Result<Option<ToInit>> {
        let Some((bytes, _)) = self.receive(wait)? else { return Ok(None) };
        read_to_init(&bytes).map(Some).ok_or(Errno::EBADMSG)
    }

    fn receive(&self, wait: bool) -> nix::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; MESSAGE_BYTES_MAX];
        let mut space = cmsg_space!([RawFd; SOCKETS_PER_MESSAGE_MAX]);
        let mut flags = MsgFlags::MSG_CMSG_CLOEXEC;
        flags.set(MsgFlags::MSG_DONTWAIT, !wait);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let message = loop {
            match recvmsg::<()>(self.raw(), &mut parts, Some(&mut space), flags) {
                Err(Errno::EINTR) => {}
                // Told once, of a peer that went away with an order of ours unread. What it said
                // before that is still to be read.
                Err(Errno::ECONNRESET) => {}
                other => break other?,
            }
        };
        let length = message.bytes;
        let mut sockets = Vec::new();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(received) = control {
                sockets.extend(sys::own(received));
            }
        }
        bytes.truncate(length);
        Ok((length > 0).then_some((bytes, sockets)))
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

fn put_change(bytes: &mut Vec<u8>, change: Change) {
    let (letter, number, extra) = match change {
        Change::Ended(End::Exited(code)) => (b'E', code, 0),
        Change::Ended(End::Signaled(signal)) => (b'G', signal, 0),
        // The gate is none of the first process's business.
        Change::Ended(End::GateLost) => (b'G', libc::SIGKILL, 0),
        Change::Stopped { signal, own_group } => (b'T', signal, u8::from(own_group)),
        Change::StillStopped { signal } => (b'A', signal, 0),
    };
    bytes.push(letter);
    bytes.extend(number.to_ne_bytes());
    bytes.push(extra);
}

fn read_from_init(bytes: &[u8], sockets: Vec<OwnedFd>) -> Option<FromInit> {
    let (letter, rest) = bytes.split_first()?;
    Some(match letter {
        b'L' => FromInit::Listeners { kinds: rest.to_vec(), sockets },
        b'R' => FromInit::Ready,
        b'S' => FromInit::Started,
        b'N' => FromInit::NotStarted(exec::Failure::from_bytes(rest)?),
        b'F' => {
            let (step, rest) = rest.split_first()?;
            let (errno, at) = rest.split_first_chunk()?;
            FromInit::Failed(Failed {
                step: Step::from_code(*step)?,
                errno: i32::from_ne_bytes(*errno),
                at: (!at.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(at))),
            })
        }
        letter => {
            let (number, extra) = rest.split_first_chunk()?;
            let number = i32::from_ne_bytes(*number);
            FromInit::Changed(match letter {
                b'E' => Change::Ended(End::Exited(number)),
                b'G' => Change::Ended(End::Signaled(number)),
                b'T' => Change::Stopped { signal: number, own_group: extra == [1] },
                b'A' => Change::StillStopped { signal: number },
                _ => return None,
            })
        }
    })
}

fn read_to_init(bytes: &[u8]) -> Option<ToInit> {
    Some(match *bytes {
        [b'S', _] => ToInit::Start,
        [b'F', signal] => ToInit::Forward(Signal::try_from(i32::from(signal)).ok()?),
        [b'C', _] => ToInit::ConfirmStop,
        [b'R', foreground] => ToInit::Resume { foreground: foreground == 1 },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_arrives_with_its_sockets() {
        let (init, run) = Link::pair().unwrap();
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let listeners =
            FromInit::Listeners { kinds: b"P".to_vec(), sockets: vec![OwnedFd::from(socket)] };
        init.tell(&listeners).unwrap();
        let Some(FromInit::Listeners { kinds, sockets }) = run.listen(true).unwrap() else {
            panic!("something else came")
        };
        assert_eq!(kinds, b"P");
        let socket = std::net::TcpListener::from(sockets.into_iter().next().unwrap());
        assert_eq!(socket.local_addr().unwrap().port(), port);
    }

    #[test]
    fn last_words_are_heard_though_an_order_was_left_unread() {
        let (init, run) = Link::pair().unwrap();
        run.order(ToInit::Resume { foreground: false }).unwrap();
        init.tell(&FromInit::Changed(Change::Ended(End::Signaled(15)))).unwrap();
        drop(init);
        let Some(FromInit::Changed(change)) = run.listen(true).unwrap() else { panic!("lost") };
        assert_eq!(change, Change::Ended(End::Signaled(15)));
        assert!(run.listen(true).unwrap().is_none());
    }

    #[test]
    fn changes_and_failures_survive_the_way() {
        let (init, run) = Link::pair().unwrap();
        for change in [
            Change::Ended(End::Exited(3)),
            Change::Ended(End::Signaled(34)),
            Change::Stopped { signal: libc::SIGTSTP, own_group: true },
            Change::StillStopped { signal: libc::SIGSTOP },
        ] {
            init.tell(&FromInit::Changed(change)).unwrap();
            let Some(FromInit::Changed(back)) = run.listen(true).unwrap() else { panic!() };
            assert_eq!(back, change);
        }
        let at = Some(PathBuf::from("/a/b"));
        init.tell(&FromInit::Failed(Failed { step: Step::Proc, errno: 1, at: at.clone() }))
            .unwrap();
        let Some(FromInit::Failed(failed)) = run.listen(true).unwrap() else { panic!() };
        assert_eq!((failed.step, failed.errno, failed.at), (Step::Proc, 1, at));
    }

    #[test]
    fn orders_arrive_and_the_end_shows() {
        let (init, run) = Link::pair().unwrap();
        for order in [
            ToInit::Start,
            ToInit::Forward(Signal::SIGUSR2),
            ToInit::ConfirmStop,
            ToInit::Resume { foreground: true },
        ] {
            run.order(order).unwrap();
            assert_eq!(init.next_order(true).unwrap(), Some(order));
        }
        assert_eq!(init.next_order(false), Err(Errno::EAGAIN));
        drop(run);
        assert_eq!(init.next_order(true).unwrap(), None);
        assert!(init.tell(&FromInit::Ready).is_err());
    }
}
