//! A connection to an origin: found by name, checked against policy, dialled, secured.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_gate_store::HostName;
use agent_gate_store::record::{Outcome, RefusedBy, Timings};
use futures_util::FutureExt;
use monoio::time::timeout;
use rustls::ClientConfig;
use rustls::client::UnbufferedClientConnection;
use rustls_pki_types::ServerName;

use super::answer;
use super::connect::connect_any;
use super::door::Target;
use super::flow::{Flow, micros};
use super::pool::Key;
use super::stream::{Stream, TlsError};
use super::upstream_proxy;
use super::worker::Worker;
use crate::UpstreamProxy;
use crate::limits::{ORIGIN_TLS_TIME_MAX, PROXY_ANSWER_TIME_MAX, RESOLVE_TIME_MAX};

/// A connection to an origin.
pub(super) struct Upstream {
    pub(super) stream: Stream,
    pub(super) address: SocketAddr,
    pub(super) key: Key,
    /// How it comes that this exchange has it.
    pub(super) origin: Origin,
}

/// How requests get to their origin.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Route {
    /// By a connection of their own.
    Direct,
    /// Inside a tunnel through the proxy, which does not see them.
    Tunnel(Arc<UpstreamProxy>),
    /// In absolute form to the proxy, which sends them on: clear text, for which many refuse
    /// tunnels.
    Forward(Arc<UpstreamProxy>),
}

impl Route {
    /// The proxy on the way.
    pub(super) fn proxy(&self) -> Option<&Arc<UpstreamProxy>> {
        match self {
            Self::Direct => None,
            Self::Tunnel(proxy) | Self::Forward(proxy) => Some(proxy),
        }
    }

    /// The proxy that reads the requests themselves.
    pub(super) fn forwarded_by(&self) -> Option<&Arc<UpstreamProxy>> {
        match self {
            Self::Forward(proxy) => Some(proxy),
            Self::Direct | Self::Tunnel(_) => None,
        }
    }

    /// The proxy as records name it.
    pub(super) fn via(&self) -> Option<String> {
        self.proxy().map(|proxy| proxy.authority())
    }
}

/// How an exchange came to its upstream connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Opened for it.
    Dialled,
    /// The one that the exchange before it on the same flow used.
    Kept,
    /// From another flow.
    Pooled,
}

impl Upstream {
    /// Whether the origin has neither closed it nor sent what nobody asked for. Also begins to
    /// watch for that.
    pub(super) fn is_still_open(&mut self) -> bool {
        self.stream.reader.data().is_empty() && self.stream.reader.fill().now_or_never().is_none()
    }

    /// Lets go of spare memory before it idles.
    pub(super) fn release(&mut self) {
        self.stream.reader.release();
        self.stream.writer.release();
    }
}

/// Why there is no connection to an origin.
pub(super) enum DialError {
    /// It failed.
    Failed { outcome: Outcome, detail: String },
    /// Policy does not dial that address.
    Refused { by: RefusedBy, address: SocketAddr, detail: String },
}

/// Where the time of a dial went.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DialTimes {
    pub(super) dns: Option<Duration>,
    pub(super) connect: Option<Duration>,
    pub(super) tls: Option<Duration>,
}

impl DialTimes {
    /// Enters the times into a record's.
    pub(super) fn enter(self, timings: &mut Timings) {
        timings.dns_us = self.dns.map(micros);
        timings.connect_us = self.connect.map(micros);
        timings.tls_us = self.tls.map(micros);
    }
}

/// Opens a connection as `key` says.
pub(super) async fn dial(
    flow: &Flow,
    key: Key,
    times: &mut DialTimes,
) -> Result<Upstream, DialError> {
    open(flow, key, times).await.map_err(|error| match error {
        // What fails then does so because this side has ended it.
        DialError::Failed { .. } if flow.control.is_aborted() => DialError::Failed {
            outcome: Outcome::CutByClient,
            detail: "the run ended before the origin was reached".to_owned(),
        },
        error => error,
    })
}

async fn open(flow: &Flow, key: Key, times: &mut DialTimes) -> Result<Upstream, DialError> {
    let target = Target { host: key.host.clone(), port: key.port };
    let (address, mut stream) = connect(flow, &target, &key.route, times).await?;
    if let Some(name) = &key.server_name {
        let started = Instant::now();
        let config = flow.run.tls.for_origin(name, key.port);
        secure(&mut stream, config, name).await.map_err(|why| DialError::Failed {
            outcome: Outcome::OriginTlsFailed,
            detail: format!("TLS with {}: {why}", name.as_str()),
        })?;
        times.tls = Some(started.elapsed());
    }
    Ok(Upstream { stream, address, key, origin: Origin::Dialled })
}

/// A connection by which `target` can be spoken to, in clear; and the address it was made to. By
/// [`Route::Forward`] it is the proxy that reads what is said.
pub(super) async fn connect(
    flow: &Flow,
    target: &Target,
    route: &Route,
    times: &mut DialTimes,
) -> Result<(SocketAddr, Stream), DialError> {
    let started = Instant::now();
    let (address, stream) = match route {
        Route::Direct => connect_directly(flow, target, times).await?,
        Route::Tunnel(proxy) => {
            refuse_literal(&flow.worker, target)?;
            let (address, mut stream) = upstream_proxy::connect(flow, proxy, times).await?;
            upstream_proxy::open_tunnel(&mut stream, proxy, target, PROXY_ANSWER_TIME_MAX).await?;
            (address, stream)
        }
        Route::Forward(proxy) => {
            refuse_literal(&flow.worker, target)?;
            upstream_proxy::connect(flow, proxy, times).await?
        }
    };
    times.connect = Some(started.elapsed().saturating_sub(times.dns.unwrap_or_default()));
    Ok((address, stream))
}

async fn connect_directly(
    flow: &Flow,
    target: &Target,
    times: &mut DialTimes,
) -> Result<(SocketAddr, Stream), DialError> {
    let addresses = match flow.run.resolved_by_hand(&target.host, target.port) {
        Some(address) => vec![address],
        None => allowed_addresses(&flow.worker, target, times).await?,
    };
    let time_max = flow.worker.shared.limits.connect_time_max;
    let (address, stream) =
        connect_any(&addresses, time_max).await.map_err(|e| DialError::Failed {
            outcome: Outcome::Unreachable,
            detail: format!("cannot connect to {}:{}: {e}", target.host.as_str(), target.port),
        })?;
    let stream = Stream::new(stream);
    flow.control.set_upstream(Some(stream.handle().clone()));
    Ok((address, stream))
}

/// The addresses of `target` that may be dialled; an error when there are none.
async fn allowed_addresses(
    worker: &Worker,
    target: &Target,
    times: &mut DialTimes,
) -> Result<Vec<SocketAddr>, DialError> {
    let unknown = |detail| DialError::Failed { outcome: Outcome::NameUnknown, detail };
    let mut addresses = addresses_of(worker, target, times).await.map_err(unknown)?;
    let mut refused = None;
    addresses.retain(|&address| match refusal(worker, target, address) {
        None => true,
        Some(error) => {
            refused = Some(error);
            false
        }
    });
    match refused {
        Some(error) if addresses.is_empty() => Err(error),
        _ => Ok(addresses),
    }
}

/// Why policy does not dial `address` for `target`.
fn refusal(worker: &Worker, target: &Target, address: SocketAddr) -> Option<DialError> {
    let lists = worker.shared.lists.load();
    let class = worker.shared.own.refusal(&lists, &target.host, address)?;
    let by = RefusedBy::AddressRefused;
    Some(DialError::Refused { by, address, detail: answer::refusal_detail(by, target, class) })
}

/// What a proxy is to connect to is looked up by the proxy; only an address that stands in the
/// request itself can be asked policy about.
fn refuse_literal(worker: &Worker, target: &Target) -> Result<(), DialError> {
    let address = target.host.ip().map(|ip| SocketAddr::new(ip, target.port));
    match address.and_then(|address| refusal(worker, target, address)) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// All addresses of `target`; an error in words when it has none.
pub(super) async fn addresses_of(
    worker: &Worker,
    target: &Target,
    times: &mut DialTimes,
) -> Result<Vec<SocketAddr>, String> {
    if let Some(ip) = target.host.ip() {
        return Ok(vec![SocketAddr::new(ip, target.port)]);
    }
    let host = target.host.as_str();
    let started = Instant::now();
    let looking = timeout(RESOLVE_TIME_MAX, worker.resolve(&target.host));
    let addresses = looking.await;
    times.dns = Some(started.elapsed());
    let addresses = match addresses {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(e)) => return Err(format!("cannot resolve {host}: {e}")),
        Err(_) => {
            let seconds = RESOLVE_TIME_MAX.as_secs();
            return Err(format!("cannot resolve {host}: the resolver is silent for {seconds} s"));
        }
    };
    if addresses.is_empty() {
        return Err(format!("cannot resolve {host}: it has no address"));
    }
    Ok(addresses.iter().map(|&ip| SocketAddr::new(ip, target.port)).collect())
}

/// TLS with who proves to be `name`; an error in words.
pub(super) async fn secure(
    stream: &mut Stream,
    config: &Arc<ClientConfig>,
    name: &HostName,
) -> Result<(), String> {
    let server_name = match name.ip() {
        Some(ip) => ServerName::IpAddress(ip.into()),
        None => ServerName::try_from(name.as_str().to_owned()).map_err(|e| e.to_string())?,
    };
    let connection =
        UnbufferedClientConnection::new(config.clone(), server_name).map_err(|e| e.to_string())?;
    match timeout(ORIGIN_TLS_TIME_MAX, stream.connect_tls(connection)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(words_for(&error)),
        Err(_) => Err(format!("no answer in {} s", ORIGIN_TLS_TIME_MAX.as_secs())),
    }
}

/// The words for an alert that comes when the handshake is over for this side: in TLS 1.3 an origin
/// looks at client certificates only then. `None` for other errors.
pub(super) fn alert_words(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    matches!(error, rustls::Error::AlertReceived(_))
        .then(|| words_for(&TlsError::Protocol(error.clone())))
}

/// A handshake's failure in words a user can act on.
fn words_for(error: &TlsError) -> String {
    use rustls::{AlertDescription as A, CertificateError as C, InvalidMessage as M};
    let hint = match error {
        TlsError::Protocol(rustls::Error::InvalidCertificate(reason)) => match reason {
            C::UnknownIssuer => {
                "its certificate is signed by an authority this system does not \
                trust (--upstream-ca FILE adds one)"
            }
            C::Expired | C::ExpiredContext { .. } => "its certificate has expired",
            C::NotValidYet | C::NotValidYetContext { .. } => "its certificate is not valid yet",
            C::NotValidForName | C::NotValidForNameContext { .. } => {
                "its certificate is for another name"
            }
            _ => "its certificate is not valid",
        },
        TlsError::Protocol(rustls::Error::AlertReceived(A::CertificateRequired)) => {
            "it wants a client certificate ([[upstream.client_certificate]] in config.toml)"
        }
        TlsError::Protocol(rustls::Error::AlertReceived(
            A::AccessDenied
            | A::BadCertificate
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::UnknownCA
            | A::UnsupportedCertificate,
        )) => {
            "it does not accept who the gate says it is ([[upstream.client_certificate]] in \
             config.toml)"
        }
        TlsError::Protocol(rustls::Error::AlertReceived(A::ProtocolVersion)) => {
            "it speaks neither TLS 1.2 nor 1.3"
        }
        TlsError::Protocol(rustls::Error::InvalidMessage(M::InvalidContentType)) => {
            "it does not answer in TLS"
        }
        other => return other.to_string(),
    };
    format!("{hint} ({error})")
}
