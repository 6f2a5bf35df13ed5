//! The local pages of agent-gate and the small JSON API under them, over the store alone.
//!
//! Knows nothing of the engine or the jail. Everything it shows was captured from a network and is
//! hostile: it reaches a page only through `html`, which escapes it, and a response leaves only
//! through `http`, which puts the same strict headers on each.
//!
//! HTTP itself is `tiny_http`'s. It limits neither heads, nor how long one may take, nor how many
//! connections are open (one thread each). What protects the server, and the gate around it:
//!
//! - It listens on loopback alone (`server`), where an airtight jail has no way, and `guard`
//!   answers no web page but its own. Who is left are the user's own programs, which could end the
//!   gate in simpler ways.
//! - A bounded number of requests is in work at once, the next are told to come back, and few of
//!   the pages may wait for news (`places`, `live`).
//! - A response is streamed, never held. A request that announces a huge body is neither read nor
//!   answered, and after a number of such the dashboard closes, not the gate (`http`, `places`).
//! - A page that panics costs its own request (`server`).

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod body;
mod guard;
mod html;
mod http;
mod json;
mod live;
mod mask;
mod notices;
mod pages;
mod places;
mod route;
mod server;
mod sse;
mod words;

pub use live::{Changes, Polling};
pub use notices::Notices;
pub use server::{Error, Server};
