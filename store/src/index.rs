//! The index: a SQLite view of the journal, written in one transaction a batch.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{CachedStatement, Connection, OpenFlags, Transaction, params};

use crate::error::Error;
use crate::journal::{Day, Lines, Position, is_line_end};
use crate::layout::Layout;
use crate::record::{Direction, Id, Timestamp};
use crate::row::{Begun, Ended, RowChange, RunBegun, Told};
use crate::rows::Kind;

/// The schema, step by step; a database's `user_version` says how many it has had.
const MIGRATIONS: [&str; 3] = [
    include_str!("schema/001_first.sql"),
    include_str!("schema/002_flags.sql"),
    include_str!("schema/003_messages.sql"),
];

/// Rows that go into one transaction when the index catches up.
const CATCH_UP_ROWS: usize = 4096;

/// Rows that are entered, at a few microseconds each, before what cannot wait has its turn.
const ROWS_AT_A_STRETCH: usize = 32;

/// Pages of the write-ahead log before it is copied into the file, which takes milliseconds while
/// receipts wait: 16 MiB instead of SQLite's 4, so that it is rare.
const WAL_PAGES_MAX: u32 = 4096;

/// A record's change with the place of its line.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) change: RowChange,
    pub(crate) position: Position,
}

/// The index, open for writing.
#[derive(Debug)]
pub(crate) struct Index {
    connection: Connection,
    indexed: Indexed,
}

/// Up to where the journal is in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Indexed {
    /// The place behind the last line; none for an empty index.
    place: Option<(Day, u64)>,
    /// How many lines that is over all files: the sequence number of the last.
    pub(crate) lines: u64,
}

impl Index {
    /// Opens the index and makes it agree with the journal. One that is missing, broken or of a
    /// newer version is built anew; a broken or newer one is kept aside.
    pub(crate) fn open(layout: &Layout) -> Result<Self, Error> {
        let path = layout.index_path();
        match Self::open_caught_up(layout) {
            // A full disk or a locked file passes; only what never will is worth a rebuilding.
            Err(error) if is_unusable(&error) => {
                set_aside(path)?;
                Self::open_caught_up(layout)
            }
            opened => opened,
        }
    }

    fn open_caught_up(layout: &Layout) -> Result<Self, Error> {
        let mut index = Self::open_file(layout.index_path())?;
        if let Some((day, end)) = index.indexed.place
            && !is_line_end(layout, day, end)?
        {
            // The journal lost its end, as a power cut may do, so rows point beyond it.
            return Err(Error::Index(rusqlite::Error::InvalidQuery));
        }
        index.catch_up(layout)?;
        Ok(index)
    }

    /// Opens or makes an index file as it is.
    pub(crate) fn open_file(path: &Path) -> Result<Self, Error> {
        // SQLite makes its files as wide as the umask lets it; this one exists before.
        crate::private::open(fs::OpenOptions::new().create(true).append(true), path)
            .map_err(Error::file("open", path))?;
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        // A power cut may lose the last transactions, never the file's consistency; the journal
        // fills the gap.
        connection.pragma_update(None, "synchronous", "normal")?;
        connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES_MAX)?;
        // Readers of a WAL never block the writer. Whoever else writes here must not hold up the
        // journal, which waits for this thread.
        connection.busy_timeout(std::time::Duration::from_millis(50))?;
        migrate(&connection, path)?;
        let indexed = read_indexed(&connection)?;
        Ok(Self { connection, indexed })
    }

    /// Up to where the journal is in here.
    pub(crate) fn indexed(&self) -> Indexed {
        self.indexed
    }

    /// Enters what the journal has and the index does not. Lines that hold no record are counted
    /// and passed over.
    pub(crate) fn catch_up(&mut self, layout: &Layout) -> Result<u64, Error> {
        self.catch_up_with(layout, &mut |_| ())
    }

    /// The same, telling after each transaction where it is.
    pub(crate) fn catch_up_with(
        &mut self,
        layout: &Layout,
        progress: &mut dyn FnMut(Position),
    ) -> Result<u64, Error> {
        let mut lines = Lines::from(layout, self.indexed.place)?;
        let (mut changes, mut garbage) = (Vec::new(), 0);
        while let Some(line) = lines.next_line()? {
            let position = line.position;
            match line.record(layout) {
                Ok(record) => changes.push((Some(RowChange::of(&record)), position)),
                Err(_) => {
                    garbage += 1;
                    changes.push((None, position));
                }
            }
            if changes.len() == CATCH_UP_ROWS {
                self.commit_some(std::mem::take(&mut changes), &mut || ())?;
                progress(position);
            }
        }
        self.commit_some(changes, &mut || ())?;
        Ok(garbage)
    }

    /// Enters changes whose lines stand right behind what is indexed. Every now and then calls
    /// `meanwhile`, for what cannot wait that long.
    pub(crate) fn commit(
        &mut self,
        changes: Vec<Change>,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<(), Error> {
        let changes = changes.into_iter().map(|c| (Some(c.change), c.position)).collect();
        self.commit_some(changes, meanwhile)
    }

    /// Closes the file so that all of it is in the one file.
    pub(crate) fn close(self) -> Result<(), Error> {
        self.connection.pragma_update(None, "wal_checkpoint", "truncate")?;
        self.connection.close().map_err(|(_, error)| error.into())
    }

    fn commit_some(
        &mut self,
        changes: Vec<(Option<RowChange>, Position)>,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<(), Error> {
        let Some((_, last)) = changes.last() else { return Ok(()) };
        let mut indexed = self.indexed;
        indexed.place = Some((last.day, last.offset + last.length + 1));
        let transaction = self.connection.transaction()?;
        let mut rows = Rows::default();
        for (change, position) in changes {
            indexed.lines += 1;
            if let Some(change) = change {
                rows.add(change, position, indexed.lines);
            }
        }
        rows.enter(&transaction, meanwhile)?;
        write_indexed(&transaction, indexed)?;
        transaction.commit()?;
        self.indexed = indexed;
        Ok(())
    }
}

/// The changes of one transaction, with what concerns one row brought together.
#[derive(Default)]
struct Rows {
    runs: Vec<RunBegun>,
    ends: Vec<(Id, i64, Option<i32>)>,
    exchanges: Vec<Row>,
    messages: Vec<(Told, Position, u64)>,
    /// Where in `exchanges` an exchange of this transaction stands.
    places: HashMap<Id, usize>,
    counts: HashMap<Id, u64>,
}

/// One row's change.
struct Row {
    seq: u64,
    /// What stands for a request that the journal does not have.
    unknown: Begun,
    begun: Option<(Begun, Position)>,
    ended: Option<(Ended, Position)>,
    messages: Option<Counts>,
}

/// Messages each way.
#[derive(Clone, Copy, Default)]
struct Counts {
    sent: u64,
    received: u64,
}

impl Counts {
    fn add(&mut self, direction: Direction) {
        match direction {
            Direction::Sent => self.sent += 1,
            Direction::Received => self.received += 1,
        }
    }
}

impl Rows {
    fn add(&mut self, change: RowChange, position: Position, seq: u64) {
        match change {
            RowChange::Run(run) => self.runs.push(*run),
            RowChange::RunEnd { run, at, status } => self.ends.push((run, at.0, status)),
            RowChange::Begun(begun) => {
                if begun.kind == Kind::Exchange {
                    *self.counts.entry(begun.run).or_default() += 1;
                }
                let row = self.row(begun.id, begun.run, begun.at, seq);
                row.begun = Some((*begun, position));
            }
            RowChange::Ended(ended) => {
                let row = self.row(ended.id, ended.run, ended.at, seq);
                row.ended = Some((ended, position));
            }
            RowChange::Message(told) => {
                let row = self.row(told.exchange, told.run, told.at, seq);
                let counts = row.messages.get_or_insert_default();
                if told.counted {
                    counts.add(told.direction);
                }
                self.messages.push((*told, position, seq));
            }
        }
    }

    /// The change of one exchange's row, to which the line `seq` adds.
    fn row(&mut self, id: Id, run: Id, at: Timestamp, seq: u64) -> &mut Row {
        let place = *self.places.entry(id).or_insert_with(|| {
            let unknown = Begun::new(Kind::Exchange, id, run, at, "", 0);
            self.exchanges.push(Row { seq, unknown, begun: None, ended: None, messages: None });
            self.exchanges.len() - 1
        });
        let row = &mut self.exchanges[place];
        row.seq = seq;
        row
    }

    fn enter(
        self,
        transaction: &Transaction<'_>,
        meanwhile: &mut dyn FnMut(),
    ) -> rusqlite::Result<()> {
        for run in &self.runs {
            enter_run(transaction, run)?;
        }
        for (run, count) in self.counts {
            transaction
                .prepare_cached("UPDATE run SET exchanges = exchanges + ?2 WHERE id = ?1")?
                .execute(params![blob(run), count])?;
        }
        for (run, at, status) in self.ends {
            transaction
                .prepare_cached("UPDATE run SET ended_at = ?2, status = ?3 WHERE id = ?1")?
                .execute(params![blob(run), at, status])?;
        }
        for some in self.exchanges.chunks(ROWS_AT_A_STRETCH) {
            for row in some {
                row.enter(transaction)?;
            }
            meanwhile();
        }
        for some in self.messages.chunks(ROWS_AT_A_STRETCH) {
            for (told, position, seq) in some {
                enter_message(transaction, told, *position, *seq)?;
            }
            meanwhile();
        }
        Ok(())
    }
}

fn enter_message(
    transaction: &Transaction<'_>,
    told: &Told,
    position: Position,
    seq: u64,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO message (exchange, seq, at, direction, kind, bytes, \
             wire_bytes, close_code, flaws, complete, excerpt, day, offset, length) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )?
        .execute(params![
            blob(told.exchange),
            seq,
            told.at.0,
            word(&told.direction),
            word(&told.kind),
            told.bytes,
            told.wire_bytes,
            told.close_code,
            serde_json::to_string(&told.flaws).unwrap_or_default(),
            told.complete,
            told.excerpt,
            position.day.0,
            position.offset,
            position.length
        ])?;
    Ok(())
}

fn enter_run(transaction: &Transaction<'_>, run: &RunBegun) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO run (id, at, agent, argv, cwd, mode, weaker) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            blob(run.id),
            run.at.0,
            run.agent,
            run.argv,
            run.cwd,
            word(&run.mode),
            run.weaker
        ])?;
    Ok(())
}

impl Row {
    fn enter(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        self.enter_exchange(transaction)?;
        let Some(counts) = self.messages else { return Ok(()) };
        if self.add_messages(transaction, counts)? == 0 {
            // The journal does not have its request, or not yet.
            insert(transaction, self.seq, &self.unknown, None, None)?;
            self.add_messages(transaction, counts)?;
        }
        Ok(())
    }

    fn enter_exchange(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        match (&self.begun, &self.ended) {
            (Some((begun, at)), None) => insert(transaction, self.seq, begun, Some(*at), None),
            (Some((begun, at)), Some((ended, end))) => {
                insert(transaction, self.seq, begun, Some(*at), Some((ended, *end)))
            }
            (None, Some((ended, end))) => {
                if self.update(transaction, ended, *end)? == 0 {
                    // The journal does not have its request.
                    insert(transaction, self.seq, &self.unknown, None, Some((ended, *end)))?;
                }
                Ok(())
            }
            (None, None) => Ok(()),
        }
    }

    /// Counts messages in the row of their exchange; how many rows there were.
    fn add_messages(
        &self,
        transaction: &Transaction<'_>,
        counts: Counts,
    ) -> rusqlite::Result<usize> {
        transaction
            .prepare_cached(
                "UPDATE exchange SET seq = ?2, messages_sent = coalesce(messages_sent, 0) + ?3, \
                 messages_received = coalesce(messages_received, 0) + ?4 WHERE id = ?1",
            )?
            .execute(params![blob(self.unknown.id), self.seq, counts.sent, counts.received])
    }

    /// Enters a response into the row of its request; how many rows there were.
    fn update(
        &self,
        transaction: &Transaction<'_>,
        ended: &Ended,
        position: Position,
    ) -> rusqlite::Result<usize> {
        transaction
            .prepare_cached(
                "UPDATE exchange SET seq = ?2, status = ?3, outcome = ?4, response_bytes = ?5, \
                 duration_us = ?6, response_day = ?7, response_offset = ?8, response_length = ?9 \
                 WHERE id = ?1",
            )?
            .execute(params![
                blob(ended.id),
                self.seq,
                ended.status,
                word(&ended.outcome),
                ended.response_bytes,
                ended.duration_us,
                position.day.0,
                position.offset,
                position.length
            ])
    }
}

/// Enters a row, with its response when that is known too. A response that was indexed before
/// its request keeps its columns.
fn insert(
    transaction: &Transaction<'_>,
    seq: u64,
    row: &Begun,
    position: Option<Position>,
    ended: Option<(&Ended, Position)>,
) -> rusqlite::Result<()> {
    let mut statement: CachedStatement<'_> = transaction.prepare_cached(
        "INSERT INTO exchange (id, seq, run, at, kind, method, scheme, host, port, \
         path, outcome, refused_by, request_bytes, response_bytes, duration_us, request_day, \
         request_offset, request_length, status, response_day, response_offset, \
         response_length, flags) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, \
         ?18, ?19, ?20, ?21, ?22, ?23) \
         ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, run = excluded.run, \
         at = excluded.at, kind = excluded.kind, method = excluded.method, \
         scheme = excluded.scheme, host = excluded.host, port = excluded.port, \
         path = excluded.path, refused_by = excluded.refused_by, \
         request_bytes = excluded.request_bytes, request_day = excluded.request_day, \
         request_offset = excluded.request_offset, request_length = excluded.request_length, \
         flags = excluded.flags, \
         outcome = coalesce(excluded.outcome, outcome), \
         response_bytes = coalesce(excluded.response_bytes, response_bytes), \
         duration_us = coalesce(excluded.duration_us, duration_us), \
         status = coalesce(excluded.status, status), \
         response_day = coalesce(excluded.response_day, response_day), \
         response_offset = coalesce(excluded.response_offset, response_offset), \
         response_length = coalesce(excluded.response_length, response_length)",
    )?;
    let end = ended.map(|(_, position)| position);
    let ended = ended.map(|(ended, _)| ended);
    statement.execute(params![
        blob(row.id),
        seq,
        blob(row.run),
        row.at.0,
        word(&row.kind),
        row.method,
        row.scheme,
        row.host,
        row.port,
        row.path,
        ended.map(|e| e.outcome).or(row.outcome).as_ref().map(word),
        row.refused_by.as_ref().map(word),
        row.request_bytes,
        ended.map(|e| e.response_bytes).or(row.response_bytes),
        ended.map(|e| e.duration_us).or(row.duration_us),
        position.map(|p| p.day.0),
        position.map(|p| p.offset),
        position.map(|p| p.length),
        ended.and_then(|e| e.status),
        end.map(|p| p.day.0),
        end.map(|p| p.offset),
        end.map(|p| p.length),
        serde_json::to_string(&row.flags).unwrap_or_default()
    ])?;
    Ok(())
}

/// An id as the index keeps it.
pub(crate) fn blob(id: Id) -> [u8; 16] {
    id.0.to_be_bytes()
}

/// A value of one of the small enums in its word, the same that the journal has.
pub(crate) fn word<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

fn migrate(connection: &Connection, path: &Path) -> Result<(), Error> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = MIGRATIONS.len();
    let applied = usize::try_from(version).unwrap_or(usize::MAX);
    if applied > known {
        let known = i64::try_from(known).unwrap_or(i64::MAX);
        return Err(Error::NewerIndex { path: path.to_owned(), found: version, known });
    }
    for (number, step) in MIGRATIONS.iter().enumerate().skip(applied) {
        connection.execute_batch(&format!(
            "BEGIN; {step}; PRAGMA user_version = {}; COMMIT;",
            number + 1
        ))?;
    }
    Ok(())
}

fn read_indexed(connection: &Connection) -> rusqlite::Result<Indexed> {
    let found = connection.query_row("SELECT day, end_offset, lines FROM indexed", [], |row| {
        Ok(Indexed { place: Some((Day(row.get(0)?), row.get(1)?)), lines: row.get(2)? })
    });
    match found {
        Err(rusqlite::Error::QueryReturnedNoRows) => Ok(Indexed { place: None, lines: 0 }),
        found => found,
    }
}

fn write_indexed(transaction: &Transaction<'_>, indexed: Indexed) -> rusqlite::Result<()> {
    let Some((day, end)) = indexed.place else { return Ok(()) };
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO indexed (one, day, end_offset, lines) VALUES (1, ?1, ?2, ?3)",
        )?
        .execute(params![day.0, end, indexed.lines])?;
    Ok(())
}

/// Whether an index is of no use for good: newer, broken, or not the database it should be.
fn is_unusable(error: &Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase, Unknown};
    match error {
        Error::NewerIndex { .. } => true,
        // SQLite's plain SQLITE_ERROR (`Unknown`) is what a missing table or column gives.
        Error::Index(rusqlite::Error::SqliteFailure(failure, _)) => {
            matches!(failure.code, DatabaseCorrupt | NotADatabase | Unknown)
        }
        // A wrong schema, values of a wrong type, the journal's lost end.
        Error::Index(_) => true,
        _ => false,
    }
}

/// Moves an index that cannot be used out of the way, with its WAL.
fn set_aside(path: &Path) -> Result<(), Error> {
    let aside = with_suffix(path, ".unusable");
    match fs::rename(path, &aside) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(Error::file("rename", path)(e)),
    }
    remove_wal(path);
    Ok(())
}

/// Removes what SQLite keeps beside a database that is gone.
pub(crate) fn remove_wal(path: &Path) {
    for suffix in ["-wal", "-shm"] {
        // Mostly there is none.
        let _ = fs::remove_file(with_suffix(path, suffix));
    }
}

/// `path` with more behind its name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Opens an index for reading alone.
pub(crate) fn open_read_only(path: &Path) -> Result<Connection, Error> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    Ok(connection)
}
