//! The `Alt-Svc` field (RFC 7838, section 3): which of the services it offers are reached by QUIC.

/// Whether a value offers a service over QUIC.
pub(super) fn offers_quic(value: &[u8]) -> bool {
    members(value).any(is_quic)
}

/// The value without those services; `None` when it offers no other.
pub(super) fn without_quic(value: &[u8]) -> Option<Vec<u8>> {
    let kept: Vec<_> = members(value).filter(|m| !m.is_empty() && !is_quic(m)).collect();
    if kept.is_empty() { None } else { Some(kept.join(&b", "[..])) }
}

/// HTTP/3 and its drafts (`h3`, `h3-29`, `h3-Q050`), HTTP/0.9 over QUIC (`hq`), and Google's QUIC.
fn is_quic(member: &[u8]) -> bool {
    let protocol = member.split(|&b| b == b'=').next().unwrap_or_default().trim_ascii();
    let family = protocol.split(|&b| b == b'-').next().unwrap_or_default();
    [&b"h3"[..], b"hq", b"quic"].iter().any(|quic| family.eq_ignore_ascii_case(quic))
}

/// The members of the list; a comma in a quoted string parts nothing.
fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    value
        .split(move |&byte| {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = quoted,
                b'"' => quoted = !quoted,
                _ => {}
            }
            byte == b',' && !quoted
        })
        .map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_value() {
        for (value, left) in [
            ("h3=\":443\"; ma=86400", None),
            ("h3=\":443\"; ma=86400,h3-29=\":443\"; ma=86400", None),
            ("h3-Q050=\":443\", hq-29=\":1\"", None),
            ("quic=\":443\"; v=\"46,43\"", None),
            ("H3=\":443\"", None),
            (" h3 = \":443\" , ", None),
            ("h3=\":443\", h2=\":443\"; ma=1", Some("h2=\":443\"; ma=1")),
            (
                "h2=\"a.example:443\" ; x=\"h3=,\\\",h3\", h3=\":443\"",
                Some("h2=\"a.example:443\" ; x=\"h3=,\\\",h3\""),
            ),
            ("h2=\":1\",h3=\":2\",http%2F1.1=\":3\"", Some("h2=\":1\", http%2F1.1=\":3\"")),
        ] {
            assert!(offers_quic(value.as_bytes()), "{value}");
            let found = without_quic(value.as_bytes());
            assert_eq!(found.as_deref(), left.map(str::as_bytes), "{value}");
        }
        for value in
            ["clear", "h2=\":443\"", "", "h2=\"h3:443\"; v=\"a,h3=b\"", "xh3=\":1\"", "h30=\":1\""]
        {
            assert!(!offers_quic(value.as_bytes()), "{value}");
        }
    }
}
