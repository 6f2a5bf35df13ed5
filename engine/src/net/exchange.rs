//! One exchange over HTTP/1.1: a request up, a response down, both at once.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use agent_gate_store::record::{Flag, Outcome, RefusedBy, Transferred};
use agent_gate_store::{Stopped, Timestamp};

use super::answer::{self, Answer, Refusal};
use super::door::{Door, Target};
use super::flow::{Flow, Stage};
use super::observer::{ResponseEnd, ResponseObserver};
use super::pool::Key;
use super::relay::{RelayEnd, linger, relay};
use super::request_side::{RequestSide, SendError};
use super::response_side::{ReceiveEnd, ReceiveError, ResponseSide};
use super::run::Form;
use super::stream::{Reader, Stream, Writer};
use super::upstream::{DialError, DialTimes, Origin, Upstream, dial};
use super::websocket;
use crate::limits::{POOL_IDLE_MAX, POOL_IDLE_MAX_UNSAFE};
use crate::proto::framing::Framing;
use crate::proto::head::{RequestHead, ResponseHead};
use crate::proto::ws_deflate::Extensions;

/// What becomes of the downstream connection.
pub(super) enum After {
    /// It carries the next exchange; the upstream connection waits for it too.
    Next(Box<Upstream>),
    /// It ends as the messages announced.
    Close,
    /// It is broken off, as the origin's was: the client must not take what it got for whole.
    Abort,
    /// The same, where only a reset says so.
    Reset,
}

/// A request whose head has been read and allowed.
pub(super) struct Opening<'a> {
    pub(super) door: &'a Door,
    pub(super) target: &'a Target,
    pub(super) head: &'a RequestHead,
    pub(super) framing: Framing,
    /// What is odd about it.
    pub(super) flags: &'a [Flag],
    /// When its first byte was there.
    pub(super) begun: (Timestamp, Instant),
}

/// Carries one exchange through to its records.
pub(super) async fn exchange(
    flow: &Flow,
    opening: Opening<'_>,
    down: &mut Stream,
    kept: Option<Upstream>,
) -> After {
    let key = key(flow, &opening);
    let forwarded_by = key.route.forwarded_by().map(|proxy| &**proxy);
    let mut exchange = Exchange {
        flow,
        request: RequestSide::new(flow, &opening, forwarded_by),
        response: ResponseSide::new(ResponseObserver::new(flow.worker.capture())),
        times: DialTimes::default(),
        upgraded: None,
        messages: None,
    };
    exchange.request.observer.via = key.route.via();
    exchange.response.forwarded_by = key.route.forwarded_by().cloned();
    flow.control.set_stage(Stage::Sending);
    let after = exchange.run(key, down, kept).await;
    flow.control.set_upstream(None);
    after
}

fn key(flow: &Flow, opening: &Opening<'_>) -> Key {
    let Opening { door, target, head, .. } = opening;
    let form = match door.tls {
        Some(_) => Form::Tls,
        None if head.head.has_member("upgrade", "websocket") => Form::Stream,
        None => Form::Requests,
    };
    let server_name =
        door.tls.as_ref().map(|tls| tls.sni.clone().unwrap_or_else(|| target.host.clone()));
    Key {
        host: target.host.clone(),
        port: target.port,
        server_name,
        route: flow.run.route(target, form),
        upstream_key: flow.run.upstream_key,
    }
}

struct Exchange<'a> {
    flow: &'a Flow,
    request: RequestSide<'a>,
    response: ResponseSide,
    times: DialTimes,
    upgraded: Option<Transferred>,
    messages: Option<Transferred>,
}

impl Exchange<'_> {
    /// What comes before and after the stretch that lasts, a stream of hours perhaps, is boxed:
    /// its room is not to be held meanwhile.
    async fn run(&mut self, key: Key, down: &mut Stream, mut kept: Option<Upstream>) -> After {
        let mut again = false;
        loop {
            let mut up = match self.connection(&key, kept.take(), again).await {
                Ok(up) => up,
                Err(error) => return Box::pin(self.not_connected(error, down)).await,
            };
            self.request.observer.address = Some(up.address);
            self.flow.control.set_upstream(Some(up.stream.handle().clone()));
            let both = self.both_ways(down, &mut up.stream).await;
            if self.may_try_again(&both, &up) {
                again = true;
                continue;
            }
            return Box::pin(self.conclude(both, down, up)).await;
        }
    }

    /// The connection that the exchange before used, or an idle one, or a new one. `again`: an idle
    /// one was closed under this request, and another might be too; it is sent twice at most.
    async fn connection(
        &mut self,
        key: &Key,
        kept: Option<Upstream>,
        again: bool,
    ) -> Result<Upstream, DialError> {
        if again {
            return Box::pin(dial(self.flow, key.clone(), &mut self.times)).await;
        }
        if let Some(mut kept) = kept
            && kept.key == *key
            && kept.is_still_open()
        {
            kept.origin = Origin::Kept;
            return Ok(kept);
        }
        let worker = &self.flow.worker;
        let idle_max =
            if self.request.is_replayable() { POOL_IDLE_MAX } else { POOL_IDLE_MAX_UNSAFE };
        let pooled = worker.pool.borrow_mut().take(key, idle_max);
        if let Some(mut pooled) = pooled {
            pooled.origin = Origin::Pooled;
            return Ok(pooled);
        }
        Box::pin(dial(self.flow, key.clone(), &mut self.times)).await
    }

    /// Whether the origin closed an idle connection just as it was used, for a request that may
    /// be sent again (RFC 9110, section 9.2.2).
    fn may_try_again(&self, both: &BothWays, up: &Upstream) -> bool {
        up.origin != Origin::Dialled
            && !self.response.observer.has_arrived()
            && self.request.is_replayable()
            && matches!(both.received, Some(Err(ReceiveError::OriginGone(_))))
            && !both.client_gone
            && both.silent_for.is_none()
            && !self.flow.control.is_aborted()
    }

    /// Request up and response down, until both are over or one has ended the other.
    async fn both_ways(&mut self, down: &mut Stream, up: &mut Stream) -> BothWays {
        let handles = (down.handle().clone(), up.handle().clone());
        let to_head = self.request.head.is_method("HEAD");
        let state = State::default();
        let control = &self.flow.control;
        let first_byte_time_max = self.flow.worker.shared.limits.first_byte_time_max;
        let answered = || {
            state.answered.set(true);
            control.alarm.calm();
        };
        let Self { request, response, .. } = self;
        let upward = pin!(async {
            let sent = request.send(&mut down.reader, &mut up.writer).await;
            let watch = sent.is_ok();
            *state.sent.borrow_mut() = Some(sent);
            if watch {
                control.set_stage(Stage::Waiting);
                let watching = watch_client(&mut down.reader, &mut up.writer, &state);
                match first_byte_time_max.filter(|_| !state.answered.get()) {
                    None => watching.await,
                    Some(time)
                        if control.alarm.until(Instant::now() + time, watching).await.is_none() =>
                    {
                        state.silent_for.set(Some(time));
                    }
                    Some(_) => {}
                }
            }
        });
        let downward = pin!(async {
            let received =
                response.receive(&mut up.reader, &mut down.writer, to_head, &answered).await;
            let watch = matches!(received, Ok(ReceiveEnd::Reusable));
            *state.received.borrow_mut() = Some(received);
            if watch {
                // The request may still be on its way; the origin may end that.
                let _ = up.reader.fill().await;
                state.origin_closed.set(true);
            }
        });
        drive(upward, downward, &state, || {
            handles.1.abort();
            if state.client_gone.get() {
                handles.0.abort();
            }
        })
        .await;
        BothWays {
            sent: state.sent.take(),
            received: state.received.take(),
            client_gone: state.client_gone.get(),
            silent_for: state.silent_for.get(),
            half_closed: state.half_closed.get(),
        }
    }

    /// No connection to the origin: the client is told, and the record too.
    async fn not_connected(&mut self, error: DialError, down: &mut Stream) -> After {
        self.request.drain(&mut down.reader).await;
        let (outcome, detail, answer) = match error {
            DialError::Failed { outcome, detail } => {
                let answer = answer::failure(
                    outcome,
                    self.request.observer.target,
                    &detail,
                    self.request.head,
                );
                (outcome, detail, answer)
            }
            DialError::Refused { by, address, detail } => {
                self.request.observer.address = Some(address);
                let refusal = self.refusal(by, detail);
                self.flow.record_refused(&refusal, None, Some(self.request.head)).await;
                let answer = answer::refusal(&refusal, Some(self.request.head));
                (Outcome::AddressRefused, refusal.detail, answer)
            }
        };
        self.give(&answer, down).await;
        self.request.end_at_last().await;
        self.record_response(outcome, Some(detail), Some(&answer)).await;
        linger(down).await;
        After::Abort
    }

    fn refusal(&self, by: RefusedBy, detail: String) -> Refusal {
        let observer = &self.request.observer;
        Refusal { target: observer.target.clone(), by, detail, flags: observer.flags.clone() }
    }

    /// Both ways are over: what to record, and what becomes of the connections.
    async fn conclude(&mut self, both: BothWays, down: &mut Stream, mut up: Upstream) -> After {
        let ended = both.ended(self.flow.control.is_aborted());
        if ended.end == Some(ReceiveEnd::Upgraded) {
            return self.relay_upgraded(down, &mut up.stream).await;
        }
        let mut answer = None;
        // An origin that closed the connection just as it was used again has not seen the
        // request, or has: the client alone knows whether to send it again, as it would without
        // a gate between. It sees the connection close, too.
        let mirrored = up.origin == Origin::Kept
            && !self.response.observer.has_arrived()
            && both.silent_for.is_none();
        if ended.end.is_none() && !self.response.begun && !ended.client_gone && !mirrored {
            let given = self.answer(&ended);
            self.give(&given, down).await;
            answer = Some(given);
        }
        self.request.end_at_last().await;
        self.record_response(ended.outcome, ended.error, answer.as_ref()).await;
        if answer.is_some() {
            linger(down).await;
            return After::Abort;
        }
        self.after(ended.end, both.half_closed, down, up).await
    }

    async fn after(
        &self,
        end: Option<ReceiveEnd>,
        half_closed: bool,
        down: &mut Stream,
        up: Upstream,
    ) -> After {
        match end {
            // An end would be the end of the body; many clients take one for that in TLS, too.
            None if self.response.ends_with_connection => After::Reset,
            None | Some(ReceiveEnd::BrokenOff | ReceiveEnd::Upgraded) => After::Abort,
            Some(ReceiveEnd::Reusable | ReceiveEnd::Last) if !self.request.is_complete() => {
                linger(down).await;
                After::Abort
            }
            Some(ReceiveEnd::Last) => After::Close,
            Some(ReceiveEnd::Reusable) if half_closed => After::Close,
            Some(ReceiveEnd::Reusable) if self.request.head.head.keeps_alive() => {
                After::Next(Box::new(up))
            }
            // The client is done; the origin has been told so with the same field.
            Some(ReceiveEnd::Reusable) => After::Close,
        }
    }

    async fn relay_upgraded(&mut self, down: &mut Stream, up: &mut Stream) -> After {
        if let Some(head) = &self.response.head
            && websocket::is_opened(self.request.head, head)
        {
            let extensions = Extensions::agreed(&self.request.head.head, &head.head);
            let id = self.request.observer.id;
            // Boxed, so that other exchanges do not hold its room.
            let carrying = Box::pin(websocket::carry(self.flow, id, extensions, down, up));
            let ended = carrying.await;
            (self.upgraded, self.messages) = (Some(ended.bytes), Some(ended.messages));
            self.record_response(ended.outcome, ended.error, None).await;
            return After::Abort;
        }
        let (end, transferred) = relay(down, up, |_| ()).await;
        self.upgraded = Some(transferred);
        let outcome = match end {
            RelayEnd::Both => Outcome::Complete,
            RelayEnd::ClientGone => Outcome::CutByClient,
            RelayEnd::OriginGone => Outcome::CutByOrigin,
        };
        self.record_response(outcome, None, None).await;
        After::Abort
    }

    /// What a client that has got nothing yet is told.
    fn answer(&self, ended: &Ended) -> Answer {
        let detail = ended.error.clone().unwrap_or_default();
        let (target, head) = (self.request.observer.target, self.request.head);
        match ended.outcome {
            Outcome::ClientBroken => {
                answer::refusal(&self.refusal(RefusedBy::BadRequest, detail), Some(head))
            }
            outcome => answer::failure(outcome, target, &detail, head),
        }
    }

    /// Sends an answer of the gate's own; a client that is gone misses it.
    async fn give(&mut self, answer: &Answer, down: &mut Stream) {
        self.response.begun = true;
        if down.writer.stage(&answer.bytes).is_ok() {
            let _ = down.writer.flush().await;
        }
    }

    async fn record_response(
        &mut self,
        outcome: Outcome,
        error: Option<String>,
        answer: Option<&Answer>,
    ) {
        let given = answer.and_then(|a| Some((a, ResponseHead::parse(&a.bytes).ok()??)));
        let head = given.as_ref().map(|(_, (head, _))| head).or(self.response.head.as_ref());
        let end = ResponseEnd {
            outcome,
            error,
            interim: self.response.interim.iter().map(ResponseHead::record).collect(),
            head: head.map(ResponseHead::record),
            by_gate: given.as_ref().map(|(answer, (_, length))| &answer.bytes[*length..]),
            trailers: std::mem::take(&mut self.response.trailers),
            times: self.times,
            upgraded: self.upgraded,
            messages: self.messages,
        };
        self.response.observer.end(&self.request.observer, end).await;
    }
}

/// What the two directions tell each other while they run.
#[derive(Default)]
struct State {
    sent: RefCell<Option<Result<(), SendError>>>,
    received: RefCell<Option<Result<ReceiveEnd, ReceiveError>>>,
    client_gone: Cell<bool>,
    half_closed: Cell<bool>,
    origin_closed: Cell<bool>,
    /// The head of the answer is there.
    answered: Cell<bool>,
    /// It did not come for so long that it is not waited for any more.
    silent_for: Cell<Option<Duration>>,
}

/// After the request is sent: a client that goes away ends the exchange; one that only says it
/// has nothing more to send is not gone, and the origin is told the same.
async fn watch_client(reader: &mut Reader, writer: &mut Writer, state: &State) {
    if reader.data().is_empty() {
        match reader.fill().await {
            Ok(true) => {} // the next request, sent early: it waits
            Ok(false) => {
                state.half_closed.set(true);
                // If the origin is gone, the response direction says so.
                let _ = writer.finish().await;
            }
            Err(_) => {
                state.client_gone.set(true);
                return;
            }
        }
    }
    pending::<()>().await;
}

/// Polls both directions until the exchange is over; `abort` ends the connections when one
/// direction leaves the other nothing to do.
async fn drive(
    mut upward: std::pin::Pin<&mut impl Future<Output = ()>>,
    mut downward: std::pin::Pin<&mut impl Future<Output = ()>>,
    state: &State,
    abort: impl Fn(),
) {
    let (mut up_done, mut down_done, mut aborted) = (false, false, false);
    poll_fn(|cx| {
        // A client that closes as soon as it has its answer ends nothing that is not over: what
        // the origin's connection is good for next is not for it to say.
        down_done = down_done || downward.as_mut().poll(cx).is_ready();
        if state.is_over() {
            return Poll::Ready(());
        }
        up_done = up_done || upward.as_mut().poll(cx).is_ready();
        if state.is_over() {
            return Poll::Ready(());
        }
        if !aborted && state.is_to_be_aborted() {
            aborted = true;
            abort();
        }
        Poll::Pending
    })
    .await;
}

impl State {
    fn is_over(&self) -> bool {
        match (&*self.received.borrow(), &*self.sent.borrow()) {
            (None, _) => false,
            // Answered before the request was whole. It may still be wanted, unless the answer
            // is the connection's last or the origin has closed it.
            (Some(Ok(ReceiveEnd::Reusable)), None) => self.origin_closed.get(),
            (Some(Ok(ReceiveEnd::Upgraded)), None) => false,
            _ => true,
        }
    }

    fn is_to_be_aborted(&self) -> bool {
        let sent = self.sent.borrow();
        // An origin that stops reading may still answer; everything else ends the exchange.
        let failed = matches!(&*sent, Some(Err(e)) if !matches!(e, SendError::Origin));
        if matches!(&*sent, Some(Err(SendError::ClientGone(_)))) {
            self.client_gone.set(true);
        }
        failed || self.client_gone.get() || self.silent_for.get().is_some()
    }
}

/// How both directions ended.
struct BothWays {
    sent: Option<Result<(), SendError>>,
    received: Option<Result<ReceiveEnd, ReceiveError>>,
    client_gone: bool,
    silent_for: Option<Duration>,
    half_closed: bool,
}

/// What it comes to.
struct Ended {
    /// How the response ended, if it ended well.
    end: Option<ReceiveEnd>,
    outcome: Outcome,
    error: Option<String>,
    client_gone: bool,
}

impl BothWays {
    /// `aborted`: the gate itself ended the flow, because its run was over.
    fn ended(&self, aborted: bool) -> Ended {
        let failed = |outcome, error: String, client_gone| Ended {
            end: None,
            outcome,
            error: Some(error),
            client_gone,
        };
        match (&self.sent, &self.received) {
            (Some(Err(SendError::ClientGone(e))), _) => {
                failed(Outcome::CutByClient, format!("the client went away: {e}"), true)
            }
            (Some(Err(SendError::ClientBroken(e))), _) => {
                failed(Outcome::ClientBroken, format!("the client's request is broken: {e}"), false)
            }
            (Some(Err(SendError::Stopped(Stopped(e)))), _)
            | (_, Some(Err(ReceiveError::Stopped(Stopped(e))))) => {
                failed(Outcome::RecordingStopped, e.clone(), false)
            }
            (_, Some(Ok(end))) => {
                let outcome = if matches!(self.sent, Some(Ok(()))) || *end == ReceiveEnd::Upgraded {
                    Outcome::Complete
                } else {
                    Outcome::CutByOrigin
                };
                let error = match (outcome, end) {
                    (Outcome::CutByOrigin, _) => {
                        Some("answered before the request was whole, which then ended".to_owned())
                    }
                    (_, ReceiveEnd::BrokenOff) => {
                        Some("the origin closed TLS without saying so".to_owned())
                    }
                    _ => None,
                };
                Ended { end: Some(*end), outcome, error, client_gone: false }
            }
            (_, Some(Err(ReceiveError::ClientGone(e)))) => {
                failed(Outcome::CutByClient, format!("the client went away: {e}"), true)
            }
            (_, Some(Err(ReceiveError::OriginGone(_)))) if self.client_gone || aborted => {
                failed(Outcome::CutByClient, "the client went away".to_owned(), true)
            }
            // Few clients end their side and still wait for an answer. The origin, which was told,
            // did not give one.
            (_, Some(Err(ReceiveError::OriginGone(_)))) if self.half_closed => {
                let error = "the client ended its side, and then the origin ended the connection";
                failed(Outcome::CutByClient, error.to_owned(), true)
            }
            (_, Some(Err(ReceiveError::OriginGone(e)))) => match self.silent_for {
                Some(time) => {
                    let seconds = time.as_secs();
                    let error = format!("no answer came within {seconds} s (first_byte_seconds)");
                    failed(Outcome::OriginSilent, error, false)
                }
                None => failed(Outcome::CutByOrigin, e.clone(), false),
            },
            (_, Some(Err(ReceiveError::Refused(outcome, e)))) => failed(*outcome, e.clone(), false),
            (_, Some(Err(ReceiveError::OriginBroken(e)))) => {
                failed(Outcome::OriginBroken, format!("the origin's answer is broken: {e}"), false)
            }
            (_, None) => failed(Outcome::CutByClient, "the exchange was ended".to_owned(), true),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn a_client_that_leaves_with_its_answer_does_not_end_the_origins_connection() {
        let state = State::default();
        *state.sent.borrow_mut() = Some(Ok(()));
        // Both have happened when the worker looks: the answer is whole, and the client closed.
        let downward =
            pin!(async { *state.received.borrow_mut() = Some(Ok(ReceiveEnd::Reusable)) });
        let upward = pin!(async { state.half_closed.set(true) });
        let mut driving = pin!(drive(upward, downward, &state, || panic!("nothing is to end")));
        let polled = driving.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_ready());
        assert!(!state.half_closed.get(), "whoever reads next finds that the client has closed");
    }

    #[test]
    fn an_answer_before_the_request_is_whole_waits_for_the_rest() {
        let (state, arrived) = (State::default(), Cell::new(false));
        let downward = pin!(async {
            *state.received.borrow_mut() = Some(Ok(ReceiveEnd::Reusable));
        });
        let upward = pin!(async {
            poll_fn(|_| if arrived.get() { Poll::Ready(()) } else { Poll::Pending }).await;
            *state.sent.borrow_mut() = Some(Ok(()));
        });
        let mut driving = pin!(drive(upward, downward, &state, || panic!("nothing is to end")));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(driving.as_mut().poll(&mut cx).is_pending());
        arrived.set(true);
        assert!(driving.as_mut().poll(&mut cx).is_ready());
    }
}
