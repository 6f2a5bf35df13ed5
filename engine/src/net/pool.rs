//! Idle upstream connections of a worker, for the next exchange with the same origin.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use agent_gate_store::HostName;

use super::upstream::{Route, Upstream};
use crate::limits::{POOL_CONNECTIONS_MAX, POOL_CONNECTIONS_PER_ORIGIN_MAX, POOL_IDLE_MAX};

/// Whose connections may stand in for each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The host that was dialled.
    pub(super) host: HostName,
    /// And the port.
    pub(super) port: u16,
    /// The name in TLS; `None` for clear text.
    pub(super) server_name: Option<HostName>,
    /// How it gets there.
    pub(super) route: Route,
    /// Runs that find and trust origins alike, and say they are the same.
    pub(super) upstream_key: u64,
}

/// The idle connections.
#[derive(Default)]
pub(super) struct Pool {
    idle: HashMap<Key, VecDeque<Idle>>,
    count: usize,
}

struct Idle {
    upstream: Upstream,
    since: Instant,
}

impl Pool {
    /// An idle connection for `key` that has been idle for `idle_max` at most, the freshest first,
    /// and that the origin has not closed meanwhile.
    pub(super) fn take(&mut self, key: &Key, idle_max: Duration) -> Option<Upstream> {
        let idle = self.idle.get_mut(key)?;
        while let Some(mut found) = idle.pop_back_if(|i| i.since.elapsed() <= idle_max) {
            self.count -= 1;
            if found.upstream.is_still_open() {
                return Some(found.upstream);
            }
        }
        None
    }

    /// Keeps a connection that has nothing to do. When there are too many, the connection that
    /// idled longest in its place is closed.
    pub(super) fn put(&mut self, key: Key, mut upstream: Upstream) {
        // This also begins to watch for the origin's closing it.
        if !upstream.is_still_open() {
            return;
        }
        if self.count >= POOL_CONNECTIONS_MAX {
            return;
        }
        let idle = self.idle.entry(key).or_default();
        if idle.len() >= POOL_CONNECTIONS_PER_ORIGIN_MAX {
            idle.pop_front();
            self.count -= 1;
        }
        idle.push_back(Idle { upstream, since: Instant::now() });
        self.count += 1;
    }

    /// Closes them all.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Closes what has idled too long or what the origin has closed; called now and then by the
    /// worker.
    pub(super) fn expire(&mut self) {
        let mut count = 0;
        self.idle.retain(|_, idle| {
            idle.retain_mut(|i| i.since.elapsed() <= POOL_IDLE_MAX && i.upstream.is_still_open());
            count += idle.len();
            !idle.is_empty()
        });
        self.count = count;
    }
}
