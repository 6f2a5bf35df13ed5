//! Who may ask: the defence against DNS rebinding, cross-site requests and anything but reading.
//!
//! The pages hold prompts and keys, and any web page the user visits can send requests to a
//! loopback port. What it cannot do is choose the `Host` field (its own name), leave out `Origin`
//! on a cross-origin fetch, or forge `Sec-Fetch-*`.

use crate::http::{Request, Response};

/// Lets the request in, or says why not.
pub(crate) fn check(request: &Request, port: u16) -> Result<(), Response> {
    check_host(request, port)?;
    check_origin(request, port)?;
    check_site(request)?;
    check_method(request)
}

/// A rebound name arrives as `Host: evil.example`; an absolute-form target would override the field
/// (RFC 9112, section 3.2.2), so only origin form passes.
fn check_host(request: &Request, port: u16) -> Result<(), Response> {
    if !request.target().starts_with('/') {
        return Err(Response::text(400, "the request target must be a path"));
    }
    let mut hosts = request.fields("host");
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_ours(host, port) => Ok(()),
        _ => Err(refused("Host")),
    }
}

fn check_origin(request: &Request, port: u16) -> Result<(), Response> {
    let ours = |origin: &str| {
        origin.strip_prefix("http://").is_some_and(|authority| is_ours(authority, port))
    };
    if request.fields("origin").all(ours) { Ok(()) } else { Err(refused("Origin")) }
}

/// Another site may link to a page: that is a navigation of a whole window, which it cannot read
/// (our opener policy cuts even the handle). Everything else from elsewhere is refused; a
/// `same-site` request comes from another port of this machine and is as foreign.
fn check_site(request: &Request) -> Result<(), Response> {
    let is = |name: &'static str, value: &str| request.fields(name).all(|field| field == value);
    let has = |name: &'static str| request.fields(name).next().is_some();
    let navigation = has("sec-fetch-mode")
        && is("sec-fetch-mode", "navigate")
        && has("sec-fetch-dest")
        && is("sec-fetch-dest", "document");
    let own = request.fields("sec-fetch-site").all(|site| matches!(site, "same-origin" | "none"));
    if own || navigation { Ok(()) } else { Err(refused("Sec-Fetch-Site")) }
}

fn check_method(request: &Request) -> Result<(), Response> {
    match request.method() {
        "GET" | "HEAD" => Ok(()),
        _ => Err(Response::text(405, "these pages are read only").with("Allow", "GET, HEAD")),
    }
}

/// Whether `authority` is this machine's loopback by a name that no DNS server answers for, and our
/// port.
fn is_ours(authority: &str, port: u16) -> bool {
    let lower = authority.to_ascii_lowercase();
    let rest = ["127.0.0.1", "localhost", "[::1]"].iter().find_map(|host| lower.strip_prefix(host));
    match rest {
        Some("") => port == 80,
        Some(rest) => rest.strip_prefix(':') == Some(port.to_string().as_str()),
        None => false,
    }
}

fn refused(field: &str) -> Response {
    Response::text(403, &format!("refused: the {field} field does not name this dashboard"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(method: &str, target: &str, fields: &[(&str, &str)]) -> bool {
        check(&Request::for_test(method, target, fields), 7878).is_ok()
    }

    #[test]
    fn only_our_names_with_our_port() {
        let host = |value| passes("GET", "/", &[("host", value)]);
        for ours in ["127.0.0.1:7878", "localhost:7878", "LOCALHOST:7878", "[::1]:7878"] {
            assert!(host(ours), "{ours}");
        }
        for foreign in [
            "",
            "evil.example",
            "evil.example:7878",
            "localhost",
            "localhost:7879",
            "localhost:",
            "localhost:07878",
            "localhost.:7878",
            "localhost.evil.example:7878",
            "127.0.0.1.nip.io:7878",
            "127.0.0.2:7878",
            "::1:7878",
            "[::1]x:7878",
            "0.0.0.0:7878",
            "user@localhost:7878",
            "localhost:7878/",
        ] {
            assert!(!host(foreign), "{foreign}");
        }
        assert!(!passes("GET", "/", &[]));
        assert!(!passes("GET", "/", &[("host", "localhost:7878"), ("host", "localhost:7878")]));
        assert!(!passes("GET", "http://localhost:7878/", &[("host", "localhost:7878")]));
        assert!(!passes("GET", "*", &[("host", "localhost:7878")]));
    }

    #[test]
    fn the_default_port_may_be_left_out() {
        let request = Request::for_test("GET", "/", &[("host", "localhost")]);
        assert!(check(&request, 80).is_ok());
    }

    #[test]
    fn only_our_own_origin() {
        let origin = |value| passes("GET", "/", &[("host", "localhost:7878"), ("origin", value)]);
        assert!(origin("http://localhost:7878"));
        assert!(origin("http://127.0.0.1:7878"));
        for foreign in
            ["null", "", "http://evil.example", "https://localhost:7878", "http://localhost:3000"]
        {
            assert!(!origin(foreign), "{foreign}");
        }
    }

    #[test]
    fn other_sites_may_only_navigate_here() {
        let fetch = |site, mode, dest| {
            let fields = [
                ("host", "localhost:7878"),
                ("sec-fetch-site", site),
                ("sec-fetch-mode", mode),
                ("sec-fetch-dest", dest),
            ];
            passes("GET", "/", &fields)
        };
        assert!(fetch("none", "navigate", "document"));
        assert!(fetch("same-origin", "cors", "empty"));
        assert!(fetch("cross-site", "navigate", "document"));
        assert!(!fetch("cross-site", "navigate", "iframe"));
        assert!(!fetch("cross-site", "no-cors", "image"));
        assert!(!fetch("cross-site", "no-cors", "script"));
        assert!(!fetch("same-site", "cors", "empty"));
        assert!(!passes(
            "GET",
            "/",
            &[("host", "localhost:7878"), ("sec-fetch-site", "cross-site")]
        ));
    }

    #[test]
    fn only_reading() {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get"] {
            assert!(!passes(method, "/", &[("host", "localhost:7878")]), "{method}");
        }
        assert!(passes("HEAD", "/", &[("host", "localhost:7878")]));
    }
}
