-- Streams: one row a stream. What its chunks come to.
CREATE TABLE streams (
    row      INTEGER PRIMARY KEY,
    run      INTEGER NOT NULL,
    name     TEXT    NOT NULL,
    position INTEGER NOT NULL,
    size     INTEGER NOT NULL,
    time     INTEGER NOT NULL,
    ended    INTEGER NOT NULL,
    chain    BLOB    NOT NULL,
    step     TEXT    NOT NULL,
    attempt  INTEGER NOT NULL,
    attempts TEXT    NOT NULL
);
CREATE UNIQUE INDEX streams_name ON streams (run, name);

-- Chunks: appended only, in the order of commits whatever their stream, so that a group dirties few pages. The
-- last chunk of a write carries what belongs to the write: its batch id and the position of its first chunk.
CREATE TABLE chunks (
    stream   INTEGER NOT NULL,
    position INTEGER NOT NULL,
    kind     TEXT    NOT NULL,
    body     BLOB    NOT NULL,
    time     INTEGER NOT NULL,
    step     TEXT    NOT NULL,
    attempt  INTEGER NOT NULL,
    key      TEXT,
    batch    TEXT,
    first    INTEGER
);
CREATE UNIQUE INDEX chunks_place ON chunks (stream, position);
CREATE UNIQUE INDEX chunks_key ON chunks (stream, key) WHERE key IS NOT NULL;
CREATE UNIQUE INDEX chunks_batch ON chunks (stream, batch) WHERE batch IS NOT NULL;
