-- Steps that wait in a queue say where, what they count against, and who has taken them (`holder`: no history).
ALTER TABLE holdfast.steps
    ADD COLUMN queue     text COLLATE "C",
    ADD COLUMN limit_key text COLLATE "C",
    ADD COLUMN priority  integer,
    ADD COLUMN asked     bigint,
    ADD COLUMN position  integer,
    ADD COLUMN name      text COLLATE "C",
    ADD COLUMN holder    text COLLATE "C";
CREATE INDEX steps_waiting ON holdfast.steps (queue, priority DESC, asked, run, position)
    WHERE queue IS NOT NULL AND holder IS NULL;
CREATE INDEX steps_held ON holdfast.steps (queue, holder, limit_key) WHERE holder IS NOT NULL;

-- Starts of queued steps, for as long as the rate of their queue counts them.
CREATE TABLE holdfast.queue_starts (
    queue text   COLLATE "C" NOT NULL,
    time  bigint NOT NULL
);
CREATE INDEX queue_starts_time ON holdfast.queue_starts (queue, time);
