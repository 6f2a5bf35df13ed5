//! What agent-gate keeps on disk.
//!
//! The journal (JSON Lines, [`record`]) is the truth; the index (SQLite) is a view that can be
//! rebuilt from it. Everything is written by one thread, fed over a bounded channel by
//! [`Recorder`] handles; everything is read through [`Reader`]. This crate knows nothing of
//! sockets, TLS, HTTP parsing or HTML.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod content_coding;
pub mod host;
pub mod journal;
pub mod layout;
pub mod lists;
mod object;
mod outbox;
pub mod reader;
pub mod record;
pub mod recorder;
pub mod rows;

mod body;
mod budget;
mod channel;
mod decoded;
mod disk;
mod encode;
mod error;
mod escape;
mod index;
mod message;
mod private;
mod receipt;
mod reindex;
mod row;
mod side_files;
mod store;
mod values;
mod writer;

pub use decoded::DecodedBody;
pub use error::Error;
pub use host::HostName;
pub use layout::Layout;
pub use lists::{HostList, HostLists};
pub use outbox::Outbox;
pub use reader::Reader;
pub use record::{Id, Record, Timestamp};
pub use recorder::{Permit, Receipt, Recorder, Reserve, SideFile, Stopped};
pub use reindex::{ReindexSummary, reindex};
pub use rows::{Exchange, ExchangeRow, Filter, Kind, MessageRow, RunRow};
pub use store::{Committed, Options, Store};
