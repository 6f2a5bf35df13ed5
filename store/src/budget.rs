//! How much may wait in the queue: a bound of records and bytes, handed out in order of asking.
//!
//! Taking and giving back is one atomic operation while nobody waits. When the bound is reached
//! the callers wait in a queue of their own, first come, first served, as wakers: a full queue
//! parks the one connection and no thread.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use crate::receipt::Stopped;

/// The bound and who waits for room under it.
#[derive(Debug)]
pub(crate) struct Budget {
    records_max: u64,
    bytes_max: u64,
    /// What is taken, packed into one word so that both bounds are checked in one step.
    taken: AtomicU64,
    /// How many wait; lets `give` skip the lock. Written under the lock, before the waiter's last
    /// look at `taken`; `give` reads it after its write to `taken`. Both are sequentially
    /// consistent, so one of the two sees the other.
    waiting: AtomicUsize,
    is_stopped: AtomicBool,
    line: Mutex<Line>,
}

/// One record's share of the budget, to be given back once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cost {
    bytes: u64,
}

/// A place in the waiting line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

#[derive(Debug, Default)]
struct Line {
    next: u64,
    /// By rising ticket.
    waiters: VecDeque<Waiter>,
    /// Tickets whose turn came, whose share is taken, and who have not looked yet.
    granted: HashSet<u64>,
    stopped: Option<Stopped>,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    cost: Cost,
    waker: Waker,
}

/// `taken` holds bytes in the low 44 bits, records above.
const RECORD: u64 = 1 << BYTES_BITS;
const BYTES_BITS: u32 = 44;
const BYTES_MASK: u64 = RECORD - 1;

impl Budget {
    pub(crate) fn new(records_max: usize, bytes_max: usize) -> Self {
        // Half the field, so that the largest record on top of a full budget cannot spill over.
        let records_max = (records_max as u64).clamp(1, 1 << 18);
        let bytes_max = (bytes_max as u64).clamp(1, BYTES_MASK / 2);
        Self {
            records_max,
            bytes_max,
            taken: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            is_stopped: AtomicBool::new(false),
            line: Mutex::default(),
        }
    }

    /// The share of a record of so many bytes. One larger than the whole budget counts as all of
    /// it: it passes alone.
    pub(crate) fn cost(&self, bytes: usize) -> Cost {
        Cost { bytes: (bytes as u64).min(self.bytes_max) }
    }

    /// Takes a share if nobody waits and there is room.
    pub(crate) fn try_take(&self, cost: Cost) -> bool {
        self.waiting.load(Ordering::SeqCst) == 0
            && !self.is_stopped.load(Ordering::Relaxed)
            && self.take(cost)
    }

    /// Joins the waiting line, or takes the share if there is room by now (`None`).
    pub(crate) fn join(&self, cost: Cost, waker: &Waker) -> Result<Option<Ticket>, Stopped> {
        let mut line = self.lock();
        if let Some(stopped) = &line.stopped {
            return Err(stopped.clone());
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        if line.waiters.is_empty() && self.take(cost) {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            return Ok(None);
        }
        let ticket = line.next;
        line.next += 1;
        line.waiters.push_back(Waiter { ticket, cost, waker: waker.clone() });
        Ok(Some(Ticket(ticket)))
    }

    /// Looks whether a waiter's turn has come. Ready ends the ticket.
    pub(crate) fn poll(&self, ticket: Ticket, waker: &Waker) -> Poll<Result<(), Stopped>> {
        let mut line = self.lock();
        if line.granted.remove(&ticket.0) {
            return Poll::Ready(Ok(()));
        }
        if let Some(stopped) = line.stopped.clone() {
            self.remove(&mut line, ticket);
            return Poll::Ready(Err(stopped));
        }
        if let Some(place) = line.place(ticket) {
            line.waiters[place].waker.clone_from(waker);
        }
        Poll::Pending
    }

    /// Ends a ticket that nobody will look at again: leaves the line, or gives the share back.
    pub(crate) fn leave(&self, ticket: Ticket, cost: Cost) {
        let mut line = self.lock();
        if line.granted.remove(&ticket.0) {
            drop(line);
            self.give(cost);
            return;
        }
        self.remove(&mut line, ticket);
        // It may have stood in the way of smaller ones.
        let woken = self.grant(&mut line);
        drop(line);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Gives a share back and lets in whom it has room for now.
    pub(crate) fn give(&self, cost: Cost) {
        self.taken.fetch_sub(RECORD + cost.bytes, Ordering::SeqCst);
        self.let_in();
    }

    /// Gives many shares back at once.
    pub(crate) fn give_all(&self, costs: impl Iterator<Item = Cost>) {
        let sum = costs.fold(0, |sum, cost| sum + RECORD + cost.bytes);
        self.taken.fetch_sub(sum, Ordering::SeqCst);
        self.let_in();
    }

    /// Changes a share to what the record really takes. May exceed the bound by one record: what
    /// is in memory already is counted, not refused.
    pub(crate) fn correct(&self, cost: Cost, bytes: usize) -> Cost {
        let real = self.cost(bytes);
        if real.bytes > cost.bytes {
            self.taken.fetch_add(real.bytes - cost.bytes, Ordering::SeqCst);
        } else if real.bytes < cost.bytes {
            self.taken.fetch_sub(cost.bytes - real.bytes, Ordering::SeqCst);
            self.let_in();
        }
        real
    }

    /// From now on nobody gets a share; those who wait are told.
    pub(crate) fn stop(&self, stopped: Stopped) {
        let mut line = self.lock();
        self.is_stopped.store(true, Ordering::Relaxed);
        line.stopped = Some(stopped);
        let woken: Vec<Waker> = line.waiters.iter().map(|w| w.waker.clone()).collect();
        drop(line);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Shares are given again.
    pub(crate) fn resume(&self) {
        let mut line = self.lock();
        line.stopped = None;
        self.is_stopped.store(false, Ordering::Relaxed);
        let woken = self.grant(&mut line);
        drop(line);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Why no shares are given, if so.
    pub(crate) fn stopped(&self) -> Option<Stopped> {
        if !self.is_stopped.load(Ordering::Relaxed) {
            return None;
        }
        self.lock().stopped.clone()
    }

    fn let_in(&self) {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut line = self.lock();
        let woken = self.grant(&mut line);
        drop(line);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Takes the shares of the first in line, as far as there is room. Wakers are called after the
    /// lock is free.
    fn grant(&self, line: &mut Line) -> Vec<Waker> {
        let mut woken = Vec::new();
        if line.stopped.is_some() {
            return woken;
        }
        while let Some(first) = line.waiters.front() {
            if !self.take(first.cost) {
                break;
            }
            let Some(first) = line.waiters.pop_front() else { break };
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            line.granted.insert(first.ticket);
            woken.push(first.waker);
        }
        woken
    }

    fn take(&self, cost: Cost) -> bool {
        let room = |taken: u64| {
            let records = (taken >> BYTES_BITS) + 1;
            let bytes = (taken & BYTES_MASK) + cost.bytes;
            (records <= self.records_max && bytes <= self.bytes_max)
                .then_some(taken + RECORD + cost.bytes)
        };
        self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, room).is_ok()
    }

    fn remove(&self, line: &mut Line, ticket: Ticket) {
        if let Some(place) = line.place(ticket) {
            line.waiters.remove(place);
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        // Nothing under the lock panics half-way through a change.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn taken(&self) -> (u64, u64) {
        let taken = self.taken.load(Ordering::SeqCst);
        (taken >> BYTES_BITS, taken & BYTES_MASK)
    }
}

impl Line {
    fn place(&self, ticket: Ticket) -> Option<usize> {
        self.waiters.binary_search_by_key(&ticket.0, |waiter| waiter.ticket).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::{Context, Wake};
    use std::thread;

    use super::*;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn what_is_taken_is_what_is_given_back() {
        let budget = Budget::new(2, 100);
        let (small, large) = (budget.cost(10), budget.cost(1_000_000));
        assert!(budget.try_take(small));
        assert!(!budget.try_take(large), "a large one passes alone");
        let corrected = budget.correct(small, 60);
        assert_eq!(budget.taken(), (1, 60));
        let corrected = budget.correct(corrected, 5);
        assert_eq!(budget.taken(), (1, 5));
        assert!(budget.try_take(small));
        assert!(!budget.try_take(small), "two records at most");
        budget.give_all([corrected, small].into_iter());
        assert_eq!(budget.taken(), (0, 0));
        assert!(budget.try_take(large));
    }

    #[test]
    fn those_who_wait_are_told_of_a_stop_and_may_ask_again_after_it() {
        let budget = Budget::new(1, 100);
        let cost = budget.cost(1);
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        assert!(budget.try_take(cost));
        let told = budget.join(cost, &waker).unwrap().unwrap();
        let kept = budget.join(cost, &waker).unwrap().unwrap();
        let stopped = Stopped("full".to_owned());
        budget.stop(stopped.clone());
        assert_eq!(count.0.load(Ordering::SeqCst), 2);
        assert_eq!(budget.poll(told, &waker), Poll::Ready(Err(stopped.clone())));
        assert_eq!(budget.join(cost, &waker), Err(stopped));
        budget.give(cost);
        budget.resume();
        assert_eq!(budget.poll(kept, &waker), Poll::Ready(Ok(())), "woken late, served still");
        budget.give(cost);
        assert_eq!(budget.taken(), (0, 0));
    }

    /// Threads that take, wait, give up half-way and give back: in the end nothing is taken,
    /// nobody waits, and nobody waited for ever.
    #[test]
    fn no_waiter_and_no_share_is_lost() {
        let budget = Budget::new(3, 64);
        thread::scope(|scope| {
            for thread in 0..6_u64 {
                let budget = &budget;
                scope.spawn(move || {
                    for round in 0..3000_u64 {
                        take_or_give_up(budget, thread.wrapping_mul(7919) + round);
                    }
                });
            }
        });
        assert_eq!(budget.taken(), (0, 0));
        assert_eq!(budget.waiting.load(Ordering::SeqCst), 0);
        assert!(budget.lock().granted.is_empty());
    }

    fn take_or_give_up(budget: &Budget, choice: u64) {
        let cost = budget.cost(usize::try_from(choice % 60).unwrap());
        if !budget.try_take(cost) {
            let mut ticket = None;
            let taken =
                crate::receipt::block_on(std::future::poll_fn(|context: &mut Context<'_>| {
                    let Some(ticket) = ticket else {
                        ticket = budget.join(cost, context.waker()).unwrap();
                        if ticket.is_none() {
                            return Poll::Ready(true);
                        }
                        if choice.is_multiple_of(5) {
                            return Poll::Ready(false);
                        }
                        return Poll::Pending;
                    };
                    budget.poll(ticket, context.waker()).map(|granted| granted.is_ok())
                }));
            if !taken {
                budget.leave(ticket.unwrap(), cost);
                return;
            }
        }
        thread::yield_now();
        budget.give(cost);
    }
}
