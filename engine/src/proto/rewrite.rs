//! The few places where a head is changed on its way, and why. The record keeps what arrived.
//!
//! A request:
//! - to a proxy goes to the origin in origin form, and one that a proxy is to send on in absolute
//!   form; without the fields that were meant for the gate as a proxy (RFC 9112, section 3.2);
//! - that offers `Upgrade: h2c` goes without the offer: it speaks of this connection only (RFC
//!   9110, section 7.8), and an exchange that became HTTP/2 could not be read. Java's client sends
//!   it with every first request and goes on in HTTP/1.1.
//!
//! A response:
//! - does not advertise HTTP/3 (`Alt-Svc`, RFC 7838): QUIC cannot leave the jail, so a client that
//!   tried it would only lose time;
//! - whose transfer coding overrides its Content-Length goes without the latter (RFC 9112,
//!   section 6.3);
//! - that is not to the letter goes as the standard asks of an intermediary: no white space
//!   before a colon (section 5.1), no folded lines (section 5.2), no line before the first field
//!   that begins with white space, no carriage return but before a line feed (section 2.2), no
//!   NUL (RFC 9110, section 5.5).
//!
//! Everything else goes as it came, which costs no copy.

use std::borrow::Cow;

use super::alt_svc;
use super::authority::{TargetForm, without_user};
use super::framing::{Framing, is_length_void};
use super::head::{Head, RequestHead, ResponseHead};

/// A request's head as the origin gets it. `to_proxy`: the client knows that it speaks to one.
pub(crate) fn request(request: &RequestHead, to_proxy: bool) -> Cow<'_, [u8]> {
    let head = &request.head;
    match request.target_form() {
        Ok(TargetForm::Absolute { rest, .. }) if to_proxy => {
            Cow::Owned(with_target(request, &origin_form(request, rest)))
        }
        _ if offers_h2c(head) => {
            let mut out = head.bytes[..head.start_line_end()].to_vec();
            lines(head, &mut out, |name, value| without_h2c(head, name, value));
            Cow::Owned(out)
        }
        _ => Cow::Borrowed(&head.bytes),
    }
}

/// A request's head in absolute form for a proxy, which connects to `authority`, with the
/// credentials for it. The authority is the one that policy has allowed, whatever the client wrote:
/// a proxy goes by it and not by `Host`.
pub(crate) fn for_proxy(
    request: &RequestHead,
    authority: &str,
    authorization: Option<&str>,
) -> Vec<u8> {
    let path = match request.target_form() {
        Ok(TargetForm::Absolute { rest, .. }) => Cow::Owned(origin_form(request, rest)),
        _ => Cow::Borrowed(request.target_text()),
    };
    // Of the server as a whole, there is no path (RFC 9112, section 3.2.4).
    let path = if path == "*" { "" } else { &*path };
    let mut bytes = with_target(request, &format!("http://{authority}{path}"));
    if let Some(authorization) = authorization {
        // Before the empty line that ends every head.
        let end = bytes.len() - b"\r\n".len();
        let field = format!("Proxy-Authorization: {authorization}\r\n");
        bytes.splice(end..end, field.into_bytes());
    }
    bytes
}

/// A request's head with another target, without what was meant for a proxy, and with the Host
/// that an old client has left out.
fn with_target(request: &RequestHead, target: &str) -> Vec<u8> {
    let (head, place) = (&request.head, request.target_range());
    let mut out = Vec::with_capacity(head.bytes.len() + target.len());
    out.extend_from_slice(&head.bytes[..place.start]);
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(&head.bytes[place.end..head.start_line_end()]);
    if let Ok(TargetForm::Absolute { authority, .. }) = request.target_form()
        && head.values("host").next().is_none()
    {
        out.extend_from_slice(b"Host: ");
        out.extend_from_slice(without_user(authority).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    let offers_h2c = offers_h2c(head);
    lines(head, &mut out, |name, value| match name {
        _ if is_any(name, &["proxy-connection", "proxy-authorization"]) => Line::Dropped,
        _ if offers_h2c => without_h2c(head, name, value),
        _ => Line::Kept,
    });
    out
}

/// The target in origin form; `rest`: what an absolute one has behind the authority.
fn origin_form(request: &RequestHead, rest: &str) -> String {
    let path = rest.split('#').next().unwrap_or_default();
    match path {
        "" if request.is_method("OPTIONS") => "*".to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        query => format!("/{query}"),
    }
}

fn offers_h2c(head: &Head) -> bool {
    head.has_member("upgrade", "h2c")
}

/// What becomes of a line of a head that offers h2c: only what else it offers remains.
fn without_h2c(head: &Head, name: &[u8], value: &[u8]) -> Line {
    if is_any(name, &["http2-settings"]) {
        Line::Dropped
    } else if is_any(name, &["upgrade"]) {
        without(value, &["h2c"])
    } else if !is_any(name, &["connection"]) {
        Line::Kept
    } else if head.members("upgrade").all(|member| is_any(member, &["h2c"])) {
        without(value, &["http2-settings", "upgrade"])
    } else {
        without(value, &["http2-settings"])
    }
}

/// A response's head as the client gets it. `framing`: of its body.
pub(crate) fn response(response: &ResponseHead, framing: Framing) -> Cow<'_, [u8]> {
    let head = response.flat.as_ref().unwrap_or(&response.head);
    let by_coding = matches!(framing, Framing::Chunked | Framing::UntilClose);
    let length_is_void = by_coding && is_length_void(head);
    let offers_quic = head.values("alt-svc").any(alt_svc::offers_quic);
    if !length_is_void && !offers_quic && response.flat.is_none() {
        return Cow::Borrowed(&head.bytes);
    }
    let mut out = Vec::with_capacity(head.bytes.len());
    out.extend_from_slice(&head.bytes[..head.start_line_end()]);
    lines(head, &mut out, |name, value| {
        if length_is_void && is_any(name, &["content-length"]) {
            Line::Dropped
        } else if offers_quic && is_any(name, &["alt-svc"]) {
            alt_svc::without_quic(value).map_or(Line::Dropped, Line::Changed)
        } else {
            Line::Kept
        }
    });
    Cow::Owned(out)
}

/// What becomes of a field line.
enum Line {
    Kept,
    Dropped,
    /// It has this value.
    Changed(Vec<u8>),
}

/// Appends the field lines and the empty line, each field line as `judge` says for its name and
/// value.
fn lines(head: &Head, out: &mut Vec<u8>, judge: impl Fn(&[u8], &[u8]) -> Line) {
    for (line, field) in head.lines() {
        let bytes = &head.bytes;
        if is_white(bytes[line.start]) {
            continue; // folded, but there is nothing before it that it could belong to
        }
        let (name, value) = (head.slice(&field.name), head.slice(&field.value));
        let name_end = field.name.end as usize;
        let white = bytes[name_end..line.end].iter().take_while(|b| is_white(**b)).count();
        let colon = if bytes[name_end + white] == b':' { name_end + white } else { name_end };
        match judge(name, value) {
            Line::Dropped => {}
            Line::Kept => {
                out.extend_from_slice(name);
                out.extend_from_slice(&bytes[colon..line.end]);
            }
            Line::Changed(value) => {
                out.extend_from_slice(name);
                out.extend_from_slice(&bytes[colon..field.value.start as usize]);
                out.extend_from_slice(&value);
                out.extend_from_slice(&bytes[field.value.end as usize..line.end]);
            }
        }
    }
    out.extend_from_slice(&head.bytes[head.empty_line()..]);
}

/// A list without some of its members; the others stay as they are.
fn without(value: &[u8], dropped: &[&str]) -> Line {
    let members = || value.split(|&b| b == b',').map(<[u8]>::trim_ascii);
    if !members().any(|member| is_any(member, dropped)) {
        return Line::Kept;
    }
    let kept: Vec<_> = members().filter(|m| !m.is_empty() && !is_any(m, dropped)).collect();
    if kept.is_empty() { Line::Dropped } else { Line::Changed(kept.join(&b", "[..])) }
}

fn is_any(name: &[u8], names: &[&str]) -> bool {
    names.iter().any(|n| name.eq_ignore_ascii_case(n.as_bytes()))
}

fn is_white(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request_text(text: &str, to_proxy: bool) -> String {
        let (head, _) = RequestHead::parse(text.as_bytes()).unwrap().unwrap();
        let found = request(&head, to_proxy);
        assert_eq!(matches!(found, Cow::Borrowed(_)), *found == *text.as_bytes(), "{text:?}");
        String::from_utf8(found.into_owned()).unwrap()
    }

    #[test]
    fn absolute_form_becomes_origin_form() {
        for (target, seen) in [
            ("http://a.example/x?y", "/x?y"),
            ("HTTP://a.example:80/x", "/x"),
            ("http://a.example", "/"),
            ("http://a.example?y/z", "/?y/z"),
            ("http://a.example#f/g", "/"),
            ("http://a.example/x#f", "/x"),
            ("http://a.example//x", "//x"),
            ("http://u:p@a.example/@", "/@"),
        ] {
            let text = |target| {
                format!("GET {target} HTTP/1.1\r\nHost: a.example\r\nX:  y \r\nx: 2\r\n\r\n")
            };
            assert_eq!(request_text(&text(target), true), text(seen), "{target}");
            assert_eq!(request_text(&text(target), false), text(target), "{target}");
        }
        let options = "OPTIONS http://a.example HTTP/1.1\r\nHost: a.example\r\n\r\n";
        let seen = "OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n";
        assert_eq!(request_text(options, true), seen);
    }

    #[test]
    fn what_was_meant_for_a_proxy_goes_no_further() {
        let text = "GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nProxy-Connection: x\r\n\
                    Accept: */*\r\nproxy-authorization: Basic eA==\r\n\r\n";
        let seen = "GET / HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\n\r\n";
        assert_eq!(request_text(text, true), seen);
    }

    #[test]
    fn a_proxy_gets_absolute_form_and_its_own_credentials() {
        for (target, seen) in [
            ("/x?y", "http://a.example:81/x?y"),
            ("/http://b.example/", "http://a.example:81/http://b.example/"),
            ("http://user@A.example.:81/x", "http://a.example:81/x"),
            ("http://a.example?x=/", "http://a.example:81/?x=/"),
            ("http://a.example", "http://a.example:81/"),
        ] {
            let text = |target, credentials| {
                format!("GET {target} HTTP/1.1\r\nHost: b.example\r\nX:  1 \r\n{credentials}\r\n")
            };
            let (head, _) =
                RequestHead::parse(text(target, "Proxy-Authorization: a\r\n").as_bytes())
                    .unwrap()
                    .unwrap();
            let found = for_proxy(&head, "a.example:81", Some("Basic dQ=="));
            let expected = text(seen, "Proxy-Authorization: Basic dQ==\r\n");
            assert_eq!(String::from_utf8(found).unwrap(), expected, "{target}");
            let found = for_proxy(&head, "a.example:81", None);
            assert_eq!(String::from_utf8(found).unwrap(), text(seen, ""), "{target}");
        }
        for target in ["*", "http://a.example"] {
            let text = format!("OPTIONS {target} HTTP/1.1\r\nHost: a.example\r\n\r\n");
            let (head, _) = RequestHead::parse(text.as_bytes()).unwrap().unwrap();
            let seen = "OPTIONS http://a.example HTTP/1.1\r\nHost: a.example\r\n\r\n";
            let found = for_proxy(&head, "a.example", None);
            assert_eq!(String::from_utf8(found).unwrap(), seen);
        }
    }

    #[test]
    fn an_old_clients_host_is_made_of_its_target() {
        let text = "GET http://u@a.example:81/x HTTP/1.0\r\nAccept: */*\r\n\r\n";
        let seen = "GET /x HTTP/1.0\r\nHost: a.example:81\r\nAccept: */*\r\n\r\n";
        assert_eq!(request_text(text, true), seen);
    }

    #[test]
    fn an_offer_of_h2c_is_not_handed_on() {
        for (fields, seen) in [
            // As Java's HttpClient sends it.
            (
                "Connection: Upgrade, HTTP2-Settings\r\nContent-Length: 0\r\nHost: a\r\n\
                 HTTP2-Settings: AAEAAEAA\r\nUpgrade: h2c\r\nUser-Agent: Java\r\n",
                "Content-Length: 0\r\nHost: a\r\nUser-Agent: Java\r\n",
            ),
            (
                "Host: a\r\nconnection:keep-alive,upgrade , http2-settings\r\nupgrade: H2C\r\n",
                "Host: a\r\nconnection:keep-alive\r\n",
            ),
            (
                "Host: a\r\nConnection: Upgrade, HTTP2-Settings, TE\r\nUpgrade: h2c, websocket\r\n\
                 HTTP2-Settings: x\r\nHTTP2-Settings: y\r\n",
                "Host: a\r\nConnection: Upgrade, TE\r\nUpgrade: websocket\r\n",
            ),
            (
                "Host: a\r\nUpgrade: h2c\r\nUpgrade: x/1\r\nConnection: Upgrade\r\n",
                "Host: a\r\nUpgrade: x/1\r\nConnection: Upgrade\r\n",
            ),
            (
                "Host: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
                "Host: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
            ),
            ("Host: a\r\nHTTP2-Settings: x\r\n", "Host: a\r\nHTTP2-Settings: x\r\n"),
        ] {
            let text = format!("GET / HTTP/1.1\r\n{fields}\r\n");
            let seen = format!("GET / HTTP/1.1\r\n{seen}\r\n");
            assert_eq!(request_text(&text, false), seen);
        }
    }

    fn response_text(text: &str) -> String {
        let (head, _) = ResponseHead::parse(text.as_bytes()).unwrap().unwrap();
        let found = response(&head, Framing::of_response(&head, false).unwrap());
        String::from_utf8(found.into_owned()).unwrap()
    }

    #[test]
    fn what_is_to_the_letter_is_not_copied() {
        for text in [
            "HTTP/1.1 200 OK\r\nServer: x\r\nserver:  y \t\r\nA:\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 \r\nContent-Length: 5, 5\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 999 \u{e9}\r\nX: \u{e9}\r\n\r\n",
            "HTTP/1.0 200 OK\nA: b\r\nB: c\n\n",
            "HTTP/1.1 304 x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nAlt-Svc: h2=\":443\"\r\nalt-svc: clear\r\n\r\n",
        ] {
            let (head, length) = ResponseHead::parse(text.as_bytes()).unwrap().unwrap();
            assert_eq!(length, text.len());
            let found = response(&head, Framing::of_response(&head, false).unwrap());
            assert!(matches!(found, Cow::Borrowed(_)), "{text:?}");
            assert_eq!(*found, *text.as_bytes(), "{text:?}");
        }
    }

    #[test]
    fn what_the_standard_asks_of_an_intermediary() {
        for (fields, seen) in [
            ("A: b\r\n c\r\nD: e\r\n", "A: b   c\r\nD: e\r\n"),
            ("A: b\r\n\tc\r\n  d\r\nD: e\r\n", "A: b  \tc    d\r\nD: e\r\n"),
            ("A: b\n c\nD: e\n", "A: b  c\nD: e\n"),
            ("A:\r\n b\r\n", "A:   b\r\n"),
            ("A: b\r\n \r\n", "A: b   \r\n"),
            ("A : b\r\nC\t : d\r\nE: f\r\n", "A: b\r\nC: d\r\nE: f\r\n"),
            (" A: b\r\nC: d\r\n", "C: d\r\n"),
            ("\tA: b\r\n c\r\nC: d\r\n", "C: d\r\n"),
            ("A: b\rc\0d\r\r\n", "A: b c d \r\n"),
            ("A: b\u{1}c\u{7f}\r\n", "A: b\u{1}c\u{7f}\r\n"),
            (": b\r\nA B: c\r\nodd \r\n", ": b\r\nA B: c\r\nodd \r\n"),
            (
                "Content-Length : 3\r\nTransfer-Encoding:\r\n chunked\r\nA: b\r\n",
                "Transfer-Encoding:   chunked\r\nA: b\r\n",
            ),
            ("Alt-Svc: h3=\":443\",\r\n h2=\":443\"\r\n", "Alt-Svc: h2=\":443\"\r\n"),
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            assert_eq!(response_text(&text), format!("HTTP/1.1 200 OK\r\n{seen}\r\n"));
        }
        let text = "HTTP/1.1  200  O\rK\0\r\n\r\n";
        assert_eq!(response_text(text), "HTTP/1.1  200  O K \r\n\r\n");
    }

    #[test]
    fn a_length_that_does_not_count_goes_no_further() {
        for (fields, seen) in [
            (
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                "Transfer-Encoding: chunked\r\n",
            ),
            (
                "Transfer-Encoding: gzip\r\ncontent-length: 5\r\nA: b\r\nContent-Length: 6\r\n",
                "Transfer-Encoding: gzip\r\nA: b\r\n",
            ),
            (
                "Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
                "Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
            ),
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            assert_eq!(response_text(&text), format!("HTTP/1.1 200 OK\r\n{seen}\r\n"));
        }
    }

    #[test]
    fn http_3_is_not_advertised() {
        let text = "HTTP/1.1 200 OK\r\nAlt-Svc:  h3=\":443\"; ma=86400, h2=\":443\" \r\n\
                    alt-svc: h3-29=\":443\"\r\nServer: x\r\nContent-Length: 0\r\n\r\n";
        let seen =
            "HTTP/1.1 200 OK\r\nAlt-Svc:  h2=\":443\" \r\nServer: x\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(response_text(text), seen);
    }
}
