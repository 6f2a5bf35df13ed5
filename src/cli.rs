//! The options as they are typed. What they mean is settled in `config.rs` and the commands.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use agent_gate_engine::ResolveRule;
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Runs AI agents in a network jail and records every byte they send and receive.
#[derive(Debug, Parser)]
#[command(name = "agent-gate", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Folder of config.toml and the host lists [default: $XDG_CONFIG_HOME/agent-gate]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) config_dir: Option<PathBuf>,

    /// Folder of the journal, the index and the CA [default: $XDG_DATA_HOME/agent-gate]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) data_dir: Option<PathBuf>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command in the jail; exits with the command's own code
    Run(RunOptions),
    /// Keep a gate in the foreground with a proxy for commands that are started otherwise
    Proxy(ProxyOptions),
    /// Follow the exchanges as they end, one line each
    Tail {
        /// One JSON object a line instead of text
        #[arg(long)]
        json: bool,
    },
    /// Serve the pages of what was recorded while no gate is running
    Dashboard,
    /// Check settings, folders, the jail and the gate; exit 1 when something is wrong
    Doctor {
        /// One JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Build the index anew from the journal
    Reindex,
    /// Show the whole way with a built-in origin: no network, account or agent needed
    Demo {
        /// End at once; exit 0 only if everything was captured
        #[arg(long)]
        once: bool,
    },
    /// Print the version
    Version,
    /// The gate process itself, started by `run`
    #[command(name = "__gate", hide = true)]
    Gate,
    /// The scripted agent of `demo`
    #[command(name = "__demo-client", hide = true)]
    DemoClient(DemoClientOptions),
}

/// Options of the scripted agent.
#[derive(Debug, Args)]
pub(crate) struct DemoClientOptions {
    /// Without a jail names do not lead to the gate: use the proxy variables
    #[arg(long)]
    pub(crate) by_proxy: bool,
}

/// Options of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunOptions {
    /// How confined the command is
    #[arg(long, value_enum, default_value_t = WantedMode::Airtight)]
    pub(crate) mode: WantedMode,

    #[command(flatten)]
    pub(crate) upstream: UpstreamOptions,

    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_names = ["CMD", "ARGS"])]
    pub(crate) argv: Vec<OsString>,
}

/// How confined the command is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WantedMode {
    /// No network but the gate; falls back to permissive, loudly, where that cannot be had
    Airtight,
    /// No network but the gate, or refuse to run
    AirtightStrict,
    /// Proxy variables only: a command that ignores them goes unseen
    Permissive,
}

/// Options of `proxy`.
#[derive(Debug, Args)]
pub(crate) struct ProxyOptions {
    /// Where to listen; loopback only [default: 127.0.0.1 and the configured port, 8888]
    #[arg(long, value_name = "ADDR:PORT", value_parser = loopback_address)]
    pub(crate) addr: Option<SocketAddr>,

    #[command(flatten)]
    pub(crate) upstream: UpstreamOptions,
}

/// How the origins of one run are reached and checked.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct UpstreamOptions {
    /// Refuse every host that allowlist.txt does not name
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) enforce_allowlist: Option<bool>,

    /// Also trust the certificates in this file for origins (repeatable)
    #[arg(long, value_name = "PEM")]
    pub(crate) upstream_ca: Vec<PathBuf>,

    /// Do not check the certificates of origins at all
    #[arg(long)]
    pub(crate) upstream_insecure_skip_verify: bool,

    /// Reach origins through this proxy, http:// or https://; `none` for none [default: config.toml,
    /// else HTTPS_PROXY, http_proxy, ALL_PROXY and NO_PROXY]
    // Checked later, for an error here would show its password.
    #[arg(long, value_name = "URL|none")]
    pub(crate) upstream_proxy: Option<String>,

    /// Where a host is to be found instead of asking DNS; `*` for any host or port (repeatable)
    #[arg(long, value_name = "HOST:PORT:ADDR[:PORT]", value_parser = resolve_rule)]
    pub(crate) resolve: Vec<String>,
}

/// Checked here, kept as text: it travels to the gate over the control socket.
fn resolve_rule(text: &str) -> Result<String, String> {
    text.parse::<ResolveRule>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn loopback_address(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "not an address and port, such as 127.0.0.1:8888".to_owned())?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("not a loopback address: the gate serves this machine's user alone".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    fn run_options(line: &str) -> RunOptions {
        match parse(line).unwrap().command {
            Command::Run(options) => options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_holds() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_command_line_of_run_is_left_alone() {
        for (line, argv) in [
            ("agent-gate run -- claude -p hi", "claude -p hi"),
            ("agent-gate run claude --mode x", "claude --mode x"),
            ("agent-gate run -- sh -c -- echo", "sh -c -- echo"),
            ("agent-gate run -- git --data-dir x", "git --data-dir x"),
            ("agent-gate --data-dir /d run -- -odd", "-odd"),
        ] {
            let argv: Vec<_> = argv.split(' ').map(OsString::from).collect();
            assert_eq!(run_options(line).argv, argv, "{line}");
        }
    }

    #[test]
    fn enforcement_is_said_three_ways() {
        for (line, enforce) in [
            ("agent-gate run -- x", None),
            ("agent-gate run --enforce-allowlist -- x", Some(true)),
            ("agent-gate run --enforce-allowlist=false -- x", Some(false)),
            ("agent-gate run --enforce-allowlist x", Some(true)),
        ] {
            assert_eq!(run_options(line).upstream.enforce_allowlist, enforce, "{line}");
        }
    }

    #[test]
    fn bad_options_are_refused() {
        for line in [
            "agent-gate run",
            "agent-gate run --mode loose -- x",
            "agent-gate run --resolve nowhere -- x",
            "agent-gate proxy --addr 0.0.0.0:8888",
            "agent-gate proxy --addr [::]:8888",
            "agent-gate proxy --addr 192.168.1.2:8888",
            "agent-gate proxy --addr 8888",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        assert!(parse("agent-gate proxy --addr [::1]:8888").is_ok());
    }
}
