//! Leaf certificates, minted for the name a client asks for and kept by each worker.

use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::ProducesTickets;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::authority::Authority;
use crate::limits::{LEAF_AGE_MAX, LEAVES_MAX};

/// How long a leaf is valid.
const VALIDITY: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Clocks differ: a leaf is valid from this long ago.
const BACKDATE: Duration = Duration::from_secs(24 * 60 * 60);

/// Mints leaves: the CA, the one key that all leaves share, what all configurations share.
pub(crate) struct Mint {
    authority: Authority,
    key: KeyPair,
    signing_key: Arc<dyn rustls::sign::SigningKey>,
    provider: Arc<CryptoProvider>,
    ticketer: Arc<dyn ProducesTickets>,
}

/// Why no leaf could be minted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MintError {
    /// The name does not fit into a certificate.
    #[error("no certificate for this name: {0}")]
    Certificate(#[from] rcgen::Error),
    /// rustls refused the key or configuration.
    #[error("TLS configuration: {0}")]
    Tls(#[from] rustls::Error),
}

impl Mint {
    pub(crate) fn new(
        authority: Authority,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, MintError> {
        let key = KeyPair::generate()?;
        let der = rustls_pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
        let signing_key = provider.key_provider.load_private_key(der.into())?;
        let ticketer = rustls::crypto::ring::Ticketer::new()?;
        Ok(Self { authority, key, signing_key, provider, ticketer })
    }

    /// The CA whose certificate clients must trust.
    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// A server configuration whose certificate is for `name`, a DNS name or an IP address.
    fn server_config(&self, name: &str) -> Result<ServerConfig, MintError> {
        let leaf = params(name)?.signed_by(&self.key, self.authority.issuer())?;
        let certified = CertifiedKey::new(vec![leaf.der().clone()], self.signing_key.clone());
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        // The latter is what curl offers when it is told to speak HTTP/1.0.
        config.alpn_protocols = vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()];
        config.ticketer = self.ticketer.clone();
        config.send_tls13_tickets = 1;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(config)
    }
}

fn params(name: &str) -> Result<CertificateParams, MintError> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![match name.parse::<IpAddr>() {
        Ok(ip) => SanType::IpAddress(ip),
        Err(_) => SanType::DnsName(name.try_into()?),
    }];
    let mut subject = DistinguishedName::new();
    // A common name holds 64 characters at most (RFC 5280, appendix A.1); nobody reads it.
    subject.push(DnType::CommonName, if name.len() <= 64 { name } else { "agent-gate leaf" });
    params.distinguished_name = subject;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let now = SystemTime::now();
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + VALIDITY).into();
    Ok(params)
}

/// A worker's minted leaves.
pub(crate) struct Leaves {
    mint: Arc<Mint>,
    minted: HashMap<Rc<str>, (Arc<ServerConfig>, Instant)>,
}

impl Leaves {
    pub(crate) fn new(mint: Arc<Mint>) -> Self {
        Self { mint, minted: HashMap::new() }
    }

    /// The server configuration for `name`, minted on first use.
    pub(crate) fn server_config(&mut self, name: &str) -> Result<Arc<ServerConfig>, MintError> {
        if let Some((config, minted)) = self.minted.get(name)
            && minted.elapsed() < LEAF_AGE_MAX
        {
            return Ok(config.clone());
        }
        if self.minted.len() >= LEAVES_MAX {
            // A client that walks through thousands of names gets fresh leaves; nobody else has
            // so many.
            self.minted.clear();
        }
        let config = Arc::new(self.mint.server_config(name)?);
        self.minted.insert(name.into(), (config.clone(), Instant::now()));
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves() -> Leaves {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(folder.path()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Leaves::new(Arc::new(Mint::new(authority, provider).unwrap()))
    }

    #[test]
    fn a_leaf_is_minted_once_a_name() {
        let mut leaves = leaves();
        let first = leaves.server_config("a.example").unwrap();
        assert!(Arc::ptr_eq(&first, &leaves.server_config("a.example").unwrap()));
        assert!(!Arc::ptr_eq(&first, &leaves.server_config("b.example").unwrap()));
    }

    #[test]
    fn addresses_and_long_names_have_leaves_too() {
        let mut leaves = leaves();
        let long = format!("{}.example", "a".repeat(60));
        for name in ["127.0.0.1", "::1", &long] {
            leaves.server_config(name).unwrap();
        }
        assert!(leaves.server_config("not ascii \u{e9}").is_err());
    }
}
