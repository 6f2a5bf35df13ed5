//! What a run says about its way to origins, made ready for the engine: proxies read, files of client
//! certificates too.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use agent_gate_engine::{ClientCertificate, NoProxy, UpstreamProxies, UpstreamProxy};
use anyhow::{Context, anyhow, ensure};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::control;

/// The proxies, of which none may be one of the gate's `own`: requests would come back for ever. A
/// variable may name one all the same, for who exports it for other tools; it then says nothing.
///
/// # Errors
/// When one is no proxy, or when a setting names the gate's own.
pub(super) fn proxies(
    said: &control::Proxies,
    own: &[SocketAddr],
) -> anyhow::Result<UpstreamProxies> {
    let read = |proxy: &Option<control::Proxy>| -> anyhow::Result<Option<Arc<UpstreamProxy>>> {
        let Some(said) = proxy else { return Ok(None) };
        let proxy = UpstreamProxy::parse(said.url.reveal(), &said.setting)?;
        if !own.iter().any(|own| is_at(&proxy, *own)) {
            return Ok(Some(Arc::new(proxy)));
        }
        let (setting, place) = (&said.setting, proxy.authority());
        ensure!(said.from_environment, "{setting} names the gate's own proxy, {place}");
        super::process::log(&format!("{setting} names the gate's own proxy: going without"));
        Ok(None)
    };
    let mut except = NoProxy::default();
    for entry in &said.no_proxy {
        except.add(entry).map_err(anyhow::Error::msg)?;
    }
    Ok(UpstreamProxies { https: read(&said.https)?, http: read(&said.http)?, except })
}

fn is_at(proxy: &UpstreamProxy, own: SocketAddr) -> bool {
    let host = proxy.host();
    let is_here = host.ip().map_or(host.as_str() == "localhost", |ip| ip == own.ip());
    is_here && proxy.port() == own.port()
}

/// Reads a client certificate's files.
///
/// # Errors
/// When one cannot be read or is not what it should be, or when they do not belong together; the
/// message names the file.
pub(super) fn client_certificate(
    said: &control::ClientCertificate,
) -> anyhow::Result<ClientCertificate> {
    let chain = certificates(&said.certificate)?;
    let key = private_key(&said.key)?;
    ClientCertificate::new(&said.hosts, chain, key).with_context(|| {
        let (certificate, key) = (said.certificate.display(), said.key.display());
        format!("client certificate {certificate} with key {key}")
    })
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let pem = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.map_err(|error| broken(path, &error))?;
    ensure!(!certificates.is_empty(), "{} holds no certificate in PEM", path.display());
    Ok(certificates)
}

fn private_key(path: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    let pem = read(path)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
        pem::Error::NoItemsFound if is_encrypted(&pem) => anyhow!(
            "{}: the key is encrypted, and the gate has nobody to ask for its passphrase",
            path.display()
        ),
        pem::Error::NoItemsFound => anyhow!("{} holds no private key in PEM", path.display()),
        error => broken(path, &error),
    })
}

fn is_encrypted(pem: &[u8]) -> bool {
    String::from_utf8_lossy(pem).contains("ENCRYPTED")
}

fn broken(path: &Path, error: &pem::Error) -> anyhow::Error {
    anyhow!("{} is not PEM: {error}", path.display())
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::control::{Proxies, Proxy};
    use crate::secret::Secret;

    fn said(url: &str, from_environment: bool) -> Proxies {
        let setting = "HTTPS_PROXY".to_owned();
        let proxy = Proxy { url: Secret::new(url), setting, from_environment };
        Proxies { https: Some(proxy), ..Proxies::default() }
    }

    #[test]
    fn the_gates_own_proxy_is_not_gone_through() {
        let own = ["127.0.0.1:8888".parse().unwrap()];
        for (url, from_environment, used) in [
            ("http://127.0.0.1:8889", true, Ok(true)),
            ("http://proxy.corp:8888", true, Ok(true)),
            ("http://127.0.0.1:8888", true, Ok(false)),
            ("localhost:8888", true, Ok(false)),
            ("http://127.0.0.1:8888", false, Err(())),
        ] {
            let found = proxies(&said(url, from_environment), &own);
            let found = found.map(|proxies| proxies.https.is_some()).map_err(drop);
            assert_eq!(found, used, "{url} {from_environment}");
        }
    }

    /// Certificate and key in files, with what the message must say.
    #[test]
    fn files_that_are_no_identity_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["me.test".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let encrypted =
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        for (name, text) in [
            ("good.pem", &certificate[..]),
            ("good.key", &key.serialize_pem()),
            ("other.key", &other),
            ("encrypted.key", encrypted),
            ("words", "only words\n"),
            ("torn.pem", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"),
        ] {
            std::fs::write(path(name), text).unwrap();
        }
        let read = |certificate: &str, key: &str| {
            client_certificate(&control::ClientCertificate {
                hosts: vec!["a.test".to_owned()],
                certificate: path(certificate),
                key: path(key),
            })
        };
        read("good.pem", "good.key").unwrap();
        for (certificate, key, parts) in [
            ("none.pem", "good.key", ["cannot read", "none.pem"]),
            ("good.pem", "none.key", ["cannot read", "none.key"]),
            ("words", "good.key", ["words", "no certificate"]),
            ("torn.pem", "good.key", ["torn.pem", "not PEM"]),
            ("good.key", "good.key", ["good.key", "no certificate"]),
            ("good.pem", "words", ["words", "no private key"]),
            ("good.pem", "good.pem", ["good.pem", "no private key"]),
            ("good.pem", "encrypted.key", ["encrypted.key", "passphrase"]),
            ("good.pem", "other.key", ["other.key", "not the certificate's"]),
        ] {
            let error = format!("{:#}", read(certificate, key).unwrap_err());
            for part in parts {
                assert!(error.contains(part), "{certificate} {key}: {part:?} is not in {error}");
            }
        }
    }
}
