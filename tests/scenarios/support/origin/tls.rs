//! The origin's TLS: which configuration a client hello gets, by the name it asks for, and what the
//! handshake came to.
//!
//! | first label of the name | TLS |
//! | --- | --- |
//! | `tls12`, `tls13` | that version alone |
//! | `members` | with a client certificate by [`super::Origin::client_certificate`], or not at all |
//! | `guests` | asks for one and takes none as well |
//! | `expired`, `elsewhere` | a certificate whose time is over, or that is for another name |

use std::net::TcpStream;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::server::{Accepted, Acceptor, WebPkiClientVerifier};
use rustls::{HandshakeKind, ProtocolVersion, ServerConfig, ServerConnection, StreamOwned};
use rustls::{RootCertStore, SupportedProtocolVersion, version};

use super::authority::{Authority, Leaves};

/// One handshake that was finished.
#[derive(Debug, Clone)]
pub(crate) struct Handshake {
    /// The name that was asked for, if one was.
    pub(crate) sni: Option<String>,
    pub(crate) version: ProtocolVersion,
    pub(crate) alpn: Option<Vec<u8>>,
    /// Whether it resumed an earlier session.
    pub(crate) resumed: bool,
    /// The client's certificate, as DER.
    pub(crate) client_certificate: Option<Vec<u8>>,
}

/// The configurations.
pub(super) struct Tls {
    usual: Arc<ServerConfig>,
    tls12: Arc<ServerConfig>,
    tls13: Arc<ServerConfig>,
    members: Arc<ServerConfig>,
    guests: Arc<ServerConfig>,
}

impl Tls {
    pub(super) fn new(authority: &Arc<Authority>) -> Self {
        let leaves = Arc::new(Leaves::of(authority));
        let of = |versions, clients| config(authority, &leaves, versions, clients);
        const BOTH: &[&SupportedProtocolVersion] = &[&version::TLS12, &version::TLS13];
        Self {
            usual: of(BOTH, Clients::Unknown),
            tls12: of(&[&version::TLS12], Clients::Unknown),
            tls13: of(&[&version::TLS13], Clients::Unknown),
            members: of(BOTH, Clients::Members),
            guests: of(BOTH, Clients::Guests),
        }
    }

    /// What the origin uses for a name that asks for nothing special.
    pub(super) fn usual(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.usual)
    }

    /// Does the origin's part of a handshake; `None` when there is no agreement.
    pub(super) fn accept(
        &self,
        mut socket: TcpStream,
    ) -> Option<(StreamOwned<ServerConnection, TcpStream>, Handshake)> {
        let accepted = read_hello(&mut socket)?;
        let config = self.for_name(accepted.client_hello().server_name());
        let connection = match accepted.into_connection(Arc::clone(config)) {
            Ok(connection) => connection,
            Err((_, mut alert)) => {
                drop(alert.write_all(&mut socket));
                return None;
            }
        };
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).ok()?;
        }
        let handshake = seen(&stream.conn);
        Some((stream, handshake))
    }

    fn for_name(&self, name: Option<&str>) -> &Arc<ServerConfig> {
        match name.and_then(|name| name.split('.').next()) {
            Some("tls12") => &self.tls12,
            Some("tls13") => &self.tls13,
            Some("members") => &self.members,
            Some("guests") => &self.guests,
            _ => &self.usual,
        }
    }
}

fn read_hello(socket: &mut TcpStream) -> Option<Accepted> {
    let mut acceptor = Acceptor::default();
    loop {
        if acceptor.read_tls(socket).ok()? == 0 {
            return None;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => return Some(accepted),
            Ok(None) => {}
            Err((_, mut alert)) => {
                drop(alert.write_all(socket));
                return None;
            }
        }
    }
}

fn seen(connection: &ServerConnection) -> Handshake {
    let certificates = connection.peer_certificates().unwrap_or_default();
    Handshake {
        sni: connection.server_name().map(str::to_owned),
        version: connection.protocol_version().expect("a finished handshake"),
        alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
        resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        client_certificate: certificates.first().map(|it| it.to_vec()),
    }
}

/// Whether clients are asked who they are.
#[derive(Clone, Copy)]
enum Clients {
    Unknown,
    Members,
    Guests,
}

/// HTTP/1.1 only.
fn config(
    authority: &Authority,
    leaves: &Arc<Leaves>,
    versions: &[&'static SupportedProtocolVersion],
    clients: Clients,
) -> Arc<ServerConfig> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = match clients {
        Clients::Unknown => builder.with_no_client_auth(),
        Clients::Members => builder.with_client_cert_verifier(verifier.build().unwrap()),
        Clients::Guests => {
            builder.with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap())
        }
    };
    let mut config = builder.with_cert_resolver(Arc::clone(leaves) as _);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}
