//! What the origin received and what it sent, kept for the test to look at.

use std::sync::Mutex;

use crate::support::content::Content;

/// Field lines in order, names in their own case.
pub(crate) type Fields = Vec<(String, String)>;

/// One request that arrived completely.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// The connection it came by, counted from zero.
    pub(crate) connection: u64,
    pub(crate) sni: Option<String>,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) version: String,
    pub(crate) fields: Fields,
    pub(crate) body: Content,
    pub(crate) trailers: Fields,
    /// The answer, once it is over; what was on its way when a connection broke counts as sent.
    pub(crate) sent: Option<Sent>,
}

/// One answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sent {
    /// Interim statuses (1xx) in order.
    pub(crate) interim: Vec<u16>,
    pub(crate) status: u16,
    pub(crate) fields: Fields,
    pub(crate) body: Content,
    pub(crate) trailers: Fields,
}

impl Seen {
    /// The value of the first field of this name, in any case.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        value(&self.fields, name)
    }

    /// The host it is for, without a port or brackets.
    pub(crate) fn host(&self) -> &str {
        let host = self.field("host").unwrap_or_default();
        match host.strip_prefix('[') {
            Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
            None => host.split(':').next().unwrap_or_default(),
        }
    }

    /// A parameter of the target's query.
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        query.split('&').filter_map(|pair| pair.split_once('=')).find(|p| p.0 == name).map(|p| p.1)
    }

    /// The same, as a number; `default` when it is absent.
    pub(crate) fn number(&self, name: &str, default: u64) -> u64 {
        self.query(name).map_or(default, |n| n.parse().unwrap())
    }

    /// The target without its query.
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// The value of the first field of this name, in any case.
pub(crate) fn value<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    fields.iter().find(|f| f.0.eq_ignore_ascii_case(name)).map(|f| &f.1[..])
}

/// The origin's memory.
#[derive(Default)]
pub(super) struct Log {
    seen: Mutex<Vec<Seen>>,
    violations: Mutex<Vec<String>>,
}

impl Log {
    /// Notes a request; returns its place, for [`Log::answered`].
    pub(super) fn received(&self, seen: Seen) -> usize {
        let mut all = self.seen.lock().unwrap();
        all.push(seen);
        all.len() - 1
    }

    pub(super) fn answered(&self, place: usize, sent: Sent) {
        self.seen.lock().unwrap()[place].sent = Some(sent);
    }

    pub(super) fn violation(&self, what: String) {
        self.violations.lock().unwrap().push(what);
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// All requests, if each has its answer.
    pub(super) fn settled(&self) -> Option<Vec<Seen>> {
        let all = self.seen.lock().unwrap();
        all.iter().all(|s| s.sent.is_some()).then(|| all.clone())
    }

    pub(super) fn forgive(&self) {
        self.violations.lock().unwrap().clear();
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap().clone()
    }
}
