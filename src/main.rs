//! The program: parse the command line, run the command, print what went wrong, exit.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cli;
mod commands;
mod config;
mod demo;
mod exit_code;
mod gate;
mod paths;
mod proxies;
mod secret;
mod signals;
mod sys;
mod terminal;
mod upstream_settings;

use std::process::ExitCode;

use clap::Parser;

/// Records are allocated on one thread and freed on another, hundreds of thousands of times a
/// minute, which the system's allocator answers with a lock.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit_code::of_usage(&error),
    };
    match commands::run(cli) {
        Ok(code) => code.into(),
        Err(error) => exit_code::of_failure(&error),
    }
}
