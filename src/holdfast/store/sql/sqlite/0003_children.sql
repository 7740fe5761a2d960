-- Children: the child runs of which their parents have not heard the end. Those of a parent that has ended are
-- orphans, until a worker has seen to them: they are cancelled or, where they were detached, started.
CREATE TABLE children (
    run      INTEGER NOT NULL,
    key      TEXT    NOT NULL,
    child    TEXT    NOT NULL,
    position INTEGER NOT NULL,
    status   TEXT    NOT NULL,
    orphan   INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (run, key)
) WITHOUT ROWID;
CREATE INDEX children_orphaned ON children (run) WHERE orphan;

-- Of a run: how many such children it has, whose child it is, and the top of its tree (NULL: it has no parent).
ALTER TABLE runs ADD COLUMN children INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN parent TEXT;
ALTER TABLE runs ADD COLUMN root TEXT;
CREATE INDEX runs_by_parent ON runs (parent, created) WHERE parent IS NOT NULL;
CREATE INDEX runs_by_root ON runs (root, created) WHERE root IS NOT NULL;

-- A run with open children is to be held by a worker, who starts them and hears how they end.
DROP INDEX runs_free;
ALTER TABLE runs DROP COLUMN ready;
ALTER TABLE runs ADD COLUMN ready INTEGER GENERATED ALWAYS AS (
    ended IS NULL AND parked IS NULL
    AND (status = 'pending' OR fact > delivered OR steps > 0 OR timers > 0 OR children > 0)
) VIRTUAL;
CREATE INDEX runs_free ON runs (workflow) WHERE owner IS NULL AND ready;
