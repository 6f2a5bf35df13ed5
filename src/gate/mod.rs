//! The gate: how it is found or started (`client`, `start`), what is said over the control socket
//! (`control`), and the gate process itself (`process`).

pub(crate) mod client;
pub(crate) mod control;
pub(crate) mod lists_watch;
pub(crate) mod lock;
pub(crate) mod ports;
pub(crate) mod process;

mod bell;
mod presence;
mod runs;
mod serve;
mod socket;
mod start;
mod upstream;
