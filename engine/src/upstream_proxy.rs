//! The proxies that stand between the gate and the network (a company's, mostly): how one is
//! written, and which one a request goes through.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use agent_gate_store::HostName;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::no_proxy::NoProxy;
use crate::proto::head::ResponseHead;

/// A proxy, as a URL names it: `http://user:password@proxy.example:3128`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct UpstreamProxy {
    /// Whether the proxy itself is spoken to over TLS (`https://`).
    tls: bool,
    host: HostName,
    port: u16,
    /// The value of `Proxy-Authorization`.
    authorization: Option<Box<str>>,
    /// The password as it is written and as it is meant: what no message may show.
    secrets: Vec<Box<str>>,
    /// What named it: an option, a variable, a line of the settings.
    setting: Box<str>,
}

/// Why a text names no proxy. The text itself is not shown: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {reason}")]
pub struct UpstreamProxyError {
    setting: String,
    reason: Cow<'static, str>,
}

impl UpstreamProxy {
    /// Reads a proxy's URL. Without a scheme it is `http://`, as all tools read it; without a port
    /// it is the scheme's. `setting` says where it stands, for messages.
    ///
    /// # Errors
    /// When it is another kind of proxy, or no URL of one.
    pub fn parse(url: &str, setting: &str) -> Result<Self, UpstreamProxyError> {
        let fail = |reason| UpstreamProxyError { setting: setting.to_owned(), reason };
        let (tls, rest) = split_scheme(url.trim()).map_err(fail)?;
        let fail = |reason: &'static str| fail(Cow::Borrowed(reason));
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (userinfo, place) = match authority.rsplit_once('@') {
            Some((userinfo, place)) => (Some(userinfo), place),
            None => (None, authority),
        };
        if place.contains(['/', '?', '#']) || userinfo.is_some_and(|u| u.contains(['/', '?', '#']))
        {
            return Err(fail(PATH));
        }
        let (host, port) = split_port(place).ok_or(fail("the port of the proxy is no number"))?;
        let host = HostName::parse(host).map_err(|_| fail("the proxy has no usable host name"))?;
        let port = port.unwrap_or(if tls { 443 } else { 80 });
        let credentials = userinfo.map(Credentials::parse).transpose().map_err(fail)?;
        let (authorization, secrets) = credentials.map(Credentials::finish).unzip();
        Ok(Self {
            tls,
            host,
            port,
            authorization,
            secrets: secrets.unwrap_or_default(),
            setting: setting.into(),
        })
    }

    /// Whether the proxy itself is spoken to over TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Its host.
    pub fn host(&self) -> &HostName {
        &self.host
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host:port`, which is all that messages and records say of it.
    pub fn authority(&self) -> String {
        authority(&self.host, self.port)
    }

    /// What named it.
    pub fn setting(&self) -> &str {
        &self.setting
    }

    /// The value of `Proxy-Authorization` (RFC 9110, section 11.7.2); a secret.
    pub(crate) fn authorization(&self) -> Option<&str> {
        self.authorization.as_deref()
    }

    /// Why this proxy lets nothing through, in words a user can act on. `reason` are its own.
    pub(crate) fn words_for(&self, refusal: &ResponseHead, reason: &str) -> String {
        let reason = self.redact(reason);
        if refusal.status != 407 {
            return format!("{} refuses: {reason}", self.name());
        }
        let offered: Vec<_> = refusal.head.values("proxy-authenticate").map(scheme_of).collect();
        let basic = offered.iter().any(|scheme| scheme.eq_ignore_ascii_case("basic"));
        let setting = &self.setting;
        if !offered.is_empty() && !basic {
            let offered = self.redact(&offered.join(", "));
            return format!(
                "{} wants credentials by {offered}, and agent-gate knows Basic alone ({reason}); a \
                 local helper such as cntlm or px can stand between",
                self.name()
            );
        }
        match self.authorization {
            Some(_) => {
                format!("{} does not accept user and password of {setting} ({reason})", self.name())
            }
            None => format!(
                "{} wants credentials ({reason}): write them into {setting} as \
                 http://USER:PASSWORD@HOST:PORT",
                self.name()
            ),
        }
    }

    /// How messages call it.
    pub(crate) fn name(&self) -> String {
        format!("the upstream proxy {} ({})", self.authority(), self.setting)
    }

    /// `text` without this proxy's credentials, should it have them: a proxy may send back what
    /// it was sent.
    pub(crate) fn redact(&self, text: &str) -> String {
        let of_field = self.authorization.as_deref().and_then(|value| value.split(' ').nth(1));
        let mut text = text.to_owned();
        for secret in of_field.into_iter().chain(self.secrets.iter().map(|s| &**s)) {
            text = text.replace(secret, REDACTED);
        }
        text
    }
}

/// The URL without credentials.
impl fmt::Display for UpstreamProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

impl fmt::Debug for UpstreamProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} ({})", self.setting)
    }
}

/// The scheme of a challenge (RFC 9110, section 11.3).
fn scheme_of(challenge: &[u8]) -> String {
    let text = String::from_utf8_lossy(challenge);
    text.split([' ', ',']).next().unwrap_or_default().to_owned()
}

const REDACTED: &str = "***";

const PATH: &str = "a proxy is named by host and port alone, without a path (write `/`, `?`, `#` \
                    and `@` of a password as %2F, %3F, %23 and %40)";

/// `host:port` as in a request target; IPv6 in brackets.
pub(crate) fn authority(host: &HostName, port: u16) -> String {
    match host.ip() {
        Some(ip) if ip.is_ipv6() => format!("[{ip}]:{port}"),
        _ => format!("{host}:{port}"),
    }
}

/// The same in an `http://` URL, where port 80 goes without saying.
pub(crate) fn http_authority(host: &HostName, port: u16) -> String {
    let authority = authority(host, port);
    authority.strip_suffix(":80").map(str::to_owned).unwrap_or(authority)
}

/// Whether the URL says TLS, and what follows its scheme.
fn split_scheme(url: &str) -> Result<(bool, &str), Cow<'static, str>> {
    let Some((scheme, rest)) = url.split_once("://") else { return Ok((false, url)) };
    match scheme {
        _ if scheme.eq_ignore_ascii_case("http") => Ok((false, rest)),
        _ if scheme.eq_ignore_ascii_case("https") => Ok((true, rest)),
        _ if scheme.bytes().all(|b| b.is_ascii_alphanumeric()) => Err(Cow::Owned(format!(
            "{scheme}:// proxies are not spoken to, only http:// and https://"
        ))),
        _ => Err(Cow::Borrowed("not the URL of a proxy, such as http://proxy.example:3128")),
    }
}

/// Host and port; `None` when there is a port that is none.
fn split_port(place: &str) -> Option<(&str, Option<u16>)> {
    match place.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => Some((host, Some(parse_port(port)?))),
        _ => Some((place, None)),
    }
}

fn parse_port(port: &str) -> Option<u16> {
    port.parse().ok().filter(|&port| port != 0)
}

/// User and password (RFC 7617).
struct Credentials<'a> {
    user: String,
    password: String,
    password_as_written: &'a str,
}

impl<'a> Credentials<'a> {
    fn parse(userinfo: &'a str) -> Result<Self, &'static str> {
        let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
        let user_decoded = percent_decoded(user).ok_or(NOT_DECODED)?;
        let decoded = percent_decoded(password).ok_or(NOT_DECODED)?;
        if user_decoded.contains(':') {
            return Err("a user name with a colon cannot be sent to a proxy");
        }
        if [&user_decoded, &decoded].iter().any(|text| text.chars().any(char::is_control)) {
            return Err("user and password may have no control characters");
        }
        Ok(Self { user: user_decoded, password: decoded, password_as_written: password })
    }

    /// The field's value, and what is to be kept secret besides it.
    fn finish(self) -> (Box<str>, Vec<Box<str>>) {
        let Self { user, password, password_as_written } = self;
        let value = format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")));
        // A replacement for every "a" in a text helps nobody.
        let secrets = [&*password, password_as_written]
            .into_iter()
            .filter(|secret| secret.len() >= SECRET_BYTES_MIN)
            .map(Box::from)
            .collect();
        (value.into(), secrets)
    }
}

/// Passwords shorter than this are not looked for in texts, in bytes.
const SECRET_BYTES_MIN: usize = 4;

const NOT_DECODED: &str = "user or password is not percent-encoded UTF-8";

/// RFC 3986, section 2.1.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (&[high, low], tail) = rest.split_first_chunk()?;
        let digit = |d: u8| char::from(d).to_digit(16).and_then(|d| u8::try_from(d).ok());
        bytes.push(digit(high)? * 16 + digit(low)?);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

/// Which proxy a run's requests go through.
#[derive(Debug, Clone, Default)]
pub struct UpstreamProxies {
    /// For TLS, and for tunnels that are passed through unread.
    pub https: Option<Arc<UpstreamProxy>>,
    /// For clear text.
    pub http: Option<Arc<UpstreamProxy>>,
    /// Who is reached without.
    pub except: NoProxy,
}

impl UpstreamProxies {
    /// The proxy on the way to `host:port`. This machine itself is never behind one.
    pub fn on_the_way_to(
        &self,
        tls: bool,
        host: &HostName,
        port: u16,
    ) -> Option<&Arc<UpstreamProxy>> {
        let proxy = if tls { &self.https } else { &self.http }.as_ref()?;
        (!is_this_machine(host) && !self.except.names(host, port)).then_some(proxy)
    }
}

/// Loopback addresses and the names that are bound to them (RFC 6761, section 6.3).
fn is_this_machine(host: &HostName) -> bool {
    match host.ip() {
        Some(ip) => ip.is_loopback() || ip.is_unspecified(),
        None => host.as_str() == "localhost" || host.as_str().ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<UpstreamProxy, String> {
        UpstreamProxy::parse(url, "HTTPS_PROXY").map_err(|error| error.to_string())
    }

    fn basic(user_and_password: &str) -> String {
        format!("Basic {}", BASE64_STANDARD.encode(user_and_password))
    }

    #[test]
    fn urls_of_proxies() {
        for (url, shown, credentials) in [
            ("http://proxy.corp:3128", "http://proxy.corp:3128", None),
            ("HTTP://Proxy.Corp.:3128/", "http://proxy.corp:3128", None),
            ("proxy.corp:3128", "http://proxy.corp:3128", None),
            ("proxy.corp", "http://proxy.corp:80", None),
            (" https://proxy.corp ", "https://proxy.corp:443", None),
            ("http://[::1]:8080", "http://[::1]:8080", None),
            ("http://[::1]", "http://[::1]:80", None),
            ("http://127.0.0.1:1", "http://127.0.0.1:1", None),
            ("http://user:secret@p:1", "http://p:1", Some("user:secret")),
            ("user:secret@p:1", "http://p:1", Some("user:secret")),
            ("http://user@p:1", "http://p:1", Some("user:")),
            ("http://a%40b:p%3a%2F%20@p:1", "http://p:1", Some("a@b:p:/ ")),
            ("http://u:p@ss@p:1", "http://p:1", Some("u:p@ss")),
            ("http://u:gr%C3%BC%C3%9F@p:1", "http://p:1", Some("u:grüß")),
            ("http://:@p:1", "http://p:1", Some(":")),
        ] {
            let proxy = parse(url).unwrap_or_else(|e| panic!("{url}: {e}"));
            assert_eq!(proxy.to_string(), shown, "{url}");
            assert_eq!(proxy.authorization(), credentials.map(basic).as_deref(), "{url}");
            assert_eq!(format!("{proxy:?}"), format!("{shown} (HTTPS_PROXY)"), "{url}");
        }
    }

    #[test]
    fn what_is_no_proxy_says_why_and_shows_no_secret() {
        for (url, reason) in [
            ("socks5://user:secret@p:1", "socks5:// proxies are not spoken to"),
            ("SOCKS5H://p:1", "proxies are not spoken to"),
            ("user:secret://p", "not the URL of a proxy"),
            ("http://", "no usable host"),
            ("", "no usable host"),
            ("http://user:secret@", "no usable host"),
            ("http://user:secret@p:x", "the port"),
            ("http://p:0", "the port"),
            ("http://p:99999", "the port"),
            ("http://p:", "the port"),
            ("http://user:se/cret@p:1", "without a path"),
            ("http://user:secret/@p:1", "without a path"),
            ("http://wpad.corp/wpad.dat", "without a path"),
            ("http://p:1?x", "without a path"),
            ("http://user:%zz@p:1", "percent-encoded"),
            ("http://user:secret%2@p:1", "percent-encoded"),
            ("http://user:%ff@p:1", "percent-encoded"),
            ("http://us%3aer:secret@p:1", "colon"),
            ("http://user:secret%0d%0aX: y@p:1", "control"),
            ("http://a b:1", "no usable host"),
        ] {
            let error = parse(url).unwrap_err();
            assert!(error.starts_with("HTTPS_PROXY: "), "{url}: {error}");
            assert!(error.contains(reason), "{url}: {error}");
            assert!(!error.contains("secret") && !error.contains("cret@"), "{url}: {error}");
        }
    }

    #[test]
    fn what_a_proxy_sends_back_is_redacted() {
        let proxy = parse("http://user:s%C3%A9cret@p:1").unwrap();
        let sent = basic("user:sécret");
        let text = format!("no {sent} s%C3%A9cret sécret user");
        assert_eq!(proxy.redact(&text), "no Basic *** *** *** user");
        assert_eq!(parse("http://u:a@p:1").unwrap().redact("a cat"), "a cat");
    }

    #[test]
    fn refusals_say_what_to_do() {
        for (url, fields, expected) in [
            ("http://p:1", "407 X\r\n", "wants credentials (why ***): write them into HTTPS_PROXY"),
            (
                "http://u:pass@p:1",
                "407 X\r\nProxy-Authenticate: Basic realm=\"x\"\r\n",
                "does not accept user and password of HTTPS_PROXY (why ***)",
            ),
            (
                "http://u:pass@p:1",
                "407 X\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n",
                "by Negotiate, NTLM, and agent-gate knows Basic alone",
            ),
            ("http://u:pass@p:1", "403 X\r\n", "(HTTPS_PROXY) refuses: why ***"),
        ] {
            let text = format!("HTTP/1.1 {fields}\r\n");
            let (head, _) = ResponseHead::parse(text.as_bytes()).unwrap().unwrap();
            let reason = if url.contains('@') { "why pass" } else { "why ***" };
            let words = parse(url).unwrap().words_for(&head, reason);
            assert!(words.starts_with("the upstream proxy p:1 (HTTPS_PROXY) "), "{words}");
            assert!(words.contains(expected), "{words}");
        }
    }

    #[test]
    fn which_proxy_for_which_target() {
        let proxy = |url| Some(Arc::new(parse(url).unwrap()));
        let mut proxies = UpstreamProxies {
            https: proxy("http://secure:1"),
            http: proxy("http://plain:1"),
            except: NoProxy::default(),
        };
        proxies.except.add("direct.example").unwrap();
        for (tls, host, expected) in [
            (true, "a.example", Some("secure:1")),
            (false, "a.example", Some("plain:1")),
            (true, "direct.example", None),
            (true, "localhost", None),
            (true, "sub.localhost", None),
            (false, "127.9.9.9", None),
            (false, "::1", None),
            (false, "0.0.0.0", None),
            (false, "10.0.0.1", Some("plain:1")),
        ] {
            let host = HostName::parse(host).unwrap();
            let found = proxies.on_the_way_to(tls, &host, 443).map(|proxy| proxy.authority());
            assert_eq!(found.as_deref(), expected, "{tls} {host}");
        }
        proxies.http = None;
        assert!(proxies.on_the_way_to(false, &HostName::parse("a.example").unwrap(), 80).is_none());
    }
}
