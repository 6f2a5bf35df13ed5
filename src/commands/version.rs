//! `agent-gate version`.

use crate::exit_code::Exit;
use crate::terminal;

/// Prints name and version.
pub(super) fn run() -> anyhow::Result<Exit> {
    terminal::print(concat!("agent-gate ", env!("CARGO_PKG_VERSION")))?;
    Ok(Exit::Success)
}
