//! How many connections are open, in all and of each run, and what becomes of those over a limit:
//! they are told so where HTTP can be spoken in clear, and recorded by their number.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use agent_gate_store::record::{Record, Refused, RefusedBy};
use agent_gate_store::{Id, Timestamp};
use monoio::net::TcpStream;
use monoio::time::{sleep, timeout};

use super::answer::Refusal;
use super::connection::{Entrance, target_of};
use super::door::Target;
use super::exchanges::{give, unknown_host};
use super::run::Run;
use super::stream::Stream;
use super::tunnel::looks_like_http;
use super::worker::Worker;
use crate::Limits;
use crate::limits::{
    LINGER_TIME_MAX, TURNED_AWAY_AT_ONCE_MAX, TURNED_AWAY_PERIOD, TURNED_AWAY_STEP,
};

/// A count with a bound.
#[derive(Debug)]
pub(crate) struct Count {
    open: AtomicUsize,
    max: usize,
}

impl Count {
    pub(crate) fn new(max: usize) -> Self {
        Self { open: AtomicUsize::new(0), max }
    }

    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    fn enter(&self) -> bool {
        let one_more = |open| (open < self.max).then_some(open + 1);
        self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_ok()
    }

    fn leave(&self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A connection's place among those that are open, in its run and in all.
pub(super) struct Place {
    worker: Rc<Worker>,
    run: Arc<Run>,
}

impl Place {
    /// A place, or which limit is reached.
    pub(super) fn take(worker: &Rc<Worker>, run: &Arc<Run>) -> Result<Self, Full> {
        if !run.connections.enter() {
            return Err(Full::Run);
        }
        if !worker.shared.connections.enter() {
            run.connections.leave();
            return Err(Full::Gate);
        }
        Ok(Self { worker: worker.clone(), run: run.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.worker.shared.connections.leave();
        self.run.connections.leave();
    }
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// The run's own.
    Run,
    /// That of all runs together.
    Gate,
}

impl Full {
    fn detail(self, limits: &Limits) -> String {
        match self {
            Self::Run => format!(
                "this run has {} connections open, which is its limit (connections_per_run_max)",
                limits.connections_per_run_max
            ),
            Self::Gate => format!(
                "all runs together have {} connections open, which is the limit (connections_max)",
                limits.connections_max
            ),
        }
    }
}

/// Ends a connection that is one too many.
pub(super) fn turn_away(
    worker: &Rc<Worker>,
    run: &Arc<Run>,
    entrance: Entrance,
    (stream, client): (TcpStream, SocketAddr),
    full: Full,
) {
    let target = target_of(run, entrance, &stream);
    let detail = full.detail(&worker.shared.limits);
    if run.turned_away.count() {
        // It is counted as the run's, so that what it has to tell is told before the run ends.
        run.flow_opened();
        let one =
            Turned { run: run.clone(), client, target: target.clone(), detail: detail.clone() };
        let worker = worker.clone();
        monoio::spawn(async move {
            one.tell(&worker).await;
            one.run.flow_ended();
        });
    }
    if entrance == Entrance::Dns || worker.turning_away.get() >= TURNED_AWAY_AT_ONCE_MAX {
        return;
    }
    worker.turning_away.set(worker.turning_away.get() + 1);
    let worker = worker.clone();
    monoio::spawn(async move {
        say_so(&target, &detail, stream).await;
        worker.turning_away.set(worker.turning_away.get() - 1);
    });
}

/// Answers a client that speaks HTTP in clear; any other finds the connection closed.
async fn say_so(target: &Target, detail: &str, stream: TcpStream) {
    let mut stream = Stream::new(stream);
    // It is closed after this, so a read that is dropped loses nothing that anybody waits for.
    let _ = timeout(LINGER_TIME_MAX, stream.reader.fill()).await;
    if looks_like_http(stream.reader.data()) {
        let by = RefusedBy::TooManyConnections;
        give(&Refusal::of(by, target, detail.to_owned()), None, &mut stream).await;
    } else {
        stream.handle().abort();
    }
}

/// Connections that a run was denied and no record tells of yet.
#[derive(Debug, Default)]
pub(super) struct TurnedAway(std::sync::Mutex<Option<u64>>);

impl TurnedAway {
    /// Counts one; whether it is the caller's to record it, and what comes after it.
    fn count(&self) -> bool {
        let mut untold = self.lock();
        match &mut *untold {
            Some(count) => {
                *count += 1;
                false
            }
            None => {
                *untold = Some(0);
                true
            }
        }
    }

    /// Takes what is untold; when that is nothing, the next one is somebody else's to record.
    fn take(&self) -> u64 {
        let mut untold = self.lock();
        match untold.take() {
            None | Some(0) => 0,
            Some(count) => {
                *untold = Some(0);
                count
            }
        }
    }

    /// It is right after each statement, whoever panicked.
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<u64>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The first of some connections that were turned away, which stands for the others in the records.
struct Turned {
    run: Arc<Run>,
    client: SocketAddr,
    target: Target,
    detail: String,
}

impl Turned {
    /// Records it at once, and once a period how many more there were, until there are none.
    async fn tell(&self, worker: &Worker) {
        let mut count = 1;
        while count > 0 {
            worker.record(&self.record(count)).await;
            let since = Instant::now();
            while since.elapsed() < TURNED_AWAY_PERIOD && !self.run.is_ending() {
                sleep(TURNED_AWAY_STEP).await;
            }
            count = self.run.turned_away.take();
        }
    }

    fn record(&self, count: u64) -> Record<'static> {
        let detail = match count {
            1 => format!("{}: a connection was turned away", self.detail),
            _ => format!("{}: {count} more connections were turned away", self.detail),
        };
        record(&self.run, self.client, &self.target, detail)
    }
}

/// Tells that new connections of the run, and perhaps of others, wait for want of descriptors.
pub(super) fn shortage(run: &Run, error: &std::io::Error) -> Record<'static> {
    let detail = format!("no new connection can be taken in, so they wait: {error}");
    let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
    record(run, nobody, &Target { host: unknown_host(), port: 0 }, detail)
}

fn record(run: &Run, client: SocketAddr, target: &Target, detail: String) -> Record<'static> {
    Record::Refused(Refused {
        id: Id::new(),
        run: run.id,
        at: Timestamp::now(),
        flow: Id::new(),
        client,
        host: target.host.as_str().to_owned().into(),
        port: target.port,
        sni: None,
        request: None,
        by: RefusedBy::TooManyConnections,
        detail: detail.into(),
        flags: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_does_not_pass_its_bound() {
        let count = Count::new(2);
        assert_eq!([count.enter(), count.enter(), count.enter()], [true, true, false]);
        assert_eq!(count.open(), 2);
        count.leave();
        assert!(count.enter());
    }

    #[test]
    fn one_tells_for_all() {
        let turned_away = TurnedAway::default();
        assert!(turned_away.count(), "the first one tells");
        assert!(!turned_away.count() && !turned_away.count());
        assert_eq!(turned_away.take(), 2);
        assert!(!turned_away.count(), "the first one still looks");
        assert_eq!(turned_away.take(), 1);
        assert_eq!(turned_away.take(), 0);
        assert!(turned_away.count(), "nobody looks any more");
    }
}
