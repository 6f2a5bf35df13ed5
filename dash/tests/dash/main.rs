//! The dashboard over TCP, as a browser, a hostile page and a broken client meet it.
//!
//! - `access`: who is answered, and with which fields; slow clients; stopping
//! - `pages`: runs, the table, one exchange; escaping and masking
//! - `messages`: those of a WebSocket, listed, shown and downloaded
//! - `bodies`: shown and downloaded
//! - `live`: the long poll

#![allow(clippy::unwrap_used)]

mod access;
mod bodies;
mod live;
mod messages;
mod pages;
mod support;
