//! Runs the chosen cases: way after way and round after round, so that a machine's moods meet all
//! ways alike.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::authority;
use crate::cases::{Case, Values};
use crate::client::Way;
use crate::journal::Journal;
use crate::options::{Kind, Options};
use crate::report::{Table, print_head};
use crate::role::{self, Role, Settings};
use crate::runtime;

/// A bench that takes longer hangs.
const TIME_MAX: Duration = Duration::from_secs(600);

/// Does what the options say.
pub(crate) fn run(options: &Options) -> Result<()> {
    role::allow_many_files()?;
    std::thread::spawn(|| {
        std::thread::sleep(TIME_MAX);
        eprintln!("proxy bench: not done after {TIME_MAX:?}, giving up");
        std::process::exit(1);
    });
    let bench = Bench::new(options)?;
    let mut shared = Vec::new();
    if !options.test {
        let Options { workers, driver, rounds, .. } = options;
        println!("{workers} worker(s), driver {}, medians of {rounds} round(s)", driver.name());
        print_head();
    }
    for case in Case::ALL.into_iter().filter(|case| options.selects(case.name())) {
        let table = bench.run(case, &mut shared).with_context(|| case.name())?;
        if options.test {
            println!("{}: ok", case.name());
        } else {
            table.print(case);
        }
    }
    for subject in shared {
        subject.end()?;
    }
    bench.origin.end()
}

struct Bench<'a> {
    options: &'a Options,
    origin: Role,
}

/// A way with the process behind it.
struct Subject {
    way: Way,
    body_bytes_max: u64,
    passes_through: bool,
    /// None for the direct way: the origin is everyone's.
    role: Option<Role>,
    journal: Option<Journal>,
}

impl<'a> Bench<'a> {
    fn new(options: &'a Options) -> Result<Self> {
        let settings = Settings {
            driver: options.driver,
            workers: 1,
            body_bytes_max: 0,
            passes_through: false,
            origin: None,
        };
        Ok(Self { options, origin: Role::start("origin", &settings)? })
    }

    /// All rounds of a case. `shared` are subjects that outlive it.
    fn run(&self, case: Case, shared: &mut Vec<Subject>) -> Result<Table> {
        let mut table = Table::new();
        let rounds = if case.is_about_memory() { 1 } else { self.options.rounds };
        for _ in 0..rounds {
            for &kind in &self.options.ways {
                if !case.is_about_memory() {
                    let subject = self.shared(kind, case, shared)?;
                    table.add(kind, self.run_once(case, subject)?);
                } else if kind != Kind::Direct {
                    let mut subject = self.start(kind, case)?;
                    table.add(kind, self.run_once(case, &mut subject)?);
                    subject.end()?;
                }
            }
        }
        Ok(table)
    }

    fn run_once(&self, case: Case, subject: &mut Subject) -> Result<Values> {
        let load = case.run(&subject.way, self.options.test);
        let values = runtime::block_on(self.options.driver, load)?
            .with_context(|| subject.way.kind.name())?;
        let passed = subject.way.passed.take();
        if let Some(journal) = &mut subject.journal {
            let checked = if subject.passes_through {
                journal.check_passed_through(passed)
            } else {
                journal.check(passed)
            };
            checked.context("the gate's journal")?;
        }
        Ok(values)
    }

    fn shared<'s>(
        &self,
        kind: Kind,
        case: Case,
        shared: &'s mut Vec<Subject>,
    ) -> Result<&'s mut Subject> {
        let bound = case.body_bytes_max();
        let fits = |s: &Subject| {
            s.way.kind == kind
                && (kind != Kind::Gate || s.body_bytes_max == bound)
                && (kind == Kind::Direct || s.passes_through == case.passes_through())
        };
        let at = match shared.iter().position(fits) {
            Some(at) => at,
            None => {
                shared.push(self.start(kind, case)?);
                shared.len() - 1
            }
        };
        Ok(&mut shared[at])
    }

    fn start(&self, kind: Kind, case: Case) -> Result<Subject> {
        let (body_bytes_max, passes_through) = (case.body_bytes_max(), case.passes_through());
        let origin = &self.origin.ready;
        let settings = Settings {
            driver: self.options.driver,
            workers: self.options.workers,
            body_bytes_max,
            passes_through,
            origin: Some((origin.address, origin.authority.clone())),
        };
        let role = match kind {
            Kind::Direct => None,
            kind => Some(Role::start(kind.name(), &settings)?),
        };
        let served_by = role.as_ref().unwrap_or(&self.origin);
        let ready = &served_by.ready;
        // What passes unread is the origin's own.
        let authority = if passes_through { &origin.authority } else { &ready.authority };
        let way = Way {
            kind,
            address: ready.address,
            tls: authority::client(authority, false)?,
            pid: served_by.pid(),
            passed: Rc::new(Cell::default()),
        };
        let journal = ready.data_dir.as_deref().map(|dir| Journal::of(dir, body_bytes_max));
        Ok(Subject { way, body_bytes_max, passes_through, role, journal })
    }
}

impl Subject {
    fn end(self) -> Result<()> {
        self.role.map_or(Ok(()), Role::end)
    }
}
