//! The options about origins as the gate is told them: files that options name are read here, since
//! the gate works in another folder.

use std::path::Path;

use anyhow::{Context, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::cli::UpstreamOptions;
use crate::config::Config;
use crate::gate::control::{ClientCertificate, Proxies, Upstream};
use crate::proxies::{self, Chosen};
use crate::terminal;

/// Reads the files that the options name, and warns of what weakens the run.
///
/// # Errors
/// When a file cannot be read or holds no certificate; the message names it.
pub(super) fn read(options: &UpstreamOptions, config: &Config) -> anyhow::Result<Upstream> {
    let mut cas = Vec::new();
    for path in &options.upstream_ca {
        cas.extend(certificates(path)?.iter().map(|ca| BASE64_STANDARD.encode(ca)));
    }
    if options.upstream_insecure_skip_verify {
        terminal::note(
            "WARNING: the certificates of origins are not checked in this run \
             (--upstream-insecure-skip-verify)",
        );
    }
    let proxies = proxies(options, config)?;
    Ok(Upstream {
        enforce_allowlist: options.enforce_allowlist.unwrap_or(config.settings.allowlist.enforce),
        cas,
        insecure: options.upstream_insecure_skip_verify,
        resolve: options.resolve.clone(),
        proxies,
        client_certificates: client_certificates(config),
    })
}

/// Of the environment of whoever starts the run: the gate's own is that of the run which happened
/// to start it, and the jail's names the gate.
fn proxies(options: &UpstreamOptions, config: &Config) -> anyhow::Result<Proxies> {
    let settings = &config.settings.upstream;
    let environment = |name: &str| Some(std::env::var_os(name)?.to_string_lossy().into_owned());
    let Chosen { proxies, notes } =
        proxies::choose(options.upstream_proxy.as_deref(), settings, environment)
            .map_err(anyhow::Error::msg)?;
    for note in notes {
        terminal::note(&note);
    }
    Ok(proxies)
}

fn client_certificates(config: &Config) -> Vec<ClientCertificate> {
    let place = |file: &Path| config.paths.config_dir.join(file);
    let files = config.settings.upstream.client_certificates.iter();
    files
        .map(|it| ClientCertificate {
            hosts: it.hosts.clone(),
            certificate: place(&it.certificate),
            key: place(&it.key),
        })
        .collect()
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| anyhow::anyhow!("{error:?}"))
        .with_context(|| format!("{} is not PEM", path.display()))?;
    ensure!(!certificates.is_empty(), "{} holds no certificate", path.display());
    Ok(certificates)
}
