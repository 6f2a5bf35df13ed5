//! Who is reached without an upstream proxy.

use agent_gate_store::{HostList, HostName};

/// `NO_PROXY`: who is reached directly. There is no standard; this reads it as curl and Go do.
///
/// | entry | names |
/// | --- | --- |
/// | `example.com`, `.example.com` | the host and all below it |
/// | `*.example.com` | all below it |
/// | `192.0.2.1`, `2001:db8::1`, `192.0.2.0/24` | targets that are written as such an address |
/// | a name or an address with `:port` | the same on that port |
/// | `*` | everything |
#[derive(Debug, Clone, Default)]
pub struct NoProxy {
    everything: bool,
    hosts: Vec<HostList>,
}

impl NoProxy {
    /// Adds an entry.
    ///
    /// # Errors
    /// When it is none of these; the reason names it.
    pub fn add(&mut self, entry: &str) -> Result<(), String> {
        let entry = entry.trim();
        // A host list would take what follows the `#` for a comment.
        if entry.is_empty() || entry.contains('#') {
            return Err(format!("`{entry}` names no host"));
        }
        if entry == "*" {
            self.everything = true;
        } else {
            self.hosts.push(HostList::parse(&lines(entry)).map_err(|error| error.reason)?);
        }
        Ok(())
    }

    /// Whether an entry names this host.
    pub fn names(&self, host: &HostName, port: u16) -> bool {
        self.everything || self.hosts.iter().any(|list| list.matches(host, port))
    }
}

/// The lines of a host list that say what `entry` says.
fn lines(entry: &str) -> String {
    let name = entry.strip_prefix('.').unwrap_or(entry);
    let host = name.split(':').next().unwrap_or(name);
    let is_name = HostName::parse(host).is_ok_and(|host| host.ip().is_none());
    if is_name && !name.contains('/') { format!("{name}\n*.{name}") } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_reached_without_a_proxy() {
        for (entry, host, port, named) in [
            ("example.com", "example.com", 443, true),
            ("example.com", "a.b.example.com", 443, true),
            ("example.com", "notexample.com", 443, false),
            ("Example.COM.", "example.com", 443, true),
            (".example.com", "example.com", 443, true),
            (".example.com", "a.example.com", 443, true),
            ("*.example.com", "a.example.com", 443, true),
            ("*.example.com", "example.com", 443, false),
            ("example.com:8443", "a.example.com", 8443, true),
            ("example.com:8443", "example.com", 443, false),
            ("*", "anything.example", 1, true),
            ("192.0.2.1", "192.0.2.1", 443, true),
            ("192.0.2.1", "192.0.2.2", 443, false),
            ("192.0.2.1:80", "192.0.2.1", 443, false),
            ("192.0.2.0/24", "192.0.2.77", 443, true),
            ("192.0.2.0/24", "192.0.3.77", 443, false),
            ("2001:db8::1", "2001:db8::1", 443, true),
            ("[2001:db8::1]:80", "2001:db8::1", 80, true),
            ("2001:db8::/32", "2001:db8::9", 443, true),
            ("10", "10.example", 443, false),
        ] {
            let mut list = NoProxy::default();
            list.add(entry).unwrap_or_else(|e| panic!("{entry}: {e}"));
            let host = HostName::parse(host).unwrap();
            assert_eq!(list.names(&host, port), named, "{entry}: {host}:{port}");
        }
        for entry in ["<local>", "127.*", "a b", "", "exa*mple.com", "a.example#b", "1.2.3.4/8"] {
            assert!(NoProxy::default().add(entry).is_err(), "{entry}");
        }
    }
}
