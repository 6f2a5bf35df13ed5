//! The commands: one file each. `main` has parsed the options; here the settings are read.

mod dashboard;
mod doctor;
mod proxy;
mod reindex;
mod run;
mod tail;
mod upstream;
mod version;

use crate::cli::{Cli, Command};
use crate::config::Config;
use crate::exit_code::Exit;
use crate::gate;

/// Carries out what was typed.
///
/// # Errors
/// Whatever kept it from being done, in words for the user.
pub(crate) fn run(cli: Cli) -> anyhow::Result<Exit> {
    match cli.command {
        // The gate settles its own surroundings before it opens anything.
        Command::Gate => return gate::process::in_background(&cli),
        // It says itself what is wrong with the settings.
        Command::Doctor { json } => return doctor::run(&cli, json),
        Command::Version => return version::run(),
        Command::Demo { once } => return crate::demo::run(once),
        Command::DemoClient(options) => return crate::demo::client::run(&options),
        _ => {}
    }
    let config = Config::load(&cli)?;
    match cli.command {
        Command::Run(options) => run::run(&config, options),
        Command::Proxy(options) => proxy::run(&config, &options),
        Command::Tail { json } => tail::run(&config, json),
        Command::Dashboard => dashboard::run(&config),
        Command::Reindex => reindex::run(&config),
        Command::Gate
        | Command::Doctor { .. }
        | Command::Version
        | Command::Demo { .. }
        | Command::DemoClient(_) => unreachable!("done above"),
    }
}
