//! What the jailed command sees of the file system: the host's, with the gate's own folders masked,
//! its certificates laid over the system's, and name look-ups sent to the gate.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::unistd::{AccessFlags, access};

use super::link::Failed;
use super::root;
use crate::error::Step;
use crate::trust::{BUNDLE_FILE, SYSTEM_BUNDLES, TRUSTSTORE_FILE, Trust};

/// What the mounts are to show.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) hidden: &'a [PathBuf],
    pub(super) trust_dir: &'a Path,
    pub(super) trust: &'a Trust,
    /// Where Java installations may keep their trust store.
    pub(super) java_stores: &'a [PathBuf],
    /// Whether the caller is root.
    pub(super) for_root: bool,
}

/// Lays the mounts, in an order that matters: paths are resolved before anything covers them, and
/// masks are sealed when what belongs on them is there.
pub(super) fn lay(view: &View<'_>) -> Result<(), Failed> {
    cut_off()?;
    let hidden = resolve_hidden(view.hidden)?;
    let resolver = Resolver::find();
    let bundles = existing(SYSTEM_BUNDLES.map(Path::new));
    let java_stores = existing(view.java_stores);

    mount_proc()?;
    for path in &hidden {
        pin_way_to(path)?;
        mask(path, Step::Hide)?;
    }
    fill_trust_folder(view)?;
    lay_over(&view.trust_dir.join(BUNDLE_FILE), &bundles)?;
    lay_over(&view.trust_dir.join(TRUSTSTORE_FILE), &java_stores)?;
    resolver.turn_to_gate(view.trust_dir)?;
    if view.for_root {
        root::protect_kernel()?;
        root::replace_devices(&view.trust_dir.join("dev"))?;
    }

    seal(view.trust_dir, Step::TrustFolder)?;
    hidden.iter().filter(|path| path.is_dir()).try_for_each(|path| seal(path, Step::Hide))
}

/// From here on nothing that we mount shows outside, and nothing mounted outside can cover a mask.
fn cut_off() -> Result<(), Failed> {
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(NONE, "/", NONE, flags, NONE).map_err(Failed::at_step(Step::Mounts))
}

/// The jail's own processes and no others.
fn mount_proc() -> Result<(), Failed> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, NONE).map_err(Failed::at_step(Step::Proc))
}

/// Makes the folders that are to be masked and are missing: the jailed command could make them
/// instead, and the gate would read what it put there. Done outside, where root still may write
/// into other users' folders; where we may not, neither may the command.
pub(super) fn make_missing(hidden: &[PathBuf], trust_dir: &Path) {
    let on_mask = hidden.iter().any(|path| trust_dir.starts_with(path));
    for path in hidden.iter().map(PathBuf::as_path).chain((!on_mask).then_some(trust_dir)) {
        if !path.exists() {
            let _ = make_folder(path);
        }
    }
}

/// The folders and files to mask, without those that lie in another.
fn resolve_hidden(hidden: &[PathBuf]) -> Result<BTreeSet<PathBuf>, Failed> {
    let mut resolved = BTreeSet::new();
    for path in hidden {
        match path.canonicalize() {
            Ok(whole) => drop(resolved.insert(whole)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failed::at_path(Step::Hide, path)(error)),
        }
    }
    let inner = |path: &PathBuf| path.ancestors().skip(1).any(|outer| resolved.contains(outer));
    Ok(resolved.iter().filter(|path| !inner(path)).cloned().collect())
}

fn make_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Keeps the folders above a mask from being renamed away, and others from being put in their
/// place: a mount point cannot be moved. Needed only where the command may write.
fn pin_way_to(path: &Path) -> Result<(), Failed> {
    let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
    above.reverse();
    for pair in above.windows(2) {
        let (parent, folder) = (pair[0], pair[1]);
        if access(parent, AccessFlags::W_OK).is_ok() {
            bind(folder, folder).map_err(Failed::at_path(Step::Hide, folder))?;
        }
    }
    Ok(())
}

/// Covers a folder with an empty one, a file with the null device.
fn mask(path: &Path, step: Step) -> Result<(), Failed> {
    let covered = if path.is_dir() {
        small_tmpfs(path, "mode=0755,size=1m,nr_inodes=64")
    } else {
        bind(Path::new("/dev/null"), path)
    };
    covered.map_err(Failed::at_path(step, path))
}

fn fill_trust_folder(view: &View<'_>) -> Result<(), Failed> {
    let failed = Failed::at_path(Step::TrustFolder, view.trust_dir);
    make_folder(view.trust_dir).map_err(&failed)?;
    let failed = Failed::at_path(Step::TrustFolder, view.trust_dir);
    small_tmpfs(view.trust_dir, "mode=0755,size=64m,nr_inodes=64").map_err(failed)?;
    for (name, bytes) in view.trust.files() {
        let path = view.trust_dir.join(name);
        fs::write(&path, bytes).map_err(Failed::at_path(Step::TrustFolder, &path))?;
    }
    Ok(())
}

/// Binds one file over others.
fn lay_over(file: &Path, places: &BTreeSet<PathBuf>) -> Result<(), Failed> {
    places
        .iter()
        .try_for_each(|place| bind(file, place).map_err(Failed::at_path(Step::Certificates, place)))
}

/// How this machine looks names up.
struct Resolver {
    /// Where `/etc/resolv.conf` really is, if anywhere; without one the C library asks 127.0.0.1,
    /// where the gate listens as well.
    settings: Option<PathBuf>,
    /// Sockets of resolvers that answer from outside the jail's network.
    back_doors: BTreeSet<PathBuf>,
}

impl Resolver {
    fn find() -> Self {
        Self {
            settings: Path::new("/etc/resolv.conf").canonicalize().ok(),
            back_doors: existing(BACK_DOORS.map(Path::new)),
        }
    }

    /// Every look-up goes to one address, which AnyIP delivers to the gate.
    fn turn_to_gate(&self, trust_dir: &Path) -> Result<(), Failed> {
        for door in &self.back_doors {
            mask(door, Step::Resolver)?;
        }
        if let Some(settings) = &self.settings {
            self.write_settings(settings, trust_dir)
                .map_err(Failed::at_path(Step::Resolver, settings))?;
        }
        let folders = self.back_doors.iter().filter(|door| door.is_dir());
        folders.into_iter().try_for_each(|door| seal(door, Step::Resolver))
    }

    fn write_settings(&self, settings: &Path, trust_dir: &Path) -> io::Result<()> {
        if self.back_doors.iter().any(|door| settings.starts_with(door)) {
            // It lay in a folder that is masked now (systemd-resolved's): put ours on the mask.
            if let Some(folder) = settings.parent() {
                fs::create_dir_all(folder)?;
            }
            return fs::write(settings, RESOLVER_SETTINGS);
        }
        let ours = trust_dir.join("resolv.conf");
        fs::write(&ours, RESOLVER_SETTINGS)?;
        bind(&ours, settings).map_err(io::Error::from)
    }
}

/// nscd answers from its own process; so does systemd-resolved through `nss-resolve`, and avahi.
const BACK_DOORS: [&str; 4] =
    ["/run/nscd", "/var/run/nscd", "/run/systemd/resolve", "/run/avahi-daemon"];

/// The address is one of documentation (RFC 5737): not loopback, which some programs pass over. The
/// root as search list keeps the host's domain from being tried on names, to all of which the gate
/// would answer.
const RESOLVER_SETTINGS: &str = "nameserver 192.0.2.53\nsearch .\n";

/// Those of the paths that exist, without links, each once.
fn existing<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> BTreeSet<PathBuf> {
    paths.into_iter().filter_map(|path| path.as_ref().canonicalize().ok()).collect()
}

/// Shows `source` at `target` too.
pub(super) fn bind(source: &Path, target: &Path) -> nix::Result<()> {
    mount(Some(source), target, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
}

fn small_tmpfs(target: &Path, options: &str) -> nix::Result<()> {
    mount(Some("agent-gate"), target, Some("tmpfs"), TMPFS_FLAGS, Some(options))
}

const TMPFS_FLAGS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// Makes a tmpfs of ours read-only, wherever it shows.
fn seal(path: &Path, step: Step) -> Result<(), Failed> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | TMPFS_FLAGS;
    mount(NONE, path, NONE, flags, NONE).map_err(Failed::at_path(step, path))
}

pub(super) const NONE: Option<&str> = None;
