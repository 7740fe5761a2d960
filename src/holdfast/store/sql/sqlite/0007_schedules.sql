-- Schedules: when runs of a workflow are started; every due time up to `since` has been seen to.
CREATE TABLE schedules (
    workflow TEXT    NOT NULL PRIMARY KEY,
    cron     TEXT    NOT NULL,
    timezone TEXT    NOT NULL,
    missed   TEXT    NOT NULL,
    since    INTEGER NOT NULL,
    paused   INTEGER NOT NULL,
    keeper   TEXT
) WITHOUT ROWID;
