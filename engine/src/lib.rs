//! The data plane: everything between an accepted connection and the records it leaves behind.
//!
//! `net` is all that waits; `proto` turns bytes into messages and back without I/O; `policy` says
//! what passes; `inspect` reads bodies beside the wire; `cert` makes certificates; `fuzz` says what
//! the fuzz targets hold `proto` to. This crate knows nothing of SQL, HTML, the jail, options or
//! environment.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod client_certificate;
pub mod config;
pub mod probe;
pub mod resolve;
pub mod upstream_proxy;

mod cert;
mod distrust;
mod engine;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod inspect;
mod limits;
mod net;
mod no_proxy;
mod policy;
mod proto;
mod provider_error;
mod upstream_trust;

pub use client_certificate::{ClientCertificate, ClientCertificateError};
pub use config::{Config, Driver, Limits, Listener, RunSettings};
pub use engine::Engine;
pub use error::Error;
pub use no_proxy::NoProxy;
pub use resolve::ResolveRule;
pub use upstream_proxy::{UpstreamProxies, UpstreamProxy, UpstreamProxyError};
