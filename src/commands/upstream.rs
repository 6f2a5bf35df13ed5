//! The options about origins as the gate is told them: files are read here, since the gate works
//! elsewhere and has no business with the caller's files.

use std::path::Path;

use anyhow::{Context, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::cli::UpstreamOptions;
use crate::config::Config;
use crate::gate::control::Upstream;
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
    Ok(Upstream {
        enforce_allowlist: options.enforce_allowlist.unwrap_or(config.settings.allowlist.enforce),
        cas,
        insecure: options.upstream_insecure_skip_verify,
        resolve: options.resolve.clone(),
    })
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
