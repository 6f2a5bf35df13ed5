//! A certificate by which the gate shows an origin who it is, and for which origins.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use agent_gate_store::HostList;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate with its key, and the origins that may see it.
#[derive(Clone)]
pub struct ClientCertificate {
    hosts: HostList,
    /// What `hosts` was read from: runs with the same are alike.
    hosts_text: String,
    identity: Arc<CertifiedKey>,
}

/// Why a certificate and a key make no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientCertificateError {
    /// The hosts are none.
    #[error("hosts: {0}")]
    Hosts(String),
    /// The key is not of a kind that can sign.
    #[error("the key cannot be used: {0}")]
    Key(String),
    /// The certificate cannot be read.
    #[error("the certificate cannot be used: {0}")]
    Certificate(String),
    /// They do not belong together.
    #[error("the key is not the certificate's")]
    Mismatch,
}

impl ClientCertificate {
    /// Checks that the key is that of the first certificate of `chain`. `hosts` are as in a host
    /// list.
    ///
    /// # Errors
    /// When a host is none, the key cannot sign, or the two do not belong together.
    pub fn new(
        hosts: &[String],
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, ClientCertificateError> {
        let (hosts, hosts_text) = read_hosts(hosts)?;
        let provider = rustls::crypto::ring::default_provider();
        let key = provider
            .key_provider
            .load_private_key(key)
            .map_err(|error| ClientCertificateError::Key(error.to_string()))?;
        let identity = CertifiedKey::new(chain, key);
        match identity.keys_match() {
            // `Unknown`: this key does not tell its public half, so nothing is known against it.
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                return Err(ClientCertificateError::Mismatch);
            }
            Err(error) => return Err(ClientCertificateError::Certificate(error.to_string())),
        }
        Ok(Self { hosts, hosts_text, identity: Arc::new(identity) })
    }

    /// Whether `hosts` could be those of a client certificate.
    ///
    /// # Errors
    /// When one is none, or there is none at all.
    pub fn check_hosts(hosts: &[String]) -> Result<(), ClientCertificateError> {
        read_hosts(hosts).map(drop)
    }

    /// The origins that may see it.
    pub(crate) fn hosts(&self) -> &HostList {
        &self.hosts
    }

    /// What shows it, and nothing else, to an origin that asks.
    pub(crate) fn resolver(&self) -> Arc<dyn ResolvesClientCert> {
        Arc::new(Always(self.identity.clone()))
    }
}

fn read_hosts(hosts: &[String]) -> Result<(HostList, String), ClientCertificateError> {
    let odd = |host: &&String| host.trim().is_empty() || host.contains(['#', '\n', '\r']);
    if let Some(host) = hosts.iter().find(odd) {
        return Err(ClientCertificateError::Hosts(format!("`{host}` is no host")));
    }
    if hosts.is_empty() {
        return Err(ClientCertificateError::Hosts("name at least one".to_owned()));
    }
    let text = hosts.join("\n");
    let list = HostList::parse(&text).map_err(|e| ClientCertificateError::Hosts(e.reason))?;
    Ok((list, text))
}

impl Hash for ClientCertificate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hosts_text.hash(state);
        // The key belongs to it.
        self.identity.cert.hash(state);
    }
}

/// The key stays out of sight.
impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate").field("hosts", &self.hosts_text).finish_non_exhaustive()
    }
}

/// One certificate for every origin that asks; which origins are asked with it is decided before.
struct Always(Arc<CertifiedKey>);

impl ResolvesClientCert for Always {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        // A hint that names other authorities is often wrong; the origin itself refuses best.
        self.0.key.choose_scheme(schemes).is_some().then(|| self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl fmt::Debug for Always {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Always")
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn pair() -> (CertificateDer<'static>, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["me.example".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().der().clone(), key)
    }

    fn der(key: &KeyPair) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(key.serialize_der()).unwrap()
    }

    fn hosts(hosts: &[&str]) -> Vec<String> {
        hosts.iter().map(|host| (*host).to_owned()).collect()
    }

    #[test]
    fn only_what_belongs_together_is_an_identity() {
        let (certificate, key) = pair();
        let (other, _) = pair();
        let of = |chain, key| ClientCertificate::new(&hosts(&["a.example"]), chain, key);
        assert!(of(vec![certificate.clone()], der(&key)).is_ok());
        let mismatch = of(vec![other], der(&key)).unwrap_err();
        assert_eq!(mismatch, ClientCertificateError::Mismatch);
        let garbage = CertificateDer::from(vec![1, 2, 3]);
        let error = of(vec![garbage], der(&key)).unwrap_err();
        assert!(matches!(error, ClientCertificateError::Certificate(_)), "{error}");
        let error = of(Vec::new(), der(&key)).unwrap_err();
        assert!(matches!(error, ClientCertificateError::Certificate(_)), "{error}");
        let garbage = PrivateKeyDer::Pkcs8(vec![1, 2, 3].into());
        let error = of(vec![certificate], garbage).unwrap_err();
        assert!(matches!(error, ClientCertificateError::Key(_)), "{error}");
    }

    #[test]
    fn hosts_are_as_in_a_host_list() {
        for (list, good) in [
            (&["a.example", "*.b.example", "c.example:8443", "10.0.0.0/8"][..], true),
            (&[], false),
            (&[""], false),
            (&["*"], false),
            (&["a b"], false),
            (&["a.example#"], false),
            (&["a.example\nb.example"], false),
        ] {
            assert_eq!(ClientCertificate::check_hosts(&hosts(list)).is_ok(), good, "{list:?}");
        }
    }
}
