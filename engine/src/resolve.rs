//! Addresses given by hand: curl's `--resolve HOST:PORT:ADDR[:PORT]`, with `*` for any host or port.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use agent_gate_store::HostName;

/// One `--resolve` rule: where a host and port are to be found.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ResolveRule {
    host: Option<HostName>,
    port: Option<u16>,
    address: IpAddr,
    address_port: Option<u16>,
}

/// Why a `--resolve` rule is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule:?} is not HOST:PORT:ADDR[:PORT]: {reason}")]
pub struct ResolveRuleError {
    rule: String,
    reason: &'static str,
}

impl ResolveRule {
    /// Where `host:port` is, if this rule speaks of it.
    pub fn address_of(&self, host: &HostName, port: u16) -> Option<SocketAddr> {
        let names_host = self.host.as_ref().is_none_or(|h| h == host);
        let names_port = self.port.is_none_or(|p| p == port);
        (names_host && names_port)
            .then(|| SocketAddr::new(self.address, self.address_port.unwrap_or(port)))
    }
}

impl FromStr for ResolveRule {
    type Err = ResolveRuleError;

    fn from_str(rule: &str) -> Result<Self, Self::Err> {
        let fail = |reason| ResolveRuleError { rule: rule.to_owned(), reason };
        let mut parts = split_outside_brackets(rule);
        let host = parts.next().filter(|h| !h.is_empty()).ok_or(fail("no host"))?;
        let port = parts.next().ok_or(fail("no port"))?;
        let address = parts.next().ok_or(fail("no address"))?;
        let address_port = parts.next();
        if parts.next().is_some() {
            return Err(fail("too many parts (write IPv6 addresses in brackets)"));
        }
        Ok(Self {
            host: any_or(host, |h| HostName::parse(h).ok()).ok_or(fail("not a host name"))?,
            port: any_or(port, |p| p.parse().ok()).ok_or(fail("not a port"))?,
            address: unbracketed(address).parse().map_err(|_| fail("not an IP address"))?,
            address_port: address_port
                .map(|p| p.parse().map_err(|_| fail("not a port")))
                .transpose()?,
        })
    }
}

/// `*` as "any" (`Some(None)`), else the parsed value; `None` when it does not parse.
fn any_or<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    if text == "*" { Some(None) } else { parse(text).map(Some) }
}

fn unbracketed(text: &str) -> &str {
    text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text)
}

/// The parts between colons, where a bracketed IPv6 address is one part.
fn split_outside_brackets(rule: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_u32;
    rule.split(move |c| {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ':' && depth == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(rule: &str, host: &str, port: u16) -> Option<String> {
        let rule: ResolveRule = rule.parse().unwrap();
        rule.address_of(&HostName::parse(host).unwrap(), port).map(|a| a.to_string())
    }

    #[test]
    fn rules_name_hosts_ports_and_addresses() {
        for (rule, host, port, address) in [
            ("a.example:443:127.0.0.1", "a.example", 443, Some("127.0.0.1:443")),
            ("a.example:443:127.0.0.1:8443", "A.Example.", 443, Some("127.0.0.1:8443")),
            ("a.example:443:127.0.0.1", "a.example", 80, None),
            ("a.example:443:127.0.0.1", "b.example", 443, None),
            ("*:443:127.0.0.1:9", "b.example", 443, Some("127.0.0.1:9")),
            ("*:*:[::1]:9", "b.example", 8080, Some("[::1]:9")),
            ("[2001:db8::1]:*:[::1]", "2001:db8::1", 7, Some("[::1]:7")),
        ] {
            assert_eq!(find(rule, host, port).as_deref(), address, "{rule} {host}:{port}");
        }
    }

    #[test]
    fn malformed_rules_say_why() {
        for rule in ["", "a", "a:1", "a:b:127.0.0.1", "a:1:nowhere", "a:1:127.0.0.1:x", "a:1:::1"] {
            assert!(rule.parse::<ResolveRule>().is_err(), "{rule}");
        }
    }
}
