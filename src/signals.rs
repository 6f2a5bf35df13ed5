//! Waiting for the user to end a command that stays in the foreground.

use anyhow::Context;
use nix::sys::signal::{SigSet, Signal};

/// The signals that end a foreground command in order, held back from when this is made.
#[derive(Debug)]
pub(crate) struct EndSignals(SigSet);

impl EndSignals {
    /// Holds them back. To be called before the first thread is started: threads inherit it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn hold() -> anyhow::Result<Self> {
        let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
        signals.thread_block().context("block signals")?;
        Ok(Self(signals))
    }

    /// Returns when one of them has come.
    ///
    /// # Errors
    /// When the kernel refuses to wait.
    pub(crate) fn wait(&self) -> anyhow::Result<()> {
        self.0.wait().context("wait for Ctrl-C")?;
        Ok(())
    }
}
