//! Hiding credentials on the pages; the raw download keeps them whole.
//!
//! By name, not by value: well-known fields, and whatever calls itself a token, secret, key or auth.

use std::borrow::Cow;

/// In names of fields and query parameters; with these also `authorization`, `x-api-key`,
/// `x-goog-api-key`, `x-auth-token`, `x-amz-security-token`. Cookies have their own way.
const PARTS: [&str; 4] = ["token", "secret", "key", "auth"];
/// Further names of query parameters that carry credentials.
const PARAMETERS: [&str; 4] = ["sig", "signature", "password", "x-amz-credential"];
/// Fields whose value is a target with a query of its own.
const TARGETS: [&str; 3] = ["location", "content-location", "referer"];
/// Words before a credential that are none themselves (RFC 9110, section 11.4).
const SCHEMES: [&str; 3] = ["bearer", "basic", "token"];

/// How many characters of a credential stay readable, to tell one from another…
const SHOWN: usize = 4;
/// …provided that it is long enough for these to give nothing away.
const LENGTH_MIN: usize = 16;

/// The value of a field as the page may show it.
pub(crate) fn field<'a>(name: &str, value: &'a str) -> Cow<'a, str> {
    if name.eq_ignore_ascii_case("cookie") {
        let pairs: Vec<_> = value.split("; ").map(pair).collect();
        return Cow::Owned(pairs.join("; "));
    }
    if name.eq_ignore_ascii_case("set-cookie") {
        // The attributes say whom the cookie is for, and are no secret.
        let (cookie, attributes) = value.split_at(value.find(';').unwrap_or(value.len()));
        return Cow::Owned(format!("{}{attributes}", pair(cookie)));
    }
    let is_target = TARGETS.iter().any(|target| name.eq_ignore_ascii_case(target));
    if is_secret(name) {
        Cow::Owned(credential(value))
    } else if is_target {
        target(value)
    } else {
        Cow::Borrowed(value)
    }
}

/// A request target with the credentials of its query and its user part masked.
pub(crate) fn target(target: &str) -> Cow<'_, str> {
    let target = without_user(target);
    let Some((path, query)) = target.split_once('?') else { return target };
    let masked: Vec<_> = query.split('&').map(parameter).collect();
    if masked.iter().all(|parameter| matches!(parameter, Cow::Borrowed(_))) {
        return target;
    }
    Cow::Owned(format!("{path}?{}", masked.join("&")))
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    PARTS.iter().any(|part| name.contains(part))
}

fn credential(value: &str) -> String {
    let (scheme, secret) = match value.split_once(' ') {
        Some((word, rest)) if SCHEMES.contains(&word.to_ascii_lowercase().as_str()) => {
            (Some(word), rest)
        }
        _ => (None, value),
    };
    let length = secret.chars().count();
    let shown = if length < LENGTH_MIN { 0 } else { SHOWN };
    let tail: String = secret.chars().skip(length - shown).collect();
    match scheme {
        Some(scheme) => format!("{scheme} ••••••{tail}"),
        None => format!("••••••{tail}"),
    }
}

/// A cookie: its name stays.
fn pair(pair: &str) -> String {
    match pair.split_once('=') {
        Some((name, value)) => format!("{name}={}", credential(value)),
        None => credential(pair),
    }
}

fn parameter(parameter: &str) -> Cow<'_, str> {
    match parameter.split_once('=') {
        Some((name, value)) if is_secret_parameter(name) => {
            Cow::Owned(format!("{name}={}", credential(value)))
        }
        _ => Cow::Borrowed(parameter),
    }
}

fn is_secret_parameter(name: &str) -> bool {
    // Percent-encoding can hide a name from us, and from its reader as well; nobody does it.
    is_secret(name) || PARAMETERS.contains(&name.to_ascii_lowercase().as_str())
}

/// `http://user:password@host/…` in absolute form.
fn without_user(target: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = target.split_once("://") else { return Cow::Borrowed(target) };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match authority.rfind('@') {
        Some(end) if !scheme.contains('/') => {
            Cow::Owned(format!("{scheme}://••••••{}", &rest[end..]))
        }
        _ => Cow::Borrowed(target),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "made-up-0123456789abcdef";

    #[test]
    fn credentials_keep_their_last_four_characters() {
        for name in [
            "Authorization",
            "proxy-authorization",
            "Cookie",
            "SET-COOKIE",
            "x-api-key",
            "api-key",
            "X-Goog-Api-Key",
            "X-Auth-Token",
            "Client-Secret",
            "x-amz-security-token",
        ] {
            assert_eq!(field(name, SECRET), "••••••cdef", "{name}");
        }
        assert_eq!(field("authorization", "Bearer made-up-0123456789abcdef"), "Bearer ••••••cdef");
        assert_eq!(field("authorization", "secretscheme made-up-value"), "••••••alue");
    }

    #[test]
    fn cookies_keep_their_names_and_attributes() {
        let set = "sid=made-up-0123456789abcdef; Path=/; HttpOnly";
        assert_eq!(field("Set-Cookie", set), "sid=••••••cdef; Path=/; HttpOnly");
        let sent = "sid=made-up-0123456789abcdef; theme=dark; odd";
        assert_eq!(field("cookie", sent), "sid=••••••cdef; theme=••••••; ••••••");
    }

    #[test]
    fn short_credentials_keep_nothing() {
        assert_eq!(field("x-api-key", "fifteen-chars-x"), "••••••");
        assert_eq!(field("x-api-key", ""), "••••••");
        assert_eq!(field("cookie", "ключ-ключ-ключ-ключ"), "••••••ключ");
    }

    #[test]
    fn fields_that_hold_targets_are_masked_like_targets() {
        let location = "https://h.example/cb?code=7&access_token=made-up-0123456789abcdef";
        assert_eq!(
            field("Location", location),
            "https://h.example/cb?code=7&access_token=••••••cdef"
        );
    }

    #[test]
    fn other_fields_stay() {
        for name in ["content-type", "host", "user-agent", "anthropic-version"] {
            assert_eq!(field(name, SECRET), SECRET);
        }
    }

    #[test]
    fn targets_lose_their_credentials() {
        for (given, shown) in [
            ("/v1/models", "/v1/models"),
            ("/v1/models?page=2&limit=10", "/v1/models?page=2&limit=10"),
            ("/g?alt=sse&key=made-up-0123456789abcdef", "/g?alt=sse&key=••••••cdef"),
            ("/g?access_token=short#f", "/g?access_token=••••••"),
            ("/g?sig=made-up-0123456789abcdef&b", "/g?sig=••••••cdef&b"),
            ("http://me:made-up@h.example/p", "http://••••••@h.example/p"),
            ("http://h.example/a@b", "http://h.example/a@b"),
            ("/go?to=http://a@b/", "/go?to=http://a@b/"),
        ] {
            assert_eq!(target(given), shown);
        }
    }
}
