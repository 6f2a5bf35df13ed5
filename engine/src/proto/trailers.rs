//! Trailer fields (RFC 9110, section 6.5): what a record keeps of them, and which ones no request
//! may have.

use std::borrow::Cow;
use std::ops::Range;

use agent_gate_store::record;

use super::head::FieldRange;
use super::tolerant;

/// What is wrong with a request that has one of [`REFUSED`].
pub(super) const MISPLACED: &str = "a trailer field that would change framing, routing, \
     authentication or content of a request that has passed already";

/// Fields that are decided on before a body is read, so that a reader that merges trailers into
/// the head would decide otherwise than one that does not (RFC 9110, section 6.5.1).
const REFUSED: [&str; 27] = [
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "host",
    "http2-settings",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "max-forwards",
    "pragma",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// The fields of a whole trailer section, the empty line included; of an unfinished one, none.
pub(super) fn fields(section: &[u8]) -> Vec<record::Field<'static>> {
    let slice = |range: &Range<u32>| &section[range.start as usize..range.end as usize];
    let field = |field: &FieldRange| record::Field {
        name: Cow::Owned(String::from_utf8_lossy(slice(&field.name)).into_owned()),
        value: Cow::Owned(slice(&field.value).to_vec()),
    };
    match tolerant::fields(section, 0, usize::MAX) {
        Ok(Some((fields, _))) => fields.iter().map(field).collect(),
        _ => Vec::new(),
    }
}

/// Whether a whole trailer section has a field that no request may have there.
pub(super) fn are_misplaced(section: &[u8]) -> bool {
    let refused = |name: &str| REFUSED.iter().any(|refused| name.eq_ignore_ascii_case(refused));
    fields(section).iter().any(|field| refused(&field.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_kept() {
        let section = b"A: b\r\nC : d\r\n e \nodd\r\nF:\xff\r\n\r\n";
        let found: Vec<_> = fields(section)
            .into_iter()
            .map(|f| (f.name.into_owned(), f.value.into_owned()))
            .collect();
        let expected: [(&str, &[u8]); 4] =
            [("A", b"b"), ("C", b"d\r\n e"), ("odd", b""), ("F", b"\xff")];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_vec())));
        assert_eq!(fields(b"A: b\r\n"), []);
    }

    #[test]
    fn fields_of_the_head_are_misplaced() {
        for name in REFUSED {
            let section = format!("A: b\r\n{}: x\r\n\r\n", name.to_ascii_uppercase());
            assert!(are_misplaced(section.as_bytes()), "{name}");
        }
        for name in ["X-Checksum", "Digest", "Server-Timing", "Grpc-Status", "Content-MD5"] {
            let section = format!("{name}: x\r\n\r\n");
            assert!(!are_misplaced(section.as_bytes()), "{name}");
        }
    }
}
