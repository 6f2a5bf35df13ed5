//! Bodies too long for their record: each streams into a temporary file and is then named by the
//! hash of its content, so that the same body is kept once.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::PathBuf;

use crate::disk::Disk;
use crate::error::Error;
use crate::layout::Layout;
use crate::private;
use crate::record::Hash;

/// Files under way begin with this.
const TEMPORARY: &str = ".part-";

/// The side files that are being written.
#[derive(Debug)]
pub(crate) struct SideFiles {
    layout: Layout,
    disk: Disk,
    open: HashMap<u64, Part>,
}

/// A file under way: what of it is with the kernel for sure.
#[derive(Debug)]
struct Part {
    file: File,
    length: u64,
    /// Whether a failed write may have left bytes beyond `length`.
    is_torn: bool,
}

impl SideFiles {
    /// Begins with none; what a crash left unfinished is removed.
    pub(crate) fn open(layout: &Layout, disk: Disk) -> Result<Self, Error> {
        let dir = layout.bodies_dir();
        for entry in fs::read_dir(dir).map_err(Error::file("read", dir))? {
            let path = entry.map_err(Error::file("read", dir))?.path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            if name.starts_with(TEMPORARY) {
                fs::remove_file(&path).map_err(Error::file("remove", &path))?;
            }
        }
        Ok(Self { layout: layout.clone(), disk, open: HashMap::new() })
    }

    /// Appends `bytes` to file `number`, all or nothing.
    pub(crate) fn write(&mut self, number: u64, bytes: &[u8]) -> Result<(), Error> {
        let path = self.temporary(number);
        let part = match self.open.entry(number) {
            std::collections::hash_map::Entry::Occupied(part) => part.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                let file = private::open(OpenOptions::new().create(true).append(true), &path)
                    .map_err(Error::file("create", &path))?;
                place.insert(Part { file, length: 0, is_torn: false })
            }
        };
        part.append(&self.disk, bytes).map_err(Error::file("write", &path))
    }

    /// Gives file `number` its name.
    pub(crate) fn finish(&mut self, number: u64, name: Hash) -> Result<(), Error> {
        if !self.open.contains_key(&number) {
            // A body of which nothing was kept has an empty file.
            self.write(number, &[])?;
        }
        let path = self.temporary(number);
        fs::rename(&path, self.layout.body_path(name)).map_err(Error::file("rename", &path))?;
        self.open.remove(&number);
        Ok(())
    }

    /// Removes file `number`, whose body nobody wants any more.
    pub(crate) fn discard(&mut self, number: u64) {
        if self.open.remove(&number).is_some() {
            // If it stays, the next start removes it.
            let _ = fs::remove_file(self.temporary(number));
        }
    }

    fn temporary(&self, number: u64) -> PathBuf {
        self.layout.bodies_dir().join(format!("{TEMPORARY}{number}"))
    }
}

impl Part {
    fn append(&mut self, disk: &Disk, bytes: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.file.set_len(self.length)?;
        }
        self.is_torn = true;
        disk.append(&mut self.file, &[bytes])?;
        self.is_torn = false;
        self.length += bytes.len() as u64;
        Ok(())
    }
}
