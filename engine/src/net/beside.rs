//! Reading a body beside the wire, when the worker has time: traffic first, then a turn of decoding,
//! then others' traffic.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};

use crate::inspect::{Inspector, Summary};

/// What is read beside one body; nothing for most.
pub(super) struct Beside(Option<Box<Inspector>>);

impl Beside {
    pub(super) fn new(inspector: Option<Box<Inspector>>) -> Self {
        Self(inspector)
    }

    /// The next piece of the body.
    pub(super) fn piece(&mut self, content: &[u8]) {
        if let Some(inspector) = &mut self.0 {
            inspector.piece(content);
        }
    }

    /// Waits for `arrival`, decoding in the meantime. What arrives is never later for it than by
    /// one turn.
    pub(super) async fn while_waiting<T>(&mut self, arrival: impl Future<Output = T>) -> T {
        let Some(inspector) = &mut self.0 else { return arrival.await };
        let mut arrival = pin!(arrival);
        poll_fn(|cx| match arrival.as_mut().poll(cx) {
            Poll::Ready(arrived) => Poll::Ready(arrived),
            Poll::Pending => {
                turn(inspector, cx);
                Poll::Pending
            }
        })
        .await
    }

    /// Waits until what has passed and is not decoded is within its bound.
    pub(super) async fn keep_up(&mut self) {
        self.decode_while(Inspector::is_behind).await;
    }

    /// Decodes what is left, and tells what the body came to. Telling it ends it.
    pub(super) async fn finish(&mut self) -> Option<Summary> {
        self.decode_while(Inspector::is_busy).await;
        self.0.take().map(|inspector| inspector.finish())
    }

    async fn decode_while(&mut self, goes_on: impl Fn(&Inspector) -> bool) {
        let Some(inspector) = &mut self.0 else { return };
        poll_fn(|cx| {
            if !goes_on(inspector) {
                return Poll::Ready(());
            }
            inspector.go_on();
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

/// Decodes one slice, and comes back for the next when others have had their turn.
fn turn(inspector: &mut Inspector, cx: &Context<'_>) {
    if inspector.is_busy() {
        inspector.go_on();
    }
    if inspector.is_busy() {
        cx.waker().wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::ready;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use super::*;
    use crate::limits::UNDECODED_BYTES_MAX;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A body that takes many turns to decode.
    fn busy() -> Beside {
        let fields = [("content-encoding", &b"zstd"[..])].into_iter();
        let mut beside = Beside::new(Inspector::of_response(fields));
        beside.piece(&zstd::bulk::compress(&vec![b'x'; 4 << 20], 3).unwrap());
        beside
    }

    fn is_busy(beside: &Beside) -> bool {
        beside.0.as_ref().is_some_and(|inspector| inspector.is_busy())
    }

    #[test]
    fn what_arrives_waits_for_no_more_than_one_turn() {
        let (wakes, arrived) = (Arc::new(Wakes::default()), Cell::new(false));
        let waker = Waker::from(wakes.clone());
        let mut cx = Context::from_waker(&waker);
        let mut beside = busy();
        {
            let arrival = poll_fn(|_| if arrived.get() { Poll::Ready(7) } else { Poll::Pending });
            let mut waiting = pin!(beside.while_waiting(arrival));
            for turn in 1..=5 {
                assert!(waiting.as_mut().poll(&mut cx).is_pending());
                assert_eq!(wakes.0.load(Ordering::Relaxed), turn, "it comes back by itself");
            }
            arrived.set(true);
            assert_eq!(waiting.as_mut().poll(&mut cx), Poll::Ready(7));
        }
        assert!(is_busy(&beside), "traffic did not wait for the rest");
        // Within the bound nobody waits at all.
        assert!(pin!(beside.keep_up()).poll(&mut cx).is_ready());
        assert!(pin!(beside.while_waiting(ready(8))).poll(&mut cx).is_ready());
    }

    #[test]
    fn when_all_is_decoded_nothing_wakes() {
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(wakes.clone());
        let mut cx = Context::from_waker(&waker);
        let mut beside = busy();
        let mut waiting = pin!(beside.while_waiting(std::future::pending::<()>()));
        let mut before = usize::MAX;
        while before != wakes.0.load(Ordering::Relaxed) {
            before = wakes.0.load(Ordering::Relaxed);
            assert!(waiting.as_mut().poll(&mut cx).is_pending());
        }
        assert!(before > 30, "{before} turns");
    }

    #[test]
    fn beyond_the_bound_the_sender_waits() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut beside = busy();
        // Behind the frame it means nothing, but that is known only when its turn comes.
        beside.piece(&vec![0; UNDECODED_BYTES_MAX + 1]);
        {
            let mut keeping_up = pin!(beside.keep_up());
            assert!(keeping_up.as_mut().poll(&mut cx).is_pending());
            while keeping_up.as_mut().poll(&mut cx).is_pending() {}
        }
        let mut finishing = pin!(beside.finish());
        let summary = loop {
            if let Poll::Ready(summary) = finishing.as_mut().poll(&mut cx) {
                break summary.unwrap();
            }
        };
        assert_eq!(summary.decoded.unwrap().bytes, 4 << 20);
    }
}
