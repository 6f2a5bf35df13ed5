//! A connection to an origin: found by name, checked against policy, dialled, secured.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use agent_gate_store::HostName;
use agent_gate_store::record::{Outcome, RefusedBy, Timings};
use futures_util::FutureExt;
use monoio::time::timeout;
use rustls::client::UnbufferedClientConnection;
use rustls_pki_types::ServerName;

use super::answer;
use super::connect::connect_any;
use super::door::Target;
use super::flow::micros;
use super::pool::Key;
use super::run::Run;
use super::stream::{Stream, TlsError};
use super::worker::Worker;
use crate::limits::{ORIGIN_TLS_TIME_MAX, RESOLVE_TIME_MAX};

/// A connection to an origin.
pub(super) struct Upstream {
    pub(super) stream: Stream,
    pub(super) address: SocketAddr,
    pub(super) key: Key,
    /// How it comes that this exchange has it.
    pub(super) origin: Origin,
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
    worker: &Worker,
    run: &Run,
    key: Key,
    times: &mut DialTimes,
) -> Result<Upstream, DialError> {
    let target = Target { host: key.host.clone(), port: key.port };
    let (address, stream) = connect(worker, run, &target, times).await?;
    let mut stream = Stream::new(stream);
    if let Some(name) = &key.server_name {
        secure(&mut stream, run, name, times).await?;
    }
    Ok(Upstream { stream, address, key, origin: Origin::Dialled })
}

/// Finds, checks and connects to `target`, in clear.
pub(super) async fn connect(
    worker: &Worker,
    run: &Run,
    target: &Target,
    times: &mut DialTimes,
) -> Result<(SocketAddr, monoio::net::TcpStream), DialError> {
    let started = Instant::now();
    let addresses = match run.resolved_by_hand(&target.host, target.port) {
        Some(address) => vec![address],
        None => allowed_addresses(worker, target, times).await?,
    };
    let resolved = Instant::now();
    let (address, stream) = connect_any(&addresses, worker.shared.limits.connect_time_max)
        .await
        .map_err(|e| DialError::Failed {
            outcome: Outcome::Unreachable,
            detail: format!("cannot connect to {}:{}: {e}", target.host.as_str(), target.port),
        })?;
    if times.dns.is_some() {
        times.dns = Some(resolved - started);
    }
    times.connect = Some(resolved.elapsed());
    Ok((address, stream))
}

/// The addresses of `target` that may be dialled; an error when there are none.
async fn allowed_addresses(
    worker: &Worker,
    target: &Target,
    times: &mut DialTimes,
) -> Result<Vec<SocketAddr>, DialError> {
    let lists = worker.shared.lists.load_full();
    let mut addresses = match target.host.ip() {
        Some(ip) => vec![SocketAddr::new(ip, target.port)],
        None => {
            times.dns = Some(Duration::ZERO);
            resolve(worker, target).await?
        }
    };
    let mut refused = None;
    addresses.retain(|&address| match worker.shared.own.refusal(&lists, &target.host, address) {
        None => true,
        Some(class) => {
            refused = Some((address, class));
            false
        }
    });
    match (addresses.is_empty(), refused) {
        (true, Some((address, class))) => Err(DialError::Refused {
            by: RefusedBy::AddressRefused,
            address,
            detail: answer::refusal_detail(RefusedBy::AddressRefused, target, class),
        }),
        _ => Ok(addresses),
    }
}

async fn resolve(worker: &Worker, target: &Target) -> Result<Vec<SocketAddr>, DialError> {
    let unknown = |detail: String| DialError::Failed { outcome: Outcome::NameUnknown, detail };
    let host = target.host.as_str();
    let looking = timeout(RESOLVE_TIME_MAX, worker.resolve(&target.host));
    let addresses = match looking.await {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(e)) => return Err(unknown(format!("cannot resolve {host}: {e}"))),
        Err(_) => return Err(unknown(format!("cannot resolve {host}: the resolver is silent"))),
    };
    if addresses.is_empty() {
        return Err(unknown(format!("cannot resolve {host}: it has no address")));
    }
    Ok(addresses.iter().map(|&ip| SocketAddr::new(ip, target.port)).collect())
}

async fn secure(
    stream: &mut Stream,
    run: &Run,
    name: &HostName,
    times: &mut DialTimes,
) -> Result<(), DialError> {
    let started = Instant::now();
    let failed = |detail: String| DialError::Failed {
        outcome: Outcome::OriginTlsFailed,
        detail: format!("TLS with {}: {detail}", name.as_str()),
    };
    let server_name = match name.ip() {
        Some(ip) => ServerName::IpAddress(ip.into()),
        None => {
            ServerName::try_from(name.as_str().to_owned()).map_err(|e| failed(e.to_string()))?
        }
    };
    let connection = UnbufferedClientConnection::new(run.tls.clone(), server_name)
        .map_err(|e| failed(e.to_string()))?;
    match timeout(ORIGIN_TLS_TIME_MAX, stream.connect_tls(connection)).await {
        Ok(Ok(())) => {
            times.tls = Some(started.elapsed());
            Ok(())
        }
        Ok(Err(error)) => Err(failed(words_for(&error))),
        Err(_) => Err(failed("no answer in time".to_owned())),
    }
}

/// A handshake's failure in words a user can act on.
fn words_for(error: &TlsError) -> String {
    use rustls::CertificateError as C;
    match error {
        TlsError::Protocol(rustls::Error::InvalidCertificate(reason)) => {
            let reason = match reason {
                C::UnknownIssuer => "its certificate is signed by an authority this system does \
                    not trust (--upstream-ca FILE adds one)"
                    .to_owned(),
                C::Expired | C::ExpiredContext { .. } => "its certificate has expired".to_owned(),
                C::NotValidForName | C::NotValidForNameContext { .. } => {
                    "its certificate is for another name".to_owned()
                }
                other => format!("its certificate is not valid: {other}"),
            };
            format!("{reason} ({error})")
        }
        other => other.to_string(),
    }
}
