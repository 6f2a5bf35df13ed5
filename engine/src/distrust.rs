//! Whether the clients of a run accept the gate's certificates, host by host.
//!
//! A client that does not may say so by an alert, or (Bun, GnuTLS) finish the handshake and close.
//! The latter looks like a connection that was opened in advance and not used, so one such
//! connection says nothing; several in a row, and never another, do.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use agent_gate_store::HostName;

use crate::limits::DISTRUST_HOSTS_MAX;

/// Unused connections in a row, and none that was used, that are no coincidence any more.
const UNUSED_MIN: u32 = 2;

/// What became of the TLS connections of one run.
#[derive(Debug, Default)]
pub(crate) struct Distrust(Mutex<HashMap<HostName, Seen>>);

#[derive(Debug, Clone, Copy)]
enum Seen {
    /// A request came over one.
    Used,
    /// So many ended without a request, and none with.
    Unused(u32),
}

/// What a connection that ended after its handshake, without a request, says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unused {
    /// Requests to the host came over others: it was opened in advance.
    InAdvance,
    /// Nothing yet.
    Unclear,
    /// So many in a row, and none with a request: the client does not accept the certificate.
    Distrust(u32),
}

impl Distrust {
    /// A request for `host` came over TLS.
    pub(crate) fn used(&self, host: &HostName) {
        let mut hosts = self.lock();
        if !matches!(hosts.get(host), Some(Seen::Used)) {
            note(&mut hosts, host, Seen::Used);
        }
    }

    /// A connection for `host` ended after its handshake, without a request.
    pub(crate) fn unused(&self, host: &HostName) -> Unused {
        let mut hosts = self.lock();
        let count = match hosts.get(host) {
            Some(Seen::Used) => return Unused::InAdvance,
            Some(Seen::Unused(count)) => count.saturating_add(1),
            None => 1,
        };
        note(&mut hosts, host, Seen::Unused(count));
        if count < UNUSED_MIN { Unused::Unclear } else { Unused::Distrust(count) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<HostName, Seen>> {
        // Whole after every statement, so a panic elsewhere has not harmed it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Beyond the bound all is forgotten: what comes next is then unclear once more, not wrong.
fn note(hosts: &mut HashMap<HostName, Seen>, host: &HostName, seen: Seen) {
    if hosts.len() >= DISTRUST_HOSTS_MAX && !hosts.contains_key(host) {
        hosts.clear();
    }
    hosts.insert(host.clone(), seen);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(n: usize) -> HostName {
        HostName::parse(&format!("h{n}.example")).unwrap()
    }

    #[test]
    fn one_unused_connection_says_nothing() {
        let distrust = Distrust::default();
        assert_eq!(distrust.unused(&host(1)), Unused::Unclear);
        assert_eq!(distrust.unused(&host(2)), Unused::Unclear);
        assert_eq!(distrust.unused(&host(1)), Unused::Distrust(2));
        assert_eq!(distrust.unused(&host(1)), Unused::Distrust(3));
        distrust.used(&host(1));
        assert_eq!(distrust.unused(&host(1)), Unused::InAdvance);
        assert_eq!(distrust.unused(&host(2)), Unused::Distrust(2));
    }

    #[test]
    fn memory_is_bounded() {
        let distrust = Distrust::default();
        for n in 0..=DISTRUST_HOSTS_MAX {
            distrust.used(&host(n));
        }
        assert!(distrust.lock().len() <= DISTRUST_HOSTS_MAX);
        assert_eq!(distrust.unused(&host(DISTRUST_HOSTS_MAX)), Unused::InAdvance);
    }
}
