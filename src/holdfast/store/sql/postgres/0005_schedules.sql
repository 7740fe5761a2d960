-- Schedules: when runs of a workflow are started; every due time up to `since` has been seen to.
CREATE TABLE holdfast.schedules (
    workflow text    COLLATE "C" NOT NULL PRIMARY KEY,
    cron     text    NOT NULL,
    timezone text    NOT NULL,
    missed   text    NOT NULL,
    since    bigint  NOT NULL,
    paused   boolean NOT NULL,
    keeper   text
);
