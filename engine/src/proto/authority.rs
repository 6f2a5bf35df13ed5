//! Whom a request is for: what its target and its Host field say, and whether they agree
//! (RFC 9112, sections 3.2 and 3.3).

use agent_gate_store::HostName;

use super::head::{HeadError, RequestHead};

/// The form of a request target (RFC 9112, section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TargetForm<'a> {
    /// A path and perhaps a query.
    Origin,
    /// A whole URI.
    Absolute {
        /// As sent.
        scheme: &'a str,
        /// With user information, if it was sent.
        authority: &'a str,
        /// Path, query and fragment: what is behind the authority, possibly nothing.
        rest: &'a str,
    },
    /// HOST:PORT, for CONNECT.
    Authority(&'a str),
    /// `*`, for OPTIONS.
    Asterisk,
}

const NO_HOST: HeadError = HeadError::Malformed("no Host field, which HTTP/1.1 requires");
const HOSTS: HeadError = HeadError::Malformed("more than one Host field");
const BAD_HOST: HeadError = HeadError::Malformed("a Host field that is not HOST or HOST:PORT");
const BAD_TARGET: HeadError = HeadError::Malformed("a request target that names no valid host");
const DISAGREE: HeadError =
    HeadError::Malformed("a Host field that names another host than the request target");
const NO_FORM: HeadError =
    HeadError::Malformed("a request target that is neither a path nor a URI");

impl RequestHead {
    /// The one Host value. `None` where it is absent and may be: in HTTP/1.0, and with CONNECT,
    /// which old tools send without any field.
    ///
    /// # Errors
    /// When it is missing, repeated or malformed.
    pub(crate) fn host(&self) -> Result<Option<&str>, HeadError> {
        let mut hosts = self.head.values("host");
        match (hosts.next(), hosts.next()) {
            (Some(_), Some(_)) => Err(HOSTS),
            (Some(host), None) => {
                let host = std::str::from_utf8(host).ok().filter(|host| split(host).is_some());
                host.map(Some).ok_or(BAD_HOST)
            }
            (None, _) if self.head.minor == 0 || self.is_method("CONNECT") => Ok(None),
            (None, _) => Err(NO_HOST),
        }
    }

    /// Whether the request leaves no doubt about whom it is for.
    ///
    /// # Errors
    /// As [`Self::host`]; when the target has no valid form; and when an absolute one names another
    /// host or port than Host.
    pub(crate) fn check_authority(&self) -> Result<(), HeadError> {
        let host = self.host()?;
        // What Host says beside a CONNECT goes nowhere, and some clients leave the port out.
        let TargetForm::Absolute { scheme, authority, .. } = self.target_form()? else {
            return Ok(());
        };
        let target = split(without_user(authority)).ok_or(BAD_TARGET)?;
        let agrees = host.and_then(split).is_none_or(|host| agree(target, host, scheme));
        if agrees { Ok(()) } else { Err(DISAGREE) }
    }

    /// The form of the target.
    ///
    /// # Errors
    /// When it has none that the method may have.
    pub(super) fn target_form(&self) -> Result<TargetForm<'_>, HeadError> {
        let target = self.target_text();
        if self.is_method("CONNECT") {
            return Ok(TargetForm::Authority(target));
        }
        if target.starts_with('/') {
            return Ok(TargetForm::Origin);
        }
        if target == "*" && self.is_method("OPTIONS") {
            return Ok(TargetForm::Asterisk);
        }
        let (scheme, rest) = target.split_once("://").ok_or(NO_FORM)?;
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        if !is_scheme {
            return Err(NO_FORM);
        }
        let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        Ok(TargetForm::Absolute { scheme, authority, rest })
    }
}

/// User information has no business in a request (RFC 9110, section 4.2.4), but some clients
/// leave it in what they send to a proxy. It goes no further, and it is no part of the host.
pub(super) fn without_user(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// Whether two authorities are the same under this scheme.
fn agree(one: (&str, Option<u16>), other: (&str, Option<u16>), scheme: &str) -> bool {
    let default = if scheme.eq_ignore_ascii_case("https") { 443 } else { 80 };
    let host = |text| HostName::parse(text).ok();
    one.1.unwrap_or(default) == other.1.unwrap_or(default)
        && host(one.0).is_some_and(|one| host(other.0) == Some(one))
}

/// Parts HOST, HOST: or HOST:PORT; an IPv6 address stands in brackets (RFC 3986, section 3.2.2).
/// This checks the form; whether there can be such a name is seen where it is looked up.
fn split(text: &str) -> Option<(&str, Option<u16>)> {
    let is_literal = text.starts_with('[');
    let host_end =
        if is_literal { text.find(']')? + 1 } else { text.find(':').unwrap_or(text.len()) };
    let (host, rest) = text.split_at(host_end);
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b) || !b.is_ascii();
    let valid = if is_literal { HostName::parse(host).is_ok() } else { host.bytes().all(is_name) };
    if !valid || host.is_empty() {
        return None;
    }
    match rest.strip_prefix(':') {
        None if rest.is_empty() => Some((host, None)),
        Some("") => Some((host, None)),
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => {
            Some((host, Some(port.parse().ok()?)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> RequestHead {
        RequestHead::parse(text.as_bytes()).unwrap().unwrap().0
    }

    #[test]
    fn what_names_the_host_must_be_in_order() {
        for (line, hosts, expected) in [
            ("GET / HTTP/1.1", &["a.example"][..], Ok(())),
            ("GET / HTTP/1.1", &["A.Example.:8080"], Ok(())),
            ("GET / HTTP/1.1", &["a.example:"], Ok(())),
            ("GET / HTTP/1.1", &["a_b"], Ok(())),
            ("GET / HTTP/1.1", &["[::1]:80"], Ok(())),
            ("GET / HTTP/1.1", &["[::1]"], Ok(())),
            ("GET / HTTP/1.1", &["192.0.2.1:1"], Ok(())),
            ("GET / HTTP/1.1", &["bücher.example"], Ok(())),
            ("GET / HTTP/1.1", &[], Err(NO_HOST)),
            ("GET / HTTP/1.0", &[], Ok(())),
            ("GET / HTTP/1.0", &["a"], Ok(())),
            ("GET / HTTP/1.1", &["a", "a"], Err(HOSTS)),
            ("GET / HTTP/1.0", &["a", "b"], Err(HOSTS)),
            ("GET / HTTP/1.1", &[""], Err(BAD_HOST)),
            ("GET / HTTP/1.1", &["a b"], Err(BAD_HOST)),
            ("GET / HTTP/1.1", &["a,b"], Err(BAD_HOST)),
            ("GET / HTTP/1.1", &["a/b"], Err(BAD_HOST)),
            ("GET / HTTP/1.1", &["user@a"], Err(BAD_HOST)),
            ("GET / HTTP/1.1", &["http://a"], Err(BAD_HOST)),
            ("GET / HTTP/1.1", &["a:b"], Err(BAD_HOST)),
            ("GET / HTTP/1.1", &["a:+80"], Err(BAD_HOST)),
            ("GET / HTTP/1.1", &["a:80:80"], Err(BAD_HOST)),
            ("GET / HTTP/1.1", &["a:99999"], Err(BAD_HOST)),
            ("GET / HTTP/1.1", &["::1"], Err(BAD_HOST)),
            ("GET / HTTP/1.1", &["[::1"], Err(BAD_HOST)),
            ("GET / HTTP/1.1", &["[::1]x"], Err(BAD_HOST)),
            ("OPTIONS * HTTP/1.1", &["a"], Ok(())),
            ("GET * HTTP/1.1", &["a"], Err(NO_FORM)),
            ("GET a HTTP/1.1", &["a"], Err(NO_FORM)),
            ("GET ?a HTTP/1.1", &["a"], Err(NO_FORM)),
            ("GET 1://a HTTP/1.1", &["a"], Err(NO_FORM)),
            ("GET http://a/ HTTP/1.1", &["a"], Ok(())),
            ("GET http://A./ HTTP/1.1", &["a:80"], Ok(())),
            ("GET HTTP://a:80/ HTTP/1.1", &["a"], Ok(())),
            ("GET http://a?b HTTP/1.1", &["a"], Ok(())),
            ("GET http://u:p@a:81 HTTP/1.1", &["a:81"], Ok(())),
            ("GET https://a/ HTTP/1.1", &["a:443"], Ok(())),
            ("GET http://a/ HTTP/1.0", &[], Ok(())),
            ("GET http://a/ HTTP/1.1", &[], Err(NO_HOST)),
            ("GET http://a/ HTTP/1.1", &["b"], Err(DISAGREE)),
            ("GET http://a/ HTTP/1.1", &["a:81"], Err(DISAGREE)),
            ("GET http://a/ HTTP/1.1", &["a:443"], Err(DISAGREE)),
            ("GET http://b@a/ HTTP/1.1", &["b"], Err(DISAGREE)),
            ("GET http://a/ HTTP/1.0", &["b"], Err(DISAGREE)),
            ("GET http:///x HTTP/1.1", &["a"], Err(BAD_TARGET)),
            ("GET http://a:b/ HTTP/1.1", &["a"], Err(BAD_TARGET)),
            ("CONNECT a:443 HTTP/1.0", &[], Ok(())),
            ("CONNECT a:443 HTTP/1.1", &[], Ok(())),
            ("CONNECT a:443 HTTP/1.1", &["a"], Ok(())),
            ("CONNECT [::1]:443 HTTP/1.1", &["[::1]:443"], Ok(())),
            ("CONNECT a:443 HTTP/1.1", &["a", "a"], Err(HOSTS)),
        ] {
            let fields: String = hosts.iter().map(|host| format!("Host: {host}\r\n")).collect();
            let head = request(&format!("{line}\r\n{fields}\r\n"));
            let found = head.check_authority();
            assert_eq!(found, expected, "{line} {hosts:?}");
        }
    }

    #[test]
    fn forms_of_targets() {
        let absolute =
            |authority, rest| Ok(TargetForm::Absolute { scheme: "http", authority, rest });
        for (line, form) in [
            ("GET /a?b#c HTTP/1.1", Ok(TargetForm::Origin)),
            ("GET //a HTTP/1.1", Ok(TargetForm::Origin)),
            ("GET http://a HTTP/1.1", absolute("a", "")),
            ("GET http://a/b?c HTTP/1.1", absolute("a", "/b?c")),
            ("GET http://a?b/c HTTP/1.1", absolute("a", "?b/c")),
            ("GET http://a#b HTTP/1.1", absolute("a", "#b")),
            ("OPTIONS * HTTP/1.1", Ok(TargetForm::Asterisk)),
            ("CONNECT a:1 HTTP/1.1", Ok(TargetForm::Authority("a:1"))),
            ("connect a:1 HTTP/1.1", Err(NO_FORM)),
        ] {
            let head = request(&format!("{line}\r\nHost: a\r\n\r\n"));
            assert_eq!(head.target_form(), form, "{line}");
        }
    }
}
