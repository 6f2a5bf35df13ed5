//! What the engine is told: plain, checked values; it reads no options and no environment.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;

use agent_gate_store::Id;
use agent_gate_store::record::Mode;
use rustls_pki_types::CertificateDer;

use crate::resolve::ResolveRule;

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
    /// Listening addresses of the gate itself (dashboard, …), never dialled for a client.
    pub own_addresses: Vec<SocketAddr>,
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
