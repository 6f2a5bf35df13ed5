//! What is known about an exchange before its head arrives: whom it is for and how it came in, and
//! what the lists say to that.

use agent_gate_store::HostName;
use agent_gate_store::record::{self, Flag};

use super::answer::Refusal;
use super::flow::Flow;
use crate::policy::{Verdict, verdict};

/// A host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) host: HostName,
    pub(super) port: u16,
}

impl Target {
    /// Reads `host:port`, with a default where the port may be missing.
    pub(super) fn parse(authority: &str, default_port: Option<u16>) -> Option<Self> {
        let (host, port) = match authority.rsplit_once(':') {
            // `[::1]` and `::1` have colons of their own.
            Some((host, port)) if !port.contains(']') && !is_bare_ipv6(authority) => {
                (host, port.parse().ok()?)
            }
            _ => (authority, default_port?),
        };
        Some(Self { host: HostName::parse(host).ok()?, port })
    }

    /// The line of a list that names this host, with its port unless that is HTTPS's.
    pub(super) fn list_line(&self) -> String {
        let host = self.host.as_str();
        match (self.port, self.host.ip()) {
            (443, _) => host.to_owned(),
            (port, Some(ip)) if ip.is_ipv6() => format!("[{host}]:{port}"),
            (port, _) => format!("{host}:{port}"),
        }
    }
}

fn is_bare_ipv6(authority: &str) -> bool {
    authority.parse::<std::net::Ipv6Addr>().is_ok()
}

/// All names that a connection or request goes by.
#[derive(Debug)]
pub(super) struct Aliases<'a> {
    /// Where it goes: the proxy's target, or what the dialled address stands for.
    target: &'a Target,
    /// Other names that were said: in the client hello, in `Host`, in an absolute target. Those
    /// that say the same again are not among them.
    others: Vec<Target>,
}

impl<'a> Aliases<'a> {
    pub(super) fn new(target: &'a Target) -> Self {
        Self { target, others: Vec::new() }
    }

    /// Another name that was said.
    pub(super) fn said(&mut self, host: &HostName, port: u16) {
        let same = |known: &Target| known.host == *host && known.port == port;
        if !same(self.target) && !self.others.iter().any(same) {
            self.others.push(Target { host: host.clone(), port });
        }
    }

    /// Asks the lists about each: the strictest answer counts, with the first name that it is for.
    pub(super) fn ask(&self, flow: &Flow) -> (Verdict, &Target) {
        let lists = flow.worker.shared.lists.load();
        let enforce = flow.run.enforce_allowlist;
        let about = |it: &Target| verdict(&lists, enforce, &it.host, it.port);
        let mut strictest = (about(self.target), self.target);
        for other in &self.others {
            let stricter = strictest.0.stricter(about(other));
            if stricter != strictest.0 {
                strictest = (stricter, other);
            }
        }
        strictest
    }

    /// Why none of it passes, if a list says so.
    pub(super) fn refusal(&self, flow: &Flow) -> Option<Refusal> {
        match self.ask(flow) {
            (Verdict::Refuse(by), named) => Some(Refusal::by_list(by, named, self.flags())),
            (Verdict::PassThrough | Verdict::Intercept, _) => None,
        }
    }

    /// What is odd about them.
    pub(super) fn flags(&self) -> Vec<Flag> {
        if self.disagree() { vec![Flag::HostMismatch] } else { Vec::new() }
    }

    /// An address says nothing about names: who goes to one may name any host, but the same
    /// everywhere.
    fn disagree(&self) -> bool {
        match &self.others[..] {
            [] => false,
            [one] => {
                let name_of_address = self.target.host.ip().is_some() && one.host.ip().is_none();
                !name_of_address || one.port != self.target.port
            }
            _ => true,
        }
    }
}

/// The way an exchange comes in.
#[derive(Debug, Clone)]
pub(super) struct Door {
    /// Whom its requests are for; `None` when each names it in absolute form.
    pub(super) target: Option<Target>,
    /// TLS with the client, and the name it asked for.
    pub(super) tls: Option<DoorTls>,
    /// Why nothing that comes in here passes, as the lists had it when it opened.
    pub(super) refused: Option<Refusal>,
}

/// TLS as agreed with the client.
#[derive(Debug, Clone)]
pub(super) struct DoorTls {
    pub(super) version: &'static str,
    pub(super) sni: Option<HostName>,
    pub(super) alpn: Option<String>,
}

impl Door {
    /// `https` or `http`.
    pub(super) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// The host that the client believes it talks to.
    pub(super) fn asked_host(&self) -> Option<&HostName> {
        self.sni().or(self.target.as_ref().map(|target| &target.host))
    }

    /// The name in the client hello.
    pub(super) fn sni(&self) -> Option<&HostName> {
        self.tls.as_ref().and_then(|tls| tls.sni.as_ref())
    }

    /// The TLS of a record.
    pub(super) fn record_tls(&self) -> Option<record::Tls<'_>> {
        self.tls.as_ref().map(|tls| record::Tls {
            version: tls.version.into(),
            sni: tls.sni.as_ref().map(|s| s.as_str().into()),
            alpn: tls.alpn.as_deref().map(Into::into),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities() {
        for (text, default, expected) in [
            ("a.example:443", None, Some(("a.example", 443))),
            ("A.example.:80", None, Some(("a.example", 80))),
            ("a.example", Some(80), Some(("a.example", 80))),
            ("a.example", None, None),
            ("[::1]:8443", None, Some(("::1", 8443))),
            ("[::1]", Some(443), Some(("::1", 443))),
            ("::1", Some(443), Some(("::1", 443))),
            ("a.example:x", Some(80), None),
            ("a.example:99999", None, None),
            (":443", None, None),
            ("", Some(80), None),
        ] {
            let found = Target::parse(text, default);
            let found = found.as_ref().map(|t| (t.host.as_str(), t.port));
            assert_eq!(found, expected, "{text:?}");
        }
    }

    #[test]
    fn a_line_of_a_list_names_the_host_again() {
        for (text, line) in [
            ("a.example:443", "a.example"),
            ("a.example:8443", "a.example:8443"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("[2001:db8::1]:8443", "[2001:db8::1]:8443"),
        ] {
            let target = Target::parse(text, None).unwrap();
            assert_eq!(target.list_line(), line);
            let list = agent_gate_store::HostList::parse(line).unwrap();
            assert!(list.matches(&target.host, target.port), "{line}");
        }
    }

    #[test]
    fn names_that_disagree() {
        for (target, said, expected) in [
            ("a.example:443", &[][..], false),
            ("a.example:443", &["a.example:443", "A.example.:443"], false),
            ("a.example:443", &["b.example:443"], true),
            ("a.example:443", &["a.example:443", "b.example:443"], true),
            ("a.example:443", &["a.example:8443"], true),
            ("a.example:443", &["192.0.2.1:443"], true),
            ("192.0.2.1:443", &["a.example:443"], false),
            ("192.0.2.1:443", &["a.example:443", "a.example:443"], false),
            ("192.0.2.1:443", &["a.example:443", "b.example:443"], true),
            ("192.0.2.1:443", &["192.0.2.2:443"], true),
            ("192.0.2.1:443", &["192.0.2.1:443", "[::ffff:192.0.2.1]:443"], false),
            ("192.0.2.1:443", &["a.example:80"], true),
        ] {
            let target = Target::parse(target, None).unwrap();
            let mut names = Aliases::new(&target);
            for name in said {
                let name = Target::parse(name, None).unwrap();
                names.said(&name.host, name.port);
            }
            assert_eq!(names.disagree(), expected, "{target:?} {said:?}");
        }
    }
}
