//! The three host lists: what each line may say, and what a list matches.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use crate::error::Error;
use crate::host::HostName;

/// The three lists of one configuration directory.
#[derive(Debug, Clone, Default)]
pub struct HostLists {
    /// `allowlist.txt`: with enforcement on, nothing else passes.
    pub allow: HostList,
    /// `denylist.txt`: never passes.
    pub deny: HostList,
    /// `passthrough.txt`: passes unread.
    pub pass: HostList,
}

impl HostLists {
    /// Reads the three lists; a missing file is an empty list.
    ///
    /// # Errors
    /// When one cannot be read or has a malformed line, with file and line.
    pub fn load(config_dir: &Path) -> Result<Self, Error> {
        Ok(Self {
            allow: HostList::load(&config_dir.join("allowlist.txt"))?,
            deny: HostList::load(&config_dir.join("denylist.txt"))?,
            pass: HostList::load(&config_dir.join("passthrough.txt"))?,
        })
    }
}

/// One list: a host a line, `#` comments. `example.com` is that host alone, `*.example.com` any
/// host below it; both may end in `:port`. Addresses stand as `192.0.2.1`, `192.0.2.1:443`,
/// `2001:db8::1`, `[2001:db8::1]:443`; networks as `192.0.2.0/24`.
#[derive(Debug, Clone, Default)]
pub struct HostList {
    /// Names and addresses by canonical text.
    exact: HashMap<Box<str>, Ports>,
    /// `*.example.com` as `example.com`.
    below: HashMap<Box<str>, Ports>,
    networks: Vec<Network>,
}

impl HostList {
    /// Reads a list from its text.
    ///
    /// # Errors
    /// At the first malformed line.
    pub fn parse(text: &str) -> Result<Self, LineError> {
        let mut list = Self::default();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (number, line) in text.lines().enumerate() {
            let entry = line.split('#').next().unwrap_or(line).trim();
            if !entry.is_empty() {
                list.add(entry).map_err(|reason| LineError { line: number + 1, reason })?;
            }
        }
        Ok(list)
    }

    /// Reads a list from a file; a missing file is an empty list.
    ///
    /// # Errors
    /// When it cannot be read, is not UTF-8, or has a malformed line, with file and line.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Error::file("read", path)(error)),
        };
        let in_list = |source| Error::List { path: path.to_owned(), source };
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            let line = memchr::memchr_iter(b'\n', &bytes[..error.valid_up_to()]).count() + 1;
            in_list(LineError { line, reason: "not UTF-8".to_owned() })
        })?;
        Self::parse(text).map_err(in_list)
    }

    /// Whether an entry names this host, alone or with this port.
    pub fn matches(&self, host: &HostName, port: u16) -> bool {
        let exact = self.exact.get(host.as_str());
        if exact.is_some_and(|ports| ports.have(port)) {
            return true;
        }
        match host.ip() {
            Some(ip) => self.networks.iter().any(|network| network.holds(ip)),
            None => self.is_below(host.as_str(), port),
        }
    }

    /// Whether an entry names this very address: as `ip:port`, as the address alone, or by a
    /// network that holds it. Entries by host name do not count, whatever they resolve to.
    pub fn names_address(&self, ip: IpAddr, port: u16) -> bool {
        self.matches(&HostName::from(ip), port)
    }

    /// Whether an entry names this very address with this very port (`ip:port`): what it takes to
    /// reach one of the gate's own addresses.
    pub fn names_address_and_port(&self, ip: IpAddr, port: u16) -> bool {
        let ports = self.exact.get(HostName::from(ip).as_str());
        ports.is_some_and(|ports| ports.some.contains(&port))
    }

    /// Whether it has no entry.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.below.is_empty() && self.networks.is_empty()
    }

    fn is_below(&self, name: &str, port: u16) -> bool {
        if self.below.is_empty() {
            return false;
        }
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            if self.below.get(parent).is_some_and(|ports| ports.have(port)) {
                return true;
            }
            rest = parent;
        }
        false
    }

    fn add(&mut self, entry: &str) -> Result<(), String> {
        if entry.contains("://") {
            return Err(format!("`{entry}`: write the host alone, without a scheme"));
        }
        if entry.contains(char::is_whitespace) {
            return Err(format!("`{entry}`: one host a line"));
        }
        if let Some((address, length)) = entry.split_once('/') {
            self.networks.push(Network::parse(entry, address, length)?);
            return Ok(());
        }
        let (host, port) = split_port(entry)?;
        let (map, host) = match host.strip_prefix("*.") {
            Some(parent) => (&mut self.below, parent),
            None if host == "*" => return Err("`*` alone would name every host".to_owned()),
            None => (&mut self.exact, host),
        };
        let wildcard = host.len() < entry.len() && entry.starts_with('*');
        if host.contains('*') {
            return Err(format!("`{entry}`: `*` can only stand first, as in `*.example.com`"));
        }
        let host = HostName::parse(host).map_err(|reason| format!("`{entry}`: {reason}"))?;
        if wildcard && host.ip().is_some() {
            return Err(format!("`{entry}`: write a network as `192.0.2.0/24`"));
        }
        map.entry(host.as_str().into()).or_default().add(port);
        Ok(())
    }
}

/// A malformed line of a list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct LineError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong, with the entry.
    pub reason: String,
}

/// The ports an entry is for.
#[derive(Debug, Clone, Default)]
struct Ports {
    any: bool,
    some: Vec<u16>,
}

impl Ports {
    fn add(&mut self, port: Option<u16>) {
        match port {
            Some(port) => self.some.push(port),
            None => self.any = true,
        }
    }

    fn have(&self, port: u16) -> bool {
        self.any || self.some.contains(&port)
    }
}

/// A network in CIDR form.
#[derive(Debug, Clone, Copy)]
struct Network {
    /// Whether it is of IPv4: `::/0` does not hold IPv4 addresses.
    ipv4: bool,
    /// With the host bits cleared; IPv4 mapped into IPv6, so there is one comparison.
    bits: u128,
    mask: u128,
}

impl Network {
    fn parse(entry: &str, address: &str, length: &str) -> Result<Self, String> {
        let ip: IpAddr = address.trim_matches(['[', ']']).parse().map_err(|_| {
            format!("`{entry}`: not a network as `192.0.2.0/24` (a host stands without a path)")
        })?;
        let length_max = if ip.is_ipv4() { 32 } else { 128 };
        let length: u32 = match length.parse() {
            Ok(length) if length <= length_max => length,
            _ => return Err(format!("`{entry}`: the prefix length is 0 to {length_max}")),
        };
        let host_bits = length_max - length;
        let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        let bits = mapped(ip);
        if bits & !mask != 0 {
            return Err(format!("`{entry}`: the address has bits set beyond the prefix"));
        }
        Ok(Self { ipv4: ip.is_ipv4(), bits, mask })
    }

    fn holds(self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.ipv4 && mapped(ip) & self.mask == self.bits
    }
}

fn mapped(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// Cuts `:port` off. An IPv6 address has a port only after brackets.
fn split_port(entry: &str) -> Result<(&str, Option<u16>), String> {
    let (host, port) = match entry.rsplit_once(':') {
        Some((host, port)) if host.ends_with(']') || !host.contains(':') => (host, port),
        _ => return Ok((entry, None)),
    };
    match port.parse() {
        Ok(port) if port > 0 => Ok((host, Some(port))),
        _ => Err(format!("`{entry}`: the port is 1 to 65535")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> HostName {
        HostName::parse(text).unwrap()
    }

    #[test]
    fn what_a_list_matches() {
        let list = HostList::parse(
            "\u{feff}# ours\r\nExample.com.\n  *.wild.example  # any depth\n\nported.example:8443\n\
             *.both.example:444\n192.0.2.1\n192.0.2.7:80\n[2001:db8::1]:443\n2001:db8::2\n\
             10.0.0.0/8\nfd00::/8\nbücher.example\n",
        )
        .unwrap();
        for (name, port, expected) in [
            ("example.com", 443, true),
            ("EXAMPLE.COM.", 1, true),
            ("www.example.com", 443, false),
            ("wild.example", 443, false),
            ("a.wild.example", 443, true),
            ("a.b.c.wild.example", 443, true),
            ("notwild.example", 443, false),
            ("ported.example", 8443, true),
            ("ported.example", 443, false),
            ("a.both.example", 444, true),
            ("a.both.example", 443, false),
            ("192.0.2.1", 5, true),
            ("0xc0.0.2.1", 5, true),
            ("192.0.2.7", 80, true),
            ("192.0.2.7", 81, false),
            ("[2001:db8::1]", 443, true),
            ("[2001:db8::1]", 444, false),
            ("2001:db8::2", 444, true),
            ("10.255.0.1", 80, true),
            ("[::ffff:10.1.2.3]", 80, true),
            ("11.0.0.1", 80, false),
            ("fdff::1", 80, true),
            ("fe80::1", 80, false),
            ("xn--bcher-kva.example", 80, true),
        ] {
            assert_eq!(list.matches(&host(name), port), expected, "{name}:{port}");
        }
        assert!(!list.is_empty());
        assert!(HostList::parse("# nothing\n\n").unwrap().is_empty());
        assert!(HostList::parse("0.0.0.0/0").unwrap().matches(&host("8.8.8.8"), 1));
        assert!(!HostList::parse("::/0").unwrap().matches(&host("8.8.8.8"), 1));
    }

    #[test]
    fn addresses_are_named_by_address_alone() {
        let list = HostList::parse("localhost\n127.0.0.1:3000\n169.254.0.0/16\n::1").unwrap();
        for (ip, port, named, with_port) in [
            ("127.0.0.1", 3000, true, true),
            ("127.0.0.1", 3001, false, false),
            ("169.254.169.254", 80, true, false),
            ("::1", 80, true, false),
            ("::ffff:127.0.0.1", 3000, true, true),
        ] {
            let ip = ip.parse().unwrap();
            assert_eq!(list.names_address(ip, port), named, "{ip}:{port}");
            assert_eq!(list.names_address_and_port(ip, port), with_port, "{ip}:{port}");
        }
    }

    #[test]
    fn malformed_lines_are_named() {
        for (line, reason) in [
            ("https://example.com", "without a scheme"),
            ("example.com/path", "not a network"),
            ("a b", "one host a line"),
            ("*", "every host"),
            ("*:443", "every host"),
            ("*example.com", "can only stand first"),
            ("a.*.com", "can only stand first"),
            ("*.10.0.0.1", "write a network"),
            ("*.", "empty"),
            ("example.com:0", "1 to 65535"),
            ("example.com:65536", "1 to 65535"),
            ("example.com:https", "1 to 65535"),
            ("[::1]x", "brackets"),
            ("10.0.0.1/8", "beyond the prefix"),
            ("10.0.0.0/33", "0 to 32"),
            ("fd00::/129", "0 to 128"),
            ("10.0.0.0/", "0 to 32"),
            ("256.0.0.1", "not an IPv4"),
            ("a..b", "label"),
        ] {
            let error = HostList::parse(&format!("# first\n\n{line}\nok.example")).unwrap_err();
            assert_eq!(error.line, 3, "{line}");
            assert!(error.reason.contains(reason), "{line}: {}", error.reason);
        }
    }

    #[test]
    fn a_missing_file_is_an_empty_list_and_errors_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        assert!(HostLists::load(dir.path()).unwrap().deny.is_empty());
        fs::write(dir.path().join("denylist.txt"), b"ok.example\n\xff\xfe\n").unwrap();
        let message = HostLists::load(dir.path()).unwrap_err().to_string();
        assert!(message.ends_with("denylist.txt: line 2: not UTF-8"), "{message}");
    }
}
