//! The bench's other processes: this binary again in a role, alive for as long as its standard
//! input is open, and so never longer than the bench itself.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustls_pki_types::CertificateDer;

use crate::{gate, origin, relay};

/// The first argument of a process in a role.
pub(crate) const ARGUMENT: &str = "--role";

/// A role has this long to end by itself once its input has.
const END_TIME_MAX: Duration = Duration::from_secs(15);

/// How a process waits for the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Driver {
    /// io_uring where the kernel grants it, else epoll.
    Auto,
    /// io_uring or nothing.
    IoUring,
    /// epoll.
    Epoll,
}

impl Driver {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::IoUring => "io-uring",
            Self::Epoll => "epoll",
        }
    }
}

impl FromStr for Driver {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        [Self::Auto, Self::IoUring, Self::Epoll]
            .into_iter()
            .find(|driver| driver.name() == name)
            .with_context(|| format!("no driver is called {name}"))
    }
}

/// What a role is told.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) driver: Driver,
    /// Worker threads; the gate alone has more than one.
    pub(crate) workers: usize,
    /// How much of a body the gate keeps.
    pub(crate) body_bytes_max: u64,
    /// Whether TLS with the origin is let through unread.
    pub(crate) passes_through: bool,
    /// Where the origin is, and whose certificates it has; the origin itself has neither.
    pub(crate) origin: Option<(SocketAddr, CertificateDer<'static>)>,
}

/// What a role says when it is ready.
#[derive(Debug, Clone)]
pub(crate) struct Ready {
    pub(crate) address: SocketAddr,
    /// Who signed what it shows to clients.
    pub(crate) authority: CertificateDer<'static>,
    /// The gate's data folder.
    pub(crate) data_dir: Option<PathBuf>,
}

/// Plays the role that the arguments name.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let [role, driver, workers, body_bytes_max, passes_through, rest @ ..] = arguments else {
        bail!("roles are started by the bench itself");
    };
    let origin = match rest {
        [address, authority] => Some((address.parse()?, from_hex(authority)?.into())),
        _ => None,
    };
    let settings = Settings {
        driver: driver.parse()?,
        workers: workers.parse()?,
        body_bytes_max: body_bytes_max.parse()?,
        passes_through: passes_through.parse()?,
        origin,
    };
    allow_many_files()?;
    match &role[..] {
        "origin" => origin::run(&settings),
        "relay" => relay::run(&settings),
        "gate" => gate::run(settings),
        role => bail!("no role is called {role}"),
    }
}

/// Thousands of connections need as many descriptors.
pub(crate) fn allow_many_files() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("raise the limit of open files")
}

/// Tells the bench that this process serves.
pub(crate) fn say_ready(ready: &Ready) -> Result<()> {
    let port = ready.address.port();
    let authority = to_hex(&ready.authority);
    let dir = ready.data_dir.as_deref().map_or("".into(), |d| d.to_string_lossy());
    println!("ready {port} {authority} {dir}");
    Ok(std::io::stdout().flush()?)
}

/// Returns when the bench has ended or wants this process to.
pub(crate) fn wait_for_end() {
    // An error is an end too.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// Ends this process when the bench has ended or wants it to.
pub(crate) fn exit_at_end() {
    std::thread::spawn(|| {
        wait_for_end();
        std::process::exit(0);
    });
}

/// A process in a role; it ends when dropped.
pub(crate) struct Role {
    name: &'static str,
    child: Child,
    pub(crate) ready: Ready,
}

impl Role {
    pub(crate) fn start(name: &'static str, settings: &Settings) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args([ARGUMENT, name, settings.driver.name()])
            .args([settings.workers.to_string(), settings.body_bytes_max.to_string()])
            .arg(settings.passes_through.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0); // Ctrl-C ends the bench, and that ends the roles in order
        if let Some((address, authority)) = &settings.origin {
            command.args([address.to_string(), to_hex(authority)]);
        }
        let mut child = command.spawn().with_context(|| format!("start the {name}"))?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let ready = parse_ready(&line).with_context(|| format!("the {name} did not start"))?;
        Ok(Self { name, child, ready })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it in order and says whether that went well.
    pub(crate) fn end(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + END_TIME_MAX;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return match status.success() {
                    true => Ok(()),
                    false => bail!("the {} ended with {status}", self.name),
                };
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("the {} does not end", self.name)
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + END_TIME_MAX;
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        // Both fail only when it has ended, as it should.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parse_ready(line: &str) -> Result<Ready> {
    let mut parts = line.trim_end_matches('\n').splitn(4, ' ');
    let mut part = || parts.next().context("it said something else");
    if part()? != "ready" {
        bail!("it said {line:?}");
    }
    Ok(Ready {
        address: (Ipv4Addr::LOCALHOST, part()?.parse()?).into(),
        authority: from_hex(part()?)?.into(),
        data_dir: Some(part()?).filter(|dir| !dir.is_empty()).map(PathBuf::from),
    })
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Result<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
    let digits = digits.context("not hexadecimal")?;
    digits.chunks_exact(2).map(|pair| Ok(u8::try_from(pair[0] * 16 + pair[1])?)).collect()
}
