//! Policy at the door: which hosts are refused, passed through or intercepted, and which addresses
//! are never dialled.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use agent_gate_store::record::RefusedBy;
use agent_gate_store::{HostLists, HostName};

/// What is to happen with a connection or request for a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It does not pass.
    Refuse(RefusedBy),
    /// It passes unread.
    PassThrough,
    /// It is read and recorded.
    Intercept,
}

impl Verdict {
    /// The stricter of two: to refuse, before to read, before to let pass unread. Of two refusals
    /// it is the denylist's, which no other list can lift.
    pub(crate) fn stricter(self, other: Self) -> Self {
        if other.strictness() > self.strictness() { other } else { self }
    }

    fn strictness(self) -> u8 {
        match self {
            Self::PassThrough => 0,
            Self::Intercept => 1,
            Self::Refuse(RefusedBy::HostNotAllowlisted) => 2,
            Self::Refuse(_) => 3,
        }
    }
}

/// Asks the lists in their fixed order: deny, pass through, enforce.
pub(crate) fn verdict(lists: &HostLists, enforce: bool, host: &HostName, port: u16) -> Verdict {
    if lists.deny.matches(host, port) {
        Verdict::Refuse(RefusedBy::Denylisted)
    } else if lists.pass.matches(host, port) {
        Verdict::PassThrough
    } else if enforce && !lists.allow.matches(host, port) {
        Verdict::Refuse(RefusedBy::HostNotAllowlisted)
    } else {
        Verdict::Intercept
    }
}

/// The addresses of this machine and of the gate, which a client must not reach by way of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct OwnAddresses {
    interfaces: HashSet<IpAddr>,
    gate: Vec<SocketAddr>,
}

impl OwnAddresses {
    /// `gate` are its listening addresses; the machine's are asked of the system.
    pub(crate) fn new(gate: Vec<SocketAddr>) -> Self {
        let interfaces = nix::ifaddrs::getifaddrs()
            .into_iter()
            .flatten()
            .filter_map(|interface| {
                let address = interface.address?;
                if let Some(v4) = address.as_sockaddr_in() {
                    Some(IpAddr::V4(v4.ip()))
                } else {
                    address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()))
                }
            })
            .collect();
        Self { interfaces, gate }
    }

    /// Why `address`, reached for `host`, is not dialled; `None` when it is. A list that names
    /// the host or the address opens it, the gate's own addresses only with their port.
    pub(crate) fn refusal(
        &self,
        lists: &HostLists,
        host: &HostName,
        address: SocketAddr,
    ) -> Option<&'static str> {
        let ip = address.ip().to_canonical();
        let class = self.class(ip, address.port())?;
        let port = address.port();
        let named = [&lists.allow, &lists.pass].iter().any(|list| match class {
            GATE => list.names_address_and_port(ip, port),
            _ => list.names_address(ip, port) || list.matches(host, port),
        });
        (!named).then_some(class)
    }

    fn class(&self, ip: IpAddr, port: u16) -> Option<&'static str> {
        let of_gate = |own: &&SocketAddr| own.port() == port && own.ip() == ip;
        if self.gate.iter().any(|own| of_gate(&own)) {
            Some(GATE)
        } else if ip.is_loopback() || ip.is_unspecified() {
            Some("a loopback address of this machine")
        } else if is_link_local(ip) {
            Some("a link-local or cloud metadata address")
        } else if self.interfaces.contains(&ip) {
            Some("an address of this machine")
        } else if is_multicast_or_broadcast(ip) {
            Some("a multicast or broadcast address")
        } else {
            None
        }
    }
}

const GATE: &str = "an address of the gate itself";

/// Link-local (RFC 3927, RFC 4291) and the metadata addresses outside it: AWS over IPv6, Alibaba
/// and Oracle Cloud.
fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            v4.is_link_local()
                || v4 == Ipv4Addr::new(100, 100, 100, 200)
                || v4 == Ipv4Addr::new(192, 0, 0, 192)
        }
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local() || v6 == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)
        }
    }
}

fn is_multicast_or_broadcast(ip: IpAddr) -> bool {
    ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST)
}

#[cfg(test)]
mod tests {
    use agent_gate_store::HostList;

    use super::*;

    fn lists(allow: &str, deny: &str, pass: &str) -> HostLists {
        HostLists {
            allow: HostList::parse(allow).unwrap(),
            deny: HostList::parse(deny).unwrap(),
            pass: HostList::parse(pass).unwrap(),
        }
    }

    #[test]
    fn the_lists_are_asked_in_their_order() {
        let lists = lists("a.example\nb.example", "b.example", "b.example\nc.example");
        for (host, enforce, expected) in [
            ("a.example", true, Verdict::Intercept),
            ("b.example", false, Verdict::Refuse(RefusedBy::Denylisted)),
            ("c.example", true, Verdict::PassThrough),
            ("d.example", true, Verdict::Refuse(RefusedBy::HostNotAllowlisted)),
            ("d.example", false, Verdict::Intercept),
        ] {
            let host = HostName::parse(host).unwrap();
            assert_eq!(verdict(&lists, enforce, &host, 443), expected, "{host:?} {enforce}");
        }
    }

    #[test]
    fn the_stricter_verdict_counts() {
        let denied = Verdict::Refuse(RefusedBy::Denylisted);
        let unlisted = Verdict::Refuse(RefusedBy::HostNotAllowlisted);
        let order = [Verdict::PassThrough, Verdict::Intercept, unlisted, denied];
        for (at, lenient) in order.into_iter().enumerate() {
            for strict in order.into_iter().skip(at) {
                assert_eq!(lenient.stricter(strict), strict);
                assert_eq!(strict.stricter(lenient), strict);
            }
        }
    }

    #[test]
    fn addresses_of_this_machine_need_a_name_on_a_list() {
        let own = OwnAddresses {
            interfaces: [IpAddr::from([10, 1, 2, 3])].into(),
            gate: vec![([127, 0, 0, 1], 7000).into()],
        };
        let none = lists("", "", "");
        let some = lists("127.0.0.1\nlocalhost:3000\n169.254.0.0/16", "", "");
        let gate = lists("127.0.0.1:7000", "", "");
        for (address, in_none, in_some, in_gate) in [
            ("127.0.0.1:3000", false, true, false),
            ("127.0.0.1:7000", false, false, true),
            ("[::1]:3000", false, true, false),
            ("[::1]:3001", false, false, false),
            ("[::ffff:127.0.0.1]:3001", false, true, false),
            ("0.0.0.0:80", false, false, false),
            ("169.254.169.254:80", false, true, false),
            ("[fe80::1]:80", false, false, false),
            ("10.1.2.3:80", false, false, false),
            ("10.1.2.4:80", true, true, true),
            ("203.0.113.1:443", true, true, true),
        ] {
            let host = HostName::parse("localhost").unwrap();
            let address: SocketAddr = address.parse().unwrap();
            let dialled = |lists| own.refusal(lists, &host, address).is_none();
            let found = (dialled(&none), dialled(&some), dialled(&gate));
            assert_eq!(found, (in_none, in_some, in_gate), "{address}");
        }
    }
}
