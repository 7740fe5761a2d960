-- Runs: one row a run. What its log comes to, and, from `owner` on, what is not history.
-- `row` is the short name of a run in the other tables: random text keys there cost three times as much.
CREATE TABLE runs (
    row        INTEGER PRIMARY KEY,
    run        TEXT    NOT NULL UNIQUE,
    workflow   TEXT    NOT NULL,
    status     TEXT    NOT NULL,
    position   INTEGER NOT NULL,
    time       INTEGER NOT NULL,
    chain      BLOB    NOT NULL,
    command    INTEGER NOT NULL,
    fact       INTEGER NOT NULL,
    delivered  INTEGER NOT NULL,
    steps      INTEGER NOT NULL,
    timers     INTEGER NOT NULL,
    created    INTEGER NOT NULL,
    ended      INTEGER,
    attributes TEXT    NOT NULL,
    owner      TEXT,
    parked     TEXT,
    crashes    INTEGER NOT NULL DEFAULT 0,
    -- Derived by the database, so that no writer can forget it (law L14).
    ready      INTEGER NOT NULL GENERATED ALWAYS AS (
        ended IS NULL AND parked IS NULL
        AND (status = 'pending' OR fact > delivered OR steps > 0 OR timers > 0)
    ) VIRTUAL
);
CREATE INDEX runs_newest ON runs (created);
CREATE INDEX runs_by_status ON runs (status, created);
CREATE INDEX runs_by_workflow ON runs (workflow, created);
CREATE INDEX runs_free ON runs (workflow) WHERE owner IS NULL AND ready;
CREATE INDEX runs_owned ON runs (owner) WHERE owner IS NOT NULL;
CREATE INDEX runs_parked ON runs (created) WHERE parked IS NOT NULL;

-- Events: the logs. Appended only. The last event of an append carries what belongs to the append: the hash
-- over the log so far, and, where the append was whole, its batch id, the position of its first event and its
-- fence. A batch with a fence is looked for beyond that fence, so only the others need an index.
CREATE TABLE events (
    run      INTEGER NOT NULL,
    position INTEGER NOT NULL,
    type     TEXT    NOT NULL,
    key      TEXT    NOT NULL,
    time     INTEGER NOT NULL,
    body     TEXT    NOT NULL,
    uniq     TEXT,
    chain    BLOB,
    batch    TEXT,
    first    INTEGER,
    fence    INTEGER
);
CREATE UNIQUE INDEX events_place ON events (run, position);
CREATE UNIQUE INDEX events_uniq ON events (run, uniq) WHERE uniq IS NOT NULL;
CREATE UNIQUE INDEX events_batch ON events (run, batch) WHERE batch IS NOT NULL AND fence IS NULL;

-- Steps: those that owe an outcome.
CREATE TABLE steps (
    run     INTEGER NOT NULL,
    key     TEXT    NOT NULL,
    attempt INTEGER NOT NULL,
    due     INTEGER,
    PRIMARY KEY (run, key)
) WITHOUT ROWID;

-- Timers: those that are still to fire.
CREATE TABLE timers (
    run INTEGER NOT NULL,
    key TEXT    NOT NULL,
    due INTEGER NOT NULL,
    PRIMARY KEY (run, key)
) WITHOUT ROWID;
CREATE INDEX timers_due ON timers (due);

-- Hooks: every one that opened. Of the open ones with one token, the newest gets the payloads; they are
-- always of one run, which the rules see to inside the write transaction.
CREATE TABLE hooks (
    row      INTEGER PRIMARY KEY,
    token    TEXT    NOT NULL,
    run      INTEGER NOT NULL,
    key      TEXT    NOT NULL,
    status   TEXT    NOT NULL,
    opened   INTEGER NOT NULL,
    schema   TEXT,
    metadata TEXT
);
CREATE INDEX hooks_token ON hooks (token);
CREATE UNIQUE INDEX hooks_run ON hooks (run, key);

-- Deliveries: payloads that came with an id; one id, one payload, for each token.
CREATE TABLE deliveries (
    uniq     TEXT    NOT NULL PRIMARY KEY,
    run      INTEGER NOT NULL,
    position INTEGER NOT NULL,
    digest   TEXT    NOT NULL
) WITHOUT ROWID;

-- Workers: those that are alive, or were until their lease expires.
CREATE TABLE workers (
    id      TEXT    NOT NULL PRIMARY KEY,
    pid     INTEGER NOT NULL,
    host    TEXT    NOT NULL,
    expires INTEGER NOT NULL
) WITHOUT ROWID;
