//! `agent-gate reindex`: the index anew, from the journal alone.

use agent_gate_store::{ReindexSummary, reindex};

use crate::config::Config;
use crate::exit_code::Exit;
use crate::gate::{client, lock};
use crate::terminal;

/// Builds it anew. An idle gate makes way.
///
/// # Errors
/// When a gate is in use, or journal or index cannot be read or written.
pub(super) fn run(config: &Config) -> anyhow::Result<Exit> {
    let layout = config.create_layout()?;
    // Runs that start now wait until the new index is in place.
    let _starting = lock::exclusive(layout.start_lock())?;
    client::without_gate(config, &layout)?;
    let mut tenths = 0;
    let ReindexSummary { lines, unreadable } = reindex(&layout, &mut |done, total| {
        let now = done.saturating_mul(10).checked_div(total).unwrap_or(10);
        if now > tenths && now < 10 {
            tenths = now;
            terminal::note(&format!("reindex: {now}0 %"));
        }
    })?;
    let odd = match unreadable {
        0 => String::new(),
        n => format!(", of which {n} hold no record that this version knows"),
    };
    terminal::print(&format!("{lines} lines of the journal{odd}"))?;
    Ok(Exit::Success)
}
