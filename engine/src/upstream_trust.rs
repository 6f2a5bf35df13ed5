//! TLS towards origins and proxies: whom a run believes (the system's roots, its own, or anybody
//! when the user says so), and who the gate says it is.

use std::sync::Arc;

use agent_gate_store::{HostList, HostName};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::limits::TLS_SESSIONS_MAX;
use crate::{Error, RunSettings};

/// The TLS configurations of a run. All workers share them, and with them the sessions that can be
/// resumed.
#[derive(Debug)]
pub(crate) struct UpstreamTls {
    anybody: Arc<ClientConfig>,
    /// Those that show a client certificate, by whom they show it to; the first that matches.
    known_to: Vec<(HostList, Arc<ClientConfig>)>,
    proxy: Arc<ClientConfig>,
}

impl UpstreamTls {
    /// Towards origins as `settings` say, with the system's `roots`.
    ///
    /// # Errors
    /// When a root cannot be used.
    pub(crate) fn new(
        settings: &RunSettings,
        roots: &[CertificateDer<'static>],
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let checked = checked(settings, roots, provider)?;
        let origins =
            if settings.upstream_insecure { unchecked(provider)? } else { checked.clone() };
        let known_to = settings
            .client_certificates
            .iter()
            .map(|it| (it.hosts().clone(), Arc::new(identified(&origins, it.resolver()))))
            .collect();
        // The credentials go to whoever the proxy is, so its name is proved in any case.
        Ok(Self { anybody: Arc::new(origins), known_to, proxy: Arc::new(fresh(&checked)) })
    }

    /// For an origin that proves to be `name`. The name in TLS counts, not the one that was
    /// dialled: it is the one the origin's certificate is for.
    pub(crate) fn for_origin(&self, name: &HostName, port: u16) -> &Arc<ClientConfig> {
        let known = self.known_to.iter().find(|(hosts, _)| hosts.matches(name, port));
        known.map_or(&self.anybody, |(_, config)| config)
    }

    /// For a proxy on the way: checked always, and no client certificate.
    pub(crate) fn for_proxy(&self) -> &Arc<ClientConfig> {
        &self.proxy
    }
}

fn checked(
    settings: &RunSettings,
    roots: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Roots(e.to_string()))?;
    let roots = root_store(settings, roots)?;
    Ok(http_1(builder.with_root_certificates(roots).with_no_client_auth()))
}

fn unchecked(provider: &Arc<CryptoProvider>) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Roots(e.to_string()))?;
    let verifier = Arc::new(AcceptAny(provider.clone()));
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    Ok(http_1(builder.with_no_client_auth()))
}

fn http_1(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// The same, with a client certificate.
fn identified(config: &ClientConfig, identity: Arc<dyn ResolvesClientCert>) -> ClientConfig {
    let mut config = fresh(config);
    config.client_auth_cert_resolver = identity;
    config
}

/// The same with sessions of its own: one that was begun under an identity goes on under it.
fn fresh(config: &ClientConfig) -> ClientConfig {
    let mut config = config.clone();
    config.resumption = Resumption::in_memory_sessions(TLS_SESSIONS_MAX);
    config
}

fn root_store(
    settings: &RunSettings,
    roots: &[CertificateDer<'static>],
) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    // A system's store may hold certificates that webpki does not take; the others still count.
    store.add_parsable_certificates(roots.iter().cloned());
    for certificate in &settings.upstream_cas {
        store.add(certificate.clone()).map_err(|e| Error::Roots(e.to_string()))?;
    }
    Ok(store)
}

/// `--upstream-insecure-skip-verify`: any certificate will do; signatures are still checked.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
