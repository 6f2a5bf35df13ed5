//! One downstream connection and all that happens on it.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use agent_gate_store::record::{Flag, Outcome, Record, Refused, Transferred, Tunnel};
use agent_gate_store::{Id, Timestamp};

use super::alarm::Alarm;
use super::answer::Refusal;
use super::door::Target;
use super::run::Run;
use super::socket::Handle;
use super::worker::Worker;
use crate::proto::head::RequestHead;

/// A flow: who it is, and how it can be ended from outside.
pub(super) struct Flow {
    pub(super) id: Id,
    pub(super) worker: Rc<Worker>,
    pub(super) run: Arc<Run>,
    pub(super) client: SocketAddr,
    pub(super) opened_at: Timestamp,
    pub(super) opened: Instant,
    pub(super) control: Rc<FlowControl>,
}

/// What ends a flow when its run ends.
pub(super) struct FlowControl {
    pub(super) run: Id,
    downstream: Rc<Handle>,
    upstream: RefCell<Option<Rc<Handle>>>,
    stage: Cell<Stage>,
    /// By when it is to be done with what it waits for.
    pub(super) alarm: Alarm,
}

/// Where a flow is, as far as it matters when its run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The client has something to send, or is about to: what it has sent is worth waiting for.
    Sending,
    /// The client has sent what it wanted and waits for the origin.
    Waiting,
    /// Between exchanges.
    Idle,
}

impl FlowControl {
    pub(super) fn new(run: Id, downstream: Rc<Handle>) -> Self {
        Self {
            run,
            downstream,
            upstream: RefCell::new(None),
            stage: Cell::new(Stage::Sending),
            alarm: Alarm::default(),
        }
    }

    /// Names the upstream connection the flow uses now.
    pub(super) fn set_upstream(&self, upstream: Option<Rc<Handle>>) {
        *self.upstream.borrow_mut() = upstream;
    }

    /// Says where the flow is now.
    pub(super) fn set_stage(&self, stage: Stage) {
        self.stage.set(stage);
    }

    /// Where the flow is.
    pub(super) fn stage(&self) -> Stage {
        self.stage.get()
    }

    /// Ends both connections.
    pub(super) fn abort(&self) {
        self.downstream.abort();
        if let Some(upstream) = &*self.upstream.borrow() {
            upstream.abort();
        }
    }

    /// Whether this side ended the flow.
    pub(super) fn is_aborted(&self) -> bool {
        self.downstream.is_aborted()
    }
}

/// What is left to say about a connection that carried no exchange.
pub(super) struct TunnelEnd<'a> {
    pub(super) target: &'a Target,
    pub(super) address: Option<SocketAddr>,
    pub(super) via: Option<String>,
    pub(super) sni: Option<&'a str>,
    pub(super) passthrough: bool,
    pub(super) outcome: Outcome,
    pub(super) error: Option<String>,
    pub(super) flags: Vec<Flag>,
    pub(super) transferred: Transferred,
}

impl Flow {
    /// By when a client that has just been let in is to have said what it wants.
    pub(super) fn handshake_due(&self) -> Instant {
        Instant::now() + self.worker.shared.limits.handshake_time_max
    }

    /// Records a connection that was not read as exchanges.
    pub(super) async fn record_tunnel(&self, end: TunnelEnd<'_>) {
        let record = Record::Tunnel(Tunnel {
            id: self.id,
            run: self.run.id,
            at: self.opened_at,
            client: self.client,
            host: end.target.host.as_str().into(),
            port: end.target.port,
            address: end.address,
            via: end.via.map(Into::into),
            sni: end.sni.map(Into::into),
            passthrough: end.passthrough,
            outcome: end.outcome,
            error: end.error.map(Into::into),
            flags: end.flags,
            transferred: end.transferred,
            duration_us: micros(self.opened.elapsed()),
        });
        self.worker.record(&record).await;
    }

    /// Records what was refused: a request, or a connection that ended without any.
    pub(super) async fn record_refused(
        &self,
        refusal: &Refusal,
        sni: Option<&str>,
        request: Option<&RequestHead>,
    ) {
        let Refusal { target, by, detail, flags } = refusal;
        let record = Record::Refused(Refused {
            id: Id::new(),
            run: self.run.id,
            at: Timestamp::now(),
            flow: self.id,
            client: self.client,
            host: target.host.as_str().into(),
            port: target.port,
            sni: sni.map(Into::into),
            request: request.map(|head| format!("{} {}", head.method(), head.target()).into()),
            by: *by,
            detail: detail.as_str().into(),
            flags: flags.clone(),
        });
        self.worker.record(&record).await;
    }
}

/// A duration as records count it.
pub(super) fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
