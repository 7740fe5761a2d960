-- Every statement that the SQLite store runs, by name. Named parameters in lists, numbered ones on hot paths.

-- ==== transactions

-- name: begin
-- Take the write lock at once: a reader that upgrades later could find its view outdated.
BEGIN IMMEDIATE;

-- name: commit
-- Make the group durable (one fsync).
COMMIT;

-- name: rollback
-- Forget the group.
ROLLBACK;

-- name: savepoint
-- Begin a part of a group that may fail alone.
SAVEPOINT item;

-- name: keep_savepoint
-- The part is done.
RELEASE item;

-- name: undo_savepoint
-- The part failed: forget it, keep its neighbours.
ROLLBACK TO item;

-- ==== look-ups for an append

-- name: head
-- A run's row, in the order of the fields of `Head`.
SELECT run, workflow, status, position, time, chain, command, fact, delivered, steps, timers, children,
       created, ended, attributes, owner, parked, crashes, parent, root, row
FROM runs WHERE run = ?1;

-- name: batch
-- Where an append without a fence stands that was made under this batch id.
SELECT first, position FROM events WHERE run = ?1 AND batch = ?2 AND fence IS NULL;

-- name: fenced_batch
-- Where an append with this fence stands that was made under this batch id.
SELECT first, position FROM events WHERE run = ?1 AND position > ?3 AND batch = ?2;

-- name: unique
-- Where the event with this unique key stands.
SELECT uniq, position FROM events WHERE run = ?1 AND uniq = ?2;

-- name: beyond
-- The events beyond a position, by the run's row.
SELECT position, type, key, time, CAST(body AS BLOB)
FROM events WHERE run = ?1 AND position > ?2 ORDER BY position;

-- name: step
-- A step that owes an outcome.
SELECT key, attempt, due FROM steps WHERE run = ?1 AND key = ?2;

-- name: steps
-- All steps of a run that owe an outcome.
SELECT key, attempt, due FROM steps WHERE run = ?1;

-- name: timer
-- A pending timer.
SELECT key, due FROM timers WHERE run = ?1 AND key = ?2;

-- name: timers
-- All pending timers of a run.
SELECT key, due FROM timers WHERE run = ?1;

-- name: child
-- A child run of which its parent has not heard the end.
SELECT key, child, position, status FROM children WHERE run = ?1 AND key = ?2;

-- name: children
-- All of a run's.
SELECT key, child, position, status FROM children WHERE run = ?1;

-- name: holder
-- Who gets the payloads for a token: the newest of its open hooks.
SELECT runs.run, hooks.key FROM hooks JOIN runs ON runs.row = hooks.run
WHERE token = ?1 AND hooks.status = 'open' ORDER BY hooks.row DESC LIMIT 1;

-- name: former
-- What became of the newest hook with this token, and whose it was.
SELECT hooks.status, runs.run FROM hooks JOIN runs ON runs.row = hooks.run
WHERE token = ?1 ORDER BY hooks.row DESC LIMIT 1;

-- name: delivery
-- The payload that came under this delivery id.
SELECT runs.run, deliveries.position, digest FROM deliveries JOIN runs ON runs.row = deliveries.run
WHERE uniq = ?1;

-- ==== writes of an append

-- name: create_run
-- A new run's row; no row comes back where the id is taken.
INSERT INTO runs (run, workflow, status, position, time, chain, command, fact, delivered, steps, timers,
                  children, created, ended, attributes, owner, parent, root)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)
ON CONFLICT (run) DO NOTHING RETURNING row;

-- name: advance_run
-- Move a run's head on, provided that its row is exactly the one we know: the hash says that the log is, the
-- other columns are what changes without a new event. Sets no column that the listings index.
UPDATE runs SET position = ?1, time = ?2, chain = ?3, command = ?4, fact = ?5, delivered = ?6,
    steps = ?7, timers = ?8, children = ?9, crashes = ?10, attributes = coalesce(?11, attributes)
WHERE row = ?12 AND chain = ?13 AND owner IS ?14 AND parked IS ?15 AND delivered = ?16 AND crashes = ?17;

-- name: turn_run
-- The same, where the status changes too.
UPDATE runs SET position = ?1, time = ?2, chain = ?3, command = ?4, fact = ?5, delivered = ?6,
    steps = ?7, timers = ?8, children = ?9, crashes = ?10, attributes = coalesce(?11, attributes),
    status = ?18, ended = ?19, owner = ?20, parked = ?21
WHERE row = ?12 AND chain = ?13 AND owner IS ?14 AND parked IS ?15 AND delivered = ?16 AND crashes = ?17;

-- name: add_event
-- One event of a log.
INSERT INTO events (run, position, type, key, time, body, uniq, chain, batch, first, fence)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11);

-- name: put_step
-- A step that owes an outcome, as it is now.
INSERT INTO steps (run, key, attempt, due) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (run, key) DO UPDATE SET attempt = excluded.attempt, due = excluded.due,
    holder = CASE WHEN excluded.due IS NULL THEN holder END;

-- name: queue_step
-- A new step waits in a queue.
UPDATE steps SET queue = ?3, limit_key = ?4, priority = ?5, asked = ?6, position = ?7, name = ?8
WHERE run = ?1 AND key = ?2;

-- name: drop_step
-- A step has its outcome.
DELETE FROM steps WHERE run = ?1 AND key = ?2;

-- name: drop_steps
-- The run has ended: nobody waits for its steps.
DELETE FROM steps WHERE run = ?1;

-- name: put_timer
-- A pending timer.
INSERT INTO timers (run, key, due) VALUES (?1, ?2, ?3);

-- name: drop_timer
-- A timer has fired or was cancelled.
DELETE FROM timers WHERE run = ?1 AND key = ?2;

-- name: drop_timers
-- The run has ended: its timers need not fire.
DELETE FROM timers WHERE run = ?1;

-- name: put_child
-- A child run, as its parent sees it now.
INSERT INTO children (run, key, child, position, status) VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (run, key) DO UPDATE SET status = excluded.status;

-- name: drop_child
-- A parent has heard the end of a child.
DELETE FROM children WHERE run = ?1 AND key = ?2;

-- name: orphan_children
-- The run has ended: workers see to the children that it leaves.
UPDATE children SET orphan = 1 WHERE run = ?1;

-- name: open_hook
-- A hook opens.
INSERT INTO hooks (token, run, key, status, opened, schema, metadata) VALUES (?1, ?2, ?3, 'open', ?4, ?5, ?6);

-- name: close_hook
-- A hook closes, if it is open.
UPDATE hooks SET status = 'closed' WHERE run = ?1 AND key = ?2 AND status = 'open';

-- name: continue_hooks
-- The run goes on as another: its tokens stay taken for that one.
UPDATE hooks SET status = 'continued' WHERE run = ?1 AND status = 'open';

-- name: end_hooks
-- The run has ended: its tokens are free again.
UPDATE hooks SET status = 'run_ended' WHERE run = ?1 AND status = 'open';

-- name: add_delivery
-- A payload that came with an id.
INSERT INTO deliveries (uniq, run, position, digest) VALUES (?1, ?2, ?3, ?4);

-- ==== reading

-- name: read
-- A part of a log, by the run's id.
SELECT position, type, key, time, CAST(body AS BLOB) FROM events
WHERE run = (SELECT row FROM runs WHERE run = ?1) AND position > ?2 ORDER BY position LIMIT ?3;

-- name: since
-- A part of a log, by the run's id, with the hash of the log where an append ends.
SELECT position, type, key, time, CAST(body AS BLOB), chain FROM events
WHERE run = (SELECT row FROM runs WHERE run = ?1) AND position > ?2 ORDER BY position LIMIT ?3;

-- name: tail
-- When a run ended, and then the last of its log: no row for no run, one without an event for one that goes on.
SELECT r.ended, e.position, e.type, e.key, e.time, CAST(e.body AS BLOB)
FROM runs AS r LEFT JOIN events AS e ON e.run = r.row AND r.ended IS NOT NULL AND e.position > r.position - 4
WHERE r.run = ?1 ORDER BY e.position;

-- name: chain
-- Last position, hash and fence of each append of a run.
SELECT position, chain, fence FROM events
WHERE run = (SELECT row FROM runs WHERE run = ?1) AND position > ?2 AND chain IS NOT NULL
ORDER BY position LIMIT ?3;

-- name: list_runs
-- A page of all runs, newest first.
SELECT run, workflow, status, position, time, chain, command, fact, delivered, steps, timers, children,
       created, ended, attributes, owner, parked, crashes, parent, root, row
FROM runs
WHERE created <= :created AND (created, run) < (:created, :run)
  AND (:parked IS NULL OR (parked IS NOT NULL) = :parked)
  AND (:attributes IS NULL OR NOT EXISTS (
        SELECT 1 FROM json_each(:attributes) AS want WHERE NOT EXISTS (
          SELECT 1 FROM json_each(runs.attributes) AS has WHERE has.key = want.key AND has.value = want.value)))
ORDER BY created DESC, run DESC LIMIT :limit;

-- name: list_runs_by_status
-- A page of the runs with one status (and, where given, one workflow), newest first.
SELECT run, workflow, status, position, time, chain, command, fact, delivered, steps, timers, children,
       created, ended, attributes, owner, parked, crashes, parent, root, row
FROM runs
WHERE status = :status AND created <= :created AND (created, run) < (:created, :run)
  AND (:workflow IS NULL OR workflow = :workflow)
  AND (:parked IS NULL OR (parked IS NOT NULL) = :parked)
  AND (:attributes IS NULL OR NOT EXISTS (
        SELECT 1 FROM json_each(:attributes) AS want WHERE NOT EXISTS (
          SELECT 1 FROM json_each(runs.attributes) AS has WHERE has.key = want.key AND has.value = want.value)))
ORDER BY created DESC, run DESC LIMIT :limit;

-- name: list_runs_by_workflow
-- A page of the runs of one workflow, newest first.
SELECT run, workflow, status, position, time, chain, command, fact, delivered, steps, timers, children,
       created, ended, attributes, owner, parked, crashes, parent, root, row
FROM runs
WHERE workflow = :workflow AND created <= :created AND (created, run) < (:created, :run)
  AND (:parked IS NULL OR (parked IS NOT NULL) = :parked)
  AND (:attributes IS NULL OR NOT EXISTS (
        SELECT 1 FROM json_each(:attributes) AS want WHERE NOT EXISTS (
          SELECT 1 FROM json_each(runs.attributes) AS has WHERE has.key = want.key AND has.value = want.value)))
ORDER BY created DESC, run DESC LIMIT :limit;

-- name: list_parked
-- A page of the parked runs, newest first.
SELECT run, workflow, status, position, time, chain, command, fact, delivered, steps, timers, children,
       created, ended, attributes, owner, parked, crashes, parent, root, row
FROM runs
WHERE parked IS NOT NULL AND created <= :created AND (created, run) < (:created, :run)
  AND (:status IS NULL OR status = :status) AND (:workflow IS NULL OR workflow = :workflow)
  AND (:attributes IS NULL OR NOT EXISTS (
        SELECT 1 FROM json_each(:attributes) AS want WHERE NOT EXISTS (
          SELECT 1 FROM json_each(runs.attributes) AS has WHERE has.key = want.key AND has.value = want.value)))
ORDER BY created DESC, run DESC LIMIT :limit;

-- name: list_runs_by_parent
-- A page of the child runs of one run, newest first.
SELECT run, workflow, status, position, time, chain, command, fact, delivered, steps, timers, children,
       created, ended, attributes, owner, parked, crashes, parent, root, row
FROM runs
WHERE parent = :parent AND created <= :created AND (created, run) < (:created, :run)
  AND (:status IS NULL OR status = :status) AND (:workflow IS NULL OR workflow = :workflow)
  AND (:parked IS NULL OR (parked IS NOT NULL) = :parked)
  AND (:root IS NULL OR :root IN (root, run))
  AND (:attributes IS NULL OR NOT EXISTS (
        SELECT 1 FROM json_each(:attributes) AS want WHERE NOT EXISTS (
          SELECT 1 FROM json_each(runs.attributes) AS has WHERE has.key = want.key AND has.value = want.value)))
ORDER BY created DESC, run DESC LIMIT :limit;

-- name: list_runs_by_root
-- A page of a run and all that is below it, newest first.
SELECT run, workflow, status, position, time, chain, command, fact, delivered, steps, timers, children,
       created, ended, attributes, owner, parked, crashes, parent, root, row
FROM runs
WHERE root = :root AND created <= :created AND (created, run) < (:created, :run)
  AND (:status IS NULL OR status = :status) AND (:workflow IS NULL OR workflow = :workflow)
  AND (:parked IS NULL OR (parked IS NOT NULL) = :parked)
  AND (:attributes IS NULL OR NOT EXISTS (
        SELECT 1 FROM json_each(:attributes) AS want WHERE NOT EXISTS (
          SELECT 1 FROM json_each(runs.attributes) AS has WHERE has.key = want.key AND has.value = want.value)))
UNION ALL
SELECT run, workflow, status, position, time, chain, command, fact, delivered, steps, timers, children,
       created, ended, attributes, owner, parked, crashes, parent, root, row
FROM runs
WHERE run = :root AND created <= :created AND (created, run) < (:created, :run)
  AND (:status IS NULL OR status = :status) AND (:workflow IS NULL OR workflow = :workflow)
  AND (:parked IS NULL OR (parked IS NOT NULL) = :parked)
  AND (:attributes IS NULL OR NOT EXISTS (
        SELECT 1 FROM json_each(:attributes) AS want WHERE NOT EXISTS (
          SELECT 1 FROM json_each(runs.attributes) AS has WHERE has.key = want.key AND has.value = want.value)))
ORDER BY created DESC, run DESC LIMIT :limit;

-- name: tally
-- How many runs of each workflow and status, and how many of them are parked.
SELECT workflow, status, count(*), count(parked) FROM runs GROUP BY workflow, status;

-- name: list_hooks
-- A page of hooks by token, run and key.
SELECT token, runs.run, key, hooks.status, opened, schema, metadata
FROM hooks JOIN runs ON runs.row = hooks.run
WHERE token >= :after_token AND (token, runs.run) > (:after_token, :after_run)
  AND (:open_only = 0 OR hooks.status = 'open')
ORDER BY token, runs.run, hooks.row LIMIT :limit;

-- name: list_hooks_by_token
-- A page of the hooks with one token.
SELECT token, runs.run, key, hooks.status, opened, schema, metadata
FROM hooks JOIN runs ON runs.row = hooks.run
WHERE token = :token AND (token, runs.run) > (:after_token, :after_run)
  AND (:run IS NULL OR runs.run = :run) AND (:open_only = 0 OR hooks.status = 'open')
ORDER BY runs.run, hooks.row LIMIT :limit;

-- name: receiver
-- The open hook that gets the payloads for a token: the newest.
SELECT token, runs.run, key, hooks.status, opened, schema, metadata
FROM hooks JOIN runs ON runs.row = hooks.run
WHERE token = ?1 AND hooks.status = 'open' ORDER BY hooks.row DESC LIMIT 1;

-- name: list_hooks_by_run
-- A page of the hooks of one run.
SELECT token, runs.run, key, hooks.status, opened, schema, metadata
FROM runs JOIN hooks ON hooks.run = runs.row
WHERE runs.run = :run AND (token, runs.run) > (:after_token, :after_run)
  AND (:open_only = 0 OR hooks.status = 'open')
ORDER BY token, hooks.row LIMIT :limit;

-- name: list_timers
-- Pending timers of all runs, the earliest first.
SELECT runs.run, key, due FROM timers JOIN runs ON runs.row = timers.run
ORDER BY due, runs.run, key LIMIT :limit;

-- name: list_timers_by_run
-- Pending timers of one run, the earliest first.
SELECT runs.run, key, due FROM runs JOIN timers ON timers.run = runs.row
WHERE runs.run = :run ORDER BY due, key LIMIT :limit;

-- name: open_steps
-- The steps of a run that owe an outcome, by the run's id.
SELECT key, attempt, due, queue FROM steps WHERE run = (SELECT row FROM runs WHERE run = ?1) ORDER BY key;

-- name: open_children
-- The child runs of which a run has not heard the end, by its id.
SELECT parent.run, key, child, children.position, children.status,
       EXISTS (SELECT 1 FROM runs AS there WHERE there.run = children.child AND there.ended IS NOT NULL)
FROM runs AS parent JOIN children ON children.run = parent.row WHERE parent.run = ?1 ORDER BY key;

-- name: strays
-- How many rows of each table belong to no run; reads the whole file, for `verify` alone.
SELECT name, count(*) FROM (
    SELECT 'events' AS name, run FROM events UNION ALL SELECT 'steps', run FROM steps
    UNION ALL SELECT 'timers', run FROM timers UNION ALL SELECT 'hooks', run FROM hooks
    UNION ALL SELECT 'deliveries', run FROM deliveries UNION ALL SELECT 'children', run FROM children
    UNION ALL SELECT 'streams', run FROM streams
    UNION ALL SELECT 'chunks', (SELECT streams.run FROM streams WHERE streams.row = chunks.stream) FROM chunks)
WHERE run IS NULL OR run NOT IN (SELECT row FROM runs) GROUP BY name ORDER BY name;

-- ==== streams

-- name: stream_run
-- A stream's run: its row, and whether it has ended.
SELECT row, ended IS NOT NULL FROM runs WHERE run = ?1;

-- name: author
-- The attempt of a step that owes an outcome, by its run's id.
SELECT attempt, due FROM steps WHERE run = (SELECT row FROM runs WHERE run = ?1) AND key = ?2;

-- name: stream
-- A stream's row, by the run's id, in the order of the fields of `StreamHead`.
SELECT runs.run, streams.name, streams.position, size, streams.time, streams.ended, streams.chain, step, attempt,
       attempts, streams.row
FROM runs JOIN streams ON streams.run = runs.row WHERE runs.run = ?1 AND streams.name = ?2;

-- name: streams
-- The rows of all streams of a run.
SELECT runs.run, streams.name, streams.position, size, streams.time, streams.ended, streams.chain, step, attempt,
       attempts, streams.row
FROM runs JOIN streams ON streams.run = runs.row WHERE runs.run = ?1 ORDER BY streams.row;

-- name: chunk_key
-- Where the chunk with this key stands.
SELECT key, position FROM chunks WHERE stream = ?1 AND key = ?2;

-- name: chunk_batch
-- First and last position of what was written under this batch id.
SELECT first, position FROM chunks WHERE stream = ?1 AND batch = ?2;

-- name: create_stream
-- A stream's row, at its first chunks.
INSERT INTO streams (run, name, position, size, time, ended, chain, step, attempt, attempts)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) RETURNING row;

-- name: advance_stream
-- A stream has grown.
UPDATE streams SET position = ?2, size = ?3, time = ?4, ended = ?5, chain = ?6, step = ?7, attempt = ?8,
    attempts = ?9
WHERE row = ?1;

-- name: add_chunk
-- One chunk of a stream.
INSERT INTO chunks (stream, position, kind, body, time, step, attempt, key, batch, first)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10);

-- name: read_stream
-- A part of a stream, by the run's id.
SELECT position, kind, CAST(body AS BLOB), time, step, attempt, key FROM chunks
WHERE stream = (
    SELECT streams.row FROM runs JOIN streams ON streams.run = runs.row WHERE runs.run = ?1 AND streams.name = ?2)
  AND position > ?3 ORDER BY position LIMIT ?4;

-- ==== who works on what

-- name: put_worker
-- A worker joins, or moves its lease on.
INSERT INTO workers (id, pid, host, expires, counters) VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (id) DO UPDATE SET pid = excluded.pid, host = excluded.host, expires = excluded.expires,
    counters = excluded.counters;

-- name: renew_worker
-- A worker that is enlisted moves its lease on.
UPDATE workers SET expires = ?2, counters = ?3 WHERE id = ?1;

-- name: anything_to_do
-- Whether there may be something to do that a worker missed: what a quiet worker asks. Nothing is looked at where
-- nothing was committed since the version that it saw last.
SELECT data_version, data_version <> ?2 AND (
    EXISTS (SELECT 1 FROM runs WHERE owner IS NULL AND ready)
    OR EXISTS (SELECT 1 FROM runs WHERE owner = ?1 AND (fact > delivered OR children > 0))
    OR EXISTS (SELECT 1 FROM steps WHERE queue IS NOT NULL AND holder IS NULL)
    OR EXISTS (SELECT 1 FROM children WHERE orphan))
FROM pragma_data_version;

-- name: any_free
-- Whether a worker is enlisted, and whether a run of these workflows is free and ready: what a quiet worker
-- asks, without a write lock.
SELECT EXISTS (SELECT 1 FROM workers WHERE id = ?1), EXISTS (
    SELECT 1 FROM json_each(?2) AS named CROSS JOIN runs
    WHERE runs.workflow = named.value AND runs.owner IS NULL AND runs.ready);

-- name: worker
-- Whether a worker is enlisted.
SELECT 1 FROM workers WHERE id = ?1;

-- name: workers
-- All workers, and the owners of runs that are not enlisted, with a lease that has run out. From owner to owner by
-- the index, however many runs each has.
WITH RECURSIVE owners (id) AS (
    SELECT min(owner) FROM runs WHERE owner IS NOT NULL
    UNION ALL
    SELECT (SELECT min(owner) FROM runs WHERE owner > owners.id) FROM owners WHERE owners.id IS NOT NULL
)
SELECT id, pid, host, expires, counters FROM workers
UNION ALL
SELECT id, 0, '', 0, '{}' FROM owners WHERE id IS NOT NULL AND id NOT IN (SELECT id FROM workers)
ORDER BY id;

-- name: drop_worker
-- A worker is gone.
DELETE FROM workers WHERE id = ?1;

-- name: free_runs
-- Free the runs of a worker that is gone.
UPDATE runs SET owner = NULL WHERE owner = ?1
RETURNING run, ready;

-- name: claim
-- Give a worker free runs that are ready, the oldest of each workflow first.
UPDATE runs SET owner = ?1 WHERE row IN (
    SELECT candidate.row FROM json_each(?2) AS named CROSS JOIN runs AS candidate
    WHERE candidate.row IN (
        SELECT row FROM runs AS free
        WHERE free.workflow = named.value AND free.owner IS NULL AND free.ready ORDER BY row LIMIT ?3)
    ORDER BY candidate.row LIMIT ?3)
RETURNING row, run, workflow, status = 'pending' OR fact > delivered OR steps > 0 OR children > 0,
    (SELECT min(due) FROM timers WHERE timers.run = runs.row), crashes;

-- name: claim_parked
-- Take up parked runs, the oldest first; but not what killed or blocked its workers.
UPDATE runs SET owner = ?1, parked = NULL WHERE row IN (
    SELECT row FROM runs
    WHERE parked IS NOT NULL AND ended IS NULL AND owner IS NULL
      AND coalesce(json_extract(parked, '$.kind'), '') <> 'runaway'
      AND workflow IN (SELECT value FROM json_each(?2))
    ORDER BY row LIMIT ?3)
RETURNING row, run, workflow, 1, (SELECT min(due) FROM timers WHERE timers.run = runs.row), crashes;

-- name: release
-- Free a run again, with the position up to which its worker delivered every fact.
UPDATE runs SET owner = NULL, delivered = max(delivered, ?3) WHERE run = ?2 AND owner = ?1
RETURNING run, ready;

-- name: park
-- Set a run aside, or take it up again.
UPDATE runs SET parked = ?2, owner = NULL, crashes = 0 WHERE run = ?1 AND ended IS NULL
RETURNING run, ready;

-- name: crashed
-- Count one more crash of a tick.
UPDATE runs SET crashes = crashes + 1 WHERE run = ?1 RETURNING crashes;

-- name: owned
-- The live runs of a worker.
SELECT run, workflow, status = 'pending' OR fact > delivered OR steps > 0 OR children > 0,
    (SELECT min(due) FROM timers WHERE timers.run = runs.row), crashes
FROM runs WHERE owner = ?1 AND ended IS NULL ORDER BY row;

-- name: behind
-- The runs of a worker whose log holds facts beyond the delivered mark.
SELECT run, fact FROM runs WHERE owner = ?1 AND fact > delivered ORDER BY row;

-- name: ended_children
-- The children of a worker's runs that have ended, of which their parents have not heard.
SELECT parent.run, key, child, children.position, children.status, 1
FROM runs AS parent
JOIN children ON children.run = parent.row
JOIN runs AS there ON there.run = children.child
WHERE parent.owner = ?1 AND parent.children > 0 AND there.ended IS NOT NULL;

-- name: orphans
-- Children whose parent has ended, and that nobody has seen to.
SELECT parent.run, key, child, children.position, children.status,
       EXISTS (SELECT 1 FROM runs AS there WHERE there.run = children.child AND there.ended IS NOT NULL)
FROM children INDEXED BY children_orphaned JOIN runs AS parent ON parent.row = children.run
WHERE orphan LIMIT ?1;

-- name: bury_orphan
-- An orphan has been seen to.
DELETE FROM children WHERE run = (SELECT row FROM runs WHERE run = ?1) AND key = ?2 AND orphan;

-- ==== removing

-- name: leaving
-- Of these runs, those that ended before a time: what names others of their chains or a due time, and who needs
-- them. A run that continues says so in its last command.
SELECT run, row, position,
    (SELECT CAST(body AS BLOB) FROM events
     WHERE events.run = runs.row AND events.position = 1 AND (instr(body, '"previous":') OR instr(body, '"due":'))),
    (SELECT CAST(body AS BLOB) FROM events
     WHERE events.run = runs.row AND events.position = runs.command AND instr(body, '"continued":')),
    EXISTS (SELECT 1 FROM children WHERE children.run = runs.row),
    EXISTS (SELECT 1 FROM runs AS above JOIN children ON children.run = above.row
            WHERE above.run = runs.parent AND children.child = runs.run),
    (SELECT since FROM schedules WHERE schedules.workflow = runs.workflow)
FROM runs WHERE run IN (SELECT value FROM json_each(?1)) AND ended < ?2;

-- name: present
-- Which of these runs are there.
SELECT run FROM runs WHERE run IN (SELECT value FROM json_each(?1));

-- name: remove_chunks
-- The chunks of runs that go.
DELETE FROM chunks WHERE stream IN (
    SELECT streams.row FROM streams WHERE streams.run IN (SELECT value FROM json_each(?1)));

-- name: remove_streams
-- Their streams.
DELETE FROM streams WHERE run IN (SELECT value FROM json_each(?1));

-- name: remove_deliveries
-- The payloads that they took under an id: found by their events, which have the same keys.
DELETE FROM deliveries WHERE uniq IN (
    SELECT events.uniq FROM events
    WHERE events.run IN (SELECT value FROM json_each(?1)) AND events.type = 'hook_received'
      AND events.uniq IS NOT NULL)
  AND run IN (SELECT value FROM json_each(?1));

-- name: remove_events
-- Their logs.
DELETE FROM events WHERE run IN (SELECT value FROM json_each(?1));

-- name: remove_hooks
-- Their hooks, which have closed.
DELETE FROM hooks WHERE run IN (SELECT value FROM json_each(?1));

-- name: remove_steps
-- Ended runs have none, whatever happened.
DELETE FROM steps WHERE run IN (SELECT value FROM json_each(?1));

-- name: remove_timers
-- Nor these.
DELETE FROM timers WHERE run IN (SELECT value FROM json_each(?1));

-- name: remove_runs
-- Their rows.
DELETE FROM runs WHERE row IN (SELECT value FROM json_each(?1));

-- name: data_version
-- A number that is another one after each commit of another connection.
PRAGMA data_version;

-- ==== who may call a server

-- name: tokens
-- Every token, by its hash.
SELECT id, scope, hash, created, note FROM tokens ORDER BY created, id;

-- name: put_token
-- One more token.
INSERT INTO tokens (id, scope, hash, created, note) VALUES (?1, ?2, ?3, ?4, ?5);

-- name: drop_token
-- Forget a token.
DELETE FROM tokens WHERE id = ?1 RETURNING id;

-- ==== queues

-- name: any_waiting
-- When the first of the steps that wait in these queues may start; NULL where none waits.
SELECT min(coalesce(due, 0)) FROM steps
WHERE queue IN (SELECT value FROM json_each(?1)) AND holder IS NULL;

-- name: running
-- How many attempts hold a place in a queue, by limit key.
SELECT limit_key, count(*) FROM steps WHERE queue = ?1 AND holder IS NOT NULL GROUP BY limit_key;

-- name: waiting
-- The steps of a queue that may be taken, the best first.
SELECT runs.run, key, attempt, due, limit_key, steps.position FROM steps JOIN runs ON runs.row = steps.run
WHERE queue = :queue AND holder IS NULL AND (due IS NULL OR due <= :now)
  AND name IN (SELECT value FROM json_each(:names))
  AND (limit_key IS NULL OR limit_key NOT IN (SELECT value FROM json_each(:full)))
ORDER BY priority DESC, asked, steps.run, steps.position LIMIT :limit;

-- name: next_retry
-- When the next retry of a queue is due.
SELECT min(due) FROM steps WHERE queue = ?1 AND holder IS NULL AND due > ?2;

-- name: hold_step
-- A worker takes a step.
UPDATE steps SET holder = ?1 WHERE run = (SELECT row FROM runs WHERE run = ?2) AND key = ?3;

-- name: put_back_step
-- A worker gives up a step that it has taken.
UPDATE steps SET holder = NULL
WHERE run = (SELECT row FROM runs WHERE run = ?2) AND key = ?3 AND holder = ?1 RETURNING key;

-- name: put_back_steps
-- A worker is gone: what it has taken waits again.
UPDATE steps SET holder = NULL WHERE holder = ?1 RETURNING key;

-- name: held
-- What a worker has taken.
SELECT runs.run, key, attempt, due, limit_key, steps.position FROM steps JOIN runs ON runs.row = steps.run
WHERE holder = ?1 ORDER BY steps.run, steps.position;

-- name: queues
-- How many steps wait and run in each queue, and since when the oldest waits.
SELECT queue, sum(holder IS NULL), count(holder), min(CASE WHEN holder IS NULL THEN asked END)
FROM steps WHERE queue IS NOT NULL GROUP BY queue ORDER BY queue;

-- name: starts
-- Recent starts in a queue.
SELECT time FROM queue_starts WHERE queue = ?1 AND time > ?2 ORDER BY time;

-- name: drop_starts
-- Starts that no rate counts any more.
DELETE FROM queue_starts WHERE queue = ?1 AND time <= ?2;

-- name: add_start
-- One more start.
INSERT INTO queue_starts (queue, time) VALUES (?1, ?2);

-- name: schedules
-- The schedules, in the order of the fields of `ScheduleRow`.
SELECT workflow, cron, timezone, missed, since, paused, keeper FROM schedules ORDER BY workflow;

-- name: add_schedule
-- A schedule where its workflow has none.
INSERT INTO schedules (workflow, cron, timezone, missed, since, paused, keeper)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING RETURNING workflow;

-- name: change_schedule
-- A schedule as it is to be, where it is as it was believed to be.
UPDATE schedules
SET cron = ?8, timezone = ?9, missed = ?10, since = ?11, paused = ?12, keeper = ?13
WHERE workflow = ?1 AND cron = ?2 AND timezone = ?3 AND missed = ?4 AND since = ?5
  AND paused = ?6 AND keeper IS ?7 RETURNING workflow;

-- name: drop_schedule
-- A schedule away, where it is as it was believed to be.
DELETE FROM schedules WHERE workflow = ?1 AND cron = ?2 AND timezone = ?3 AND missed = ?4 AND since = ?5
  AND paused = ?6 AND keeper IS ?7 RETURNING workflow;

-- ==== the schema's history

-- name: tables
-- What the file holds.
SELECT name FROM sqlite_schema WHERE type = 'table';

-- name: create_migrations
-- The table of the migrations that this file has had.
CREATE TABLE migrations (
    number   INTEGER NOT NULL PRIMARY KEY,
    name     TEXT    NOT NULL,
    checksum TEXT    NOT NULL,
    applied  INTEGER NOT NULL
);

-- name: migrations
-- The migrations that this file has had.
SELECT number, name, checksum FROM migrations ORDER BY number;

-- name: add_migration
-- One more migration.
INSERT INTO migrations (number, name, checksum, applied) VALUES (?1, ?2, ?3, ?4);

-- ==== a look for `holdfast top`: each part goes through an index and stops at so many rows

-- name: gauge
-- Runs by status, parked ones, those created since, and the place of the last event.
SELECT
    (SELECT count(*) FROM (SELECT 1 FROM runs WHERE status = 'pending' LIMIT ?1) AS pending),
    (SELECT count(*) FROM (SELECT 1 FROM runs WHERE status = 'running' LIMIT ?1) AS running),
    (SELECT count(*) FROM (SELECT 1 FROM runs WHERE status = 'completed' LIMIT ?1) AS completed),
    (SELECT count(*) FROM (SELECT 1 FROM runs WHERE status = 'failed' LIMIT ?1) AS failed),
    (SELECT count(*) FROM (SELECT 1 FROM runs WHERE status = 'cancelled' LIMIT ?1) AS cancelled),
    (SELECT count(*) FROM (SELECT 1 FROM runs WHERE parked IS NOT NULL LIMIT ?1) AS parked),
    (SELECT count(*) FROM (SELECT 1 FROM runs WHERE created > ?2 LIMIT ?1) AS started),
    (SELECT coalesce(max(rowid), 0) FROM events);

-- name: gauge_steps
-- How many of the latest events are outcomes of steps.
SELECT count(*) FROM events WHERE rowid > ?1 AND rowid <= ?2 AND type IN ('step_completed', 'step_failed');

-- name: gauge_oldest
-- The oldest run of each status that is no end.
SELECT run, created FROM (
    SELECT run, created FROM runs WHERE status = 'pending' ORDER BY created LIMIT 1)
UNION ALL SELECT run, created FROM (
    SELECT run, created FROM runs WHERE status = 'running' ORDER BY created LIMIT 1);

-- name: gauge_free
-- Of the runs that have work to do and no worker, the one to which nothing has happened for longest.
SELECT run, time FROM (
    SELECT run, time FROM runs INDEXED BY runs_free WHERE owner IS NULL AND ready LIMIT ?1)
ORDER BY time LIMIT 1;

-- name: gauge_undelivered
-- The oldest fact that no code has seen yet.
SELECT live.run, events.time
FROM (SELECT row, run, delivered, fact, parked FROM runs WHERE status = 'running' LIMIT ?1) AS live
JOIN events ON events.run = live.row AND events.position > live.delivered AND events.position <= live.fact
WHERE live.parked IS NULL AND live.fact > live.delivered
  AND events.type IN ('step_completed', 'step_failed', 'timer_fired', 'hook_received', 'hook_refused',
                      'cancel_requested', 'woken', 'child_ended')
ORDER BY events.time LIMIT 1;

-- name: gauge_workers
-- All workers, with how many runs each owns and how many steps of queues it holds.
SELECT id, pid, host, expires, counters,
    (SELECT count(*) FROM (SELECT 1 FROM runs WHERE owner = workers.id LIMIT ?1)), coalesce(held, 0)
FROM workers LEFT JOIN (
    SELECT holder, count(*) AS held FROM steps INDEXED BY steps_held WHERE holder IS NOT NULL GROUP BY holder
) ON holder = id
ORDER BY id;
