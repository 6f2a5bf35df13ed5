//! The control socket's place on disk: bind it, connect to it, however long its path is.
//!
//! A socket address holds a path of 107 bytes at most. A longer one is reached through a
//! descriptor of its folder: `/proc/self/fd/N/control.sock`.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

/// `sizeof sun_path` less its closing zero.
const PATH_BYTES_MAX: usize = 107;

/// Connects to the gate, if one listens there.
///
/// # Errors
/// Whatever forbids to connect, save that nobody listens (`None`).
pub(crate) fn connect(path: &Path) -> io::Result<Option<UnixStream>> {
    let connected = Short::of(path).and_then(|short| UnixStream::connect(&short.path));
    match connected {
        Ok(stream) if is_of_this_user(&stream)? => Ok(Some(stream)),
        Ok(_) => Err(io::Error::other("the gate there belongs to another user")),
        Err(error) if is_nobody(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Listens there, in place of whatever a dead gate left. The caller holds the gate's lock, so no
/// living gate listens on it.
///
/// # Errors
/// When the folder does not allow it.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&Short::of(path)?.path)?;
    // The folder (0700) and the gate's umask guard the moment before this.
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Whether the other end runs as this process's user, or as root, who may do anything anyway.
pub(crate) fn is_of_this_user(stream: &UnixStream) -> io::Result<bool> {
    let peer = getsockopt(stream, PeerCredentials)?.uid();
    Ok(peer == 0 || peer == nix::unistd::geteuid().as_raw())
}

/// No socket, or one whose gate has died.
fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// A path that fits a socket address, valid while this lives.
struct Short {
    path: PathBuf,
    /// Keeps `/proc/self/fd/N` in place.
    _folder: Option<File>,
}

impl Short {
    fn of(path: &Path) -> io::Result<Self> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::from(io::ErrorKind::InvalidFilename));
        };
        if path.as_os_str().len() <= PATH_BYTES_MAX {
            return Ok(Self { path: path.to_owned(), _folder: None });
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let folder = OpenOptions::new().read(true).custom_flags(flags.bits()).open(folder)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
        Ok(Self { path, _folder: Some(folder) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_paths_work() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(100)).join("e".repeat(200));
        fs::create_dir_all(&deep).unwrap();
        for path in [folder.path().join("control.sock"), deep.join("control.sock")] {
            assert!(connect(&path).unwrap().is_none(), "nobody yet");
            let listener = bind(&path).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert!(connect(&path).unwrap().is_some());
            drop(listener);
            assert!(connect(&path).unwrap().is_none(), "a stale socket is nobody");
            drop(bind(&path).unwrap());
        }
    }

    #[test]
    fn a_missing_folder_is_nobody() {
        let folder = tempfile::tempdir().unwrap();
        assert!(connect(&folder.path().join("no").join("control.sock")).unwrap().is_none());
    }
}
