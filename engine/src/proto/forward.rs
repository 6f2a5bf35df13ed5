//! A request's target as the next hop wants it: origin form for the origin itself, absolute form
//! for a proxy that forwards it (RFC 9112, section 3.2).

use super::head::RequestHead;

/// The head in origin form, without what was meant for a proxy. Of a request in absolute form.
pub(crate) fn for_origin(head: &RequestHead) -> Vec<u8> {
    head.for_origin(&origin_form(&head.target()))
}

/// The head in absolute form for a proxy, which connects to `authority`, with the credentials for
/// it. The authority is the one that policy has allowed, whatever the client wrote: a proxy goes by
/// it and not by `Host`.
pub(crate) fn for_proxy(
    head: &RequestHead,
    authority: &str,
    authorization: Option<&str>,
) -> Vec<u8> {
    let target = head.target();
    let path = match &*target {
        // Of the server as a whole (section 3.2.4).
        "*" => String::new(),
        target => origin_form(target),
    };
    let mut bytes = head.for_origin(&format!("http://{authority}{path}"));
    if let Some(authorization) = authorization {
        // Before the empty line that ends every head.
        let end = bytes.len() - b"\r\n".len();
        let field = format!("Proxy-Authorization: {authorization}\r\n");
        bytes.splice(end..end, field.into_bytes());
    }
    bytes
}

/// What follows the authority in a target of either form.
fn origin_form(target: &str) -> String {
    if target.starts_with('/') {
        return target.to_owned();
    }
    let rest = target.split_once("://").map_or("", |(_, rest)| rest);
    match rest.find(['/', '?']).map(|at| &rest[at..]) {
        Some(query) if query.starts_with('?') => format!("/{query}"),
        Some(path) => path.to_owned(),
        None => "/".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> RequestHead {
        RequestHead::parse(text.as_bytes()).unwrap().unwrap().0
    }

    #[test]
    fn targets_by_their_next_hop() {
        for (target, origin, proxy) in [
            ("/x?y", "/x?y", "http://a.example:81/x?y"),
            ("/http://b.example/", "/http://b.example/", "http://a.example:81/http://b.example/"),
            ("http://a.example:81/x?y", "/x?y", "http://a.example:81/x?y"),
            ("http://user@A.example.:81/x", "/x", "http://a.example:81/x"),
            ("http://a.example?x=/", "/?x=/", "http://a.example:81/?x=/"),
            ("http://a.example", "/", "http://a.example:81/"),
            ("*", "/", "http://a.example:81"),
        ] {
            let head =
                head(&format!("GET {target} HTTP/1.1\r\nHost: b.example\r\nX-Odd:  1 \r\n\r\n"));
            let rest = " HTTP/1.1\r\nHost: b.example\r\nX-Odd:  1 \r\n\r\n";
            let found = String::from_utf8(for_origin(&head)).unwrap();
            assert_eq!(found, format!("GET {origin}{rest}"), "{target}");
            let found = String::from_utf8(for_proxy(&head, "a.example:81", None)).unwrap();
            assert_eq!(found, format!("GET {proxy}{rest}"), "{target}");
        }
    }

    #[test]
    fn a_proxys_credentials_are_its_own() {
        let head = head(
            "GET http://a.example/ HTTP/1.1\r\nProxy-Authorization: Basic bWU=\r\n\
             Proxy-Connection: keep-alive\r\nHost: a.example\r\n\r\n",
        );
        assert_eq!(
            String::from_utf8(for_proxy(&head, "a.example", Some("Basic dQ=="))).unwrap(),
            "GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\
             Proxy-Authorization: Basic dQ==\r\n\r\n"
        );
    }
}
