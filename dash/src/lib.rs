//! The local pages of agent-gate and the small JSON API under them, over the store alone.
//!
//! Knows nothing of the engine or the jail. Everything it shows was captured from a network and is
//! hostile: it reaches a page only through `html`, which escapes it, and a response leaves only
//! through `http`, which puts the same strict headers on each.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod body;
mod guard;
mod html;
mod http;
mod json;
mod live;
mod mask;
mod pages;
mod route;
mod server;
mod sse;
mod words;

pub use live::{Changes, Polling};
pub use server::{Error, Server};
