//! The client hello (RFC 8446, section 4.1.2), read far enough to know whom the client wants.

use crate::limits::CLIENT_HELLO_BYTES_MAX;

/// What a client hello asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ClientHello {
    /// The server name (RFC 6066, section 3), as sent.
    pub(crate) sni: Option<String>,
    /// Protocols offered (RFC 7301), in order.
    pub(crate) alpn: Vec<Vec<u8>>,
}

/// What the first bytes of a connection are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sniffed {
    /// More bytes are needed.
    Partial,
    /// TLS: the hello.
    Hello(ClientHello),
    /// Not TLS.
    Other,
    /// It began like TLS, but is not.
    Malformed,
}

const RECORD_HANDSHAKE: u8 = 22;
const HANDSHAKE_CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;

/// Tells what `input`, the first bytes of a connection, is.
pub(crate) fn sniff(input: &[u8]) -> Sniffed {
    match input.first() {
        None => return Sniffed::Partial,
        Some(&RECORD_HANDSHAKE) => {}
        Some(_) => return Sniffed::Other,
    }
    // A client may have sent more behind its hello already.
    let window = &input[..input.len().min(CLIENT_HELLO_BYTES_MAX)];
    match handshake_bytes(window) {
        Ok(Some(hello)) => parse(&hello).map_or(Sniffed::Malformed, Sniffed::Hello),
        Ok(None) if window.len() == CLIENT_HELLO_BYTES_MAX => Sniffed::Malformed,
        Ok(None) => Sniffed::Partial,
        Err(Malformed) => Sniffed::Malformed,
    }
}

struct Malformed;

/// The body of the first handshake message, joined over the records it spans; `None` while
/// incomplete.
fn handshake_bytes(input: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
    let mut records = Cursor(input);
    let mut joined = Vec::new();
    loop {
        if let [kind, a, b, c, body @ ..] = &joined[..] {
            let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            if *kind != HANDSHAKE_CLIENT_HELLO || length > CLIENT_HELLO_BYTES_MAX {
                return Err(Malformed);
            }
            if body.len() >= length {
                return Ok(Some(body[..length].to_vec()));
            }
        }
        let Some(header) = records.take(5) else { return Ok(None) };
        // Version is 3.x in every record ever sent; its minor says nothing.
        if header[0] != RECORD_HANDSHAKE || header[1] != 3 {
            return Err(Malformed);
        }
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        let Some(fragment) = records.take(length) else { return Ok(None) };
        joined.extend_from_slice(fragment);
    }
}

fn parse(body: &[u8]) -> Option<ClientHello> {
    let mut body = Cursor(body);
    body.take(2 + 32)?; // legacy version, random
    body.prefixed_u8()?; // legacy session id
    body.prefixed_u16()?; // cipher suites
    body.prefixed_u8()?; // compression methods
    let mut hello = ClientHello::default();
    if body.0.is_empty() {
        return Some(hello);
    }
    let mut extensions = Cursor(body.prefixed_u16()?);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let data = Cursor(extensions.prefixed_u16()?);
        match kind {
            EXTENSION_SERVER_NAME => hello.sni = server_name(data)?,
            EXTENSION_ALPN => hello.alpn = protocols(data)?,
            _ => {}
        }
    }
    Some(hello)
}

fn server_name(mut data: Cursor<'_>) -> Option<Option<String>> {
    let mut names = Cursor(data.prefixed_u16()?);
    while !names.0.is_empty() {
        let kind = names.take(1)?[0];
        let name = names.prefixed_u16()?;
        if kind == 0 {
            return Some(Some(String::from_utf8(name.to_vec()).ok()?));
        }
    }
    Some(None)
}

fn protocols(mut data: Cursor<'_>) -> Option<Vec<Vec<u8>>> {
    let mut list = Cursor(data.prefixed_u16()?);
    let mut protocols = Vec::new();
    while !list.0.is_empty() {
        protocols.push(list.prefixed_u8()?.to_vec());
    }
    Some(protocols)
}

/// A reader that cannot overrun: every take is `None` past the end.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }

    fn prefixed_u8(&mut self) -> Option<&'a [u8]> {
        let length = self.take(1)?[0];
        self.take(usize::from(length))
    }

    fn prefixed_u16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client hello as rustls writes it.
    fn hello(name: &str, alpn: &[&[u8]]) -> Vec<u8> {
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        let name = name.to_owned().try_into().unwrap();
        let mut client = rustls::ClientConnection::new(config.into(), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_hello_is_read_however_it_is_cut() {
        let bytes = hello("api.example.com", &[b"h2", b"http/1.1"]);
        for cut in 0..bytes.len() {
            assert_eq!(sniff(&bytes[..cut]), Sniffed::Partial, "cut at {cut}");
        }
        let expected = ClientHello {
            sni: Some("api.example.com".into()),
            alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        assert_eq!(sniff(&bytes), Sniffed::Hello(expected.clone()));
        assert_eq!(sniff(&split_records(&bytes, 100)), Sniffed::Hello(expected.clone()));
        let with_more = [&bytes[..], &[23; CLIENT_HELLO_BYTES_MAX]].concat();
        assert_eq!(sniff(&with_more), Sniffed::Hello(expected), "whatever is behind it");
    }

    #[test]
    fn a_hello_without_end_is_none() {
        let mut endless = vec![22, 3, 1, 255, 255, 1, 0, 130, 0];
        endless.resize(CLIENT_HELLO_BYTES_MAX - 1, 0);
        assert_eq!(sniff(&endless), Sniffed::Partial);
        endless.push(0);
        assert_eq!(sniff(&endless), Sniffed::Malformed);
    }

    /// The same handshake message over records of `size` bytes.
    fn split_records(bytes: &[u8], size: usize) -> Vec<u8> {
        bytes[5..]
            .chunks(size)
            .flat_map(|part| {
                let length = u16::try_from(part.len()).unwrap().to_be_bytes();
                [&[22, 3, 1, length[0], length[1]], part].concat()
            })
            .collect()
    }

    #[test]
    fn an_address_has_no_server_name() {
        let Sniffed::Hello(hello) = sniff(&hello("127.0.0.1", &[])) else { panic!("no hello") };
        assert_eq!(hello, ClientHello::default());
    }

    #[test]
    fn what_is_not_tls_is_told_apart() {
        assert_eq!(sniff(b""), Sniffed::Partial);
        assert_eq!(sniff(b"GET / HTTP/1.1\r\n"), Sniffed::Other);
        assert_eq!(sniff(b"SSH-2.0-x"), Sniffed::Other);
        assert_eq!(sniff(&[22, 9, 9, 0, 1, 0]), Sniffed::Malformed);
        assert_eq!(sniff(&[22, 3, 1, 0, 4, 2, 0, 0, 0]), Sniffed::Malformed);
        let mut broken = hello("a.example", &[]);
        broken[5 + 4 + 34] = 255; // session id longer than the message's rest can hold
        broken.truncate(5 + 4 + 34 + 1);
        broken[3..5].copy_from_slice(&39u16.to_be_bytes());
        broken[6..9].copy_from_slice(&[0, 0, 35]);
        assert_eq!(sniff(&broken), Sniffed::Malformed);
    }
}
