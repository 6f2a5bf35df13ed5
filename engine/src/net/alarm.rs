//! A time limit that costs no timer: a flow says by when it wants to be done, and the worker looks
//! through its flows once a second and wakes those that are late.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Poll, Waker};
use std::time::Instant;

/// One flow's alarm; it waits for one thing at a time.
#[derive(Default)]
pub(super) struct Alarm {
    due: Cell<Option<Instant>>,
    rung: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Alarm {
    /// What `future` says, or `None` when it has not ended by `due` and the worker has noticed.
    /// The future is then dropped: it must be one that may be.
    pub(super) async fn until<T>(
        &self,
        due: Instant,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        let _armed = self.arm(due);
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(done) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            if self.rung.get() {
                return Poll::Ready(None);
            }
            self.wake_by(cx.waker());
            Poll::Pending
        })
        .await
    }

    /// It need not ring any more: what was waited for has come, even if the wait goes on.
    pub(super) fn calm(&self) {
        self.due.set(None);
    }

    /// Called now and then by the worker.
    pub(super) fn ring_if_due(&self, now: Instant) {
        if self.due.get().is_some_and(|due| due <= now) {
            self.due.set(None);
            self.rung.set(true);
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
    }

    fn arm(&self, due: Instant) -> Armed<'_> {
        debug_assert!(self.due.get().is_none(), "waits for two things at a time");
        self.due.set(Some(due));
        self.rung.set(false);
        Armed(self)
    }

    fn wake_by(&self, waker: &Waker) {
        let mut kept = self.waker.borrow_mut();
        if !kept.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
            *kept = Some(waker.clone());
        }
    }
}

/// Set for as long as it lives.
struct Armed<'a>(&'a Alarm);

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        self.0.due.set(None);
        self.0.waker.take();
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake};
    use std::time::Duration;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn it_rings_when_it_is_due_and_not_before() {
        let (alarm, woken) = (Alarm::default(), Arc::new(Woken::default()));
        let waker = woken.clone().into();
        let mut cx = Context::from_waker(&waker);
        let now = Instant::now();
        let due = now + Duration::from_secs(1);
        let mut waiting = pin!(alarm.until(due, pending::<()>()));
        alarm.ring_if_due(due);
        assert_eq!(
            waiting.as_mut().poll(&mut cx),
            Poll::Pending,
            "not armed before its first poll"
        );
        alarm.ring_if_due(now);
        assert_eq!(
            (waiting.as_mut().poll(&mut cx), woken.0.load(Ordering::Relaxed)),
            (Poll::Pending, 0)
        );
        alarm.ring_if_due(due);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert_eq!(waiting.as_mut().poll(&mut cx), Poll::Ready(None));
    }

    #[test]
    fn what_came_in_time_counts_and_leaves_nothing_armed() {
        let (alarm, woken) = (Alarm::default(), Arc::new(Woken::default()));
        let waker = woken.clone().into();
        let mut cx = Context::from_waker(&waker);
        let due = Instant::now();
        // Both at once: what has come is not thrown away.
        let late = pin!(alarm.until(due, ready(7))).poll(&mut cx);
        assert_eq!(late, Poll::Ready(Some(7)));
        alarm.ring_if_due(due);
        {
            let mut calmed = pin!(alarm.until(due, pending::<()>()));
            assert!(calmed.as_mut().poll(&mut cx).is_pending());
            alarm.calm();
            alarm.ring_if_due(due);
            assert!(calmed.as_mut().poll(&mut cx).is_pending());
        }
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        assert_eq!(Arc::strong_count(&woken), 2, "no waker is kept");
    }
}
