//! Which proxies a run goes through: what was typed, else what the settings say, else the user's own
//! environment.

use crate::gate::control::{Proxies, Proxy};
use crate::secret::Secret;
use crate::upstream_settings::{self, ProxyChoice, UpstreamSettings};

/// How the option is called in messages.
pub(crate) const OPTION: &str = "--upstream-proxy";

/// Variables that name the proxy for TLS, the first that says anything counts.
const FOR_HTTPS: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

/// The same for clear text. `HTTP_PROXY` is not among them, as with curl: a web server sets it for
/// its CGI programs from a field of the request (`Proxy:`), so that any client could name a proxy.
const FOR_HTTP: [&str; 3] = ["http_proxy", "all_proxy", "ALL_PROXY"];

const EXCEPT: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// The proxies, and what is to be told about the environment.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Chosen {
    /// For the gate.
    pub(crate) proxies: Proxies,
    /// Entries of the environment's list that nobody understands; in words.
    pub(crate) notes: Vec<String>,
}

/// Chooses. `environment` gives a variable's value.
///
/// # Errors
/// When what counts is no proxy that can be spoken to; the message names where it stands and does
/// not show it.
pub(crate) fn choose(
    option: Option<&str>,
    settings: &UpstreamSettings,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Chosen, String> {
    let environment = |name: &str| environment(name).filter(|_| settings.proxy_from_environment);
    let option = option.map(|text| ProxyChoice::parse(text, OPTION)).transpose()?;
    let (https, http) = match (option, &settings.proxy) {
        (Some(ProxyChoice::None), _) | (None, Some(ProxyChoice::None)) => (None, None),
        (Some(ProxyChoice::Url(url)), _) => both(&url, OPTION),
        (None, Some(ProxyChoice::Url(url))) => both(url, upstream_settings::PROXY),
        (None, None) => (first(&FOR_HTTPS, environment)?, first(&FOR_HTTP, environment)?),
    };
    if https.is_none() && http.is_none() {
        return Ok(Chosen::default());
    }
    let (no_proxy, notes) = match &settings.no_proxy {
        Some(entries) => (entries.clone(), Vec::new()),
        None => exceptions(environment),
    };
    Ok(Chosen { proxies: Proxies { https, http, no_proxy }, notes })
}

fn both(url: &Secret, setting: &str) -> (Option<Proxy>, Option<Proxy>) {
    let proxy = Proxy { url: url.clone(), setting: setting.to_owned(), from_environment: false };
    (Some(proxy.clone()), Some(proxy))
}

/// The first of the variables `names` that is set and not empty.
fn first(
    names: &[&str],
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Option<Proxy>, String> {
    let Some((name, value)) = set(names, environment) else { return Ok(None) };
    match ProxyChoice::parse(&value, name) {
        Ok(ProxyChoice::Url(url)) => {
            Ok(Some(Proxy { url, setting: name.to_owned(), from_environment: true }))
        }
        // A host of that name, to every other tool.
        Ok(ProxyChoice::None) => Err(format!("{name}: `none` is no proxy; unset the variable")),
        Err(error) => Err(format!("{error}; {OPTION} chooses another, or none")),
    }
}

fn set<'a>(
    names: &[&'a str],
    environment: impl Fn(&str) -> Option<String>,
) -> Option<(&'a str, String)> {
    let value = |name: &&'a str| {
        environment(name).filter(|value| !value.trim().is_empty()).map(|value| (*name, value))
    };
    names.iter().find_map(value)
}

/// The environment's list; tools differ in what they understand, so one that is not understood here
/// is told and left out.
fn exceptions(environment: impl Fn(&str) -> Option<String>) -> (Vec<String>, Vec<String>) {
    let (mut entries, mut notes) = (Vec::new(), Vec::new());
    let Some((name, list)) = set(&EXCEPT, environment) else { return (entries, notes) };
    for entry in list.split([',', ' ', '\t']).filter(|entry| !entry.is_empty()) {
        match agent_gate_engine::NoProxy::default().add(entry) {
            Ok(()) => entries.push(entry.to_owned()),
            Err(reason) => notes.push(format!("{name}: {reason}; the entry is not used")),
        }
    }
    (entries, notes)
}

/// A command line without the passwords of proxies in it, for the record.
pub(crate) fn without_secrets(argv: Vec<String>) -> Vec<String> {
    let mut shown = Vec::with_capacity(argv.len());
    let mut is_url = false;
    for argument in argv {
        let with_value = argument.strip_prefix(OPTION).and_then(|rest| rest.strip_prefix('='));
        let next_is_url = argument == OPTION;
        shown.push(match with_value {
            Some(url) => format!("{OPTION}={}", without_secret(url)),
            None if is_url => without_secret(&argument),
            None => argument,
        });
        is_url = next_is_url;
    }
    shown
}

fn without_secret(url: &str) -> String {
    match agent_gate_engine::UpstreamProxy::parse(url, OPTION) {
        Ok(proxy) => proxy.to_string(),
        Err(_) => "***".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(proxy: Option<&Proxy>) -> Option<&str> {
        proxy.map(|proxy| proxy.url.reveal())
    }

    /// Chooses with `NAME=value` pairs for an environment; the proxies for TLS and clear text.
    fn chosen(
        option: Option<&str>,
        settings: &str,
        environment: &[(&str, &str)],
    ) -> Result<Chosen, String> {
        let settings = toml::from_str(settings).unwrap();
        let value = |name: &str| {
            environment.iter().find(|(it, _)| *it == name).map(|(_, value)| (*value).to_owned())
        };
        choose(option, &settings, value)
    }

    #[test]
    fn the_nearest_word_counts() {
        const FILE: &str = "proxy = \"http://file:1\"";
        const ENVIRONMENT: &[(&str, &str)] =
            &[("HTTPS_PROXY", "http://upper:1"), ("http_proxy", "plain:1")];
        for (option, settings, environment, https, http) in [
            (None, "", &[][..], None, None),
            (None, "", ENVIRONMENT, Some("http://upper:1"), Some("plain:1")),
            (None, FILE, ENVIRONMENT, Some("http://file:1"), Some("http://file:1")),
            (Some("http://o:1"), FILE, ENVIRONMENT, Some("http://o:1"), Some("http://o:1")),
            (Some("none"), FILE, ENVIRONMENT, None, None),
            (None, "proxy = \"none\"", ENVIRONMENT, None, None),
            (None, "proxy_from_environment = false", ENVIRONMENT, None, None),
            (None, "", &[("https_proxy", "l"), ("HTTPS_PROXY", "u")], Some("l"), None),
            (None, "", &[("https_proxy", ""), ("HTTPS_PROXY", "u")], Some("u"), None),
            (None, "", &[("ALL_PROXY", "a")], Some("a"), Some("a")),
            (None, "", &[("ALL_PROXY", "a"), ("https_proxy", "l")], Some("l"), Some("a")),
            // Not of the user, perhaps: see `FOR_HTTP`.
            (None, "", &[("HTTP_PROXY", "evil")], None, None),
        ] {
            let found = chosen(option, settings, environment).unwrap().proxies;
            let about = format!("{option:?} {settings} {environment:?}");
            assert_eq!(url(found.https.as_ref()), https, "{about}");
            assert_eq!(url(found.http.as_ref()), http, "{about}");
        }
    }

    #[test]
    fn exceptions_come_from_the_settings_or_the_environment() {
        let environment =
            [("https_proxy", "p:1"), ("NO_PROXY", "a.corp, .b.corp <local>\t10.0.0.0/8,127.*")];
        let found = chosen(None, "", &environment).unwrap();
        assert_eq!(found.proxies.no_proxy, ["a.corp", ".b.corp", "10.0.0.0/8"]);
        assert_eq!(found.notes.len(), 2, "{:?}", found.notes);
        assert!(found.notes[0].contains("NO_PROXY") && found.notes[0].contains("<local>"));
        let found = chosen(None, "no_proxy = [\"c.corp\"]", &environment).unwrap();
        assert_eq!((found.proxies.no_proxy, found.notes), (vec!["c.corp".to_owned()], vec![]));
        let found = chosen(Some("o:1"), "", &environment).unwrap();
        assert_eq!(found.proxies.no_proxy.len(), 3);
        assert_eq!(chosen(None, "", &environment[1..]).unwrap(), Chosen::default());
    }

    #[test]
    fn what_cannot_be_spoken_to_is_an_error_only_where_it_counts() {
        let socks = [("ALL_PROXY", "socks5://u:sesame@p:1")];
        let error = chosen(None, "", &socks).unwrap_err();
        for part in ["ALL_PROXY", "socks5://", "--upstream-proxy"] {
            assert!(error.contains(part), "{error}");
        }
        assert!(!error.contains("sesame"), "{error}");
        assert!(chosen(Some("none"), "", &socks).is_ok());
        let others = [socks[0], ("https_proxy", "p:1"), ("http_proxy", "p:1")];
        assert!(chosen(None, "", &others).is_ok());
        assert!(chosen(Some("socks5://u:sesame@p:1"), "", &[]).is_err());
        assert!(chosen(None, "", &[("https_proxy", "none")]).is_err());
    }

    #[test]
    fn a_recorded_command_line_shows_no_password() {
        let argv = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for (line, shown) in [
            (
                "g proxy --upstream-proxy http://u:sesame@p:1 x",
                "g proxy --upstream-proxy http://p:1 x",
            ),
            ("g --upstream-proxy=http://u:sesame@p:1", "g --upstream-proxy=http://p:1"),
            (
                "g --upstream-proxy none --resolve a",
                "g --upstream-proxy http://none:80 --resolve a",
            ),
            ("g --upstream-proxy u:se/same@p", "g --upstream-proxy ***"),
            ("g --upstream-proxy", "g --upstream-proxy"),
        ] {
            assert_eq!(without_secrets(argv(line)), argv(shown), "{line}");
        }
    }
}
