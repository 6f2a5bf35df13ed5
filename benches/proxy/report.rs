//! The table: medians over the rounds, a column for each way, and the gate beside the relay.

use crate::cases::{Case, Values};
use crate::measure::median;
use crate::options::Kind;

/// What a number means.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Metric {
    name: &'static str,
    ratio: Ratio,
    /// What the ratio, or the value where a unit stands with it, is to be at most.
    target: &'static str,
}

/// How the gate's number is held against the relay's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Ratio {
    /// One by the other.
    Plain,
    /// What each adds to the direct way.
    Added,
    /// Not at all.
    Nothing,
}

impl Metric {
    pub(crate) const fn new(name: &'static str, ratio: Ratio, target: &'static str) -> Self {
        Self { name, ratio, target }
    }
}

/// All blocks of one case.
pub(crate) struct Table {
    blocks: Vec<(Kind, Values)>,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self { blocks: Vec::new() }
    }

    pub(crate) fn add(&mut self, kind: Kind, values: Values) {
        self.blocks.push((kind, values));
    }

    /// Prints the case's rows.
    pub(crate) fn print(&self, case: Case) {
        println!("\n{}", case.name());
        let mut metrics: Vec<Metric> = Vec::new();
        for (metric, _) in self.blocks.iter().flat_map(|(_, values)| values) {
            if !metrics.contains(metric) {
                metrics.push(*metric);
            }
        }
        for metric in metrics {
            self.print_row(metric);
        }
    }

    fn print_row(&self, metric: Metric) {
        let [direct, relay, gate] = Kind::ALL.map(|kind| self.median(kind, metric));
        let ratio = match (metric.ratio, direct, relay, gate) {
            (Ratio::Plain, _, Some(relay), Some(gate)) => Some(gate / relay),
            (Ratio::Added, Some(direct), Some(relay), Some(gate)) => {
                Some((gate - direct) / (relay - direct))
            }
            _ => None,
        };
        let added = if metric.ratio == Ratio::Added { "+" } else { " " };
        println!(
            "  {:<32}{:>12}{:>12}{:>12}{:>10}{added} {}",
            metric.name,
            cell(direct),
            cell(relay),
            cell(gate),
            ratio.map_or(String::new(), |r| format!("{r:.2}")),
            if metric.target.is_empty() { String::new() } else { format!("≤ {}", metric.target) },
        );
    }

    fn median(&self, kind: Kind, metric: Metric) -> Option<f64> {
        let blocks = self.blocks.iter().filter(|(of, _)| *of == kind);
        let mut values: Vec<f64> =
            blocks.flat_map(|(_, v)| v).filter(|(m, _)| *m == metric).map(|(_, v)| *v).collect();
        median(&mut values)
    }
}

/// Prints what the columns are.
pub(crate) fn print_head() {
    println!(
        "  {:<32}{:>12}{:>12}{:>12}{:>10}  target (+: of what is added to direct)",
        "", "direct", "relay", "gate", "gate/relay"
    );
}

fn cell(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(v) if v >= 100.0 => format!("{v:.0}"),
        Some(v) if v >= 10.0 => format!("{v:.1}"),
        Some(v) => format!("{v:.2}"),
    }
}
