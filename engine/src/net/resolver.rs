//! Names to addresses by way of the system's resolver, which blocks, on helper threads.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::limits::{RESOLVER_QUEUE_MAX, RESOLVER_THREADS_MAX};

/// The helper threads, started as they are needed.
pub(crate) struct Resolver {
    names: Sender<String>,
    for_threads: Receiver<String>,
    shared: Arc<Shared>,
    threads: AtomicUsize,
}

/// Looks a name up and blocks meanwhile.
type LookUp = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

struct Shared {
    look_up: Box<LookUp>,
    /// Who waits for which name, from the question to the answer. A name is looked up once for all of them: one whose server is
    /// silent takes one thread, however often it is asked for.
    waiting: Mutex<HashMap<String, Vec<Waiter>>>,
}

type Waiter = Arc<Mutex<Answer>>;

#[derive(Default)]
struct Answer {
    addresses: Option<io::Result<Vec<IpAddr>>>,
    waker: Option<Waker>,
}

impl Resolver {
    pub(crate) fn new() -> Self {
        Self::with(ask_system)
    }

    fn with(look_up: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        let (names, for_threads) = bounded(RESOLVER_QUEUE_MAX);
        let shared = Shared { look_up: Box::new(look_up), waiting: Mutex::default() };
        Self { names, for_threads, shared: Arc::new(shared), threads: AtomicUsize::new(0) }
    }

    /// The addresses of `name`, in the system's order. May be dropped while waiting.
    pub(super) fn resolve(
        &self,
        name: &str,
    ) -> impl Future<Output = io::Result<Vec<IpAddr>>> + use<> {
        let answer = Waiter::default();
        if self.shared.wait(name, answer.clone()) {
            self.ask(name);
        }
        poll_fn(move |cx| {
            let mut answer = answer.lock().unwrap_or_else(PoisonError::into_inner);
            match answer.addresses.take() {
                Some(addresses) => Poll::Ready(addresses),
                None => {
                    answer.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
    }

    fn ask(&self, name: &str) {
        if let Err(TrySendError::Full(name)) = self.names.try_send(name.to_owned()) {
            let full = io::Error::other("too many names are being looked up");
            return self.shared.give(&name, &Err(full));
        }
        self.start_thread();
    }

    /// One more, if there are fewer than names without an answer: whether a thread is idle cannot
    /// be told, for it may be about to take another name.
    fn start_thread(&self) {
        let wanted = self.shared.waiting().len().min(RESOLVER_THREADS_MAX);
        let room = self
            .threads
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < wanted).then_some(n + 1));
        if room.is_err() {
            return;
        }
        let (names, shared) = (self.for_threads.clone(), self.shared.clone());
        let started =
            thread::Builder::new().name("resolver".to_owned()).spawn(move || shared.answer(&names));
        if started.is_err() {
            self.threads.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Shared {
    /// A thread's life: it ends when the resolver is gone.
    fn answer(&self, names: &Receiver<String>) {
        while let Ok(name) = names.recv() {
            if self.is_wanted(&name) {
                let addresses = (self.look_up)(&name);
                self.give(&name, &addresses);
            }
        }
    }

    /// Enters a waiter; whether it is the first for its name.
    fn wait(&self, name: &str, waiter: Waiter) -> bool {
        let mut waiting = self.waiting();
        match waiting.get_mut(name) {
            Some(waiters) => {
                waiters.push(waiter);
                false
            }
            None => {
                waiting.insert(name.to_owned(), vec![waiter]);
                true
            }
        }
    }

    /// Whether somebody still waits for a name whose turn it is; forgets it otherwise.
    fn is_wanted(&self, name: &str) -> bool {
        let mut waiting = self.waiting();
        let waits = |waiter: &Waiter| Arc::strong_count(waiter) > 1;
        let wanted = waiting.get(name).is_some_and(|waiters| waiters.iter().any(waits));
        if !wanted {
            waiting.remove(name);
        }
        wanted
    }

    fn give(&self, name: &str, addresses: &io::Result<Vec<IpAddr>>) {
        let waiters = self.waiting().remove(name).unwrap_or_default();
        for waiter in waiters {
            let mut answer = waiter.lock().unwrap_or_else(PoisonError::into_inner);
            answer.addresses = Some(match addresses {
                Ok(addresses) => Ok(addresses.clone()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            });
            if let Some(waker) = answer.waker.take() {
                waker.wake();
            }
        }
    }

    /// Changed in one step each time, so it is whole whoever panicked.
    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Vec<Waiter>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ask_system(name: &str) -> io::Result<Vec<IpAddr>> {
    Ok((name, 0).to_socket_addrs()?.map(|a: SocketAddr| a.ip()).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Condvar;

    use monoio::{LegacyDriver, RuntimeBuilder};

    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        RuntimeBuilder::<LegacyDriver>::new().build().unwrap().block_on(future)
    }

    /// A system whose names that begin with `slow` are answered only after [`Self::open`].
    #[derive(Clone, Default)]
    struct System(Arc<(Mutex<State>, Condvar)>);

    #[derive(Default)]
    struct State {
        open: bool,
        asked: Vec<String>,
    }

    impl System {
        fn resolver(&self) -> Resolver {
            let Self(system) = self.clone();
            Resolver::with(move |name| {
                let mut state = system.0.lock().unwrap();
                state.asked.push(name.to_owned());
                system.1.notify_all();
                while name.starts_with("slow") && !state.open {
                    state = system.1.wait(state).unwrap();
                }
                if name == "unknown" { Err(io::Error::other("no such name")) } else { Ok(vec![IP]) }
            })
        }

        fn open(&self) {
            self.0.0.lock().unwrap().open = true;
            self.0.1.notify_all();
        }

        /// Waits until so many look-ups have begun.
        fn wait_for(&self, count: usize) {
            let mut state = self.0.0.lock().unwrap();
            while state.asked.len() < count {
                state = self.0.1.wait(state).unwrap();
            }
        }

        fn asked(&self) -> Vec<String> {
            self.0.0.lock().unwrap().asked.clone()
        }
    }

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn slow_names_hold_up_nobody_else() {
        let system = System::default();
        let resolver = system.resolver();
        // One thread less than there are, and one of them asked for again and again.
        let slow: Vec<_> = (1..RESOLVER_THREADS_MAX)
            .chain(std::iter::repeat_n(1, 100))
            .map(|n| resolver.resolve(&format!("slow{n}")))
            .collect();
        assert_eq!(block_on(resolver.resolve("fast")).unwrap(), [IP]);
        system.open();
        for answer in slow {
            assert_eq!(block_on(answer).unwrap(), [IP]);
        }
        assert_eq!(system.asked().len(), RESOLVER_THREADS_MAX, "{:?}", system.asked());
    }

    #[test]
    fn a_name_that_nobody_waits_for_any_more_is_not_looked_up() {
        let system = System::default();
        let resolver = system.resolver();
        let slow: Vec<_> =
            (0..RESOLVER_THREADS_MAX).map(|n| resolver.resolve(&format!("slow{n}"))).collect();
        system.wait_for(RESOLVER_THREADS_MAX);
        drop(resolver.resolve("abandoned"));
        let wanted = resolver.resolve("wanted");
        system.open();
        assert_eq!(block_on(wanted).unwrap(), [IP]);
        for answer in slow {
            block_on(answer).unwrap();
        }
        assert!(!system.asked().contains(&"abandoned".to_owned()), "{:?}", system.asked());
        assert_eq!(block_on(resolver.resolve("abandoned")).unwrap(), [IP]);
    }

    #[test]
    fn a_failure_is_everybodys_and_is_not_kept() {
        let system = System::default();
        let resolver = system.resolver();
        for _ in 0..2 {
            let both = [resolver.resolve("unknown"), resolver.resolve("unknown")];
            for answer in both {
                assert_eq!(block_on(answer).unwrap_err().to_string(), "no such name");
            }
        }
        assert!(system.asked().len() >= 2, "{:?}", system.asked());
    }
}
