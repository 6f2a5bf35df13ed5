//! Reading: lists from the index, records from the journal, bodies from wherever they are.

use std::fs::File;
use std::io::{Cursor, Read};

use rusqlite::types::{FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::de::DeserializeOwned;

use crate::content_coding::codings;
use crate::decoded::DecodedBody;
use crate::error::Error;
use crate::index::{blob, open_read_only};
use crate::journal::{Day, Position, read_line};
use crate::layout::Layout;
use crate::record::{Body, Field, Id, Kept, Record, Timestamp};
use crate::rows::{Exchange, ExchangeRow, Filter, MessageRow, RunRow};

/// An open index and the journal it speaks of. One for each thread.
#[derive(Debug)]
pub struct Reader {
    layout: Layout,
    connection: Connection,
}

/// The columns of an [`ExchangeRow`], in the order [`exchange_row`] reads them.
const COLUMNS: &str = "seq, id, run, at, kind, method, scheme, host, port, path, status, outcome, \
                       refused_by, request_bytes, response_bytes, duration_us, flags, \
                       messages_sent, messages_received";

impl Reader {
    /// Opens the index for reading.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn open(layout: &Layout) -> Result<Self, Error> {
        let connection = open_read_only(layout.index_path())?;
        Ok(Self { layout: layout.clone(), connection })
    }

    /// The newest runs first.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn runs(&self, limit: usize) -> Result<Vec<RunRow>, Error> {
        let mut statement = self.connection.prepare_cached(
            "SELECT id, at, ended_at, agent, argv, cwd, mode, weaker, status, exchanges \
             FROM run ORDER BY id DESC LIMIT ?1",
        )?;
        let rows = statement.query_map(params![bound(limit)], run_row)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The newest exchanges first, of a run or of all, from one on.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn exchanges(&self, filter: &Filter, limit: usize) -> Result<Vec<ExchangeRow>, Error> {
        let before = filter.before.map_or([0xff; 16], blob);
        match filter.run {
            None => self.rows(
                &format!("SELECT {COLUMNS} FROM exchange WHERE id < ?1 ORDER BY id DESC LIMIT ?2"),
                params![before, bound(limit)],
            ),
            Some(run) => self.rows(
                &format!(
                    "SELECT {COLUMNS} FROM exchange WHERE id < ?1 AND run = ?3 \
                     ORDER BY id DESC LIMIT ?2"
                ),
                params![before, bound(limit), blob(run)],
            ),
        }
    }

    /// What changed after `seq`, in order of change: a row when its request lands and again when
    /// its response does.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn changed_since(&self, seq: u64, limit: usize) -> Result<Vec<ExchangeRow>, Error> {
        self.rows(
            &format!("SELECT {COLUMNS} FROM exchange WHERE seq > ?1 ORDER BY seq LIMIT ?2"),
            params![seq, bound(limit)],
        )
    }

    /// The sequence number of the last line in the index.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn committed(&self) -> Result<u64, Error> {
        let lines = self
            .connection
            .prepare_cached("SELECT lines FROM indexed")?
            .query_row([], |row| row.get(0))
            .optional()?;
        Ok(lines.unwrap_or(0))
    }

    /// One exchange with its records as the journal has them.
    ///
    /// # Errors
    /// When the index or the journal cannot be read.
    pub fn exchange(&self, id: Id) -> Result<Option<Exchange>, Error> {
        let sql = format!(
            "SELECT {COLUMNS}, request_day, request_offset, request_length, response_day, \
             response_offset, response_length FROM exchange WHERE id = ?1"
        );
        let found = self
            .connection
            .prepare_cached(&sql)?
            .query_row(params![blob(id)], |row| {
                Ok((exchange_row(row)?, position(row, 19)?, position(row, 22)?))
            })
            .optional()?;
        let Some((row, request, response)) = found else { return Ok(None) };
        Ok(Some(Exchange { row, request: self.record(request)?, response: self.record(response)? }))
    }

    /// The messages of an exchange in order, from behind the one at `after`.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn messages(
        &self,
        exchange: Id,
        after: u64,
        limit: usize,
    ) -> Result<Vec<MessageRow>, Error> {
        let mut statement = self.connection.prepare_cached(
            "SELECT seq, at, direction, kind, bytes, wire_bytes, close_code, flaws, complete, \
             excerpt FROM message WHERE exchange = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
        )?;
        let rows = statement
            .query_map(params![blob(exchange), signed(after), bound(limit)], message_row)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The record of one message, by its exchange and its position.
    ///
    /// # Errors
    /// When the index or the journal cannot be read.
    pub fn message(&self, exchange: Id, seq: u64) -> Result<Option<Record<'static>>, Error> {
        let found = self
            .connection
            .prepare_cached(
                "SELECT day, offset, length FROM message WHERE exchange = ?1 AND seq = ?2",
            )?
            .query_row(params![blob(exchange), signed(seq)], |row| position(row, 0))
            .optional()?;
        self.record(found.flatten())
    }

    /// The bytes of a body, as far as they were kept.
    ///
    /// # Errors
    /// When its side file cannot be opened.
    pub fn body(&self, body: &Body<'_>) -> Result<Box<dyn Read>, Error> {
        match &body.kept {
            Kept::Inline(bytes) => Ok(Box::new(Cursor::new(bytes.to_vec()))),
            Kept::File { blake3, .. } => {
                let path = self.layout.body_path(*blake3);
                let file = File::open(&path).map_err(Error::file("open", &path))?;
                Ok(Box::new(file))
            }
        }
    }

    /// The same without its content codings; none for a body that has none. `fields` are those of
    /// its head.
    ///
    /// # Errors
    /// When its side file cannot be opened.
    pub fn decoded(
        &self,
        body: &Body<'_>,
        fields: &[Field<'_>],
    ) -> Result<Option<DecodedBody<Box<dyn Read>>>, Error> {
        let codings = codings(fields.iter().map(|field| (&*field.name, &*field.value)));
        if codings.is_empty() {
            return Ok(None);
        }
        Ok(Some(DecodedBody::new(&codings, self.body(body)?)))
    }

    fn record(&self, position: Option<Position>) -> Result<Option<Record<'static>>, Error> {
        position.map(|p| read_line(&self.layout, p)?.record(&self.layout)).transpose()
    }

    fn rows(&self, sql: &str, params: impl rusqlite::Params) -> Result<Vec<ExchangeRow>, Error> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(params, exchange_row)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

/// A position as SQLite counts; beyond its range there is none.
fn signed(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

fn bound(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn run_row(row: &Row<'_>) -> rusqlite::Result<RunRow> {
    Ok(RunRow {
        id: id(row, 0)?,
        at: Timestamp(row.get(1)?),
        ended_at: row.get::<_, Option<i64>>(2)?.map(Timestamp),
        agent: row.get(3)?,
        argv: from_json(row.get_ref(4)?)?,
        cwd: row.get(5)?,
        mode: from_word(row.get_ref(6)?)?,
        weaker: row.get(7)?,
        status: row.get(8)?,
        exchanges: row.get(9)?,
    })
}

fn exchange_row(row: &Row<'_>) -> rusqlite::Result<ExchangeRow> {
    Ok(ExchangeRow {
        seq: row.get(0)?,
        id: id(row, 1)?,
        run: id(row, 2)?,
        at: Timestamp(row.get(3)?),
        kind: from_word(row.get_ref(4)?)?,
        method: row.get(5)?,
        scheme: row.get(6)?,
        host: row.get(7)?,
        port: row.get(8)?,
        path: row.get(9)?,
        status: row.get(10)?,
        outcome: word_if_any(row.get_ref(11)?)?,
        refused_by: word_if_any(row.get_ref(12)?)?,
        request_bytes: row.get(13)?,
        response_bytes: row.get(14)?,
        duration_us: row.get(15)?,
        flags: from_json(row.get_ref(16)?)?,
        messages_sent: row.get(17)?,
        messages_received: row.get(18)?,
    })
}

fn message_row(row: &Row<'_>) -> rusqlite::Result<MessageRow> {
    Ok(MessageRow {
        seq: row.get(0)?,
        at: Timestamp(row.get(1)?),
        direction: from_word(row.get_ref(2)?)?,
        kind: from_word(row.get_ref(3)?)?,
        bytes: row.get(4)?,
        wire_bytes: row.get(5)?,
        close_code: row.get(6)?,
        flaws: from_json(row.get_ref(7)?)?,
        complete: row.get(8)?,
        excerpt: row.get(9)?,
    })
}

fn position(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Position>> {
    let Some(day) = row.get::<_, Option<u32>>(column)? else { return Ok(None) };
    Ok(Some(Position { day: Day(day), offset: row.get(column + 1)?, length: row.get(column + 2)? }))
}

fn id(row: &Row<'_>, column: usize) -> rusqlite::Result<Id> {
    Ok(Id(u128::from_be_bytes(row.get(column)?)))
}

fn word_if_any<T: DeserializeOwned>(value: ValueRef<'_>) -> FromSqlResult<Option<T>> {
    if value == ValueRef::Null { Ok(None) } else { from_word(value).map(Some) }
}

/// The inverse of [`crate::index::word`].
fn from_word<T: DeserializeOwned>(value: ValueRef<'_>) -> FromSqlResult<T> {
    let word = serde_json::Value::String(value.as_str()?.to_owned());
    serde_json::from_value(word).map_err(|e| FromSqlError::Other(Box::new(e)))
}

fn from_json<T: DeserializeOwned>(value: ValueRef<'_>) -> FromSqlResult<T> {
    serde_json::from_str(value.as_str()?).map_err(|e| FromSqlError::Other(Box::new(e)))
}
