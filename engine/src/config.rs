//! What the engine is told: plain, checked values; it reads no options and no environment.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use agent_gate_store::Id;
use agent_gate_store::record::Mode;
use rustls_pki_types::CertificateDer;

use crate::client_certificate::ClientCertificate;
use crate::limits;
use crate::resolve::ResolveRule;
use crate::upstream_proxy::UpstreamProxies;

/// Settings of the engine as a whole.
#[derive(Debug)]
pub struct Config {
    /// Worker threads; at least one.
    pub workers: usize,
    /// How workers wait for the kernel.
    pub driver: Driver,
    /// Folder of the CA's certificate and key, created on first use.
    pub authority_dir: PathBuf,
    /// The roots that origins are checked against.
    pub roots: Vec<CertificateDer<'static>>,
    /// How much of a body is kept at most, in bytes; the rest is hashed and counted.
    pub body_bytes_max: u64,
    /// What bounds connections, time and memory.
    pub limits: Limits,
    /// Listening addresses of the gate itself (dashboard, …), never dialled for a client.
    pub own_addresses: Vec<SocketAddr>,
}

/// What bounds connections, time and memory, as far as a user may say. A time limit may be exceeded
/// by a second: flows are looked through once a second. None applies inside a body, an upgraded
/// connection or a tunnel that passes unread: an event stream may be silent for hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Client connections open at once; further ones are turned away.
    pub connections_max: usize,
    /// And of one run.
    pub connections_per_run_max: usize,
    /// A client's first bytes, and its TLS handshake.
    pub handshake_time_max: Duration,
    /// A request's head, from its first byte to its last.
    pub head_time_max: Duration,
    /// A client's connection without a request.
    pub idle_time_max: Duration,
    /// One attempt to connect to one address of an origin.
    pub connect_time_max: Duration,
    /// From the end of a request to the head of its answer; `None` for as long as it takes, since a
    /// model may think for an hour.
    pub first_byte_time_max: Option<Duration>,
    /// A request's head, in bytes; [`Self::HEAD_BYTES_MOST`] at most.
    pub head_bytes_max: usize,
    /// A request's field lines; [`Self::FIELDS_MOST`] at most.
    pub fields_max: usize,
    /// Bodies held in memory over all connections, in bytes.
    pub memory_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: limits::CONNECTIONS_MAX,
            connections_per_run_max: limits::CONNECTIONS_PER_RUN_MAX,
            handshake_time_max: limits::HANDSHAKE_TIME_MAX,
            head_time_max: limits::HEAD_TIME_MAX,
            idle_time_max: limits::CLIENT_IDLE_MAX,
            connect_time_max: limits::CONNECT_TIME_MAX,
            first_byte_time_max: None,
            head_bytes_max: limits::HEAD_BYTES_MAX,
            fields_max: limits::FIELDS_MAX,
            memory_bytes_max: limits::MEMORY_BYTES_MAX,
        }
    }
}

impl Limits {
    /// The longest head that can be allowed, in bytes.
    pub const HEAD_BYTES_MOST: usize = limits::HEAD_BYTES_MAX;
    /// The most field lines that can be allowed.
    pub const FIELDS_MOST: usize = limits::FIELDS_MAX;

    /// As many connections as a process with so many `descriptors` can carry; of these, one run
    /// has the share that it was to have of all, or a quarter. At least one each.
    #[must_use]
    pub fn within_descriptors(mut self, descriptors: u64, workers: usize) -> Self {
        // Idle upstream connections are given up when descriptors run out, so no more than a part
        // is set aside for them.
        let pool = (workers as u64 * limits::POOL_CONNECTIONS_MAX as u64).min(descriptors / 4);
        let left = descriptors.saturating_sub(limits::DESCRIPTORS_RESERVED + pool);
        let most = (left / limits::DESCRIPTORS_PER_CONNECTION).max(1);
        let wanted = self.connections_max as u64;
        if wanted > most {
            let of_run = (self.connections_per_run_max as u64).min(wanted);
            let share = u128::from(most) * u128::from(of_run) / u128::from(wanted);
            let share = share.max(u128::from(most / 4)).clamp(1, u128::from(of_run));
            // Both are smaller than what they replace.
            self.connections_max = usize::try_from(most).unwrap_or(usize::MAX);
            self.connections_per_run_max = usize::try_from(share).unwrap_or(usize::MAX);
        }
        self
    }
}

/// How workers wait for the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Driver {
    /// io_uring where the kernel grants it, else epoll.
    #[default]
    Auto,
    /// io_uring or nothing.
    IoUring,
    /// epoll (kqueue on macOS).
    Epoll,
}

/// What one run asked for.
#[derive(Debug)]
pub struct RunSettings {
    /// The run's id, which all its records carry.
    pub id: Id,
    /// How confined the run is.
    pub mode: Mode,
    /// Refuse every host that the allowlist does not name.
    pub enforce_allowlist: bool,
    /// Roots trusted besides the system's.
    pub upstream_cas: Vec<CertificateDer<'static>>,
    /// Do not check origins' certificates at all.
    pub upstream_insecure: bool,
    /// Addresses given by hand, in order of precedence.
    pub resolve: Vec<ResolveRule>,
    /// The proxies on the way. An address given by hand is reached without.
    pub proxies: UpstreamProxies,
    /// Who the gate says it is, to which origins; the first that names an origin counts.
    pub client_certificates: Vec<ClientCertificate>,
}

/// A listening socket of one run; the kind says how its connections begin.
#[derive(Debug)]
pub enum Listener {
    /// Clients that know they talk to a proxy.
    Proxy(TcpListener),
    /// Clients that believe they talk to the origin; their local address is the destination.
    Transparent(TcpListener),
    /// DNS over TCP.
    DnsTcp(TcpListener),
    /// DNS over UDP.
    DnsUdp(UdpSocket),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_the_descriptors() {
        let limits = |all, of_run| Limits {
            connections_max: all,
            connections_per_run_max: of_run,
            ..Limits::default()
        };
        for (wanted, descriptors, workers, expected) in [
            (limits(65_536, 16_384), 1 << 20, 64, (65_536, 16_384)),
            (limits(1000, 500), 20_000, 2, (1000, 500)),
            // (20,000 - 512 - 2 × 256) / 2, and a quarter of that.
            (limits(65_536, 16_384), 20_000, 2, (9488, 2372)),
            // The pool's part is bounded: (4096 - 512 - 1024) / 2.
            (limits(65_536, 65_536), 4096, 64, (1280, 1280)),
            (limits(100, 1000), 700, 1, (6, 6)),
            // What is little already stays.
            (limits(65_536, 4), 20_000, 2, (9488, 4)),
            (limits(100, 10), 512, 1, (1, 1)),
            (limits(100, 10), 0, 1, (1, 1)),
        ] {
            let fit = wanted.within_descriptors(descriptors, workers);
            let found = (fit.connections_max, fit.connections_per_run_max);
            assert_eq!(found, expected, "{wanted:?} in {descriptors}");
        }
    }
}
