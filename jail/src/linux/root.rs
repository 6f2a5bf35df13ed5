//! What a caller who is root must lose besides capabilities: the kernel lets uid 0 as such write to
//! its settings, and a raw disk belongs to root like any file.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::link::Failed;
use super::mounts::{NONE, bind};
use crate::error::Step;

/// Makes the kernel's settings read-only. With `core_pattern` or a `release_agent` root could have
/// the kernel start a program outside.
pub(super) fn protect_kernel() -> Result<(), Failed> {
    let mounted =
        fs::read_to_string("/proc/self/mountinfo").map_err(Failed::at_step(Step::Kernel))?;
    let settings = kernel_mounts(&mounted);
    for path in KERNEL_PROC.map(Path::new).into_iter().filter(|path| path.exists()) {
        bind(path, path).map_err(Failed::at_path(Step::Kernel, path))?;
        make_read_only(path).map_err(Failed::at_path(Step::Kernel, path))?;
    }
    for path in settings {
        match make_read_only(&path) {
            // Covered by another mount or out of reach: so it is for the command.
            Ok(()) | Err(nix::Error::ENOENT | nix::Error::EACCES) => {}
            Err(error) => return Err(Failed::at_path(Step::Kernel, &path)(error)),
        }
    }
    Ok(())
}

/// Parts of the jail's own `/proc` that are not about processes.
const KERNEL_PROC: [&str; 8] = [
    "/proc/sys",
    "/proc/sysrq-trigger",
    "/proc/irq",
    "/proc/bus",
    "/proc/fs",
    "/proc/acpi",
    "/proc/scsi",
    "/proc/mtrr",
];

/// Where file systems are mounted that are the kernel's own, from `mountinfo` (`proc(5)`); those
/// under `/proc` are covered by the jail's own.
fn kernel_mounts(mountinfo: &str) -> Vec<PathBuf> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let place = line.split(' ').nth(4)?;
        let kind = line.split_once(" - ")?.1.split(' ').next()?;
        KERNEL_FILE_SYSTEMS.contains(&kind).then(|| PathBuf::from(unescape(place)))
    });
    mounts.filter(|place| !place.starts_with("/proc")).collect()
}

const KERNEL_FILE_SYSTEMS: [&str; 14] = [
    "sysfs",
    "proc",
    "cgroup",
    "cgroup2",
    "debugfs",
    "tracefs",
    "securityfs",
    "configfs",
    "bpf",
    "pstore",
    "efivarfs",
    "fusectl",
    "binfmt_misc",
    "selinuxfs",
];

/// `mountinfo` writes white space and backslashes as three octal digits.
fn unescape(text: &str) -> String {
    let codes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    codes.iter().fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

/// Remounts one mount read-only. Flags that came from outside are locked and must be repeated.
fn make_read_only(path: &Path) -> nix::Result<()> {
    let kept = statvfs(path)?.flags();
    let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    flags.set(MsFlags::MS_NOSUID, kept.contains(FsFlags::ST_NOSUID));
    flags.set(MsFlags::MS_NODEV, kept.contains(FsFlags::ST_NODEV));
    flags.set(MsFlags::MS_NOEXEC, kept.contains(FsFlags::ST_NOEXEC));
    mount(NONE, path, NONE, flags, NONE)
}

/// Replaces `/dev` by one with the devices that programs need, and no disk or memory among them.
/// It is built at `workplace`, an empty folder of ours, from what `/dev` has.
pub(super) fn replace_devices(workplace: &Path) -> Result<(), Failed> {
    let failed = Failed::at_path(Step::Devices, Path::new("/dev"));
    build_devices(workplace).map_err(failed)
}

fn build_devices(workplace: &Path) -> io::Result<()> {
    fs::create_dir(workplace)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("agent-gate"), workplace, Some("tmpfs"), flags, Some("mode=0755,size=1m"))?;
    for device in wanted_devices()? {
        show(&Path::new("/dev").join(&device), &workplace.join(&device))?;
    }
    if let Some(terminal) = our_terminal() {
        // Under its own name where it has one for itself. A pseudo terminal of the host's has no
        // name among the jail's; as `console` ttyname(3) finds it, as in any container.
        let name = terminal.strip_prefix("/dev").ok().filter(|it| it.components().count() == 1);
        show(&terminal, &workplace.join(name.unwrap_or(Path::new("console"))))?;
    }
    add_pseudo_terminals(&workplace.join("pts"))?;
    for (name, target) in LINKS {
        symlink(target, workplace.join(name))?;
    }
    mount(Some(workplace), "/dev", NONE, MsFlags::MS_MOVE, NONE)?;
    fs::remove_dir(workplace)
}

/// Binds a device, or a folder of devices, if it is there.
fn show(from: &Path, to: &Path) -> io::Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to)?;
    } else if from.exists() {
        fs::write(to, "")?;
    } else {
        return Ok(());
    }
    bind(from, to).map_err(io::Error::from)
}

/// Pseudo terminals of the jail's own: a bound `ptmx` does not find the `pts` beside it, and the
/// one in the host's `pts` is often closed to all (`ptmxmode=000`).
fn add_pseudo_terminals(folder: &Path) -> io::Result<()> {
    fs::create_dir(folder)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let options = "newinstance,ptmxmode=0666,mode=0620";
    Ok(mount(Some("agent-gate"), folder, Some("devpts"), flags, Some(options))?)
}

/// Names under `/dev`: what every program may need, and virtualisation and graphics.
fn wanted_devices() -> io::Result<Vec<PathBuf>> {
    let mut wanted: Vec<PathBuf> = DEVICES.map(PathBuf::from).into();
    for entry in fs::read_dir("/dev")?.flatten() {
        if entry.file_name().to_string_lossy().starts_with("nvidia") {
            wanted.push(entry.file_name().into());
        }
    }
    Ok(wanted)
}

/// The terminal we were started on.
fn our_terminal() -> Option<PathBuf> {
    let fd = (0..=2).find(|fd| is_terminal(*fd))?;
    let path = fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
    (path.starts_with("/dev") && path != Path::new("/dev/tty")).then_some(path)
}

fn is_terminal(fd: i32) -> bool {
    use std::io::IsTerminal;
    match fd {
        0 => io::stdin().is_terminal(),
        1 => io::stdout().is_terminal(),
        _ => io::stderr().is_terminal(),
    }
}

const DEVICES: [&str; 13] = [
    "null", "zero", "full", "random", "urandom", "tty", "shm", "kvm", "fuse", "dri", "kfd", "dxg",
    "accel",
];

const LINKS: [(&str, &str); 5] = [
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_mounts_are_found() {
        let mountinfo = "\
21 1 0:20 / /proc rw,relatime - proc proc rw
22 1 0:21 / /sys rw,nosuid shared:7 - sysfs sysfs rw
23 22 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
24 1 8:1 / / rw - ext4 /dev/vda rw
25 1 0:23 / /srv/a\\040chroot/proc rw shared:1 master:2 - proc proc rw
nonsense
";
        let found = kernel_mounts(mountinfo);
        let wanted = ["/sys", "/sys/fs/cgroup", "/srv/a chroot/proc"];
        assert_eq!(found, wanted.map(PathBuf::from));
    }
}
