//! The journal: JSON Lines, one file a UTC day, each line chained to the one before by its hash.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::encode::{self, line_end};
use crate::error::Error;
use crate::layout::Layout;
use crate::private;
use crate::record::{Hash, Record, Timestamp};

/// A journal file by its day: `20261124` for `2026-11-24.jsonl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub(crate) u32);

/// Where a line stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// In which file.
    pub day: Day,
    /// At which byte it starts.
    pub offset: u64,
    /// How long it is, without the line feed.
    pub length: u64,
}

impl Day {
    fn of(moment: Timestamp) -> Self {
        let (year, month, day) = moment.day();
        let number = |n: i16| u32::try_from(n).unwrap_or_default();
        Self(number(year) * 10_000 + number(month.into()) * 100 + number(day.into()))
    }

    fn parse(file_name: &str) -> Option<Self> {
        let day = file_name.strip_suffix(".jsonl")?;
        let digits: String = day.split('-').collect();
        let parsed = Self(digits.parse().ok()?);
        (parsed.file_name() == file_name).then_some(parsed)
    }

    fn file_name(self) -> String {
        let Self(day) = self;
        format!("{:04}-{:02}-{:02}.jsonl", day / 10_000, day / 100 % 100, day % 100)
    }

    /// The day's file.
    pub fn path(self, layout: &Layout) -> PathBuf {
        layout.journal_dir().join(self.file_name())
    }
}

/// The journal's files, oldest first.
///
/// # Errors
/// When the directory cannot be read.
pub fn days(layout: &Layout) -> Result<Vec<Day>, Error> {
    let dir = layout.journal_dir();
    let mut days = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::file("read", dir))? {
        let entry = entry.map_err(Error::file("read", dir))?;
        days.extend(entry.file_name().to_str().and_then(Day::parse));
    }
    days.sort_unstable();
    Ok(days)
}

/// Keeps others from writing the journal for as long as it lives.
#[derive(Debug)]
pub(crate) struct WriterLock(#[expect(dead_code, reason = "held, not read")] File);

impl WriterLock {
    /// Takes the lock, or says that another process has it.
    pub(crate) fn take(layout: &Layout) -> Result<Self, Error> {
        let path = layout.journal_dir().join(".lock");
        let file = private::open(OpenOptions::new().create(true).append(true), &path)
            .map_err(Error::file("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(Error::Busy(layout.data_dir().to_owned())),
            Err(TryLockError::Error(error)) => Err(Error::file("lock", &path)(error)),
        }
    }
}

/// The end of the journal, where lines are added.
#[derive(Debug)]
pub(crate) struct Journal {
    layout: Layout,
    disk: Disk,
    day: Day,
    file: File,
    /// Length of the file up to its last whole line.
    length: u64,
    /// Hash of the last line.
    last: Hash,
    _lock: WriterLock,
}

/// Lines that know their place in the chain and wait to be written.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    lines: Vec<Vec<u8>>,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

impl Journal {
    /// Opens the journal at its end. A line that a crash left unfinished is cut off.
    pub(crate) fn open(layout: &Layout, disk: Disk) -> Result<Self, Error> {
        let lock = WriterLock::take(layout)?;
        let days = days(layout)?;
        let today = Day::of(Timestamp::now());
        let day = days.last().copied().unwrap_or(today).max(today);
        let (file, length) = open_repaired(layout, day)?;
        if let Some(newest) = days.last().filter(|newest| **newest != day) {
            drop(open_repaired(layout, *newest)?);
        }
        let last = last_line(layout, &days)?;
        Ok(Self { layout: layout.clone(), disk, day, file, length, last, _lock: lock })
    }

    /// Chains `line` (see `encode`) behind the lines before it.
    pub(crate) fn chain(&mut self, batch: &mut Batch, mut line: Vec<u8>) {
        line.extend_from_slice(line_end(self.last).as_bytes());
        self.last = Hash::of(&line[..line.len() - 1]);
        batch.lines.push(line);
    }

    /// Hands the lines of `batch` to the kernel, all or none, and empties it. Returns where they
    /// stand. On an error the batch is as it was, and may be tried again.
    pub(crate) fn append(&mut self, batch: &mut Batch) -> Result<Vec<Position>, Error> {
        self.turn_to(Day::of(Timestamp::now()))?;
        let path = || self.day.path(&self.layout);
        if let Err(error) = self.disk.append(&mut self.file, &batch.lines) {
            // What was written of the batch goes again; if even that fails, the next start cuts
            // it off, unless lines follow, which the next attempt's `set_len` prevents.
            let _ = self.file.set_len(self.length);
            return Err(Error::file("write", &path())(error));
        }
        let mut positions = Vec::with_capacity(batch.lines.len());
        for line in batch.lines.drain(..) {
            let length = line.len() as u64 - 1;
            positions.push(Position { day: self.day, offset: self.length, length });
            self.length += line.len() as u64;
        }
        Ok(positions)
    }

    /// Cuts off what a failed write left behind; to be called before the next attempt.
    pub(crate) fn cut_back(&mut self) -> Result<(), Error> {
        let path = self.day.path(&self.layout);
        self.file.set_len(self.length).map_err(Error::file("truncate", &path))
    }

    /// A clock that was set back does not bring an old file back.
    fn turn_to(&mut self, day: Day) -> Result<(), Error> {
        if day > self.day {
            (self.file, self.length) = open_repaired(&self.layout, day)?;
            self.day = day;
        }
        Ok(())
    }
}

/// Opens a day's file for appending, after the last whole line.
fn open_repaired(layout: &Layout, day: Day) -> Result<(File, u64), Error> {
    let path = day.path(layout);
    let mut file = private::open(OpenOptions::new().create(true).read(true).append(true), &path)
        .map_err(Error::file("open", &path))?;
    let length = repair(&mut file).map_err(Error::file("repair", &path))?;
    Ok((file, length))
}

/// Cuts off an unfinished last line; returns the length that is left.
fn repair(file: &mut File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let whole = end_of_last_line(file, length)?;
    if whole < length {
        file.set_len(whole)?;
    }
    Ok(whole)
}

/// How much is read at once when looking back from a file's end, in bytes.
const LOOK_BACK: u64 = 64 * 1024;

/// Where the last line feed before `end` ends, looking backwards; 0 when there is none.
fn end_of_last_line(file: &mut File, end: u64) -> io::Result<u64> {
    let mut end = end;
    let mut piece = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(LOOK_BACK);
        file.seek(SeekFrom::Start(start))?;
        piece.clear();
        Read::by_ref(file).take(end - start).read_to_end(&mut piece)?;
        if let Some(at) = memchr::memrchr(b'\n', &piece) {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// The hash of the journal's last line; zeros for an empty journal.
fn last_line(layout: &Layout, days: &[Day]) -> Result<Hash, Error> {
    for day in days.iter().rev() {
        let path = day.path(layout);
        let read = || -> io::Result<Option<Hash>> {
            let mut file = File::open(&path)?;
            let end = file.metadata()?.len();
            if end == 0 {
                return Ok(None);
            }
            let start = end_of_last_line(&mut file, end - 1)?;
            file.seek(SeekFrom::Start(start))?;
            let mut line = Vec::new();
            file.take(end - 1 - start).read_to_end(&mut line)?;
            Ok(Some(Hash::of(&line)))
        };
        if let Some(hash) = read().map_err(Error::file("read", &path))? {
            return Ok(hash);
        }
    }
    Ok(Hash([0; 32]))
}

/// One line of the journal as it was read.
#[derive(Debug)]
pub struct Line {
    /// Where it stands.
    pub position: Position,
    /// Its bytes without the line feed.
    pub bytes: Vec<u8>,
}

impl Line {
    /// The record in it.
    ///
    /// # Errors
    /// When it is none this version knows.
    pub fn record(&self, layout: &Layout) -> Result<Record<'static>, Error> {
        encode::record(&self.bytes).map_err(|reason| Error::Record {
            path: self.position.day.path(layout),
            offset: self.position.offset,
            reason,
        })
    }
}

/// Reads whole lines from `offset` of `day` on, through the files after it.
#[derive(Debug)]
pub struct Lines {
    layout: Layout,
    days: std::vec::IntoIter<Day>,
    open: Option<(Day, BufReader<File>)>,
    offset: u64,
}

impl Lines {
    /// From the beginning of the journal, or from a place in it.
    ///
    /// # Errors
    /// When the directory or the first file cannot be read.
    pub fn from(layout: &Layout, place: Option<(Day, u64)>) -> Result<Self, Error> {
        let mut days = days(layout)?;
        let mut lines =
            Self { layout: layout.clone(), days: Vec::new().into_iter(), open: None, offset: 0 };
        if let Some((day, offset)) = place {
            days.retain(|d| *d >= day);
            if days.first() == Some(&day) {
                days.remove(0);
                lines.open_at(day, offset)?;
            }
        }
        lines.days = days.into_iter();
        Ok(lines)
    }

    /// The next line; `None` at the end of the journal. A last line without line feed is not one
    /// yet.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn next_line(&mut self) -> Result<Option<Line>, Error> {
        loop {
            let Some((day, reader)) = &mut self.open else {
                let Some(day) = self.days.next() else { return Ok(None) };
                self.open_at(day, 0)?;
                continue;
            };
            let mut bytes = Vec::new();
            let path = day.path(&self.layout);
            let read = reader.read_until(b'\n', &mut bytes);
            read.map_err(Error::file("read", &path))?;
            if bytes.pop() != Some(b'\n') {
                self.open = None;
                continue;
            }
            let length = bytes.len() as u64;
            let position = Position { day: *day, offset: self.offset, length };
            self.offset += length + 1;
            return Ok(Some(Line { position, bytes }));
        }
    }

    fn open_at(&mut self, day: Day, offset: u64) -> Result<(), Error> {
        let path = day.path(&self.layout);
        let mut file = File::open(&path).map_err(Error::file("open", &path))?;
        file.seek(SeekFrom::Start(offset)).map_err(Error::file("read", &path))?;
        self.open = Some((day, BufReader::with_capacity(1 << 18, file)));
        self.offset = offset;
        Ok(())
    }
}

/// Reads the line at `position`.
pub(crate) fn read_line(layout: &Layout, position: Position) -> Result<Line, Error> {
    let path = position.day.path(layout);
    let read = |path: &Path| -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(position.offset))?;
        let mut bytes = Vec::new();
        file.take(position.length).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read(&path).map_err(Error::file("read", &path))?;
    Ok(Line { position, bytes })
}

/// Whether a line of the journal ends at `end` of a day's file (or it is the file's beginning).
pub(crate) fn is_line_end(layout: &Layout, day: Day, end: u64) -> Result<bool, Error> {
    let path = day.path(layout);
    let read = || -> io::Result<bool> {
        let Some(last) = end.checked_sub(1) else { return Ok(true) };
        let mut file = File::open(&path)?;
        file.seek(SeekFrom::Start(last))?;
        let mut byte = [0];
        Ok(file.read(&mut byte)? == 1 && byte[0] == b'\n')
    };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        read => read.map_err(Error::file("read", &path)),
    }
}

/// Bytes in all of the journal's files.
pub(crate) fn total_bytes(layout: &Layout) -> Result<u64, Error> {
    let mut total = 0;
    for day in days(layout)? {
        let path = day.path(layout);
        total += fs::metadata(&path).map_err(Error::file("read", &path))?.len();
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> (tempfile::TempDir, Layout) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("data"));
        layout.create().unwrap();
        (dir, layout)
    }

    fn append(journal: &mut Journal, texts: &[&str]) -> Vec<Position> {
        let mut batch = Batch::default();
        for text in texts {
            journal.chain(&mut batch, format!("{{\"v\":1,\"x\":\"{text}\"").into_bytes());
        }
        journal.append(&mut batch).unwrap()
    }

    fn all_lines(layout: &Layout) -> Vec<Line> {
        let mut lines = Lines::from(layout, None).unwrap();
        std::iter::from_fn(|| lines.next_line().unwrap()).collect()
    }

    fn assert_chained(lines: &[Line]) {
        let mut last = Hash([0; 32]);
        for line in lines {
            let value: serde_json::Value = serde_json::from_slice(&line.bytes).unwrap();
            assert_eq!(value["prev"], last.to_string());
            last = Hash::of(&line.bytes);
        }
    }

    #[test]
    fn the_chain_goes_on_over_openings_and_days() {
        let (_dir, layout) = layout();
        let yesterday = layout.journal_dir().join("2020-01-01.jsonl");
        let first = format!("{{\"v\":1,\"prev\":\"{}\"}}\n", Hash([0; 32]));
        fs::write(&yesterday, first).unwrap();
        append(&mut Journal::open(&layout, Disk::default()).unwrap(), &["a", "b"]);
        append(&mut Journal::open(&layout, Disk::default()).unwrap(), &["c"]);
        let lines = all_lines(&layout);
        assert_eq!(lines.len(), 4);
        assert_chained(&lines);
        let again = read_line(&layout, lines[2].position).unwrap();
        assert_eq!(again.bytes, lines[2].bytes);
    }

    #[test]
    fn a_torn_line_is_cut_off() {
        let (_dir, layout) = layout();
        append(&mut Journal::open(&layout, Disk::default()).unwrap(), &["a", "b"]);
        let day = days(&layout).unwrap()[0];
        let whole = fs::read(day.path(&layout)).unwrap();
        let first_line = whole.iter().position(|b| *b == b'\n').unwrap() + 1;
        for cut in first_line..whole.len() {
            fs::write(day.path(&layout), &whole[..cut]).unwrap();
            append(&mut Journal::open(&layout, Disk::default()).unwrap(), &["c"]);
            let lines = all_lines(&layout);
            assert_eq!(lines.len(), 2, "cut at {cut}");
            assert_chained(&lines);
        }
    }

    #[test]
    fn one_writer_at_a_time() {
        let (_dir, layout) = layout();
        let journal = Journal::open(&layout, Disk::default()).unwrap();
        assert!(matches!(Journal::open(&layout, Disk::default()), Err(Error::Busy(_))));
        drop(journal);
        Journal::open(&layout, Disk::default()).unwrap();
    }

    #[test]
    fn lines_are_read_from_a_place_on() {
        let (_dir, layout) = layout();
        let positions =
            append(&mut Journal::open(&layout, Disk::default()).unwrap(), &["a", "b", "c"]);
        let place = Some((positions[1].day, positions[1].offset));
        let mut lines = Lines::from(&layout, place).unwrap();
        let line = lines.next_line().unwrap().unwrap();
        assert_eq!(line.position, positions[1]);
        assert!(lines.next_line().unwrap().is_some());
        assert!(lines.next_line().unwrap().is_none());
    }

    #[test]
    fn file_names_are_days() {
        assert_eq!(Day::parse("2026-11-24.jsonl"), Some(Day(20_261_124)));
        for other in ["2026-1-24.jsonl", "x.jsonl", "2026-11-24.json", ".lock"] {
            assert_eq!(Day::parse(other), None, "{other}");
        }
    }
}
