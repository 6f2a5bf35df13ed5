//! The one place where the writer's bytes go to the kernel, so that tests can let a disk run full.

use std::fs::File;
use std::io::{self, IoSlice, Write as _};

#[cfg(test)]
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Writes to files; in tests, only as long as there is room.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    /// How many bytes still fit; no bound if absent.
    #[cfg(test)]
    pub(crate) room: Option<Arc<AtomicU64>>,
}

/// Pieces in one `writev` at most; Linux takes no more.
const PIECES_MAX: usize = 1024;

impl Disk {
    /// Appends `parts` in order. On an error some of the bytes may have been written.
    pub(crate) fn append<B: AsRef<[u8]>>(&self, file: &mut File, parts: &[B]) -> io::Result<()> {
        for parts in parts.chunks(PIECES_MAX) {
            let mut slices: Vec<IoSlice<'_>> =
                parts.iter().map(|part| IoSlice::new(part.as_ref())).collect();
            let mut left = &mut slices[..];
            IoSlice::advance_slices(&mut left, 0); // empty parts are nothing to write
            while !left.is_empty() {
                match self.write(file, left) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => IoSlice::advance_slices(&mut left, written),
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(())
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "in tests it has a bound")]
    fn write(&self, file: &mut File, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        file.write_vectored(slices)
    }

    /// Like a disk that runs full in mid-line: what fits is written, the next write fails.
    #[cfg(test)]
    fn write(&self, file: &mut File, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let Some(room) = &self.room else { return file.write_vectored(slices) };
        let fits = usize::try_from(room.load(Ordering::SeqCst)).unwrap().min(slices[0].len());
        if fits == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let written = file.write(&slices[0][..fits])?;
        room.fetch_sub(written as u64, Ordering::SeqCst);
        Ok(written)
    }
}
