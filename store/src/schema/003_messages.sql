-- The messages of WebSockets, in the order of the journal, and how many data messages an exchange
-- has had each way.

CREATE TABLE message (
    exchange BLOB NOT NULL,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    direction TEXT NOT NULL,
    kind TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    wire_bytes INTEGER NOT NULL,
    close_code INTEGER,
    flaws TEXT NOT NULL,
    complete INTEGER NOT NULL,
    excerpt TEXT,
    day INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    length INTEGER NOT NULL,
    PRIMARY KEY (exchange, seq)
) WITHOUT ROWID;

ALTER TABLE exchange ADD COLUMN messages_sent INTEGER;
ALTER TABLE exchange ADD COLUMN messages_received INTEGER;
