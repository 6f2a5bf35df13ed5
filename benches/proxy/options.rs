//! The bench's command line.

use anyhow::{Context as _, Result, bail};

use crate::role::Driver;

/// What to run, and how.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Every case once, tiny: does it work?
    pub(crate) test: bool,
    /// Parts of the names of the cases to run; empty for all.
    pub(crate) filter: Vec<String>,
    /// Worker threads of the gate.
    pub(crate) workers: usize,
    /// How every process waits for the kernel.
    pub(crate) driver: Driver,
    /// How often each case is repeated; medians are reported.
    pub(crate) rounds: usize,
    /// Which ways the load takes.
    pub(crate) ways: Vec<Kind>,
}

/// How the load reaches the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Straight to it.
    Direct,
    /// Through the bare relay, the floor of what interception costs.
    Relay,
    /// Through the gate.
    Gate,
}

impl Kind {
    /// In the order of the table's columns.
    pub(crate) const ALL: [Self; 3] = [Self::Direct, Self::Relay, Self::Gate];

    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relay => "relay",
            Self::Gate => "gate",
        }
    }
}

impl Options {
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            test: false,
            filter: Vec::new(),
            workers: 1,
            driver: Driver::Auto,
            rounds: 3,
            ways: Kind::ALL.to_vec(),
        };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{argument} what?"));
            match &argument[..] {
                "--test" => options.test = true,
                "--bench" => {} // cargo says this to every bench
                "--workers" => options.workers = value()?.parse().context("--workers N")?,
                "--rounds" => options.rounds = value()?.parse().context("--rounds N")?,
                "--driver" => options.driver = value()?.parse()?,
                "--ways" => options.ways = ways(&value()?)?,
                option if option.starts_with('-') => bail!("unknown option {option}"),
                _ => options.filter.push(argument),
            }
        }
        if options.workers == 0 || options.rounds == 0 {
            bail!("--workers and --rounds are 1 or more");
        }
        if options.test {
            options.rounds = 1;
        }
        Ok(options)
    }

    /// Whether the case of this name is to run.
    pub(crate) fn selects(&self, name: &str) -> bool {
        self.filter.is_empty() || self.filter.iter().any(|part| name.contains(&part[..]))
    }
}

fn ways(list: &str) -> Result<Vec<Kind>> {
    let named = |name| {
        Kind::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .with_context(|| format!("no way is called {name}"))
    };
    list.split(',').map(named).collect()
}
