//! The jailed command's environment: what it inherits, with every variable that names a proxy or
//! a certificate file replaced by ours. A pure function; which client reads which variable was
//! measured client by client.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// What the environment has to say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings<'a> {
    /// The proxy's port on 127.0.0.1.
    pub(crate) proxy_port: u16,
    /// Our CA's certificate alone, or with those that the user had in `NODE_EXTRA_CA_CERTS`: Node
    /// adds them to the ones it was built with.
    pub(crate) node_extra: &'a Path,
    /// The system's certificates and ours: every other variable *replaces* its client's store.
    pub(crate) bundle: &'a Path,
    /// The Java trust store, where Java has to be told by options (it reads neither proxy
    /// variables nor certificate files; in a jail its own store is overlaid and its connections
    /// are caught).
    pub(crate) java_truststore: Option<&'a Path>,
}

/// The environment of the jailed command.
pub(crate) fn jailed(
    inherited: &[(OsString, OsString)],
    settings: &Settings<'_>,
) -> Vec<(OsString, OsString)> {
    let mut jailed: Vec<_> =
        inherited.iter().filter(|(name, _)| !is_replaced(name)).cloned().collect();
    let mut set = |name: &str, value: &OsStr| jailed.push((name.into(), value.into()));

    let proxy = OsString::from(format!("http://127.0.0.1:{}", settings.proxy_port));
    for name in PROXY_VARIABLES {
        set(name, &proxy);
        set(&name.to_ascii_uppercase(), &proxy);
    }
    set("no_proxy", OsStr::new(NO_PROXY));
    set("NO_PROXY", OsStr::new(NO_PROXY));
    set("NODE_USE_ENV_PROXY", OsStr::new("1"));

    set(NODE_EXTRA, settings.node_extra.as_os_str());
    for name in BUNDLE_VARIABLES {
        set(name, settings.bundle.as_os_str());
    }
    if let Some(truststore) = settings.java_truststore {
        let options = java_options(value(inherited, JAVA_OPTIONS), truststore, settings.proxy_port);
        jailed.retain(|(name, _)| name != JAVA_OPTIONS);
        jailed.push((JAVA_OPTIONS.into(), options));
    }
    jailed
}

/// The certificate files that the user's own environment names: what is in them stays trusted.
pub(crate) fn certificate_files(inherited: &[(OsString, OsString)]) -> Vec<PathBuf> {
    let named = |(name, value): &(OsString, OsString)| {
        let ours = BUNDLE_VARIABLES.iter().any(|variable| name.eq_ignore_ascii_case(variable));
        ((ours || name == NODE_EXTRA) && !value.is_empty()).then(|| PathBuf::from(value))
    };
    let mut files: Vec<_> = inherited.iter().filter_map(named).collect();
    files.sort();
    files.dedup();
    files
}

/// The file that the user's `NODE_EXTRA_CA_CERTS` names.
pub(crate) fn node_extra_file(inherited: &[(OsString, OsString)]) -> Option<PathBuf> {
    value(inherited, NODE_EXTRA).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// One variable's value.
pub(crate) fn value<'a>(environment: &'a [(OsString, OsString)], name: &str) -> Option<&'a OsStr> {
    environment.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_os_str())
}

/// Whether an inherited variable gives way: it is one of ours in any case, another proxy setting,
/// a folder of certificates, or a word of agent-gate's own (the jail is told nothing that it
/// could hand back).
fn is_replaced(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let lower = name.to_ascii_lowercase();
    PROXY_VARIABLES.contains(&lower.as_str())
        || OTHER_PROXY_VARIABLES.contains(&lower.as_str())
        || BUNDLE_VARIABLES.iter().any(|variable| variable.eq_ignore_ascii_case(name))
        || [NODE_EXTRA, "NODE_USE_ENV_PROXY", "SSL_CERT_DIR", "GIT_SSL_CAPATH"].contains(&name)
        || name.starts_with("AGENT_GATE_")
}

/// Options for every Java program, after the user's own: of two equal options the last one counts.
fn java_options(inherited: Option<&OsStr>, truststore: &Path, port: u16) -> OsString {
    let mut options = inherited.map(OsStr::to_owned).unwrap_or_default();
    if !options.is_empty() {
        options.push(" ");
    }
    // The JVM splits at white space and honours quotes.
    options.push("\"-Djavax.net.ssl.trustStore=");
    options.push(truststore);
    options.push("\" -Djavax.net.ssl.trustStorePassword=changeit");
    for scheme in ["http", "https"] {
        options.push(format!(" -D{scheme}.proxyHost=127.0.0.1 -D{scheme}.proxyPort={port}"));
    }
    options.push(" -Dhttp.nonProxyHosts=localhost|127.*|[::1]");
    options
}

const JAVA_OPTIONS: &str = "JAVA_TOOL_OPTIONS";
const NODE_EXTRA: &str = "NODE_EXTRA_CA_CERTS";
const NO_PROXY: &str = "localhost,127.0.0.1,::1";

/// Set in lower and upper case: curl reads `http_proxy` in lower case only, wget knows no other,
/// Ruby wants `http_proxy` even for https, aiohttp wants `wss_proxy` for WebSockets.
const PROXY_VARIABLES: [&str; 5] =
    ["http_proxy", "https_proxy", "all_proxy", "ws_proxy", "wss_proxy"];

/// Settings that would send a client to another proxy, or past ours. Lower case.
const OTHER_PROXY_VARIABLES: [&str; 19] = [
    "no_proxy",
    "ftp_proxy",
    "rsync_proxy",
    "socks_proxy",
    "socks5_proxy",
    "auto_proxy",
    "grpc_proxy",
    "no_grpc_proxy",
    "cargo_http_proxy",
    "pip_proxy",
    "yarn_http_proxy",
    "yarn_https_proxy",
    "npm_config_proxy",
    "npm_config_http_proxy",
    "npm_config_https_proxy",
    "npm_config_noproxy",
    "npm_config_no_proxy",
    "bundle_http_proxy",
    "bundle_https_proxy",
];

/// Each names a file of trusted certificates and replaces what its client trusts otherwise.
const BUNDLE_VARIABLES: [&str; 23] = [
    "SSL_CERT_FILE",              // OpenSSL, Go, rustls-native-certs, httpx, uv, Bun
    "REQUESTS_CA_BUNDLE",         // Python requests
    "CURL_CA_BUNDLE",             // curl, requests
    "GIT_SSL_CAINFO",             // git
    "PIP_CERT",                   // pip
    "NPM_CONFIG_CAFILE",          // npm, pnpm
    "npm_config_cafile",          // the same, as npm hands it on to its children
    "YARN_HTTPS_CA_FILE_PATH",    // yarn 2 and later
    "CARGO_HTTP_CAINFO",          // cargo
    "PERL_LWP_SSL_CA_FILE",       // Perl LWP
    "AWS_CA_BUNDLE",              // AWS tools
    "DENO_CERT",                  // Deno
    "CODEX_CA_CERTIFICATE",       // codex
    "HTTPLIB2_CA_CERTS",          // Python httplib2, gsutil
    "WEBSOCKET_CLIENT_CA_BUNDLE", // Python websocket-client
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", // gRPC core
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", // gcloud
    "NIX_SSL_CERT_FILE",          // programs from Nix
    "BUNDLE_SSL_CA_CERT",         // Ruby's bundler
    "COMPOSER_CAFILE",            // PHP's composer
    "HEX_CACERTS_PATH",           // Elixir's hex
    "JULIA_SSL_CA_ROOTS_PATH",    // Julia
    "TWINE_CERT",                 // Python twine
];

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        list.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn settings() -> Settings<'static> {
        Settings {
            proxy_port: 8888,
            node_extra: Path::new("/trust/ca.pem"),
            bundle: Path::new("/trust/bundle.pem"),
            java_truststore: None,
        }
    }

    fn get<'a>(environment: &'a [(OsString, OsString)], name: &str) -> Option<&'a str> {
        let mut found = environment.iter().filter(|(it, _)| it == name);
        let first = found.next().map(|(_, value)| value.to_str().unwrap());
        assert!(found.next().is_none(), "{name} stands there twice");
        first
    }

    #[test]
    fn from_nothing_all_is_set() {
        let jailed = jailed(&[], &settings());
        for name in ["http", "https", "all", "ws", "wss"] {
            let lower = format!("{name}_proxy");
            assert_eq!(get(&jailed, &lower), Some("http://127.0.0.1:8888"));
            assert_eq!(get(&jailed, &lower.to_uppercase()), Some("http://127.0.0.1:8888"));
        }
        assert_eq!(get(&jailed, "NO_PROXY"), Some("localhost,127.0.0.1,::1"));
        assert_eq!(get(&jailed, "no_proxy"), Some("localhost,127.0.0.1,::1"));
        assert_eq!(get(&jailed, "NODE_USE_ENV_PROXY"), Some("1"));
        assert_eq!(get(&jailed, "NODE_EXTRA_CA_CERTS"), Some("/trust/ca.pem"));
        for name in BUNDLE_VARIABLES {
            assert_eq!(get(&jailed, name), Some("/trust/bundle.pem"));
        }
        assert_eq!(get(&jailed, "JAVA_TOOL_OPTIONS"), None);
        assert_eq!(get(&jailed, "SSL_CERT_DIR"), None);
    }

    #[test]
    fn inherited_values_give_way_in_every_case() {
        let inherited = pairs(&[
            ("PATH", "/bin"),
            ("Https_Proxy", "http://elsewhere:1"),
            ("HTTP_PROXY", "http://elsewhere:1"),
            ("NO_PROXY", "*"),
            ("no_Proxy", "*"),
            ("npm_config_https_proxy", "http://elsewhere:1"),
            ("Npm_Config_CaFile", "/elsewhere.pem"),
            ("SSL_CERT_FILE", "/elsewhere.pem"),
            ("SSL_CERT_DIR", "/elsewhere"),
            ("NODE_EXTRA_CA_CERTS", "/elsewhere.pem"),
            ("AGENT_GATE_CONFIG", "/secret"),
            ("GIT_SSL_NO_VERIFY", "1"),
            ("NODE_TLS_REJECT_UNAUTHORIZED", "0"),
            ("GOPROXY", "https://proxy.golang.org"),
            ("JAVA_TOOL_OPTIONS", "-Xmx1g"),
        ]);
        let jailed = jailed(&inherited, &settings());
        let text = format!("{jailed:?}");
        assert!(!text.contains("elsewhere"), "{text}");
        assert!(!text.contains("AGENT_GATE"), "{text}");
        assert!(!text.contains("\"*\""), "{text}");
        for kept in ["PATH", "GIT_SSL_NO_VERIFY", "NODE_TLS_REJECT_UNAUTHORIZED", "GOPROXY"] {
            assert!(get(&jailed, kept).is_some(), "{kept}");
        }
        assert_eq!(get(&jailed, "JAVA_TOOL_OPTIONS"), Some("-Xmx1g"));
    }

    #[test]
    fn the_users_own_certificate_files_are_found() {
        let inherited = pairs(&[
            ("SSL_CERT_FILE", "/b.pem"),
            ("NODE_EXTRA_CA_CERTS", "/a.pem"),
            ("CURL_CA_BUNDLE", "/b.pem"),
            ("PIP_CERT", ""),
            ("PATH", "/bin"),
        ]);
        assert_eq!(certificate_files(&inherited), [Path::new("/a.pem"), Path::new("/b.pem")]);
        assert_eq!(node_extra_file(&inherited), Some("/a.pem".into()));
    }

    #[test]
    fn java_gets_options_after_the_users_own() {
        let truststore = Path::new("/my data/truststore.jks");
        let settings = Settings { java_truststore: Some(truststore), ..settings() };
        let jailed = jailed(&pairs(&[("JAVA_TOOL_OPTIONS", "-Xmx1g")]), &settings);
        let options = get(&jailed, "JAVA_TOOL_OPTIONS").unwrap();
        assert!(
            options.starts_with("-Xmx1g \"-Djavax.net.ssl.trustStore=/my data/truststore.jks\"")
        );
        assert!(options.contains(" -Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=8888"));
    }

    #[test]
    fn a_name_that_is_not_text_is_left_alone() {
        use std::os::unix::ffi::OsStringExt;
        let odd = OsString::from_vec(vec![0xff, b'=']);
        let jailed = jailed(&[(odd.clone(), "x".into())], &settings());
        assert!(jailed.iter().any(|(name, _)| *name == odd));
    }
}
