//! Messages of one thread on their way to the writer, and the word back from it.
//!
//! Handing something to another thread costs both of them more than writing it down. So the
//! messages of a worker's turn gather here and go over together, and the writer answers once for
//! all of them: one wake-up each way instead of two a record.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use crate::channel::Way;
use crate::receipt::{Stopped, writer_gone};
use crate::recorder::Message;

/// Where the messages of one recorder and its clones wait, in order.
#[derive(Debug)]
pub struct Outbox {
    way: Way,
    /// Whether messages wait for [`Outbox::deliver`]; otherwise each is sent at once.
    gathers: bool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    messages: Vec<Message>,
    /// Records put in so far: the number of the next one.
    put: u64,
    /// All records below this number are with the kernel.
    signed: u64,
    /// All records below this number were refused when recording stopped, and may be signed later.
    refused: Option<(u64, Stopped)>,
    /// Who waits for which record's receipt, by rising number.
    waiting: VecDeque<(u64, Waker)>,
    /// Who calls [`Outbox::deliver`].
    deliverer: Option<Waker>,
}

impl Outbox {
    pub(crate) fn new(way: Way, gathers: bool) -> Arc<Self> {
        Arc::new(Self { way, gathers, inner: Mutex::default() })
    }

    /// Resolves when there is something to deliver.
    pub fn due(&self) -> impl Future<Output = ()> + '_ {
        std::future::poll_fn(|context| {
            let mut inner = self.lock();
            if !inner.messages.is_empty() || inner.has_due() {
                return Poll::Ready(());
            }
            inner.deliverer = Some(context.waker().clone());
            Poll::Pending
        })
    }

    /// Sends what has gathered to the writer, and wakes those whose receipts have come: on this
    /// thread, which costs less than from the writer's.
    pub fn deliver(&self) {
        let mut inner = self.lock();
        self.send(&mut inner);
        let woken = inner.take_due();
        drop(inner);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Puts a message in.
    pub(crate) fn put(&self, message: Message) {
        self.put_in(self.lock(), message);
    }

    /// Puts a record in, which bears a signature; its number.
    pub(crate) fn put_signed(self: &Arc<Self>, message: impl FnOnce(Signature) -> Message) -> u64 {
        let mut inner = self.lock();
        let number = inner.put;
        inner.put += 1;
        let signature = Signature { outbox: Arc::clone(self), number, told: false };
        self.put_in(inner, message(signature));
        number
    }

    /// Whether the record with this number is with the kernel, or was refused.
    pub(crate) fn poll(&self, number: u64, waker: &Waker) -> Poll<Result<(), Stopped>> {
        let mut inner = self.lock();
        if number < inner.signed {
            return Poll::Ready(Ok(()));
        }
        if let Some((below, stopped)) = &inner.refused
            && number < *below
        {
            return Poll::Ready(Err(stopped.clone()));
        }
        match inner.waiting.binary_search_by_key(&number, |(waits_for, _)| *waits_for) {
            Ok(place) => inner.waiting[place].1.clone_from(waker),
            Err(place) => inner.waiting.insert(place, (number, waker.clone())),
        }
        Poll::Pending
    }

    fn put_in(&self, mut inner: MutexGuard<'_, Inner>, message: Message) {
        inner.messages.push(message);
        if !self.gathers {
            return self.send(&mut inner);
        }
        let deliverer = inner.deliverer.take();
        drop(inner);
        if let Some(deliverer) = deliverer {
            deliverer.wake();
        }
    }

    fn send(&self, inner: &mut Inner) {
        let messages = std::mem::take(&mut inner.messages);
        if messages.is_empty() {
            return;
        }
        if let Err(unsent) = self.way.send(messages) {
            // The writer is gone. Those who wait are told here, because the signatures, which
            // would tell them, need the lock that is held.
            inner.refused = Some((inner.put, writer_gone()));
            for mut message in unsent {
                message.set_told();
            }
        }
    }

    /// The writer's word about all records below a number.
    fn tell(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.lock();
        change(&mut inner);
        if self.gathers {
            let deliverer = if inner.has_due() { inner.deliverer.take() } else { None };
            drop(inner);
            if let Some(deliverer) = deliverer {
                deliverer.wake();
            }
        } else {
            let woken = inner.take_due();
            drop(inner);
            woken.into_iter().for_each(Waker::wake);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is whole in itself, whoever panicked.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The first number that nothing has been said about.
    fn unsaid(&self) -> u64 {
        self.refused.as_ref().map_or(0, |(below, _)| *below).max(self.signed)
    }

    fn has_due(&self) -> bool {
        self.waiting.front().is_some_and(|(number, _)| *number < self.unsaid())
    }

    fn take_due(&mut self) -> Vec<Waker> {
        let unsaid = self.unsaid();
        let due = self.waiting.partition_point(|(number, _)| *number < unsaid);
        self.waiting.drain(..due).map(|(_, waker)| waker).collect()
    }
}

/// What the writer signs when a record is with the kernel. Dropped unsigned, because the writer
/// died, it says that recording has stopped.
#[derive(Debug)]
pub(crate) struct Signature {
    outbox: Arc<Outbox>,
    number: u64,
    told: bool,
}

impl Signature {
    /// Says that this record did not reach the kernel yet, nor any after it.
    pub(crate) fn refuse(&mut self, stopped: &Stopped) {
        self.told = true;
        let below = self.number + 1;
        self.outbox.tell(|inner| inner.refused = Some((below, stopped.clone())));
    }

    pub(crate) fn set_told(&mut self) {
        self.told = true;
    }
}

impl Drop for Signature {
    fn drop(&mut self) {
        if !self.told {
            self.refuse(&writer_gone());
        }
    }
}

/// The signatures of one batch: the last one of each outbox stands for those before it.
#[derive(Debug, Default)]
pub(crate) struct Signatures(Vec<Signature>);

impl Signatures {
    pub(crate) fn push(&mut self, signature: Signature) {
        let same = |last: &&mut Signature| Arc::ptr_eq(&last.outbox, &signature.outbox);
        match self.0.iter_mut().find(same) {
            Some(last) => {
                last.told = true;
                *last = signature;
            }
            None => self.0.push(signature),
        }
    }

    /// The batch is with the kernel.
    pub(crate) fn sign(self) {
        for mut signature in self.0 {
            signature.told = true;
            let signed = signature.number + 1;
            signature.outbox.tell(|inner| inner.signed = signed);
        }
    }

    /// It is not, so far.
    pub(crate) fn refuse(&mut self, stopped: &Stopped) {
        for signature in &mut self.0 {
            signature.refuse(stopped);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Context;

    use super::*;
    use crate::budget::Budget;
    use crate::channel::{Arrivals, channel};
    use crate::record::{Id, Record, RunEnd, Timestamp};
    use crate::recorder::Recorder;

    fn outbox(gathers: bool) -> (Arc<Outbox>, Arrivals) {
        let (way, arrivals) = channel();
        (Outbox::new(way, gathers), arrivals)
    }

    fn put(outbox: &Arc<Outbox>) -> (u64, Signature) {
        let mut signature = None;
        let number = outbox.put_signed(|it| {
            signature = Some(it);
            Message::Close
        });
        (number, signature.unwrap())
    }

    fn is_ready(outbox: &Outbox, number: u64) -> bool {
        matches!(outbox.poll(number, Waker::noop()), Poll::Ready(Ok(())))
    }

    #[test]
    fn what_gathers_goes_over_together() {
        let (outbox, messages) = outbox(true);
        let kept: Vec<_> = (0..3).map(|_| put(&outbox)).collect();
        assert!(messages.is_empty());
        outbox.deliver();
        assert_eq!(messages.take().unwrap().len(), 3);
        outbox.deliver();
        assert!(messages.is_empty(), "nothing is not sent");
        drop(kept);
    }

    #[test]
    fn what_does_not_gather_goes_over_at_once() {
        let (outbox, messages) = self::outbox(false);
        let _kept = put(&outbox);
        assert_eq!(messages.take().unwrap().len(), 1);
    }

    #[test]
    fn one_signature_stands_for_those_before_it() {
        let (outbox, _messages) = outbox(true);
        let mut batch = Signatures::default();
        let (first, signature) = put(&outbox);
        batch.push(signature);
        let (second, signature) = put(&outbox);
        batch.push(signature);
        let (third, later) = put(&outbox);
        assert!(!is_ready(&outbox, first));
        batch.sign();
        assert!(is_ready(&outbox, first) && is_ready(&outbox, second));
        assert!(!is_ready(&outbox, third));
        drop(later);
        assert!(matches!(outbox.poll(third, Waker::noop()), Poll::Ready(Err(_))), "dropped");
        assert!(is_ready(&outbox, second), "what was signed stays signed");
    }

    #[test]
    fn the_refused_are_told_and_may_be_signed_later() {
        let (outbox, _messages) = outbox(true);
        let mut batch = Signatures::default();
        let (number, signature) = put(&outbox);
        batch.push(signature);
        let stopped = Stopped("full".to_owned());
        batch.refuse(&stopped);
        assert_eq!(outbox.poll(number, Waker::noop()), Poll::Ready(Err(stopped)));
        batch.sign();
        assert!(is_ready(&outbox, number));
    }

    #[test]
    fn the_deliverer_is_woken_for_messages_and_for_receipts() {
        let (outbox, _messages) = outbox(true);
        let mut due = pin!(outbox.due());
        let mut context = Context::from_waker(Waker::noop());
        assert!(due.as_mut().poll(&mut context).is_pending());
        let (number, signature) = put(&outbox);
        assert!(due.as_mut().poll(&mut context).is_ready());
        outbox.deliver();
        assert!(outbox.poll(number, Waker::noop()).is_pending());
        let mut due = pin!(outbox.due());
        assert!(due.as_mut().poll(&mut context).is_pending());
        let mut batch = Signatures::default();
        batch.push(signature);
        batch.sign();
        assert!(due.as_mut().poll(&mut context).is_ready());
    }

    #[test]
    fn a_writer_that_is_gone_is_told() {
        let (way, arrivals) = channel();
        drop(arrivals);
        let direct = Recorder::new(Budget::new(10, 1000), way);
        let (gathering, outbox) = direct.gathering();
        let end = RunEnd {
            id: Id::new(),
            run: Id::new(),
            at: Timestamp::now(),
            status: None,
            reason: None,
            exchanges: 0,
        };
        for recorder in [direct, gathering] {
            let permit = recorder.reserve_blocking(0).unwrap();
            let receipt = permit.record_with_receipt(&Record::RunEnd(end.clone()));
            outbox.deliver();
            assert!(receipt.wait().is_err());
        }
    }
}
