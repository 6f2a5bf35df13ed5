//! Files and directories that only their owner can read: 0600 and 0700 where the system has modes.
//!
//! Elsewhere the user's profile directory protects what is in it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

use crate::error::Error;

/// Makes a directory and its parents, and takes others' rights to it away.
pub(crate) fn create_dir(path: &Path) -> Result<(), Error> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(Error::file("create", path))?;
    restrict(path, 0o700).map_err(Error::file("set the mode of", path))
}

/// Opens a file as `options` say, created with mode 0600, and narrows an existing wider one.
pub(crate) fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    let file = options.open(path)?;
    restrict(path, 0o600)?;
    Ok(file)
}

#[cfg(unix)]
fn restrict(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    if fs::metadata(path)?.permissions().mode() & 0o777 == mode {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "the same face as on systems with modes")]
fn restrict(_path: &Path, _mode: u32) -> io::Result<()> {
    Ok(())
}
