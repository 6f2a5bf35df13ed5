//! The one canonical form of a host name: what is checked against a list is what is dialled.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A host in its one canonical form: a name in lower-case ASCII (IDNA applied) without trailing
/// dot, or an IP address in its usual text, IPv6 without brackets.
///
/// Every spelling that a resolver would take for the same host gives the same value: `127.1`,
/// `0x7f.0.0.1` and `2130706433` are `127.0.0.1` (WHATWG URL, "IPv4 parser"), and an IPv4-mapped
/// IPv6 address is the IPv4 address that it reaches.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostName {
    text: Box<str>,
    ip: Option<IpAddr>,
}

impl HostName {
    /// Reads a host as it stands in a request, a client hello or a list (without port).
    ///
    /// # Errors
    /// When it is neither a name that DNS can carry nor an IP address.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        if let Some(rest) = text.strip_prefix('[') {
            let inner = rest.strip_suffix(']').ok_or(HostError::Brackets)?;
            return ipv6(inner);
        }
        if text.contains(':') {
            return ipv6(text);
        }
        let ascii = to_ascii(text)?;
        let name = ascii.strip_suffix('.').unwrap_or(&ascii);
        check_labels(name)?;
        if ends_in_number(name) {
            return ipv4(name).map(|ip| Self::from(IpAddr::V4(ip))).ok_or(HostError::Ipv4);
        }
        Ok(Self { text: name.into(), ip: None })
    }

    /// The canonical text; an IPv6 address without brackets.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The address, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.ip
    }
}

impl From<IpAddr> for HostName {
    fn from(ip: IpAddr) -> Self {
        let ip = ip.to_canonical();
        Self { text: ip.to_string().into(), ip: Some(ip) }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// Why a text is not a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Nothing there.
    #[error("the host is empty")]
    Empty,
    /// A label is empty, as in `a..b`.
    #[error("a label of the host name is empty")]
    EmptyLabel,
    /// RFC 1035, 2.3.4: 63 octets a label, 253 characters the name.
    #[error("the host name is longer than DNS allows")]
    TooLong,
    /// A character that no host name has.
    #[error("the host name has a character that host names cannot have")]
    Character,
    /// Not a name that IDNA (UTS 46) can map.
    #[error("the host name is not valid under IDNA")]
    Idna,
    /// Ends in a number, so resolvers take it for IPv4, but it is none.
    #[error("the host ends in a number but is not an IPv4 address")]
    Ipv4,
    /// Has colons but is not IPv6.
    #[error("the host has colons but is not an IPv6 address")]
    Ipv6,
    /// Opens a bracket and does not close it.
    #[error("the brackets around the IPv6 address do not match")]
    Brackets,
}

fn ipv6(text: &str) -> Result<HostName, HostError> {
    let ip: Ipv6Addr = text.parse().map_err(|_| HostError::Ipv6)?;
    Ok(HostName::from(IpAddr::V6(ip)))
}

/// Lower-case ASCII of a name. Plain ASCII names, nearly all of them, skip the IDNA tables.
fn to_ascii(text: &str) -> Result<Cow<'_, str>, HostError> {
    let plain = text.bytes().all(is_name_byte);
    let has_ace_label = text.as_bytes().windows(4).any(|w| w.eq_ignore_ascii_case(b"xn--"));
    if plain && !has_ace_label {
        return Ok(if text.bytes().any(|b| b.is_ascii_uppercase()) {
            Cow::Owned(text.to_ascii_lowercase())
        } else {
            Cow::Borrowed(text)
        });
    }
    if text.is_ascii() && !plain {
        return Err(HostError::Character);
    }
    let mapped = idna::domain_to_ascii_cow(text.as_bytes(), idna::AsciiDenyList::URL)
        .map_err(|_| HostError::Idna)?;
    if !mapped.bytes().all(is_name_byte) {
        return Err(HostError::Character);
    }
    Ok(mapped)
}

/// Letters, digits, hyphen and dot; the underscore too, since names such as `_dmarc` exist.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

fn check_labels(name: &str) -> Result<(), HostError> {
    if name.is_empty() {
        return Err(HostError::Empty);
    }
    if name.len() > 253 {
        return Err(HostError::TooLong);
    }
    name.split('.').try_for_each(|label| match label.len() {
        0 => Err(HostError::EmptyLabel),
        1..=63 => Ok(()),
        _ => Err(HostError::TooLong),
    })
}

/// WHATWG URL, "ends in a number": then the host is IPv4 or nothing.
fn ends_in_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    last.bytes().all(|b| b.is_ascii_digit()) || ipv4_number(last).is_some()
}

/// WHATWG URL, "IPv4 parser": one to four numbers, the last fills the remaining octets.
fn ipv4(name: &str) -> Option<Ipv4Addr> {
    let mut numbers = [0_u64; 4];
    let mut count = 0;
    for part in name.split('.') {
        *numbers.get_mut(count)? = ipv4_number(part)?;
        count += 1;
    }
    let (last, leading) = numbers[..count].split_last()?;
    let mut address = *last;
    if address >= 1 << (8 * (5 - count)) {
        return None;
    }
    for (place, number) in leading.iter().enumerate() {
        if *number > 255 {
            return None;
        }
        address |= number << (8 * (3 - place));
    }
    u32::try_from(address).ok().map(Ipv4Addr::from)
}

/// WHATWG URL, "IPv4 number parser": decimal, `0x` hexadecimal, or octal after a leading zero.
fn ipv4_number(part: &str) -> Option<u64> {
    let (digits, radix) = if let Some(hex) = part.strip_prefix("0x") {
        (if hex.is_empty() { "0" } else { hex }, 16)
    } else if part.len() > 1 && part.starts_with('0') {
        (&part[1..], 8)
    } else {
        (part, 10)
    };
    // `from_str_radix` would take a sign.
    if !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_has_one_form() {
        for (text, canonical) in [
            ("example.com", "example.com"),
            ("EXAMPLE.Com.", "example.com"),
            ("localhost", "localhost"),
            ("_dmarc.example.com", "_dmarc.example.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.example", "xn--bcher-kva.example"),
            ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
            ("example。com", "example.com"),
            ("ｅxample.com", "example.com"),
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1.", "127.0.0.1"),
            ("127.1", "127.0.0.1"),
            ("0x7f.0.0.1", "127.0.0.1"),
            ("0X7F.1", "127.0.0.1"),
            ("2130706433", "127.0.0.1"),
            ("0177.0.0.01", "127.0.0.1"),
            ("１２７.0.0.1", "127.0.0.1"),
            ("192.168.257", "192.168.1.1"),
            ("0", "0.0.0.0"),
            ("[::1]", "::1"),
            ("::1", "::1"),
            ("[0:0:0:0:0:0:0:1]", "::1"),
            ("[::FFFF:127.0.0.1]", "127.0.0.1"),
            ("2001:DB8::0", "2001:db8::"),
            ("1e100.net", "1e100.net"),
            ("127.0.0.1.nip.io", "127.0.0.1.nip.io"),
        ] {
            let host = HostName::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(host.as_str(), canonical, "{text}");
            assert_eq!(host.ip(), canonical.parse().ok(), "{text}");
            assert_eq!(HostName::parse(host.as_str()), Ok(host), "{text}");
        }
    }

    #[test]
    fn what_is_no_host() {
        let long_label = format!("{}.com", "a".repeat(64));
        let long_name = "a.".repeat(127) + "com";
        for (text, error) in [
            ("", HostError::Empty),
            (".", HostError::Empty),
            ("a..b", HostError::EmptyLabel),
            (".a", HostError::EmptyLabel),
            ("a..", HostError::EmptyLabel),
            (&long_label, HostError::TooLong),
            (&long_name, HostError::TooLong),
            ("a b", HostError::Character),
            ("a/b", HostError::Character),
            ("a@b", HostError::Character),
            ("a%2eb", HostError::Character),
            ("a\0b", HostError::Character),
            ("*.example.com", HostError::Character),
            ("xn--a", HostError::Idna),
            ("256.1.1.1", HostError::Ipv4),
            ("1.2.3.4.5", HostError::Ipv4),
            ("09.0.0.1", HostError::Ipv4),
            ("a.1", HostError::Ipv4),
            ("4294967296", HostError::Ipv4),
            ("[::1", HostError::Brackets),
            ("[127.0.0.1]", HostError::Ipv6),
            ("fe80::1%eth0", HostError::Ipv6),
            ("example.com:443", HostError::Ipv6),
        ] {
            assert_eq!(HostName::parse(text), Err(error), "{text}");
        }
    }
}
