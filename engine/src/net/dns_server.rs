//! The jail's DNS: every name exists, at an address that leads to the gate.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use agent_gate_store::{HostName, Id};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};

use super::flow::Flow;
use super::run::Run;
use super::stream::Stream;
use crate::limits::DNS_BYTES_MAX;
use crate::proto::dns::{Answer, Question, TYPE_A};

/// The answer to `message`, if it deserves one.
fn answer(run: &Run, message: &[u8]) -> Option<Vec<u8>> {
    let question = Question::parse(message)?;
    let Ok(name) = HostName::parse(&question.name) else {
        return Some(question.answer(Answer::NameUnknown));
    };
    if let Some(ip) = name.ip() {
        // An address asked for as a name; resolvers know these by themselves.
        return Some(question.answer(match ip {
            IpAddr::V4(v4) if question.kind == TYPE_A => Answer::Address(v4),
            _ => Answer::NoData,
        }));
    }
    Some(question.answer(match question.kind {
        TYPE_A => Answer::Address(run.names.address_of(&name)),
        // The name exists; whoever asks for AAAA then takes its IPv4 address.
        _ => Answer::NoData,
    }))
}

/// Answers questions over TCP until the client closes (RFC 7766).
pub(super) async fn serve_tcp(flow: &Flow, mut stream: Stream) {
    let idle_max = flow.worker.shared.limits.idle_time_max;
    loop {
        let message = match stream.reader.data() {
            [high, low, rest @ ..] => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                if length > DNS_BYTES_MAX {
                    return;
                }
                rest.get(..length)
            }
            _ => None,
        };
        let Some(message) = message else {
            let due = Instant::now() + idle_max;
            match flow.control.alarm.until(due, stream.reader.fill()).await {
                Some(Ok(true)) => continue,
                _ => return,
            }
        };
        let length = message.len();
        let Some(answer) = answer(&flow.run, message) else { return };
        stream.reader.consume(2 + length);
        let prefix = u16::try_from(answer.len()).unwrap_or_default().to_be_bytes();
        let staged = stream.writer.stage(&prefix).and_then(|()| stream.writer.stage(&answer));
        if staged.is_err() || stream.writer.flush().await.is_err() {
            return;
        }
    }
}

/// One thread that answers all runs' questions over UDP. monoio cannot tell a datagram's
/// destination, which must be the answer's source, so this does not live on a worker.
pub(crate) struct DnsServer {
    shared: Arc<Shared>,
    wake: UnixDatagram,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    sockets: Mutex<Vec<(Arc<Run>, Arc<UdpSocket>)>>,
    stop: std::sync::atomic::AtomicBool,
}

impl DnsServer {
    pub(crate) fn start() -> io::Result<Self> {
        let (wake, woken) = UnixDatagram::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let shared = Arc::new(Shared::default());
        let for_thread = shared.clone();
        let thread = thread::Builder::new()
            .name("dns".to_owned())
            .spawn(move || serve_udp(&for_thread, &woken))?;
        Ok(Self { shared, wake, thread: Some(thread) })
    }

    /// Answers on `socket` from now on.
    pub(crate) fn add(&self, run: Arc<Run>, socket: UdpSocket) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        // Of the two, a socket has the one for its family.
        let v4 = setsockopt(&socket, sockopt::Ipv4PacketInfo, &true);
        let v6 = setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true);
        v4.or(v6)?;
        self.shared.lock().push((run, Arc::new(socket)));
        self.wake();
        Ok(())
    }

    /// Closes a run's sockets.
    pub(crate) fn remove(&self, run: Id) {
        self.shared.lock().retain(|(r, _)| r.id != run);
        self.wake();
    }

    fn wake(&self) {
        // A full queue means that the thread is about to wake anyway.
        let _ = self.wake.send(&[0]);
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, std::sync::atomic::Ordering::Release);
        self.wake();
        if let Some(thread) = self.thread.take() {
            // A panic there has nothing left to break here.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Arc<Run>, Arc<UdpSocket>)>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn serve_udp(shared: &Shared, woken: &UnixDatagram) {
    while !shared.stop.load(std::sync::atomic::Ordering::Acquire) {
        let sockets = shared.lock().clone();
        let mut fds: Vec<_> =
            sockets.iter().map(|(_, s)| PollFd::new(s.as_fd(), PollFlags::POLLIN)).collect();
        fds.push(PollFd::new(woken.as_fd(), PollFlags::POLLIN));
        if poll(&mut fds, PollTimeout::NONE).is_err() {
            continue; // interrupted
        }
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
        for ((run, socket), _) in sockets.iter().zip(ready).filter(|(_, ready)| *ready) {
            answer_all(run, socket);
        }
        let mut byte = [0];
        while woken.recv(&mut byte).is_ok() {}
    }
}

/// Answers what has arrived on one socket.
fn answer_all(run: &Run, socket: &UdpSocket) {
    let mut buffer = [0; DNS_BYTES_MAX];
    // A client that gets no answer asks again, so errors need no more than ending the turn.
    while let Ok(received) = receive(socket, &mut buffer) {
        if let (Some(from), Some(answer)) = (received.from, answer(run, &buffer[..received.length]))
        {
            let _ = send(socket, &answer, &from, received.to.as_ref());
        }
    }
}

struct Received {
    length: usize,
    from: Option<SockaddrStorage>,
    /// The address it was sent to, which the answer must come from.
    to: Option<ControlMessageOwned>,
}

fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> nix::Result<Received> {
    let mut control = nix::cmsg_space!(libc::in6_pktinfo);
    let mut pieces = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut pieces,
        Some(&mut control),
        MsgFlags::empty(),
    )?;
    let to = message.cmsgs()?.next();
    Ok(Received { length: message.bytes, from: message.address, to })
}

fn send(
    socket: &UdpSocket,
    answer: &[u8],
    to: &SockaddrStorage,
    from: Option<&ControlMessageOwned>,
) -> nix::Result<usize> {
    let pieces = [IoSlice::new(answer)];
    let send = |control: &[ControlMessage<'_>]| {
        sendmsg(socket.as_raw_fd(), &pieces, control, MsgFlags::empty(), Some(to))
    };
    match from {
        Some(ControlMessageOwned::Ipv4PacketInfo(info)) => {
            let mut info = *info;
            info.ipi_ifindex = 0;
            info.ipi_spec_dst = info.ipi_addr;
            send(&[ControlMessage::Ipv4PacketInfo(&info)])
        }
        Some(ControlMessageOwned::Ipv6PacketInfo(info)) => {
            let mut info = *info;
            info.ipi6_ifindex = 0;
            send(&[ControlMessage::Ipv6PacketInfo(&info)])
        }
        _ => send(&[]),
    }
}
