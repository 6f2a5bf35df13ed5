//! Everything that waits: workers, connections, TLS, tunnels, exchanges, upstream.
//!
//! `.await` lives in this folder alone. No future that reads, writes, accepts or connects is ever
//! dropped half-way while its connection lives on: see [`socket`].

mod alarm;
mod answer;
mod beside;
mod capture;
mod connect;
mod connection;
mod crowd;
mod dns_server;
mod door;
mod exchange;
mod exchanges;
mod flow;
mod names;
mod observer;
mod passthrough;
mod pool;
mod relay;
mod request_side;
mod resolver;
mod response_side;
mod run;
mod socket;
mod stream;
mod sys;
mod tls;
mod transport;
mod tunnel;
mod upstream;
mod upstream_proxy;
mod websocket;
mod worker;

pub(crate) use crowd::Count;
pub(crate) use dns_server::DnsServer;
pub(crate) use resolver::Resolver;
pub(crate) use run::Run;
pub(crate) use worker::{Inbox, Shared, start, try_ring};
