//! What is known about an exchange before its head arrives: whom it is for and how it came in.

use agent_gate_store::HostName;
use agent_gate_store::record;

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
}

fn is_bare_ipv6(authority: &str) -> bool {
    authority.parse::<std::net::Ipv6Addr>().is_ok()
}

/// The way an exchange comes in.
#[derive(Debug, Clone)]
pub(super) struct Door {
    /// Whom its requests are for; `None` when each names it in absolute form.
    pub(super) target: Option<Target>,
    /// TLS with the client, and the name it asked for.
    pub(super) tls: Option<DoorTls>,
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
}
