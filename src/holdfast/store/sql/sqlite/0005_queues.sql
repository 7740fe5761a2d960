-- Steps that wait in a queue say where, what they count against, and who has taken them (`holder`: no history).
ALTER TABLE steps ADD COLUMN queue TEXT;
ALTER TABLE steps ADD COLUMN limit_key TEXT;
ALTER TABLE steps ADD COLUMN priority INTEGER;
ALTER TABLE steps ADD COLUMN asked INTEGER;
ALTER TABLE steps ADD COLUMN position INTEGER;
ALTER TABLE steps ADD COLUMN name TEXT;
ALTER TABLE steps ADD COLUMN holder TEXT;
CREATE INDEX steps_waiting ON steps (queue, priority DESC, asked, run, position) WHERE queue IS NOT NULL AND holder IS NULL;
CREATE INDEX steps_held ON steps (queue, holder, limit_key) WHERE holder IS NOT NULL;

-- Starts of queued steps, for as long as the rate of their queue counts them.
CREATE TABLE queue_starts (
    queue TEXT    NOT NULL,
    time  INTEGER NOT NULL
);
CREATE INDEX queue_starts_time ON queue_starts (queue, time);
