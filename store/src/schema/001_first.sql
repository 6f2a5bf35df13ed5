-- The index: what pages list and sort by. All of it can be rebuilt from the journal.
-- Ids are ULIDs as 16 bytes, so their order is the order of time; moments are microseconds.

CREATE TABLE run (
    id BLOB PRIMARY KEY,
    at INTEGER NOT NULL,
    ended_at INTEGER,
    agent TEXT NOT NULL,
    argv TEXT NOT NULL,
    cwd TEXT NOT NULL,
    mode TEXT NOT NULL,
    weaker TEXT,
    status INTEGER,
    exchanges INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

CREATE TABLE exchange (
    id BLOB PRIMARY KEY,
    seq INTEGER NOT NULL,
    run BLOB NOT NULL,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    method TEXT NOT NULL,
    scheme TEXT NOT NULL,
    host TEXT NOT NULL,
    port INTEGER NOT NULL,
    path TEXT NOT NULL,
    status INTEGER,
    outcome TEXT,
    refused_by TEXT,
    request_bytes INTEGER NOT NULL,
    response_bytes INTEGER,
    duration_us INTEGER,
    request_day INTEGER,
    request_offset INTEGER,
    request_length INTEGER,
    response_day INTEGER,
    response_offset INTEGER,
    response_length INTEGER
) WITHOUT ROWID;

CREATE INDEX exchange_by_seq ON exchange (seq);
CREATE INDEX exchange_by_run ON exchange (run, id);

-- Up to where the journal is in here, and how many lines that is.
CREATE TABLE indexed (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    day INTEGER NOT NULL,
    end_offset INTEGER NOT NULL,
    lines INTEGER NOT NULL
);
