//! Bytes to messages and back: no I/O, no clock, the same result however the input is cut.

pub(crate) mod body;
pub(crate) mod chunked;
pub(crate) mod client_hello;
pub(crate) mod connect;
pub(crate) mod connect_answer;
pub(crate) mod dns;
pub(crate) mod forward;
pub(crate) mod framing;
pub(crate) mod head;
pub(crate) mod sse;
