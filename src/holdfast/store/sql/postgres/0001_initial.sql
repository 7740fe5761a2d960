-- Names are compared byte by byte, so that every server lists them in the same order, and it is Python's.
-- No name holds a NUL, which PostgreSQL's text cannot: the store writes it as an escape (store/postgres/text.py).

-- Runs: one row a run. What its log comes to, and, from `owner` on, what is not history.
-- `id` is the short name of a run in the other tables, made by whoever creates the run (time and chance), so
-- that every key begins with the run, keys of one time lie together, and no sequence is shared.
CREATE TABLE holdfast.runs (
    id         bigint  NOT NULL PRIMARY KEY,
    run        text    COLLATE "C" NOT NULL,
    workflow   text    COLLATE "C" NOT NULL,
    status     text    COLLATE "C" NOT NULL,
    position   integer NOT NULL,
    time       bigint  NOT NULL,
    chain      bytea   NOT NULL,
    command    integer NOT NULL,
    fact       integer NOT NULL,
    delivered  integer NOT NULL,
    steps      integer NOT NULL,
    timers     integer NOT NULL,
    children   integer NOT NULL,
    created    bigint  NOT NULL,
    ended      bigint,
    -- One JSON array [name, value] a line: what people search for, with every character that JSON can write.
    attributes text    NOT NULL,
    owner      text    COLLATE "C",
    parked     text,
    crashes    integer NOT NULL DEFAULT 0,
    -- Whose child it is, and the top of its tree (NULL: it has no parent).
    parent     text    COLLATE "C",
    root       text    COLLATE "C",
    -- Derived by the database, so that no writer can forget it (law L14). Stored, because an update that leaves
    -- it as it was then touches no index: a step costs no index entry of this table.
    ready      boolean NOT NULL GENERATED ALWAYS AS (
        ended IS NULL AND parked IS NULL
        AND (status = 'pending' OR fact > delivered OR steps > 0 OR timers > 0 OR children > 0)
    ) STORED
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
CREATE UNIQUE INDEX runs_run ON holdfast.runs (run);
CREATE INDEX runs_newest ON holdfast.runs (created, run);
CREATE INDEX runs_by_status ON holdfast.runs (status, created, run);
CREATE INDEX runs_by_workflow ON holdfast.runs (workflow, created, run);
CREATE INDEX runs_free ON holdfast.runs (workflow, id) WHERE owner IS NULL AND ready;
CREATE INDEX runs_owned ON holdfast.runs (owner) WHERE owner IS NOT NULL;
CREATE INDEX runs_by_parent ON holdfast.runs (parent, created, run) WHERE parent IS NOT NULL;
CREATE INDEX runs_by_root ON holdfast.runs (root, created, run) WHERE root IS NOT NULL;
CREATE INDEX runs_parked ON holdfast.runs (created, run) WHERE parked IS NOT NULL;

-- Events: the logs. Appended only. The last event of an append carries what belongs to the append: the hash
-- over the log so far, and, where the append was whole, its batch id, the position of its first event and its
-- fence. A batch with a fence is looked for beyond that fence, so only the others need an index.
CREATE TABLE holdfast.events (
    run      bigint  NOT NULL,
    position integer NOT NULL,
    type     text    COLLATE "C" NOT NULL,
    key      text    COLLATE "C" NOT NULL,
    time     bigint  NOT NULL,
    body     text    NOT NULL,
    uniq     text    COLLATE "C",
    chain    bytea,
    batch    text    COLLATE "C",
    first    integer,
    fence    integer,
    PRIMARY KEY (run, position)
);
CREATE UNIQUE INDEX events_uniq ON holdfast.events (run, uniq) WHERE uniq IS NOT NULL;
CREATE UNIQUE INDEX events_batch ON holdfast.events (run, batch) WHERE batch IS NOT NULL AND fence IS NULL;

-- Steps: those that owe an outcome.
CREATE TABLE holdfast.steps (
    run     bigint  NOT NULL,
    key     text    COLLATE "C" NOT NULL,
    attempt integer NOT NULL,
    due     bigint,
    PRIMARY KEY (run, key)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

-- Timers: those that are still to fire.
CREATE TABLE holdfast.timers (
    run bigint NOT NULL,
    key text   COLLATE "C" NOT NULL,
    due bigint NOT NULL,
    PRIMARY KEY (run, key)
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX timers_due ON holdfast.timers (due);

-- Children: the child runs of which their parents have not heard the end. Those of a parent that has ended are
-- orphans, until a worker has seen to them: they are cancelled or, where they were detached, started.
CREATE TABLE holdfast.children (
    run      bigint  NOT NULL,
    key      text    COLLATE "C" NOT NULL,
    child    text    COLLATE "C" NOT NULL,
    position integer NOT NULL,
    status   text    COLLATE "C" NOT NULL,
    orphan   boolean NOT NULL,
    PRIMARY KEY (run, key)
);
CREATE INDEX children_orphaned ON holdfast.children (run) WHERE orphan;

-- Hooks: every one that opened, with the position at which it did. Of the open ones with one token, the newest
-- gets the payloads; they are always of one run, which a lock on the token sees to.
CREATE TABLE holdfast.hooks (
    run      bigint  NOT NULL,
    key      text    COLLATE "C" NOT NULL,
    token    text    COLLATE "C" NOT NULL,
    status   text    COLLATE "C" NOT NULL,
    opened   bigint  NOT NULL,
    position integer NOT NULL,
    schema   text,
    metadata text,
    PRIMARY KEY (run, key)
);
CREATE INDEX hooks_token ON holdfast.hooks (token, opened);
CREATE INDEX hooks_open ON holdfast.hooks (token) WHERE status = 'open';

-- Deliveries: payloads that came with an id; one id, one payload, for each token.
CREATE TABLE holdfast.deliveries (
    uniq     text    COLLATE "C" NOT NULL PRIMARY KEY,
    run      bigint  NOT NULL,
    position integer NOT NULL,
    digest   text    NOT NULL
);
CREATE INDEX deliveries_run ON holdfast.deliveries (run);

-- Workers: those that are alive, or were until their lease expires.
CREATE TABLE holdfast.workers (
    id      text    COLLATE "C" NOT NULL PRIMARY KEY,
    pid     integer NOT NULL,
    host    text    NOT NULL,
    expires bigint  NOT NULL
);

-- Streams: one row a stream, numbered within its run. What its chunks come to.
CREATE TABLE holdfast.streams (
    run      bigint  NOT NULL,
    name     text    COLLATE "C" NOT NULL,
    number   integer NOT NULL,
    position integer NOT NULL,
    size     bigint  NOT NULL,
    time     bigint  NOT NULL,
    ended    integer NOT NULL,
    chain    bytea   NOT NULL,
    step     text    COLLATE "C" NOT NULL,
    attempt  integer NOT NULL,
    attempts text    NOT NULL,
    PRIMARY KEY (run, name)
) WITH (fillfactor = 50);

-- Chunks: appended only. The last chunk of a write carries what belongs to the write: its batch id and the
-- position of its first chunk.
CREATE TABLE holdfast.chunks (
    run      bigint  NOT NULL,
    stream   integer NOT NULL,
    position integer NOT NULL,
    kind     text    COLLATE "C" NOT NULL,
    body     bytea   NOT NULL,
    time     bigint  NOT NULL,
    step     text    COLLATE "C" NOT NULL,
    attempt  integer NOT NULL,
    key      text    COLLATE "C",
    batch    text    COLLATE "C",
    first    integer,
    PRIMARY KEY (run, stream, position)
);
CREATE UNIQUE INDEX chunks_key ON holdfast.chunks (run, stream, key) WHERE key IS NOT NULL;
CREATE UNIQUE INDEX chunks_batch ON holdfast.chunks (run, stream, batch) WHERE batch IS NOT NULL;

-- Tokens: who may call a server on this store. Of the secret, only its hash is kept.
CREATE TABLE holdfast.tokens (
    id      text   COLLATE "C" NOT NULL PRIMARY KEY,
    scope   text   NOT NULL,
    hash    bytea  NOT NULL,
    created bigint NOT NULL,
    note    text   NOT NULL
);
