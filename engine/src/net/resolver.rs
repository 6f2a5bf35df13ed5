//! Names to addresses by way of the system's resolver, which blocks, on helper threads.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::thread;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::limits::RESOLVER_THREADS_MAX;

/// Questions that may wait for a free thread.
const QUEUE_MAX: usize = 1024;

/// The helper threads, started as they are needed.
pub(crate) struct Resolver {
    questions: Sender<Question>,
    for_threads: Receiver<Question>,
    idle: Arc<AtomicUsize>,
    threads: AtomicUsize,
}

struct Question {
    name: String,
    answer: Arc<Mutex<Answer>>,
}

#[derive(Default)]
struct Answer {
    addresses: Option<io::Result<Vec<IpAddr>>>,
    waker: Option<Waker>,
}

impl Resolver {
    pub(crate) fn new() -> Self {
        let (questions, for_threads) = bounded(QUEUE_MAX);
        Self { questions, for_threads, idle: Arc::default(), threads: AtomicUsize::new(0) }
    }

    /// The addresses of `name`, in the system's order. May be dropped while waiting.
    pub(super) fn resolve(
        &self,
        name: &str,
    ) -> impl Future<Output = io::Result<Vec<IpAddr>>> + use<> {
        let answer = Arc::new(Mutex::new(Answer::default()));
        let question = Question { name: name.to_owned(), answer: answer.clone() };
        if let Err(TrySendError::Full(question)) = self.questions.try_send(question) {
            question.give(Err(io::Error::other("too many names are being looked up")));
        }
        if self.idle.load(Ordering::Relaxed) == 0 {
            self.start_thread();
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

    fn start_thread(&self) {
        let room = self.threads.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
            (n < RESOLVER_THREADS_MAX).then_some(n + 1)
        });
        if room.is_err() {
            return;
        }
        let (questions, idle) = (self.for_threads.clone(), self.idle.clone());
        let started = thread::Builder::new()
            .name("resolver".to_owned())
            .spawn(move || answer_questions(&questions, &idle));
        if started.is_err() {
            self.threads.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A thread's life: it ends when the resolver is gone.
fn answer_questions(questions: &Receiver<Question>, idle: &AtomicUsize) {
    loop {
        idle.fetch_add(1, Ordering::Relaxed);
        let question = questions.recv();
        idle.fetch_sub(1, Ordering::Relaxed);
        let Ok(question) = question else { return };
        let addresses = look_up(&question.name);
        question.give(addresses);
    }
}

fn look_up(name: &str) -> io::Result<Vec<IpAddr>> {
    Ok((name, 0).to_socket_addrs()?.map(|a: SocketAddr| a.ip()).collect())
}

impl Question {
    fn give(self, addresses: io::Result<Vec<IpAddr>>) {
        let mut answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        answer.addresses = Some(addresses);
        if let Some(waker) = answer.waker.take() {
            waker.wake();
        }
    }
}
