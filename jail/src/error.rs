//! What can go wrong: which step failed, on what, why, and what the user can do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why there is no jail, or why the wait for its command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// This system has no jail yet; only [`unconfined()`](crate::unconfined) works.
    #[error("this system has no jail yet")]
    Unsupported,
    /// The plan asks for something that cannot be built.
    #[error("{0}")]
    Plan(String),
    /// One step of the set-up failed. Nothing was started and nothing is left behind.
    #[error(
        "cannot {step}{}: {source}{}",
        at.as_deref().map(|at| format!(" ({})", at.display())).unwrap_or_default(),
        cure.as_deref().map(|cure| format!("; {cure}")).unwrap_or_default()
    )]
    Setup {
        /// The step.
        step: Step,
        /// The path that it was about, where there is one.
        at: Option<PathBuf>,
        /// What the kernel said.
        source: io::Error,
        /// What the user can do, where we can tell.
        cure: Option<String>,
    },
    /// The jail's first process ended without a word (killed from outside, or out of memory).
    #[error("the jail's first process is gone")]
    InitGone,
    /// Waiting for the command failed.
    #[error("cannot wait for the command: {0}")]
    Wait(#[source] io::Error),
}

impl Error {
    /// The error of one failed step, with the cure that this machine's settings suggest.
    pub(crate) fn setup(step: Step, at: Option<PathBuf>, source: io::Error) -> Self {
        let cure = cure(step, &source, &|path| std::fs::read_to_string(path).ok());
        Self::Setup { step, at, source, cure }
    }
}

/// Why the command did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no such command (a shell's 127).
    #[error("{0}: command not found")]
    NotFound(String),
    /// There is one, but the kernel does not run it (a shell's 126).
    #[error("{0}")]
    NotExecutable(String),
    /// Everything else.
    #[error("{0}")]
    Other(String),
}

/// The steps of the set-up, in the order in which they are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum Step {
    /// The system's certificates are read and merged with ours.
    Trust,
    /// The socket between `agent-gate run` and the jail's first process is made.
    Link,
    /// The first process is started in namespaces of its own.
    Namespaces,
    /// The first process ties its life to `agent-gate run`.
    Tie,
    /// The caller's user and group are mapped to themselves.
    Identity,
    /// The loopback interface is brought up.
    Loopback,
    /// Every address is made local.
    Routes,
    /// The listening sockets are opened.
    Listeners,
    /// The mounts are cut off from the host's.
    Mounts,
    /// A `/proc` of the jail's own is mounted.
    Proc,
    /// The gate's own folders are masked.
    Hide,
    /// The trust folder is filled.
    TrustFolder,
    /// The merged certificates are laid over the system's.
    Certificates,
    /// Names are sent to the gate.
    Resolver,
    /// Kernel settings are made read-only (root only).
    Kernel,
    /// Raw devices are taken away (root only).
    Devices,
    /// The working folder is entered again.
    Folder,
    /// All capabilities are given up.
    Privileges,
    /// The listeners are handed over.
    HandOver,
}

impl Step {
    const ALL: [Self; 19] = [
        Self::Trust,
        Self::Link,
        Self::Namespaces,
        Self::Tie,
        Self::Identity,
        Self::Loopback,
        Self::Routes,
        Self::Listeners,
        Self::Mounts,
        Self::Proc,
        Self::Hide,
        Self::TrustFolder,
        Self::Certificates,
        Self::Resolver,
        Self::Kernel,
        Self::Devices,
        Self::Folder,
        Self::Privileges,
        Self::HandOver,
    ];

    /// The step that the jail's first process named by its number.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|step| *step as u8 == code)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Trust => "prepare the certificates",
            Self::Link => "make a socket pair",
            Self::Namespaces => "make namespaces",
            Self::Tie => "tie the jail to this process",
            Self::Identity => "map user and group into the user namespace",
            Self::Loopback => "bring up the jail's loopback interface",
            Self::Routes => "set the jail's routes",
            Self::Listeners => "listen inside the jail",
            Self::Mounts => "cut the jail's mounts off from the host's",
            Self::Proc => "mount the jail's /proc",
            Self::Hide => "hide a folder from the jail",
            Self::TrustFolder => "fill the trust folder",
            Self::Certificates => "lay the certificates over the system's",
            Self::Resolver => "send the jail's name look-ups to the gate",
            Self::Kernel => "make kernel settings read-only",
            Self::Devices => "take raw devices away",
            Self::Folder => "enter the working folder",
            Self::Privileges => "give up all capabilities",
            Self::HandOver => "hand over the listeners",
        })
    }
}

/// What the user can do about a failed step; `read` gives the text of a kernel file.
fn cure(step: Step, source: &io::Error, read: &dyn Fn(&Path) -> Option<String>) -> Option<String> {
    let setting =
        |path: &str| read(Path::new(path)).and_then(|text| text.trim().parse::<u64>().ok());
    let errno = source.raw_os_error().unwrap_or(0);
    let denied = errno == libc::EPERM || errno == libc::EACCES;
    let early = matches!(
        step,
        Step::Namespaces
            | Step::Identity
            | Step::Loopback
            | Step::Routes
            | Step::Listeners
            | Step::Mounts
            | Step::Proc
    );
    if !early {
        return None;
    }
    if denied && setting("/proc/sys/kernel/unprivileged_userns_clone") == Some(0) {
        return Some(sysctl("kernel.unprivileged_userns_clone=1"));
    }
    if denied && setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
        return Some(sysctl("kernel.apparmor_restrict_unprivileged_userns=0"));
    }
    for (kind, path) in NAMESPACE_LIMITS {
        if errno == libc::ENOSPC && setting(path) == Some(0) {
            return Some(sysctl(&format!("user.max_{kind}_namespaces=10000")));
        }
    }
    match (errno, step) {
        (libc::ENOSPC | libc::EUSERS, _) => Some(
            "too many namespaces are in use, or they are nested too deep (see user.max_*_namespaces)"
                .to_owned(),
        ),
        (libc::ENOSYS | libc::EINVAL, Step::Namespaces) => Some(
            "this kernel is built without user, network or pid namespaces; use --mode permissive"
                .to_owned(),
        ),
        (libc::EPERM | libc::EACCES, Step::Proc) => Some(
            "in a container, /proc must not be masked: docker run --security-opt \
             systempaths=unconfined, podman run --security-opt unmask=ALL"
                .to_owned(),
        ),
        (libc::EPERM | libc::EACCES, _) => Some(
            "in a container, start it so that it may make namespaces: docker run --security-opt \
             seccomp=unconfined --security-opt apparmor=unconfined --security-opt \
             systempaths=unconfined"
                .to_owned(),
        ),
        _ => None,
    }
}

const NAMESPACE_LIMITS: [(&str, &str); 5] = [
    ("user", "/proc/sys/user/max_user_namespaces"),
    ("net", "/proc/sys/user/max_net_namespaces"),
    ("mnt", "/proc/sys/user/max_mnt_namespaces"),
    ("pid", "/proc/sys/user/max_pid_namespaces"),
    ("ipc", "/proc/sys/user/max_ipc_namespaces"),
];

fn sysctl(setting: &str) -> String {
    format!("as root: sysctl -w {setting}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cure_for(step: Step, errno: i32, settings: &[(&str, &str)]) -> String {
        let read = |path: &Path| {
            let found = settings.iter().find(|(name, _)| Path::new("/proc/sys").join(name) == path);
            found.map(|(_, value)| format!("{value}\n"))
        };
        cure(step, &io::Error::from_raw_os_error(errno), &read).unwrap_or_default()
    }

    #[test]
    fn the_setting_that_forbids_is_named() {
        let debian = [("kernel/unprivileged_userns_clone", "0")];
        let cured = cure_for(Step::Namespaces, libc::EPERM, &debian);
        assert!(cured.contains("kernel.unprivileged_userns_clone=1"), "{cured}");

        let ubuntu = [("kernel/apparmor_restrict_unprivileged_userns", "1")];
        let cured = cure_for(Step::Identity, libc::EACCES, &ubuntu);
        assert!(cured.contains("apparmor_restrict_unprivileged_userns=0"), "{cured}");

        let none = [("user/max_net_namespaces", "0"), ("user/max_user_namespaces", "100")];
        let cured = cure_for(Step::Namespaces, libc::ENOSPC, &none);
        assert!(cured.contains("user.max_net_namespaces"), "{cured}");

        assert!(cure_for(Step::Proc, libc::EPERM, &[]).contains("systempaths=unconfined"));
        assert!(cure_for(Step::Namespaces, libc::ENOSYS, &[]).contains("--mode permissive"));
        assert_eq!(cure_for(Step::Folder, libc::EACCES, &ubuntu), "");
    }

    #[test]
    fn an_error_tells_step_place_reason_and_cure() {
        let error = Error::Setup {
            step: Step::Hide,
            at: Some("/home/u/.config/agent-gate".into()),
            source: io::Error::from_raw_os_error(libc::EPERM),
            cure: Some("do this".to_owned()),
        };
        assert_eq!(
            error.to_string(),
            "cannot hide a folder from the jail (/home/u/.config/agent-gate): Operation not \
             permitted (os error 1); do this"
        );
    }

    #[test]
    fn every_step_is_found_by_its_number() {
        for (number, step) in Step::ALL.into_iter().enumerate() {
            assert_eq!(step as usize, number);
            assert_eq!(Step::from_code(step as u8), Some(step));
        }
        assert_eq!(Step::from_code(200), None);
    }
}
