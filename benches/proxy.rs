//! What the gate costs: a real engine and a real store over loopback, TLS on both sides, every
//! byte captured to disk, beside the same load sent directly and through a bare TLS relay.
//!
//! `cargo bench --bench proxy` runs everything and prints a table; words after `--` choose cases
//! by parts of their names. `--test` runs every case once, tiny, and only says whether it works.
//! `--workers N`, `--driver auto|io-uring|epoll`, `--rounds N` and `--ways direct,relay,gate` vary
//! what is measured. The origin, the relay and the gate are this binary again, each a process of
//! its own, so that the kernel counts their CPU time and memory apart. Compare within one run
//! only: machines are shared, and the relay's figures say how fast this one was just then.

#![allow(clippy::print_stdout, clippy::print_stderr)] // a bench talks to the terminal

#[path = "proxy/authority.rs"]
mod authority;
#[path = "proxy/cases.rs"]
mod cases;
#[path = "proxy/client.rs"]
mod client;
#[path = "proxy/content.rs"]
mod content;
#[path = "proxy/gate.rs"]
mod gate;
#[path = "proxy/http.rs"]
mod http;
#[path = "proxy/journal.rs"]
mod journal;
#[path = "proxy/measure.rs"]
mod measure;
#[path = "proxy/memory.rs"]
mod memory;
#[path = "proxy/options.rs"]
mod options;
#[path = "proxy/origin.rs"]
mod origin;
#[path = "proxy/relay.rs"]
mod relay;
#[path = "proxy/report.rs"]
mod report;
#[path = "proxy/role.rs"]
mod role;
#[path = "proxy/runner.rs"]
mod runner;
#[path = "proxy/runtime.rs"]
mod runtime;
#[path = "proxy/session.rs"]
mod session;
#[path = "proxy/stream.rs"]
mod stream;
#[path = "proxy/websocket.rs"]
mod websocket;

use std::process::ExitCode;

use options::Options;

/// As in the program; the relay has the same.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    let result = if arguments.next_if_eq(role::ARGUMENT).is_some() {
        role::run(&arguments.collect::<Vec<_>>())
    } else {
        Options::parse(arguments).and_then(|options| runner::run(&options))
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("proxy bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
