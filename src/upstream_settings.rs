//! `[upstream]` of the settings: the proxy between the gate and the network, and the certificates by
//! which the gate shows origins who it is.

use std::path::PathBuf;

use agent_gate_engine::{ClientCertificate, NoProxy, UpstreamProxy};
use serde::de::{Deserialize, Deserializer, Error as _};

use crate::secret::Secret;

/// How a proxy's setting is called in messages.
pub(crate) const PROXY: &str = "[upstream] proxy in config.toml";

/// `[upstream]`
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct UpstreamSettings {
    /// The proxy for all runs; the environment's otherwise.
    #[serde(deserialize_with = "proxy")]
    pub(crate) proxy: Option<ProxyChoice>,
    /// Who is reached without; the environment's list otherwise.
    #[serde(deserialize_with = "no_proxy")]
    pub(crate) no_proxy: Option<Vec<String>>,
    /// Whether `HTTPS_PROXY` and its kin count at all.
    pub(crate) proxy_from_environment: bool,
    /// `[[upstream.client_certificate]]`
    #[serde(rename = "client_certificate")]
    pub(crate) client_certificates: Vec<CertificateFiles>,
}

impl Default for UpstreamSettings {
    fn default() -> Self {
        Self {
            proxy: None,
            no_proxy: None,
            proxy_from_environment: true,
            client_certificates: Vec::new(),
        }
    }
}

/// A proxy, or the word that there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProxyChoice {
    /// `none`
    None,
    /// A URL, checked.
    Url(Secret),
}

impl ProxyChoice {
    /// Reads `none` or a URL. `setting` is what the error names; it does not show the text.
    ///
    /// # Errors
    /// When it is neither.
    pub(crate) fn parse(text: &str, setting: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::None);
        }
        UpstreamProxy::parse(text, setting).map_err(|error| error.to_string())?;
        Ok(Self::Url(Secret::new(text)))
    }
}

/// A client certificate, as files.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CertificateFiles {
    /// The origins that may see it, as in a host list.
    #[serde(deserialize_with = "hosts")]
    pub(crate) hosts: Vec<String>,
    /// PEM, the certificate itself first. Relative paths begin at the settings' folder.
    pub(crate) certificate: PathBuf,
    /// PEM; its private key.
    pub(crate) key: PathBuf,
}

fn proxy<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ProxyChoice>, D::Error> {
    let text = String::deserialize(deserializer)?;
    ProxyChoice::parse(&text, "proxy").map(Some).map_err(D::Error::custom)
}

fn no_proxy<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    let entries = Vec::<String>::deserialize(deserializer)?;
    for entry in &entries {
        NoProxy::default().add(entry).map_err(D::Error::custom)?;
    }
    Ok(Some(entries))
}

fn hosts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let hosts = Vec::<String>::deserialize(deserializer)?;
    ClientCertificate::check_hosts(&hosts).map_err(D::Error::custom)?;
    Ok(hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<UpstreamSettings, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn nothing_said_leaves_all_to_the_environment() {
        assert_eq!(parse("").unwrap(), UpstreamSettings::default());
        assert!(UpstreamSettings::default().proxy_from_environment);
    }

    #[test]
    fn all_can_be_said() {
        let settings = parse(
            "proxy = \"http://user:sesame@proxy.corp:3128\"\nno_proxy = [\"*.corp\", \"10.0.0.0/8\"]\n\
             proxy_from_environment = false\n[[client_certificate]]\n\
             hosts = [\"api.corp\", \"*.api.corp\"]\ncertificate = \"a.pem\"\nkey = \"/k.pem\"\n",
        )
        .unwrap();
        assert!(matches!(&settings.proxy, Some(ProxyChoice::Url(_))));
        assert!(!settings.proxy_from_environment);
        assert_eq!(settings.no_proxy.as_deref().unwrap().len(), 2);
        assert_eq!(settings.client_certificates[0].hosts, ["api.corp", "*.api.corp"]);
        assert!(!format!("{settings:?}").contains("sesame"), "{settings:?}");
        assert_eq!(parse("proxy = \"none\"").unwrap().proxy, Some(ProxyChoice::None));
    }

    #[test]
    fn errors_give_the_reason_and_no_secret() {
        for (text, reason) in [
            ("proxy = \"socks5://u:sesame@p:1\"", "socks5://"),
            ("proxy = \"http://u:sesame@p:x\"", "the port"),
            ("no_proxy = [\"a b\"]", "a b"),
            ("no_proxy = \"a\"", "string"),
            ("proxy_from_env = true", "proxy_from_env"),
            (
                "[[client_certificate]]\nhosts = []\ncertificate = \"a\"\nkey = \"b\"",
                "at least one",
            ),
            (
                "[[client_certificate]]\nhosts = [\"*\"]\ncertificate = \"a\"\nkey = \"b\"",
                "every host",
            ),
            ("[[client_certificate]]\nhosts = [\"a\"]\ncertificate = \"a\"", "key"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
            assert!(!error.contains("sesame"), "{text}: {error}");
        }
    }
}
