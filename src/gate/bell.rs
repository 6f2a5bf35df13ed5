//! What wakes the gate's main loop besides new connections: a pipe that any thread may ring.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::thread;

use anyhow::Context;
use nix::sys::signal::{SigSet, Signal};

/// Why the main loop is woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ring {
    /// Somebody left, so that nobody may be there any more.
    Left,
    /// The gate is to end in order.
    Stop,
    /// A thread of the gate panicked: whatever it did is not done.
    Broken,
}

/// The rope's end.
#[derive(Debug)]
pub(crate) struct Bell(PipeWriter);

impl Bell {
    /// Both ends; the reader is for the main loop to wait on.
    pub(crate) fn new() -> io::Result<(Self, PipeReader)> {
        io::pipe().map(|(reader, writer)| (Self(writer), reader))
    }

    /// Wakes the main loop.
    pub(crate) fn ring(&self, why: Ring) {
        // The loop has ended if nobody hears it.
        let _ = (&self.0).write_all(&[why as u8]);
    }

    fn second(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}

/// Everything that was rung since the last time, the gravest of it. The caller knows that there is
/// something to read.
pub(crate) fn heard(reader: &mut PipeReader) -> io::Result<Option<Ring>> {
    let mut rung = [0; 64];
    let read = reader.read(&mut rung)?;
    let known = [Ring::Left, Ring::Stop, Ring::Broken];
    Ok(rung[..read].iter().filter_map(|byte| known.into_iter().find(|r| *r as u8 == *byte)).max())
}

/// Turns signals into rings from now on. To be called before the first thread is started, since
/// threads inherit what is blocked.
///
/// # Errors
/// When the kernel refuses to block them.
pub(crate) fn ring_for_signals(bell: &Bell, hang_up_ends: bool) -> anyhow::Result<()> {
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    signals.thread_block().context("block signals")?;
    let bell = bell.second().context("pipe")?;
    let listen = move || {
        let mut told = false;
        while let Ok(signal) = signals.wait() {
            match signal {
                // A background gate outlives the terminal that it was started from.
                Signal::SIGHUP if !hang_up_ends => {}
                // Whoever asks twice does not want to wait for what is still open.
                _ if told => std::process::exit(i32::from(HURRIED)),
                _ => {
                    told = true;
                    bell.ring(Ring::Stop);
                }
            }
        }
    };
    thread::Builder::new().name("signals".into()).spawn(listen).context("thread")?;
    Ok(())
}

/// Exit status of a gate that was told twice to end.
const HURRIED: u8 = 125;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_ring_counts() {
        let (bell, mut reader) = Bell::new().unwrap();
        bell.ring(Ring::Left);
        assert_eq!(heard(&mut reader).unwrap(), Some(Ring::Left));
        bell.ring(Ring::Left);
        bell.second().unwrap().ring(Ring::Broken);
        bell.ring(Ring::Stop);
        assert_eq!(heard(&mut reader).unwrap(), Some(Ring::Broken));
    }
}
