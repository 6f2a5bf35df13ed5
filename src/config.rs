//! Settings: defaults, then `config.toml`, then options, made once into one checked [`Config`].
//!
//! Whatever the file says that is not understood is an error that names file, line and reason: a
//! setting that is silently ignored would be a hole in an audit.

use std::io;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use agent_gate_engine::Driver;
use agent_gate_engine::Limits as EngineLimits;
use agent_gate_store::Layout;
use anyhow::{Context, anyhow};
use serde::de::{Deserialize, Deserializer, Error as _};

use crate::cli::Cli;
use crate::paths::Paths;
use crate::upstream_settings::UpstreamSettings;

/// The name of the settings file in the config folder.
pub(crate) const FILE: &str = "config.toml";

/// All settings, checked.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Where settings and data are.
    pub(crate) paths: Paths,
    /// What the file says, or its defaults.
    pub(crate) settings: Settings,
}

impl Config {
    /// Finds the folders and reads the settings file, if there is one.
    ///
    /// # Errors
    /// When the file cannot be read or says something that is not understood.
    pub(crate) fn load(cli: &Cli) -> anyhow::Result<Self> {
        let paths = Paths::find(cli.config_dir.as_deref(), cli.data_dir.as_deref())?;
        let settings = Settings::load(&paths.config_dir.join(FILE))?;
        Ok(Self { paths, settings })
    }

    /// The data folder's layout, with its folders made.
    ///
    /// # Errors
    /// When they cannot be made; the message names the option that chooses another place.
    pub(crate) fn create_layout(&self) -> anyhow::Result<Layout> {
        let layout = self.layout();
        layout.create().with_context(|| {
            format!("cannot use {} (--data-dir chooses another)", self.paths.data_dir.display())
        })?;
        Ok(layout)
    }

    /// The data folder's layout, as it is.
    pub(crate) fn layout(&self) -> Layout {
        Layout::new(self.paths.data_dir.clone())
    }
}

/// `config.toml`, table by table.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// `[ports]`
    pub(crate) ports: Ports,
    /// `[gate]`
    pub(crate) gate: Gate,
    /// `[capture]`
    pub(crate) capture: Capture,
    /// `[allowlist]`
    pub(crate) allowlist: Allowlist,
    /// `[storage]`
    pub(crate) storage: Storage,
    /// `[limits]`
    pub(crate) limits: Limits,
    /// `[upstream]`
    pub(crate) upstream: UpstreamSettings,
}

/// Where the gate listens, always on loopback.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Ports {
    /// The explicit proxy: in each jail's own network, and of `agent-gate proxy` on the host.
    #[serde(deserialize_with = "proxy_port")]
    pub(crate) proxy: u16,
    /// The pages; the next free port is taken when this one is not free, any when it is 0.
    pub(crate) dashboard: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self { proxy: 8888, dashboard: 7878 }
    }
}

/// The gate process.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Gate {
    /// How long a gate stays after its last run, so that the page is still there.
    #[serde(rename = "linger_seconds", deserialize_with = "linger")]
    pub(crate) linger: Duration,
    /// Worker threads; 0 for one a core.
    #[serde(deserialize_with = "workers")]
    pub(crate) workers: usize,
    /// How workers wait for the kernel.
    #[serde(deserialize_with = "driver")]
    pub(crate) driver: Driver,
}

impl Default for Gate {
    fn default() -> Self {
        Self { linger: Duration::from_secs(5), workers: 0, driver: Driver::Auto }
    }
}

/// What is kept of traffic.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Capture {
    /// How much of one body is kept, in bytes; the rest is hashed and counted, and passes.
    pub(crate) body_bytes_max: u64,
}

impl Default for Capture {
    fn default() -> Self {
        Self { body_bytes_max: 64 << 20 }
    }
}

/// The allowlist.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Allowlist {
    /// Refuse every host that it does not name.
    pub(crate) enforce: bool,
}

/// The queue between traffic and disk. When it is full, traffic waits.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Storage {
    /// Records on their way to disk, at most.
    #[serde(deserialize_with = "queue_records_max")]
    pub(crate) queue_records_max: usize,
    /// And their bytes, at most.
    #[serde(deserialize_with = "queue_bytes_max")]
    pub(crate) queue_bytes_max: usize,
}

impl Default for Storage {
    fn default() -> Self {
        let options = agent_gate_store::Options::default();
        Self {
            queue_records_max: options.queue_records_max,
            queue_bytes_max: options.queue_bytes_max,
        }
    }
}

/// What bounds connections, time and memory.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    /// Client connections open at once, as far as descriptors allow.
    #[serde(deserialize_with = "connections")]
    pub(crate) connections_max: usize,
    /// And of one run.
    #[serde(deserialize_with = "connections")]
    pub(crate) connections_per_run_max: usize,
    /// A client's first bytes and its TLS handshake.
    #[serde(rename = "handshake_seconds", deserialize_with = "up_to_an_hour")]
    pub(crate) handshake: Duration,
    /// A request's head that has begun.
    #[serde(rename = "head_seconds", deserialize_with = "up_to_an_hour")]
    pub(crate) head: Duration,
    /// A client's connection without a request.
    #[serde(rename = "idle_seconds", deserialize_with = "up_to_a_week")]
    pub(crate) idle: Duration,
    /// One attempt to connect to an origin.
    #[serde(rename = "connect_seconds", deserialize_with = "up_to_an_hour")]
    pub(crate) connect: Duration,
    /// From a request's end to the head of its answer; 0 for as long as it takes.
    #[serde(rename = "first_byte_seconds", deserialize_with = "none_or_up_to_a_week")]
    pub(crate) first_byte: Option<Duration>,
    /// A request's head, in bytes.
    #[serde(deserialize_with = "head_bytes_max")]
    pub(crate) head_bytes_max: usize,
    /// A request's field lines.
    #[serde(deserialize_with = "fields_max")]
    pub(crate) fields_max: usize,
    /// Bodies held in memory over all connections, in bytes.
    #[serde(deserialize_with = "memory_bytes_max")]
    pub(crate) memory_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let limits = EngineLimits::default();
        Self {
            connections_max: limits.connections_max,
            connections_per_run_max: limits.connections_per_run_max,
            handshake: limits.handshake_time_max,
            head: limits.head_time_max,
            idle: limits.idle_time_max,
            connect: limits.connect_time_max,
            first_byte: limits.first_byte_time_max,
            head_bytes_max: limits.head_bytes_max,
            fields_max: limits.fields_max,
            memory_bytes_max: limits.memory_bytes_max,
        }
    }
}

impl From<&Limits> for EngineLimits {
    fn from(limits: &Limits) -> Self {
        Self {
            connections_max: limits.connections_max,
            connections_per_run_max: limits.connections_per_run_max,
            handshake_time_max: limits.handshake,
            head_time_max: limits.head,
            idle_time_max: limits.idle,
            connect_time_max: limits.connect,
            first_byte_time_max: limits.first_byte,
            head_bytes_max: limits.head_bytes_max,
            fields_max: limits.fields_max,
            memory_bytes_max: limits.memory_bytes_max,
        }
    }
}

impl Settings {
    /// Reads the file; a missing one says nothing.
    ///
    /// # Errors
    /// When it cannot be read or understood; the message names file and line.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).map_err(|error| anyhow!("{}:{error}", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// The settings, or line and reason.
    fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            format!("{line}: {}", error.message())
        })
    }
}

/// The number of the line, from 1, in which the byte at `offset` stands.
fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

fn proxy_port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let port = NonZeroU16::deserialize(deserializer)?.get();
    match port {
        53 | 80 | 443 => Err(D::Error::custom(format!(
            "port {port} is taken inside each jail (DNS, HTTP and HTTPS); choose another"
        ))),
        port => Ok(port),
    }
}

fn linger<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    bounded(deserializer, 0..=86_400).map(Duration::from_secs)
}

fn workers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    bounded(deserializer, 0..=1024).and_then(to_usize)
}

fn queue_records_max<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    bounded(deserializer, 16..=1 << 24).and_then(to_usize)
}

/// At least 1 MiB, so that a record of a head and an inline body always fits.
fn queue_bytes_max<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    bounded(deserializer, 1 << 20..=1 << 36).and_then(to_usize)
}

fn connections<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    bounded(deserializer, 1..=1 << 20).and_then(to_usize)
}

fn up_to_an_hour<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    bounded(deserializer, 1..=3600).map(Duration::from_secs)
}

fn up_to_a_week<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    bounded(deserializer, 1..=WEEK_SECONDS).map(Duration::from_secs)
}

fn none_or_up_to_a_week<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    let seconds = bounded(deserializer, 0..=WEEK_SECONDS)?;
    Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
}

const WEEK_SECONDS: u64 = 7 * 24 * 60 * 60;

/// At least what any client's head takes; at most what the parser reads.
fn head_bytes_max<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    bounded(deserializer, 1024..=EngineLimits::HEAD_BYTES_MOST as u64).and_then(to_usize)
}

fn fields_max<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    bounded(deserializer, 16..=EngineLimits::FIELDS_MOST as u64).and_then(to_usize)
}

/// At least 1 MiB, so that a body that stays in its record always fits.
fn memory_bytes_max<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    bounded(deserializer, 1 << 20..=1 << 40).and_then(to_usize)
}

fn driver<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Driver, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "auto" => Ok(Driver::Auto),
        "io_uring" => Ok(Driver::IoUring),
        "epoll" => Ok(Driver::Epoll),
        other => Err(D::Error::custom(format!(
            "{other:?} is not a driver; there are \"auto\", \"io_uring\" and \"epoll\""
        ))),
    }
}

fn bounded<'de, D: Deserializer<'de>>(
    deserializer: D,
    range: RangeInclusive<u64>,
) -> Result<u64, D::Error> {
    let value = u64::deserialize(deserializer)?;
    if range.contains(&value) {
        return Ok(value);
    }
    let (least, most) = (range.start(), range.end());
    Err(D::Error::custom(format!("{value} is out of range: {least} to {most}")))
}

fn to_usize<E: serde::de::Error>(value: u64) -> Result<usize, E> {
    usize::try_from(value).map_err(|_| E::custom("too large for this machine"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_means_the_defaults() {
        let settings = Settings::parse("").unwrap();
        assert_eq!(settings, Settings::default());
        assert_eq!((settings.ports.proxy, settings.ports.dashboard), (8888, 7878));
        assert_eq!(settings.gate.linger, Duration::from_secs(5));
        assert_eq!(settings.capture.body_bytes_max, 67_108_864);
        assert_eq!(EngineLimits::from(&settings.limits), EngineLimits::default());
        let said = Settings::parse("[limits]\nfirst_byte_seconds = 0\n").unwrap();
        assert_eq!(said.limits.first_byte, None);
    }

    #[test]
    fn every_key_is_understood() {
        let settings = Settings::parse(
            "[ports]\nproxy = 9000\ndashboard = 0\n\
             [gate]\nlinger_seconds = 0\nworkers = 2\ndriver = \"epoll\"\n\
             [capture]\nbody_bytes_max = 1\n[allowlist]\nenforce = true\n\
             [storage]\nqueue_records_max = 100\nqueue_bytes_max = 1048576\n\
             [limits]\nconnections_max = 7\nconnections_per_run_max = 3\nhandshake_seconds = 1\n\
             head_seconds = 2\nidle_seconds = 3\nconnect_seconds = 4\nfirst_byte_seconds = 5\n\
             head_bytes_max = 1024\nfields_max = 16\nmemory_bytes_max = 1048576\n",
        )
        .unwrap();
        assert_eq!(settings.ports, Ports { proxy: 9000, dashboard: 0 });
        assert_eq!(settings.gate.linger, Duration::ZERO);
        assert_eq!((settings.gate.workers, settings.gate.driver), (2, Driver::Epoll));
        assert_eq!(settings.capture.body_bytes_max, 1);
        assert!(settings.allowlist.enforce);
        assert_eq!(settings.storage.queue_records_max, 100);
        let seconds = Duration::from_secs;
        assert_eq!(
            EngineLimits::from(&settings.limits),
            EngineLimits {
                connections_max: 7,
                connections_per_run_max: 3,
                handshake_time_max: seconds(1),
                head_time_max: seconds(2),
                idle_time_max: seconds(3),
                connect_time_max: seconds(4),
                first_byte_time_max: Some(seconds(5)),
                head_bytes_max: 1024,
                fields_max: 16,
                memory_bytes_max: 1 << 20,
            }
        );
    }

    #[test]
    fn errors_name_the_line_and_the_reason() {
        for (text, line, reason) in [
            ("\n\n[port]\nproxy = 1\n", 3, "port"),
            ("[ports]\n\nproxi = 1\n", 3, "proxi"),
            ("[ports]\nproxy = 70000\n", 2, "70000"),
            ("[ports]\nproxy = 0\n", 2, "nonzero"),
            ("[ports]\nproxy = 443\n", 2, "taken inside each jail"),
            ("[ports]\nproxy = \"x\"\n", 2, "string"),
            ("[gate]\nworkers = 1\nlinger_seconds = 99999999\n", 3, "out of range"),
            ("[gate]\ndriver = \"kqueue\"\n", 2, "not a driver"),
            ("# fine\n[allowlist]\nenforce = yes\n", 3, ""),
            ("[gate]\n[gate]\n", 2, ""),
            ("[storage]\nqueue_records_max = 1\n", 2, "out of range"),
            ("[limits]\nconnections_max = 0\n", 2, "0 is out of range: 1 to "),
            ("[limits]\n\nhead_seconds = 0\n", 3, "out of range"),
            ("[limits]\nhandshake_seconds = 3601\n", 2, "out of range"),
            ("[limits]\nidle_seconds = -1\n", 2, ""),
            ("[limits]\nfirst_byte_seconds = 604801\n", 2, "out of range"),
            ("[limits]\nhead_bytes_max = 262145\n", 2, "1024 to 262144"),
            ("[limits]\nfields_max = 15\n", 2, "16 to 1024"),
            ("[limits]\nmemory_bytes_max = 4096\n", 2, "out of range"),
            ("[limits]\nconnect_second = 1\n", 2, "connect_second"),
            ("[upstream]\n\nproxy = \"socks5://p:1\"\n", 3, "socks5://"),
            ("[upstream]\nno_proxy = [\"a b\"]\n", 2, "one host"),
        ] {
            let error = Settings::parse(text).unwrap_err();
            assert!(error.starts_with(&format!("{line}: ")), "{text:?}: {error}");
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }

    #[test]
    fn the_file_is_named_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        assert_eq!(Settings::load(&path).unwrap(), Settings::default());
        std::fs::write(&path, "x = 1\n").unwrap();
        let error = Settings::load(&path).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}:1: ", path.display())), "{error}");
        std::fs::create_dir(folder.path().join("d")).unwrap();
        assert!(Settings::load(&folder.path().join("d")).is_err());
    }
}
