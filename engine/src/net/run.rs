//! What the workers share about one run: its settings made ready, its names, its count.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use agent_gate_store::{HostName, Id};
use rustls::crypto::CryptoProvider;
use rustls_pki_types::CertificateDer;

use super::crowd::{Count, TurnedAway};
use super::door::Target;
use super::names::Names;
use super::upstream::Route;
use crate::distrust::Distrust;
use crate::upstream_proxy::UpstreamProxies;
use crate::upstream_trust::UpstreamTls;
use crate::{Error, ResolveRule, RunSettings};

/// One run as the workers see it.
pub(crate) struct Run {
    /// Its id, which all records carry.
    pub(super) id: Id,
    /// Refuse what the allowlist does not name.
    pub(super) enforce_allowlist: bool,
    /// How origins and proxies are checked.
    pub(super) tls: UpstreamTls,
    /// Runs with the same key may use each other's upstream connections.
    pub(super) upstream_key: u64,
    /// What the jail looked up.
    pub(super) names: Names,
    /// Its open connections.
    pub(super) connections: Count,
    /// Those that were one too many.
    pub(super) turned_away: TurnedAway,
    /// Whether its clients accept our certificates.
    pub(super) distrust: Distrust,
    resolve: Vec<ResolveRule>,
    proxies: UpstreamProxies,
    exchanges: AtomicU64,
    ending: AtomicBool,
    open_flows: Mutex<usize>,
    flow_ended: Condvar,
    /// Workers that have not yet closed the run's listeners.
    pub(super) listening: AtomicUsize,
}

impl Run {
    pub(crate) fn new(
        settings: RunSettings,
        roots: &[CertificateDer<'static>],
        provider: &Arc<CryptoProvider>,
        connections_max: usize,
    ) -> Result<Self, Error> {
        let tls = UpstreamTls::new(&settings, roots, provider)?;
        Ok(Self {
            id: settings.id,
            enforce_allowlist: settings.enforce_allowlist,
            tls,
            upstream_key: upstream_key(&settings),
            names: Names::default(),
            connections: Count::new(connections_max),
            turned_away: TurnedAway::default(),
            distrust: Distrust::default(),
            resolve: settings.resolve,
            proxies: settings.proxies,
            exchanges: AtomicU64::new(0),
            ending: AtomicBool::new(false),
            open_flows: Mutex::new(0),
            flow_ended: Condvar::new(),
            listening: AtomicUsize::new(0),
        })
    }

    /// The address given by hand for `host:port`.
    pub(super) fn resolved_by_hand(&self, host: &HostName, port: u16) -> Option<SocketAddr> {
        self.resolve.iter().find_map(|rule| rule.address_of(host, port))
    }

    /// How requests for `target` get there; unread bytes count as TLS.
    pub(super) fn route(&self, target: &Target, form: Form) -> Route {
        if self.resolved_by_hand(&target.host, target.port).is_some() {
            return Route::Direct;
        }
        let tls = form == Form::Tls;
        match (self.proxies.on_the_way_to(tls, &target.host, target.port), form) {
            (None, _) => Route::Direct,
            (Some(proxy), Form::Requests) => Route::Forward(proxy.clone()),
            (Some(proxy), Form::Tls | Form::Stream) => Route::Tunnel(proxy.clone()),
        }
    }

    /// Counts an exchange.
    pub(super) fn count_exchange(&self) {
        self.exchanges.fetch_add(1, Ordering::Relaxed);
    }

    /// Exchanges so far.
    pub(crate) fn exchanges(&self) -> u64 {
        self.exchanges.load(Ordering::Relaxed)
    }

    /// Marks the run as over: no new flow is taken.
    pub(crate) fn end(&self) {
        self.ending.store(true, Ordering::Release);
    }

    /// Whether the run is over.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    pub(super) fn flow_opened(&self) {
        *self.open_flows.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }

    pub(super) fn flow_ended(&self) {
        *self.open_flows.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.flow_ended.notify_all();
    }

    /// Blocks until no flow is open, for `at_most` so long; whether none is.
    pub(crate) fn wait_for_flows(&self, at_most: Duration) -> bool {
        let deadline = Instant::now() + at_most;
        let mut open = self.open_flows.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let listening = self.listening.load(Ordering::Acquire);
            if *open == 0 && listening == 0 {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            // Listeners close without the condition being told; look again soon.
            let left = left.min(Duration::from_millis(if listening > 0 { 1 } else { 100 }));
            (open, _) =
                self.flow_ended.wait_timeout(open, left).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// What is to travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// TLS, or what is not read.
    Tls,
    /// Clear-text requests, each by itself.
    Requests,
    /// A clear-text request whose connection turns into something else: a WebSocket asks a proxy
    /// for a tunnel also when it is in clear text (RFC 6455, section 4.1).
    Stream,
}

/// Equal for runs that find origins in the same way, trust them alike and show them the same
/// certificates. The proxies are in each connection's own key.
fn upstream_key(settings: &RunSettings) -> u64 {
    let mut hasher = DefaultHasher::new();
    settings.upstream_cas.hash(&mut hasher);
    settings.upstream_insecure.hash(&mut hasher);
    settings.resolve.hash(&mut hasher);
    settings.client_certificates.hash(&mut hasher);
    hasher.finish()
}
