//! What a jail is to be: the plan that the caller writes, and the sockets that come back.

use std::ffi::OsString;
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;

/// What is to run, and how it is confined.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The command and its arguments; the first is looked up in the jailed `PATH`.
    pub argv: Vec<OsString>,
    /// The folder the command starts in.
    pub cwd: PathBuf,
    /// The environment that `agent-gate run` inherited; the jailed one is made from it.
    pub environment: Vec<(OsString, OsString)>,
    /// The port of the explicit proxy: inside the jail's own network when confined, of the
    /// host's loopback when not.
    pub proxy_port: u16,
    /// Ports on which connections to any address are caught (80, 443, …); confined runs only.
    pub transparent_ports: Vec<u16>,
    /// The gate's CA certificate as PEM, without its key.
    pub authority_pem: String,
    /// Where the jailed command finds `ca.pem`, `bundle.pem` and `truststore.jks`: a read-only
    /// folder of the jail's own, which may lie in a hidden one; a real folder when unconfined.
    pub trust_dir: PathBuf,
    /// Folders and files that the jailed command must not see; what is missing is made as a
    /// folder, so that the command cannot make it. Confined runs only.
    pub hidden: Vec<PathBuf>,
}

/// A socket that listens inside the jail's network, for the gate to serve.
#[derive(Debug)]
pub enum Listener {
    /// Speaks the proxy protocol.
    Proxy(TcpListener),
    /// Catches connections to any address; the accepted socket's local address is where the
    /// client meant to go.
    Transparent(TcpListener),
    /// DNS over TCP.
    DnsTcp(TcpListener),
    /// DNS over UDP.
    DnsUdp(UdpSocket),
}
