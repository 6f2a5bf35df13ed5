//! The one place that decides what this program exits with.
//!
//! | code | when |
//! | --- | --- |
//! | CMD's own, 128+n for signal n | `run`: the jailed command ended by itself |
//! | 0 | every other command that did what was asked; also when the reader of its output left |
//! | 1 | `demo --once`: the capture is not what the origin saw; `doctor`: something is wrong |
//! | 125 | agent-gate itself failed, or could not read its options |
//! | 126, 127 | `run`: CMD cannot be executed, CMD was not found (as a shell says it) |

use std::process::ExitCode;

use crate::terminal::{self, OutputClosed};

/// The last word of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It did what was asked.
    Success,
    /// A check that was asked for said no.
    CheckFailed,
    /// agent-gate itself failed, and has said why.
    OwnFailure,
    /// CMD is there but cannot be executed.
    NotExecutable,
    /// There is no CMD.
    NotFound,
    /// CMD ended with this exit code.
    Command(i32),
    /// CMD was ended by this signal.
    CommandSignal(i32),
}

impl Exit {
    /// As a shell would say it, in `0..=255`.
    pub(crate) fn status(self) -> i32 {
        match self {
            Self::Success => 0,
            Self::CheckFailed => 1,
            Self::OwnFailure => 125,
            Self::NotExecutable => 126,
            Self::NotFound => 127,
            Self::Command(code) => code & 0xff,
            Self::CommandSignal(signal) => 128 + (signal & 0x7f),
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        u8::try_from(exit.status()).map_or(Self::FAILURE, Self::from)
    }
}

/// Prints a failure as one line and says what to exit with.
pub(crate) fn of_failure(error: &anyhow::Error) -> ExitCode {
    if error.is::<OutputClosed>() {
        // `agent-gate tail | head` ended as its user wanted.
        return Exit::Success.into();
    }
    terminal::note(&terminal::chain(error));
    Exit::OwnFailure.into()
}

/// Prints help, the version or what is wrong with the options.
pub(crate) fn of_usage(error: &clap::Error) -> ExitCode {
    // A closed terminal leaves nobody to tell.
    let _ = error.print();
    if error.use_stderr() { Exit::OwnFailure.into() } else { Exit::Success.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_of_a_shell() {
        for (exit, status) in [
            (Exit::Success, 0),
            (Exit::OwnFailure, 125),
            (Exit::NotExecutable, 126),
            (Exit::NotFound, 127),
            (Exit::Command(7), 7),
            (Exit::Command(255), 255),
            (Exit::CommandSignal(9), 137),
        ] {
            assert_eq!(exit.status(), status, "{exit:?}");
        }
    }
}
