//! Bytes to messages and back: no I/O, no clock, the same result however the input is cut.

mod alt_svc;
mod authority;
pub(crate) mod body;
pub(crate) mod chunked;
pub(crate) mod client_hello;
pub(crate) mod connect;
pub(crate) mod connect_answer;
mod diagnosis;
pub(crate) mod dns;
pub(crate) mod framing;
pub(crate) mod head;
pub(crate) mod rewrite;
pub(crate) mod sse;
mod tolerant;
mod trailers;
pub(crate) mod ws_deflate;
pub(crate) mod ws_frame;
pub(crate) mod ws_message;
pub(crate) mod ws_open;
