//! The jail's network: a loopback interface to which every address belongs, and the gate's
//! listeners on it. There is no other interface, so there is no way out.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType,
    SockaddrStorage, bind, listen, recv, sendto, setsockopt, socket, sockopt,
};

use super::link::Failed;
use crate::error::Step;

/// Letters that say on the link what a socket is for.
pub(super) const PROXY: u8 = b'P';
pub(super) const TRANSPARENT: u8 = b'T';
pub(super) const DNS_TCP: u8 = b'D';
pub(super) const DNS_UDP: u8 = b'U';

/// In a new network namespace the loopback interface is always the first.
const LOOPBACK_INDEX: u32 = 1;
const DNS_PORT: u16 = 53;
/// As many waiting connections as the kernel's default bound (net.core.somaxconn) lets through.
const BACKLOG: i32 = 4096;

/// Brings the loopback interface up; the kernel gives it 127.0.0.1 and ::1 then.
pub(super) fn raise_loopback() -> nix::Result<()> {
    Routing::open()?.ask(libc::RTM_NEWLINK, 0, &link_up())
}

/// Makes every address local (AnyIP): whatever is dialled arrives at a socket of the jail, and the
/// accepted socket's own address is the one that was dialled. Without IPv6 in the kernel there is
/// nothing to route and nothing to catch.
pub(super) fn make_all_local() -> nix::Result<()> {
    let routing = Routing::open()?;
    let create = flag(libc::NLM_F_CREATE | libc::NLM_F_EXCL);
    routing.ask(libc::RTM_NEWROUTE, create, &local_route(libc::AF_INET))?;
    match routing.ask(libc::RTM_NEWROUTE, create, &local_route(libc::AF_INET6)) {
        // Not built in, switched off at boot, or switched off by sysctl: no address, no traffic.
        Err(error) if WITHOUT_IPV6.contains(&error) => Ok(()),
        other => other,
    }
}

const WITHOUT_IPV6: [Errno; 5] =
    [Errno::EAFNOSUPPORT, Errno::EOPNOTSUPP, Errno::EADDRNOTAVAIL, Errno::EACCES, Errno::ENODEV];

/// The gate's listening sockets, each with its letter.
pub(super) fn listeners(
    proxy_port: u16,
    transparent_ports: &[u16],
) -> Result<Vec<(u8, OwnedFd)>, Failed> {
    let mut wanted = vec![(PROXY, SockType::Stream, proxy_port)];
    wanted.extend(transparent_ports.iter().map(|port| (TRANSPARENT, SockType::Stream, *port)));
    wanted.push((DNS_TCP, SockType::Stream, DNS_PORT));
    wanted.push((DNS_UDP, SockType::Datagram, DNS_PORT));
    let mut opened = Vec::new();
    for (letter, kind, port) in wanted {
        let failed = |errno: Errno| Failed {
            step: Step::Listeners,
            errno: errno as i32,
            at: Some(format!("port {port}").into()),
        };
        opened.push((letter, open_v4(kind, port).map_err(failed)?));
        match open_v6(kind, port) {
            Ok(socket) => opened.push((letter, socket)),
            Err(error) if WITHOUT_IPV6.contains(&error) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(opened)
}

fn open_v4(kind: SockType, port: u16) -> nix::Result<OwnedFd> {
    let address = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port));
    let socket = socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, None)?;
    open(socket, kind, address)
}

fn open_v6(kind: SockType, port: u16) -> nix::Result<OwnedFd> {
    let address = SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0));
    let socket = socket(AddressFamily::Inet6, kind, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    open(socket, kind, address)
}

fn open(socket: OwnedFd, kind: SockType, address: SocketAddr) -> nix::Result<OwnedFd> {
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    if kind == SockType::Stream {
        listen(&socket, Backlog::new(BACKLOG)?)?;
    }
    Ok(socket)
}

/// A conversation with the kernel about routes and interfaces (`rtnetlink(7)`), by hand: two
/// messages do not pay for a library.
struct Routing(OwnedFd);

impl Routing {
    fn open() -> nix::Result<Self> {
        let protocol = SockProtocol::NetlinkRoute;
        let flags = SockFlag::SOCK_CLOEXEC;
        Ok(Self(socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?))
    }

    /// Sends one request and waits for its acknowledgement.
    fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> nix::Result<()> {
        let request = request(kind, flags, body);
        let kernel = NetlinkAddr::new(0, 0);
        sendto(self.0.as_raw_fd(), &request, &kernel, MsgFlags::empty())?;
        let mut answer = [0; 1024];
        let length = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        acknowledgement(&answer[..length])
    }
}

/// `struct nlmsghdr` and what follows it.
fn request(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER_BYTES + body.len()).expect("our messages are short");
    let flags = flags | flag(libc::NLM_F_REQUEST | libc::NLM_F_ACK);
    let mut request = Vec::new();
    request.extend(length.to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.extend(1_u32.to_ne_bytes()); // sequence
    request.extend(0_u32.to_ne_bytes()); // port: the kernel knows ours
    request.extend(body);
    request
}

const HEADER_BYTES: usize = 16;

/// `struct ifinfomsg`: the loopback interface, up.
fn link_up() -> Vec<u8> {
    let up = u32::try_from(libc::IFF_UP).expect("the flag is 1");
    let mut body = vec![0; 4]; // family, padding, type
    body.extend(LOOPBACK_INDEX.to_ne_bytes());
    body.extend(up.to_ne_bytes()); // flags
    body.extend(up.to_ne_bytes()); // which of them change
    body
}

/// `struct rtmsg` and one attribute: `local default dev lo`.
fn local_route(family: i32) -> Vec<u8> {
    let family = u8::try_from(family).expect("address families are small numbers");
    // To and from lengths and type of service are zero: any.
    let mut body = vec![family, 0, 0, 0];
    let scope = if i32::from(family) == libc::AF_INET { libc::RT_SCOPE_HOST } else { 0 };
    body.extend([libc::RT_TABLE_LOCAL, libc::RTPROT_BOOT, scope, libc::RTN_LOCAL]);
    body.extend(0_u32.to_ne_bytes()); // flags
    body.extend(8_u16.to_ne_bytes()); // length of the attribute
    body.extend(libc::RTA_OIF.to_ne_bytes());
    body.extend(LOOPBACK_INDEX.to_ne_bytes());
    body
}

/// `struct nlmsgerr`: zero is success.
fn acknowledgement(answer: &[u8]) -> nix::Result<()> {
    let kind = answer.get(4..6).and_then(|it| it.try_into().ok()).map(u16::from_ne_bytes);
    let code = answer.get(HEADER_BYTES..HEADER_BYTES + 4).and_then(|it| it.try_into().ok());
    match (kind.map(i32::from), code.map(i32::from_ne_bytes)) {
        (Some(libc::NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(libc::NLMSG_ERROR), Some(code)) => Err(Errno::from_raw(-code)),
        _ => Err(Errno::EPROTO),
    }
}

fn flag(bits: i32) -> u16 {
    u16::try_from(bits).expect("netlink's flags have 16 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_is_read_with_care() {
        let answer = |kind: i32, code: i32| {
            let kind = u16::try_from(kind).unwrap();
            let mut bytes = request(kind, 0, &code.to_ne_bytes());
            bytes.extend([0; 16]);
            bytes
        };
        assert_eq!(acknowledgement(&answer(libc::NLMSG_ERROR, 0)), Ok(()));
        let refused = answer(libc::NLMSG_ERROR, -libc::EPERM);
        assert_eq!(acknowledgement(&refused), Err(Errno::EPERM));
        assert_eq!(acknowledgement(&answer(libc::NLMSG_DONE, 0)), Err(Errno::EPROTO));
        for length in 0..HEADER_BYTES + 4 {
            assert_eq!(acknowledgement(&refused[..length]), Err(Errno::EPROTO));
        }
    }

    #[test]
    fn messages_have_the_kernels_lengths() {
        assert_eq!(link_up().len(), 16); // sizeof(struct ifinfomsg)
        assert_eq!(local_route(libc::AF_INET).len(), 12 + 8); // rtmsg, one attribute
        assert_eq!(request(1, 0, &[0; 4]).len(), 20);
    }
}
