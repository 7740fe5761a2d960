-- Every statement that the PostgreSQL store runs, by name.

-- Plans are made once, perhaps while the tables are empty (see `Line`). So where rows are looked up for what is given
-- in arrays, it is in a LATERAL subquery with OFFSET 0: no plan but one look into the index for each element.

-- ==== transactions

-- name: begin
-- Each statement sees what is committed when it begins, so what is read behind a lock is true.
BEGIN ISOLATION LEVEL READ COMMITTED;

-- name: commit
-- Make it durable.
COMMIT;

-- name: rollback
-- Forget it.
ROLLBACK;

-- name: plan_anew
-- Until this transaction is over, plan each statement for its values.
SELECT set_config('plan_cache_mode', 'auto', true);

-- name: plan_again
-- The tables have grown since.
DISCARD PLANS;

-- name: compress_quickly
-- Where the server has LZ4, and nobody chose how it compresses large values: with that.
SELECT set_config(name, 'lz4', false) FROM pg_settings
WHERE name = 'default_toast_compression' AND source = 'default' AND 'lz4' = ANY (enumvals);

-- ==== writing a group

-- Rows come as columns, each one text (`columns.py`). Numbers are an array's literal; behind each text stands a mark,
-- $1 ($2 is for NULL), so that there is one row more, without a run. `unnest` stands behind SELECT, for behind FROM
-- it keeps a copy of each column, and that takes twice as long.

-- name: write_group
-- The fenced append of a whole group in one round trip. Each run's row moves on if its log is still the one
-- that the verdict was judged on (`before`, its hash) and if the writer's clock ($3; none in a test's own
-- time, or behind locks) is within a second of ours; a new run's row is made if its name is free. Only what
-- belongs to the runs so accepted is written, and their rows come back. Others hear of it when it commits.
WITH moved AS (
    UPDATE holdfast.runs SET
        position = g.position, time = g.time, chain = decode(g.chain, 'hex'), command = g.command, fact = g.fact,
        delivered = greatest(runs.delivered, g.delivered), steps = g.steps, timers = g.timers,
        children = g.children, crashes = CASE WHEN g.acts THEN 0 ELSE runs.crashes END,
        attributes = coalesce(g.attributes, runs.attributes), status = g.status, ended = g.ended,
        owner = CASE WHEN g.ended IS NULL THEN runs.owner END,
        parked = CASE WHEN g.ended IS NULL THEN runs.parked END
    FROM (
        SELECT unnest($6::text::bigint[]) AS id, unnest(string_to_array($7, $1, $2)) AS before,
            unnest($8::text::integer[]) AS position, unnest($9::text::bigint[]) AS time,
            unnest(string_to_array($10, $1, $2)) AS chain, unnest($11::text::integer[]) AS command,
            unnest($12::text::integer[]) AS fact, unnest($13::text::integer[]) AS delivered,
            unnest($14::text::integer[]) AS steps, unnest($15::text::integer[]) AS timers,
            unnest($16::text::integer[]) AS children, unnest($17::text::boolean[]) AS acts,
            unnest(string_to_array($18, $1, $2)) AS attributes, unnest(string_to_array($19, $1, $2)) AS status,
            unnest($20::text::bigint[]) AS ended
    ) AS g
    WHERE runs.id = g.id AND runs.chain = decode(g.before, 'hex')
      AND ($3::bigint IS NULL
           OR (SELECT abs(extract(epoch FROM clock_timestamp()) * 1000000 - $3) < 1000000))
    RETURNING runs.id, runs.run, runs.owner, runs.ready
), made AS (
    INSERT INTO holdfast.runs (id, run, workflow, status, position, time, chain, command, fact, delivered,
                               steps, timers, children, created, ended, attributes, owner, parent, root)
    SELECT g.id, run, workflow, status, position, time, decode(chain, 'hex'), command, fact, delivered,
        steps, timers, children, created, ended, attributes, owner, parent, root
    FROM (
        SELECT unnest($21::text::bigint[]) AS id, unnest(string_to_array($22, $1, $2)) AS run,
            unnest(string_to_array($23, $1, $2)) AS workflow, unnest(string_to_array($24, $1, $2)) AS status,
            unnest($25::text::integer[]) AS position, unnest($26::text::bigint[]) AS time,
            unnest(string_to_array($27, $1, $2)) AS chain, unnest($28::text::integer[]) AS command,
            unnest($29::text::integer[]) AS fact, unnest($30::text::integer[]) AS delivered,
            unnest($31::text::integer[]) AS steps, unnest($32::text::integer[]) AS timers,
            unnest($33::text::integer[]) AS children, unnest($34::text::bigint[]) AS created,
            unnest($35::text::bigint[]) AS ended, unnest(string_to_array($36, $1, $2)) AS attributes,
            unnest(string_to_array($37, $1, $2)) AS owner, unnest(string_to_array($38, $1, $2)) AS parent,
            unnest(string_to_array($39, $1, $2)) AS root
    ) AS g
    WHERE g.id IS NOT NULL
      AND ($3::bigint IS NULL
           OR (SELECT abs(extract(epoch FROM clock_timestamp()) * 1000000 - $3) < 1000000))
    ON CONFLICT DO NOTHING
    RETURNING id, run, owner, ready
), accepted AS (
    SELECT * FROM moved UNION ALL SELECT * FROM made
), logged AS (
    INSERT INTO holdfast.events (run, position, type, key, time, body, uniq, chain, batch, first, fence)
    SELECT e.run, position, type, key, time, body, uniq, decode(nullif(chain, ''), 'hex'),
        CASE WHEN first IS NOT NULL THEN batch END, first, fence
    FROM (
        SELECT unnest($40::text::bigint[]) AS run, unnest($41::text::integer[]) AS position,
            unnest(string_to_array($42, $1, $2)) AS type, unnest(string_to_array($43, $1, $2)) AS key,
            unnest($44::text::bigint[]) AS time, unnest(string_to_array($45, $1, $2)) AS body,
            unnest(string_to_array($46, $1, $2)) AS uniq, unnest(string_to_array($47, $1, $2)) AS chain,
            unnest(string_to_array($48, $1, $2)) AS batch, unnest($49::text::integer[]) AS first,
            unnest($50::text::integer[]) AS fence
    ) AS e
    WHERE e.run IN (SELECT id FROM accepted)
), put_steps AS (
    INSERT INTO holdfast.steps (run, key, attempt, due)
    SELECT s.* FROM (
        SELECT unnest($51::text::bigint[]) AS run, unnest(string_to_array($52, $1, $2)) AS key,
            unnest($53::text::integer[]) AS attempt, unnest($54::text::bigint[]) AS due
    ) AS s
    WHERE s.run IN (SELECT id FROM accepted)
    ON CONFLICT (run, key) DO UPDATE SET attempt = excluded.attempt, due = excluded.due,
        holder = CASE WHEN excluded.due IS NULL THEN steps.holder END
), dropped_steps AS (
    DELETE FROM holdfast.steps USING (
        SELECT * FROM (SELECT unnest($55::text::bigint[]) AS run, unnest(string_to_array($56, $1, $2)) AS key) AS d
        WHERE run IN (SELECT id FROM accepted) OFFSET 0
    ) AS d
    WHERE steps.run = d.run AND steps.key = d.key
), put_timers AS (
    INSERT INTO holdfast.timers (run, key, due)
    SELECT t.* FROM (
        SELECT unnest($57::text::bigint[]) AS run, unnest(string_to_array($58, $1, $2)) AS key,
            unnest($59::text::bigint[]) AS due
    ) AS t
    WHERE t.run IN (SELECT id FROM accepted)
), dropped_timers AS (
    DELETE FROM holdfast.timers USING (
        SELECT * FROM (SELECT unnest($60::text::bigint[]) AS run, unnest(string_to_array($61, $1, $2)) AS key) AS d
        WHERE run IN (SELECT id FROM accepted) OFFSET 0
    ) AS d
    WHERE timers.run = d.run AND timers.key = d.key
), put_children AS (
    INSERT INTO holdfast.children (run, key, child, position, status, orphan)
    SELECT c.* FROM (
        SELECT unnest($62::text::bigint[]) AS run, unnest(string_to_array($63, $1, $2)) AS key,
            unnest(string_to_array($64, $1, $2)) AS child, unnest($65::text::integer[]) AS position,
            unnest(string_to_array($66, $1, $2)) AS status, unnest($67::text::boolean[]) AS orphan
    ) AS c
    WHERE c.run IN (SELECT id FROM accepted)
    ON CONFLICT (run, key) DO UPDATE SET status = excluded.status, orphan = excluded.orphan
), dropped_children AS (
    DELETE FROM holdfast.children USING (
        SELECT * FROM (SELECT unnest($68::text::bigint[]) AS run, unnest(string_to_array($69, $1, $2)) AS key) AS d
        WHERE run IN (SELECT id FROM accepted) OFFSET 0
    ) AS d
    WHERE children.run = d.run AND children.key = d.key
), over AS (
    SELECT e.id, e.continued FROM (
        SELECT unnest($72::text::bigint[]) AS id, unnest($73::text::boolean[]) AS continued
    ) AS e
    JOIN accepted USING (id)
), ended_steps AS (
    -- No join with `over`: a plan for that reads the whole table, and of steps most rows in it are dead.
    DELETE FROM holdfast.steps WHERE run = ANY (ARRAY(SELECT id FROM over))
), ended_timers AS (
    DELETE FROM holdfast.timers WHERE run = ANY (ARRAY(SELECT id FROM over))
), orphaned_children AS (
    -- One statement changes a row once: those that it puts or drops are left to that.
    UPDATE holdfast.children SET orphan = true WHERE run = ANY (ARRAY(SELECT id FROM over)) AND NOT EXISTS (
        SELECT 1 FROM (SELECT unnest($70::text::bigint[]) AS run, unnest(string_to_array($71, $1, $2)) AS key) AS t
        WHERE t.run = children.run AND t.key = children.key)
), ended_hooks AS (
    -- Open ones, then; by this word for it no plan looks through all open hooks that there are.
    UPDATE holdfast.hooks SET
        status = CASE WHEN run IN (SELECT id FROM over WHERE continued) THEN 'continued' ELSE 'run_ended' END
    WHERE run = ANY (ARRAY(SELECT id FROM over)) AND status <> 'closed'
), delivered AS (
    INSERT INTO holdfast.deliveries (uniq, run, position, digest)
    SELECT d.* FROM (
        SELECT unnest(string_to_array($77, $1, $2)) AS uniq, unnest($78::text::bigint[]) AS run,
            unnest($79::text::integer[]) AS position, unnest(string_to_array($80, $1, $2)) AS digest
    ) AS d
    WHERE d.run IN (SELECT id FROM accepted)
), news AS (
    SELECT json_build_array(a.run, a.owner, n.fact IS TRUE, n.ended IS TRUE, a.ready, null)::text AS item
    FROM accepted AS a
    LEFT JOIN (
        SELECT unnest($74::text::bigint[]) AS id, unnest($75::text::boolean[]) AS fact,
            unnest($76::text::boolean[]) AS ended
    ) AS n USING (id)
    WHERE n.fact OR n.ended OR $5::boolean OR (a.ready AND (a.owner IS NULL OR a.owner <> ALL ($4::text[])))
), parts AS (
    SELECT item, sum(octet_length(item) + 1) OVER (ROWS UNBOUNDED PRECEDING) / 3900 AS part
    FROM news WHERE octet_length(item) < 3900
), told AS (
    SELECT pg_notify('holdfast', '[' || string_agg(item, ',') || ']') FROM parts GROUP BY part
)
SELECT id, owner, ready, (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint),
    (SELECT count(*) FROM told)
FROM accepted;

-- ==== writing one append, which most groups are: `write_group` without the parts that it does not need. What a
-- statement names costs half a millisecond there, even where it finds nothing to do. Of so few rows arrays are
-- cheaper than text.

-- name: make_run
-- A run begins, with its first steps; it may have ended at once.
WITH made AS (
    INSERT INTO holdfast.runs (id, run, workflow, status, position, time, chain, command, fact, delivered,
                               steps, timers, children, created, ended, attributes, owner, parent, root)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19
    WHERE $20::bigint IS NULL OR abs(extract(epoch FROM clock_timestamp()) * 1000000 - $20) < 1000000
    ON CONFLICT DO NOTHING
    RETURNING id, run, owner, ready
), logged AS (
    INSERT INTO holdfast.events (run, position, type, key, time, body, uniq, chain, batch, first, fence)
    SELECT made.id, e.position, type, key, time, body, uniq, CASE WHEN e.position = $5 THEN $7 END,
        CASE WHEN e.position = $5 THEN $27 END, CASE WHEN e.position = $5 AND $27 IS NOT NULL THEN $21 END,
        CASE WHEN e.position = $5 THEN $28::integer END
    FROM made CROSS JOIN (
        SELECT generate_series($21::integer, $5) AS position, unnest($22::text[]) AS type,
            unnest($23::text[]) AS key, unnest($24::bigint[]) AS time, unnest($25::text[]) AS body,
            unnest($26::text[]) AS uniq
    ) AS e
), put_steps AS (
    INSERT INTO holdfast.steps (run, key, attempt, due)
    SELECT made.id, s.* FROM made CROSS JOIN unnest($29::text[], $30::integer[], $31::bigint[]) AS s
)
SELECT id, owner, ready, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
    CASE WHEN ($32 OR $33 OR ready AND (owner IS NULL OR owner <> ALL ($34::text[]))) AND octet_length(run) < 3000
        THEN pg_notify('holdfast', '[' || json_build_array(run, owner, $32::boolean, $33::boolean, ready, null) || ']')
            IS NULL END
FROM made;

-- name: move_run
-- A run goes on: steps have their outcome, others begin. Others hear of it only if the run is theirs by now.
WITH moved AS (
    UPDATE holdfast.runs SET
        position = $3, time = $4, chain = $5, command = $6, fact = $7, delivered = greatest(delivered, $8),
        steps = $9, timers = $10, children = $11, crashes = CASE WHEN $12::boolean THEN 0 ELSE crashes END,
        attributes = coalesce($13, attributes), status = $14, ended = $15
    WHERE id = $1 AND chain = $2
      AND ($16::bigint IS NULL
           OR abs(extract(epoch FROM clock_timestamp()) * 1000000 - $16) < 1000000)
    RETURNING id, run, owner, ready
), logged AS (
    INSERT INTO holdfast.events (run, position, type, key, time, body, uniq, chain, batch, first, fence)
    SELECT moved.id, e.position, type, key, time, body, uniq, CASE WHEN e.position = $3 THEN $5 END,
        CASE WHEN e.position = $3 THEN $23 END, CASE WHEN e.position = $3 AND $23 IS NOT NULL THEN $17 END,
        CASE WHEN e.position = $3 THEN $24::integer END
    FROM moved CROSS JOIN (
        SELECT generate_series($17::integer, $3) AS position, unnest($18::text[]) AS type,
            unnest($19::text[]) AS key, unnest($20::bigint[]) AS time, unnest($21::text[]) AS body,
            unnest($22::text[]) AS uniq
    ) AS e
), dropped_steps AS (
    DELETE FROM holdfast.steps USING moved WHERE steps.run = moved.id AND steps.key = ANY ($25::text[])
), put_steps AS (
    INSERT INTO holdfast.steps (run, key, attempt, due)
    SELECT moved.id, s.* FROM moved CROSS JOIN unnest($26::text[], $27::integer[], $28::bigint[]) AS s
    ON CONFLICT (run, key) DO UPDATE SET attempt = excluded.attempt, due = excluded.due,
        holder = CASE WHEN excluded.due IS NULL THEN steps.holder END
)
SELECT id, owner, ready, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
    CASE WHEN ready AND (owner IS NULL OR owner <> ALL ($29::text[])) AND octet_length(run) < 3000
        THEN pg_notify('holdfast', '[' || json_build_array(run, owner, false, false, ready, null) || ']') IS NULL END
FROM moved;

-- name: deliver_payload
-- A run gets payloads.
WITH moved AS (
    UPDATE holdfast.runs SET
        position = $3, time = $4, chain = $5, command = $6, fact = $7, delivered = greatest(delivered, $8),
        steps = $9, timers = $10, children = $11, crashes = CASE WHEN $12::boolean THEN 0 ELSE crashes END,
        attributes = coalesce($13, attributes), status = $14, ended = $15
    WHERE id = $1 AND chain = $2
      AND ($16::bigint IS NULL
           OR abs(extract(epoch FROM clock_timestamp()) * 1000000 - $16) < 1000000)
    RETURNING id, run, owner, ready
), logged AS (
    INSERT INTO holdfast.events (run, position, type, key, time, body, uniq, chain, batch, first, fence)
    SELECT moved.id, e.position, type, key, time, body, uniq, CASE WHEN e.position = $3 THEN $5 END,
        CASE WHEN e.position = $3 THEN $23 END, CASE WHEN e.position = $3 AND $23 IS NOT NULL THEN $17 END,
        CASE WHEN e.position = $3 THEN $24::integer END
    FROM moved CROSS JOIN (
        SELECT generate_series($17::integer, $3) AS position, unnest($18::text[]) AS type,
            unnest($19::text[]) AS key, unnest($20::bigint[]) AS time, unnest($21::text[]) AS body,
            unnest($22::text[]) AS uniq
    ) AS e
), delivered AS (
    INSERT INTO holdfast.deliveries (uniq, run, position, digest)
    SELECT d.uniq, moved.id, d.position, d.digest
    FROM moved CROSS JOIN unnest($25::text[], $26::integer[], $27::text[]) AS d (uniq, position, digest)
)
SELECT id, owner, ready, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
    CASE WHEN octet_length(run) < 3000
        THEN pg_notify('holdfast', '[' || json_build_array(run, owner, true, false, ready, null) || ']') IS NULL END
FROM moved;

-- name: end_run
-- A run ends that has neither timers nor children.
WITH moved AS (
    UPDATE holdfast.runs SET
        position = $3, time = $4, chain = $5, command = $6, fact = $7, delivered = greatest(delivered, $8),
        steps = $9, timers = $10, children = $11, crashes = CASE WHEN $12::boolean THEN 0 ELSE crashes END,
        attributes = coalesce($13, attributes), status = $14, ended = $15, owner = NULL, parked = NULL
    WHERE id = $1 AND chain = $2
      AND ($16::bigint IS NULL
           OR abs(extract(epoch FROM clock_timestamp()) * 1000000 - $16) < 1000000)
    RETURNING id, run, owner, ready
), logged AS (
    INSERT INTO holdfast.events (run, position, type, key, time, body, uniq, chain, batch, first, fence)
    SELECT moved.id, e.position, type, key, time, body, uniq, CASE WHEN e.position = $3 THEN $5 END,
        CASE WHEN e.position = $3 THEN $23 END, CASE WHEN e.position = $3 AND $23 IS NOT NULL THEN $17 END,
        CASE WHEN e.position = $3 THEN $24::integer END
    FROM moved CROSS JOIN (
        SELECT generate_series($17::integer, $3) AS position, unnest($18::text[]) AS type,
            unnest($19::text[]) AS key, unnest($20::bigint[]) AS time, unnest($21::text[]) AS body,
            unnest($22::text[]) AS uniq
    ) AS e
), ended_steps AS (
    DELETE FROM holdfast.steps USING moved WHERE steps.run = moved.id
), ended_hooks AS (
    UPDATE holdfast.hooks SET status = CASE WHEN $25::boolean THEN 'continued' ELSE 'run_ended' END
    FROM moved WHERE hooks.run = moved.id AND hooks.status <> 'closed'
)
SELECT id, owner, ready, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
    CASE WHEN octet_length(run) < 3000
        THEN pg_notify('holdfast', '[' || json_build_array(run, owner, $26::boolean, true, ready, null) || ']') IS NULL END
FROM moved;

-- ==== the slow path: locks, look-ups, writes that only it makes

-- name: lock_tokens
-- Hold the tokens that a group names until it is over, in one order for all: of two runs that open one token at
-- once, one waits, and then sees the other.
SELECT pg_advisory_xact_lock(k.key) FROM unnest($1::bigint[]) AS k (key);

-- name: holders
-- The open hooks of each token, the newest last.
SELECT hooks.token, runs.run, hooks.key
FROM holdfast.hooks JOIN holdfast.runs ON runs.id = hooks.run
WHERE hooks.token = ANY ($1::text[]) AND hooks.status = 'open' ORDER BY hooks.position;

-- name: former
-- What became of the newest hook of each token, and whose it was.
SELECT DISTINCT ON (token) token, hooks.status, runs.run
FROM holdfast.hooks JOIN holdfast.runs ON runs.id = hooks.run
WHERE token = ANY ($1::text[]) ORDER BY token, opened DESC, hooks.run DESC, hooks.position DESC;

-- name: deliveries
-- The payloads that came under these delivery ids.
SELECT deliveries.uniq, runs.run, deliveries.position, deliveries.digest
FROM holdfast.deliveries JOIN holdfast.runs ON runs.id = deliveries.run
WHERE deliveries.uniq = ANY ($1::text[]);

-- name: lock_heads
-- The rows of a group's runs, in the order of the fields of `Head`, held until the group is over: in run-id
-- order, so that two groups never wait for each other.
SELECT run, workflow, status, position, time, chain, command, fact, delivered, steps, timers, children,
       created, ended, attributes, owner, parked, crashes, parent, root, id
FROM holdfast.runs WHERE run = ANY ($1::text[]) ORDER BY run FOR NO KEY UPDATE;

-- name: uniques
-- Where the events with these unique keys stand.
SELECT w.run, w.uniq, e.position FROM unnest($1::bigint[], $2::text[]) AS w (run, uniq)
CROSS JOIN LATERAL (SELECT position FROM holdfast.events WHERE run = w.run AND uniq = w.uniq OFFSET 0) AS e;

-- name: batches
-- Where appends stand that were made under these batch ids: one with a fence stands beyond it.
SELECT b.run, b.batch, e.first, e.position
FROM unnest($1::bigint[], $2::text[], $3::integer[]) AS b (run, batch, fence)
CROSS JOIN LATERAL (
    SELECT first, position FROM holdfast.events
    WHERE run = b.run AND batch = b.batch AND fence IS NULL OFFSET 0) AS e
WHERE b.fence IS NULL
UNION ALL
SELECT b.run, b.batch, e.first, e.position
FROM unnest($1::bigint[], $2::text[], $3::integer[]) AS b (run, batch, fence)
CROSS JOIN LATERAL (
    SELECT first, position FROM holdfast.events
    WHERE run = b.run AND position > b.fence AND batch = b.batch OFFSET 0) AS e;

-- name: beyond
-- The events beyond a position of each run.
SELECT a.run, e.* FROM unnest($1::bigint[], $2::integer[]) AS a (run, after)
CROSS JOIN LATERAL (
    SELECT position, type, key, time, body FROM holdfast.events
    WHERE run = a.run AND position > a.after OFFSET 0) AS e
ORDER BY a.run, e.position;

-- name: open_of
-- All steps that owe an outcome, all pending timers and all children, of these runs: each with two of its columns.
SELECT 'step' AS kind, run, key, attempt AS number, due, NULL AS child, NULL AS status
FROM holdfast.steps WHERE run = ANY ($1::bigint[])
UNION ALL SELECT 'timer', run, key, 0, due, NULL, NULL FROM holdfast.timers WHERE run = ANY ($1::bigint[])
UNION ALL SELECT 'child', run, key, position, NULL, child, status FROM holdfast.children WHERE run = ANY ($1::bigint[]);

-- name: named_of
-- Of the steps, timers and children with these names, those that are open.
SELECT 'step' AS kind, s.run, s.key, s.attempt AS number, s.due, NULL AS child, NULL AS status
FROM unnest($1::bigint[], $2::text[]) AS n (run, key) JOIN holdfast.steps s ON s.run = n.run AND s.key = n.key
UNION ALL SELECT 'timer', t.run, t.key, 0, t.due, NULL, NULL
FROM unnest($1::bigint[], $2::text[]) AS n (run, key) JOIN holdfast.timers t ON t.run = n.run AND t.key = n.key
UNION ALL SELECT 'child', c.run, c.key, c.position, NULL, c.child, c.status
FROM unnest($1::bigint[], $2::text[]) AS n (run, key) JOIN holdfast.children c ON c.run = n.run AND c.key = n.key;

-- name: queue_steps
-- New steps wait in queues.
UPDATE holdfast.steps SET queue = q.queue, limit_key = q.limit_key, priority = q.priority, asked = q.asked,
    position = q.position, name = q.name
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::integer[], $6::bigint[], $7::integer[], $8::text[])
    AS q (run, key, queue, limit_key, priority, asked, position, name)
WHERE steps.run = q.run AND steps.key = q.key;

-- name: open_hooks
-- Hooks that open.
INSERT INTO holdfast.hooks (run, key, token, status, opened, position, schema, metadata)
SELECT h.run, h.key, h.token, 'open', h.opened, h.position, h.schema, h.metadata
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::integer[], $6::text[], $7::text[])
    AS h (run, key, token, opened, position, schema, metadata);

-- name: close_hooks
-- Hooks that close, if they are open.
UPDATE holdfast.hooks SET status = 'closed' FROM unnest($1::bigint[], $2::text[]) AS c (run, key)
WHERE hooks.run = c.run AND hooks.key = c.key AND hooks.status = 'open';

-- name: streams_of
-- All streams of these runs: there are few, and a new one gets the next number.
SELECT runs.run, name, streams.position, size, streams.time, streams.ended, streams.chain, step, attempt, attempts,
       number
FROM holdfast.streams JOIN holdfast.runs ON runs.id = streams.run WHERE streams.run = ANY ($1::bigint[]);

-- name: chunk_keys
-- Where the chunks with these keys stand.
SELECT c.run, c.stream, c.key, c.position
FROM unnest($1::bigint[], $2::integer[], $3::text[]) AS w (run, stream, key)
JOIN holdfast.chunks c ON c.run = w.run AND c.stream = w.stream AND c.key = w.key;

-- name: chunk_batches
-- First and last position of what was written under these batch ids.
SELECT c.run, c.stream, c.batch, c.first, c.position
FROM unnest($1::bigint[], $2::integer[], $3::text[]) AS w (run, stream, batch)
JOIN holdfast.chunks c ON c.run = w.run AND c.stream = w.stream AND c.batch = w.batch;

-- name: write_streams
-- What a group writes to streams, in one round trip. A stream that begins has no hash before. Nothing is written
-- to streams of a run whose log is not the one that was judged, none where the writer's clock ($3, as in
-- `write_group`) is off by a second, and nothing to a stream whose chunks are others; what was written to comes
-- back. The bodies come as one value, for as an array they cost the sender three times as much; then the news
-- for others, in parts that fit.
WITH held AS (
    SELECT there.id, there.run FROM unnest($1::bigint[], $2::bytea[]) AS h (id, chain)
    CROSS JOIN LATERAL (
        SELECT id, run FROM holdfast.runs WHERE runs.id = h.id AND runs.chain = h.chain FOR NO KEY UPDATE) AS there
    WHERE $3::bigint IS NULL OR abs(extract(epoch FROM clock_timestamp()) * 1000000 - $3) < 1000000
), given AS (
    SELECT g.*
    FROM unnest($4::bigint[], $5::text[], $6::integer[], $7::integer[], $8::bigint[], $9::bigint[], $10::integer[],
                $11::bytea[], $12::text[], $13::integer[], $14::text[], $15::bytea[])
        AS g (run, name, number, position, size, time, ended, chain, step, attempt, attempts, before)
    JOIN held ON held.id = g.run
), grown AS (
    -- Not an UPDATE and an INSERT: a plan for the former that is made while there are no streams reads all of them.
    INSERT INTO holdfast.streams (run, name, number, position, size, time, ended, chain, step, attempt, attempts)
    SELECT run, name, number, position, size, time, ended, chain, step, attempt, attempts FROM given
    ON CONFLICT (run, name) DO UPDATE SET position = excluded.position, size = excluded.size, time = excluded.time,
        ended = excluded.ended, chain = excluded.chain, step = excluded.step, attempt = excluded.attempt,
        attempts = excluded.attempts
    WHERE streams.chain = (SELECT before FROM given AS g WHERE g.run = streams.run AND g.name = streams.name)
    RETURNING run, number, name
), accepted AS (
    SELECT grown.*, held.run AS name_of_run FROM grown JOIN held ON held.id = grown.run
), added AS (
    INSERT INTO holdfast.chunks (run, stream, position, kind, body, time, step, attempt, key, batch, first)
    SELECT c.run, c.stream, c.position, c.kind, substring($16::bytea FROM c.start FOR c.size), c.time, c.step,
        c.attempt, c.key, c.batch, c.first
    FROM unnest($17::bigint[], $18::integer[], $19::integer[], $20::text[], $21::integer[], $22::integer[],
                $23::bigint[], $24::text[], $25::integer[], $26::text[], $27::text[], $28::integer[])
        AS c (run, stream, position, kind, start, size, time, step, attempt, key, batch, first)
    WHERE (c.run, c.stream) IN (SELECT run, number FROM accepted)
), parts AS (
    SELECT item, sum(octet_length(item) + 1) OVER (ORDER BY item) / 3900 AS part
    FROM (SELECT json_build_array(name_of_run, null, false, false, false, name)::text AS item
          FROM accepted) AS items
    WHERE octet_length(item) < 3900
), told AS (
    SELECT pg_notify('holdfast', '[' || string_agg(item, ',') || ']') IS NULL AS it FROM parts GROUP BY part
)
SELECT name_of_run, name, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, (SELECT count(it) FROM told)
FROM accepted;

-- name: say
-- Tell every listener something.
SELECT pg_notify('holdfast', $1);

-- name: now
-- The store's clock, in microseconds since 1970.
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;

-- ==== reading

-- name: heads
-- The rows of these runs, in the order of the fields of `Head`.
SELECT run, workflow, status, position, time, chain, command, fact, delivered, steps, timers, children,
       created, ended, attributes, owner, parked, crashes, parent, root, id
FROM holdfast.runs WHERE run = ANY ($1::text[]);

-- name: read
-- A part of a log, by the run's id, as one row: see `logs.py`.
SELECT string_agg(position::text, ','), string_agg(type, $4), string_agg(key, $4), string_agg(time::text, ','),
    convert_to(string_agg(CASE WHEN octet_length(body) < 8192 THEN body ELSE '' END, $4), 'UTF8')
FROM (
    SELECT position, type, key, time, body FROM holdfast.events
    WHERE run = (SELECT id FROM holdfast.runs WHERE run = $1) AND position > $2 ORDER BY position LIMIT $3) AS page;

-- name: bodies
-- The bodies of some events of a run.
SELECT position, body FROM holdfast.events
WHERE run = (SELECT id FROM holdfast.runs WHERE run = $1) AND position = ANY ($2::integer[]);

-- name: take_up
-- Of each of these runs, as of one moment: its row, what is open, and its log beyond a position, $3 events of it,
-- joined as in `read`.
SELECT r.run, r.workflow, r.status, r.position, r.time, r.chain, r.command, r.fact, r.delivered, r.steps, r.timers,
       r.children, r.created, r.ended, r.attributes, r.owner, r.parked, r.crashes, r.parent, r.root, r.id,
       s.keys, s.attempts, s.dues, s.queues, t.keys, t.dues, c.keys, c.ids, c.positions, c.statuses, c.over,
       w.after, e.positions, e.types, e.keys, e.times, e.bodies
FROM unnest($1::text[], $2::integer[]) AS w (run, after)
CROSS JOIN LATERAL (SELECT * FROM holdfast.runs WHERE run = w.run OFFSET 0) AS r
CROSS JOIN LATERAL (
    SELECT array_agg(key) AS keys, array_agg(attempt) AS attempts, array_agg(due) AS dues, array_agg(queue) AS queues
    FROM holdfast.steps WHERE r.steps > 0 AND run = r.id) AS s
CROSS JOIN LATERAL (
    SELECT array_agg(key) AS keys, array_agg(due) AS dues
    FROM holdfast.timers WHERE r.timers > 0 AND run = r.id) AS t
CROSS JOIN LATERAL (
    SELECT array_agg(key) AS keys, array_agg(child) AS ids, array_agg(position) AS positions,
        array_agg(status) AS statuses, array_agg(EXISTS (
            SELECT 1 FROM holdfast.runs AS there WHERE there.run = child AND there.ended IS NOT NULL)) AS over
    FROM holdfast.children WHERE r.children > 0 AND run = r.id) AS c
CROSS JOIN LATERAL (
    SELECT string_agg(position::text, ',') AS positions, string_agg(type, $4) AS types, string_agg(key, $4) AS keys,
        string_agg(time::text, ',') AS times,
        convert_to(string_agg(CASE WHEN octet_length(body) < 8192 THEN body ELSE '' END, $4), 'UTF8') AS bodies
    FROM (SELECT position, type, key, time, body FROM holdfast.events
          WHERE run = r.id AND position > w.after ORDER BY position LIMIT $3) AS page) AS e;

-- name: since
-- What has come to logs beyond a position of each, $3 events at most: with the hash up to it where an append ends.
SELECT w.run, e.* FROM unnest($1::bigint[], $2::integer[]) AS w (run, after)
CROSS JOIN LATERAL (
    SELECT position, type, key, time, body, chain FROM holdfast.events
    WHERE run = w.run AND position > w.after ORDER BY position LIMIT $3) AS e
ORDER BY w.run, e.position LIMIT $3;

-- name: receivers
-- Of each of these tokens that is open, the newest hook and its run: the row, and what is open.
SELECT r.run, r.workflow, r.status, r.position, r.time, r.chain, r.command, r.fact, r.delivered, r.steps, r.timers,
       r.children, r.created, r.ended, r.attributes, r.owner, r.parked, r.crashes, r.parent, r.root, r.id,
       s.keys, s.attempts, s.dues, s.queues, t.keys, t.dues, c.keys, c.ids, c.positions, c.statuses, c.over,
       h.token, h.key, h.position, h.opened, h.schema, h.metadata
FROM unnest($1::text[]) AS w (token) CROSS JOIN LATERAL (
    SELECT * FROM holdfast.hooks WHERE hooks.token = w.token AND hooks.status = 'open'
    ORDER BY hooks.position DESC LIMIT 1) AS h
CROSS JOIN LATERAL (SELECT * FROM holdfast.runs WHERE id = h.run OFFSET 0) AS r
CROSS JOIN LATERAL (
    SELECT array_agg(key) AS keys, array_agg(attempt) AS attempts, array_agg(due) AS dues, array_agg(queue) AS queues
    FROM holdfast.steps WHERE r.steps > 0 AND run = r.id) AS s
CROSS JOIN LATERAL (
    SELECT array_agg(key) AS keys, array_agg(due) AS dues
    FROM holdfast.timers WHERE r.timers > 0 AND run = r.id) AS t
CROSS JOIN LATERAL (
    SELECT array_agg(key) AS keys, array_agg(child) AS ids, array_agg(position) AS positions,
        array_agg(status) AS statuses, array_agg(EXISTS (
            SELECT 1 FROM holdfast.runs AS there WHERE there.run = child AND there.ended IS NOT NULL)) AS over
    FROM holdfast.children WHERE r.children > 0 AND run = r.id) AS c;

-- name: ends
-- Of each of these runs, whether it has ended, and the event that ended it.
SELECT r.run, r.ended IS NOT NULL, e.position, e.type, e.key, e.time, e.body
FROM unnest($1::text[]) AS w (run) CROSS JOIN LATERAL (SELECT * FROM holdfast.runs WHERE run = w.run OFFSET 0) AS r
LEFT JOIN LATERAL (
    SELECT position, type, key, time, body FROM holdfast.events
    WHERE r.ended IS NOT NULL AND run = r.id AND type = ANY ($2::text[]) ORDER BY position DESC LIMIT 1) AS e ON true;

-- name: chain
-- Last position, hash and fence of each append of a run.
SELECT position, chain, fence FROM holdfast.events
WHERE run = (SELECT id FROM holdfast.runs WHERE run = $1) AND position > $2 AND chain IS NOT NULL
ORDER BY position LIMIT $3;

-- name: list_runs
-- A page of all runs, newest first.
SELECT run, workflow, status, position, time, chain, command, fact, delivered, steps, timers, children,
       created, ended, attributes, owner, parked, crashes, parent, root, id
FROM holdfast.runs
WHERE (created, run) < ($1::bigint, $2::text)
  AND ($3::text[] IS NULL OR string_to_array(attributes, E'\n') @> $3)
  AND ($4::boolean IS NULL OR (parked IS NOT NULL) = $4)
  AND ($5::text IS NULL OR status = $5) AND ($6::text IS NULL OR workflow = $6)
  AND ($7::text IS NULL OR parent = $7) AND ($8::text IS NULL OR root = $8 OR run = $8)
ORDER BY created DESC, run DESC LIMIT $9;

-- name: list_runs_by_status
-- A page of the runs with one status, newest first.
SELECT run, workflow, status, position, time, chain, command, fact, delivered, steps, timers, children,
       created, ended, attributes, owner, parked, crashes, parent, root, id
FROM holdfast.runs
WHERE status = $5 AND (created, run) < ($1::bigint, $2::text)
  AND ($3::text[] IS NULL OR string_to_array(attributes, E'\n') @> $3)
  AND ($4::boolean IS NULL OR (parked IS NOT NULL) = $4)
  AND ($5::text IS NULL OR status = $5) AND ($6::text IS NULL OR workflow = $6)
  AND ($7::text IS NULL OR parent = $7) AND ($8::text IS NULL OR root = $8 OR run = $8)
ORDER BY created DESC, run DESC LIMIT $9;

-- name: list_runs_by_workflow
-- A page of the runs of one workflow, newest first.
SELECT run, workflow, status, position, time, chain, command, fact, delivered, steps, timers, children,
       created, ended, attributes, owner, parked, crashes, parent, root, id
FROM holdfast.runs
WHERE workflow = $6 AND (created, run) < ($1::bigint, $2::text)
  AND ($3::text[] IS NULL OR string_to_array(attributes, E'\n') @> $3)
  AND ($4::boolean IS NULL OR (parked IS NOT NULL) = $4)
  AND ($5::text IS NULL OR status = $5) AND ($6::text IS NULL OR workflow = $6)
  AND ($7::text IS NULL OR parent = $7) AND ($8::text IS NULL OR root = $8 OR run = $8)
ORDER BY created DESC, run DESC LIMIT $9;

-- name: list_parked
-- A page of the parked runs, newest first.
SELECT run, workflow, status, position, time, chain, command, fact, delivered, steps, timers, children,
       created, ended, attributes, owner, parked, crashes, parent, root, id
FROM holdfast.runs
WHERE parked IS NOT NULL AND (created, run) < ($1::bigint, $2::text)
  AND ($3::text[] IS NULL OR string_to_array(attributes, E'\n') @> $3)
  AND ($4::boolean IS NULL OR (parked IS NOT NULL) = $4)
  AND ($5::text IS NULL OR status = $5) AND ($6::text IS NULL OR workflow = $6)
  AND ($7::text IS NULL OR parent = $7) AND ($8::text IS NULL OR root = $8 OR run = $8)
ORDER BY created DESC, run DESC LIMIT $9;

-- name: list_runs_by_parent
-- A page of the child runs of one run, newest first.
SELECT run, workflow, status, position, time, chain, command, fact, delivered, steps, timers, children,
       created, ended, attributes, owner, parked, crashes, parent, root, id
FROM holdfast.runs
WHERE parent = $7 AND (created, run) < ($1::bigint, $2::text)
  AND ($3::text[] IS NULL OR string_to_array(attributes, E'\n') @> $3)
  AND ($4::boolean IS NULL OR (parked IS NOT NULL) = $4)
  AND ($5::text IS NULL OR status = $5) AND ($6::text IS NULL OR workflow = $6)
  AND ($7::text IS NULL OR parent = $7) AND ($8::text IS NULL OR root = $8 OR run = $8)
ORDER BY created DESC, run DESC LIMIT $9;

-- name: list_runs_by_root
-- A page of a run and all that is below it, newest first.
SELECT run, workflow, status, position, time, chain, command, fact, delivered, steps, timers, children,
       created, ended, attributes, owner, parked, crashes, parent, root, id
FROM holdfast.runs
WHERE (root = $8 OR run = $8) AND (created, run) < ($1::bigint, $2::text)
  AND ($3::text[] IS NULL OR string_to_array(attributes, E'\n') @> $3)
  AND ($4::boolean IS NULL OR (parked IS NOT NULL) = $4)
  AND ($5::text IS NULL OR status = $5) AND ($6::text IS NULL OR workflow = $6)
  AND ($7::text IS NULL OR parent = $7) AND ($8::text IS NULL OR root = $8 OR run = $8)
ORDER BY created DESC, run DESC LIMIT $9;

-- name: tally
-- How many runs of each workflow and status, and how many of them are parked.
SELECT workflow, status, count(*), count(parked) FROM holdfast.runs GROUP BY workflow, status;

-- name: list_hooks
-- A page of hooks by token and run.
SELECT token, runs.run, key, hooks.status, opened, schema, metadata
FROM holdfast.hooks JOIN holdfast.runs ON runs.id = hooks.run
WHERE token >= $1 AND (token, runs.run) > ($1, $2) AND (NOT $3 OR hooks.status = 'open')
ORDER BY token, runs.run, hooks.position LIMIT $4;

-- name: list_hooks_by_token
-- A page of the hooks with one token (and, where given, of one run).
SELECT token, runs.run, key, hooks.status, opened, schema, metadata
FROM holdfast.hooks JOIN holdfast.runs ON runs.id = hooks.run
WHERE token = $5 AND (token, runs.run) > ($1, $2) AND (NOT $3 OR hooks.status = 'open')
  AND ($6::text IS NULL OR runs.run = $6)
ORDER BY runs.run, hooks.position LIMIT $4;

-- name: list_hooks_by_run
-- A page of the hooks of one run.
SELECT token, runs.run, key, hooks.status, opened, schema, metadata
FROM holdfast.runs JOIN holdfast.hooks ON hooks.run = runs.id
WHERE runs.run = $5 AND (token, runs.run) > ($1, $2) AND (NOT $3 OR hooks.status = 'open')
ORDER BY token, hooks.position LIMIT $4;

-- name: list_timers
-- Pending timers of all runs, the earliest first.
SELECT runs.run, key, due FROM holdfast.timers JOIN holdfast.runs ON runs.id = timers.run
ORDER BY due, runs.run, key LIMIT $1;

-- name: list_timers_by_run
-- Pending timers of one run, the earliest first.
SELECT runs.run, key, due FROM holdfast.runs JOIN holdfast.timers ON timers.run = runs.id
WHERE runs.run = $2 ORDER BY due, key LIMIT $1;

-- name: stream
-- A stream's row, by the run's id, in the order of the fields of `StreamHead`.
SELECT runs.run, name, streams.position, size, streams.time, streams.ended, streams.chain, step, attempt, attempts,
       number
FROM holdfast.runs JOIN holdfast.streams ON streams.run = runs.id WHERE runs.run = $1 AND name = $2;

-- name: streams
-- The rows of all streams of a run.
SELECT runs.run, name, streams.position, size, streams.time, streams.ended, streams.chain, step, attempt, attempts,
       number
FROM holdfast.runs JOIN holdfast.streams ON streams.run = runs.id WHERE runs.run = $1 ORDER BY number;

-- name: read_stream
-- A part of a stream, by the run's id: so many chunks, and so many bytes, but one chunk however large.
SELECT position, kind, body, time, step, attempt, key FROM (
    SELECT chunks.*, sum(octet_length(body)) OVER (ORDER BY chunks.position) - octet_length(body) AS before
    FROM holdfast.runs JOIN holdfast.streams ON streams.run = runs.id
    JOIN holdfast.chunks ON chunks.run = streams.run AND chunks.stream = streams.number
    WHERE runs.run = $1 AND streams.name = $2 AND chunks.position > $3 AND chunks.position <= $3 + $4) AS page
WHERE before = 0 OR before + octet_length(body) <= $5 ORDER BY position;

-- name: open_steps
-- The steps of a run that owe an outcome, by the run's id.
SELECT key, attempt, due, queue FROM holdfast.steps
WHERE run = (SELECT id FROM holdfast.runs WHERE run = $1) ORDER BY key;

-- name: open_children
-- The child runs of which a run has not heard the end, by its id.
SELECT parent.run, key, child, children.position, children.status,
    EXISTS (SELECT 1 FROM holdfast.runs AS there WHERE there.run = children.child AND there.ended IS NOT NULL)
FROM holdfast.runs AS parent JOIN holdfast.children ON children.run = parent.id
WHERE parent.run = $1 ORDER BY key;

-- name: strays
-- How many rows of each table belong to no run; reads all of them, for `verify` alone.
SELECT name, count(*) FROM (
    SELECT 'events' AS name, run FROM holdfast.events UNION ALL SELECT 'steps', run FROM holdfast.steps
    UNION ALL SELECT 'timers', run FROM holdfast.timers UNION ALL SELECT 'hooks', run FROM holdfast.hooks
    UNION ALL SELECT 'deliveries', run FROM holdfast.deliveries UNION ALL SELECT 'children', run FROM holdfast.children
    UNION ALL SELECT 'streams', run FROM holdfast.streams
    UNION ALL SELECT 'chunks', run FROM holdfast.chunks
    UNION ALL SELECT 'chunks', NULL FROM holdfast.chunks WHERE NOT EXISTS (
        SELECT 1 FROM holdfast.streams WHERE streams.run = chunks.run AND streams.number = chunks.stream)) AS rows
WHERE NOT EXISTS (SELECT 1 FROM holdfast.runs WHERE runs.id = rows.run) GROUP BY name ORDER BY name;

-- ==== who works on what

-- name: put_worker
-- A worker joins, or moves its lease on.
INSERT INTO holdfast.workers (id, pid, host, expires, counters) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (id) DO UPDATE SET pid = excluded.pid, host = excluded.host, expires = excluded.expires,
    counters = excluded.counters;

-- name: renew_worker
-- A worker that is enlisted moves its lease on.
UPDATE holdfast.workers SET expires = $2, counters = $3 WHERE id = $1 RETURNING id;

-- name: workers
-- All workers, and the owners of runs that are not enlisted, with a lease that has run out. From owner to owner by
-- the index, however many runs each has.
WITH RECURSIVE owners (id) AS (
    SELECT min(owner) FROM holdfast.runs WHERE owner IS NOT NULL
    UNION ALL
    SELECT (SELECT min(owner) FROM holdfast.runs WHERE owner > owners.id) FROM owners WHERE owners.id IS NOT NULL
)
SELECT id, pid, host, expires, counters FROM holdfast.workers
UNION ALL
SELECT id, 0, '', 0, '{}' FROM owners WHERE id IS NOT NULL AND id NOT IN (SELECT id FROM holdfast.workers)
ORDER BY id;

-- name: attend
-- A worker is there as long as this session: it holds a lock, and the worker's row names it.
WITH held AS MATERIALIZED (SELECT pg_advisory_lock($2))
UPDATE holdfast.workers SET session = $2 FROM held WHERE id = $1 RETURNING id;

-- name: notice_dead_clients
-- Let a statement that waits see that its client is gone (where the server's system can).
SELECT set_config('client_connection_check_interval', '1000', false);

-- name: limit_waits
-- How long to wait for a lock.
SELECT set_config('lock_timeout', $1, false);

-- name: neighbour
-- The worker that this one watches: the next in the ring of those that have a session.
SELECT id, session FROM holdfast.workers WHERE session IS NOT NULL AND id <> $1 ORDER BY id < $1, id LIMIT 1;

-- name: watch
-- Which session to wait for.
SELECT set_config('holdfast.watched', $1, false);

-- name: await_release
-- Wait until the watched session's lock is free, or the time (lock_timeout) is up, or somebody wants it to end. In
-- a block, so that a time that is up leaves no error in the server's log.
DO $$ BEGIN
    PERFORM pg_advisory_xact_lock_shared(current_setting('holdfast.watched')::bigint);
EXCEPTION WHEN lock_not_available OR query_canceled THEN NULL;
END $$;

-- name: is_gone
-- Whether the worker is still enlisted with this session, and the session is not there.
SELECT id FROM holdfast.workers WHERE id = $1 AND session = $2 AND pg_try_advisory_xact_lock_shared($2);

-- name: stop_waiting
-- End the waits of other sessions of ours.
SELECT pg_cancel_backend(s.pid) FROM unnest($1::integer[]) AS s (pid);

-- name: drop_worker
-- A worker is gone. Waits for a claim of its own that is under way.
DELETE FROM holdfast.workers WHERE id = $1;

-- name: free_runs
-- Free the runs of a worker that is gone. Behind the statement that removes the worker, so that it sees the
-- worker's last claim.
WITH held AS (
    SELECT id FROM holdfast.runs WHERE owner = $1 ORDER BY run FOR NO KEY UPDATE
), freed AS (
    UPDATE holdfast.runs SET owner = NULL
    FROM held WHERE runs.id = held.id
    RETURNING runs.run, runs.ready AS free
), parts AS (
    SELECT item, sum(octet_length(item) + 1) OVER (ORDER BY item) / 3900 AS part
    FROM (SELECT json_build_array(run, null, false, false, true, null)::text AS item FROM freed WHERE free) AS items
    WHERE octet_length(item) < 3900
)
SELECT pg_notify('holdfast', '[' || string_agg(item, ',') || ']') FROM parts GROUP BY part;

-- name: anything_to_do
-- Whether there may be something to do that this worker missed: what a quiet worker asks.
SELECT EXISTS (SELECT 1 FROM holdfast.runs WHERE owner IS NULL AND ready)
    OR EXISTS (SELECT 1 FROM holdfast.runs WHERE owner = $1 AND (fact > delivered OR children > 0))
    OR EXISTS (SELECT 1 FROM holdfast.steps WHERE queue IS NOT NULL AND holder IS NULL)
    OR EXISTS (SELECT 1 FROM holdfast.children WHERE orphan);

-- name: any_free
-- Whether a worker is enlisted, and whether a run of these workflows is free and ready.
SELECT EXISTS (SELECT 1 FROM holdfast.workers WHERE id = $1), EXISTS (
    SELECT 1 FROM unnest($2::text[]) AS named (workflow) CROSS JOIN LATERAL (
        SELECT 1 FROM holdfast.runs
        WHERE runs.workflow = named.workflow AND runs.owner IS NULL AND runs.ready LIMIT 1) AS one);

-- name: lock_claims
-- One claim at a time, so that each finds what the others left. How many runs are free is for the planner to know:
-- see `plan_anew`.
SELECT pg_advisory_xact_lock($1), set_config('plan_cache_mode', 'auto', true);

-- name: hold_worker
-- A worker that claims must stay enlisted until it has: whoever declares it dead waits for it.
SELECT 1 FROM holdfast.workers WHERE id = $1 FOR KEY SHARE;

-- name: claim
-- Give a worker free runs that are ready, the oldest of each workflow first. What a writer holds is left out.
-- They are chosen into an array: what stands behind IN may be chosen once for each row, and the limit with it.
UPDATE holdfast.runs SET owner = $1 WHERE id = ANY (ARRAY(
    SELECT id FROM holdfast.runs WHERE owner IS NULL AND ready AND id IN (
        SELECT free.id FROM unnest($2::text[]) AS named (workflow) CROSS JOIN LATERAL (
            SELECT id FROM holdfast.runs
            WHERE runs.workflow = named.workflow AND runs.owner IS NULL AND runs.ready
            ORDER BY id LIMIT $3) AS free)
    ORDER BY id LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED))
RETURNING id, run, workflow, status = 'pending' OR fact > delivered OR steps > 0 OR children > 0,
    (SELECT min(due) FROM holdfast.timers WHERE timers.run = runs.id), crashes;

-- name: claim_parked
-- Take up parked runs, the oldest first; but not what killed or blocked its workers.
UPDATE holdfast.runs SET owner = $1, parked = NULL WHERE id = ANY (ARRAY(
    SELECT id FROM holdfast.runs
    WHERE parked IS NOT NULL AND ended IS NULL AND owner IS NULL
      AND coalesce(parked::json ->> 'kind', '') <> 'runaway' AND workflow = ANY ($2::text[])
    ORDER BY id LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED))
RETURNING id, run, workflow, true, (SELECT min(due) FROM holdfast.timers WHERE timers.run = runs.id), crashes;

-- name: release
-- Free runs again, each with the position up to which its worker delivered every fact.
WITH held AS (
    SELECT runs.id, m.mark FROM holdfast.runs JOIN unnest($2::text[], $3::integer[]) AS m (run, mark) USING (run)
    WHERE runs.owner = $1 ORDER BY runs.run FOR NO KEY UPDATE OF runs
), freed AS (
    UPDATE holdfast.runs SET owner = NULL, delivered = greatest(delivered, held.mark)
    FROM held WHERE runs.id = held.id RETURNING runs.run, runs.ready AS free
), parts AS (
    SELECT item, sum(octet_length(item) + 1) OVER (ORDER BY item) / 3900 AS part
    FROM (SELECT json_build_array(run, null, false, false, true, null)::text AS item FROM freed WHERE free) AS items
    WHERE octet_length(item) < 3900
)
SELECT pg_notify('holdfast', '[' || string_agg(item, ',') || ']') FROM parts GROUP BY part;

-- name: park
-- Set a run aside, or take it up again; a run that has ended stays as it is.
WITH parked AS (
    UPDATE holdfast.runs SET parked = $2, owner = NULL, crashes = 0 WHERE run = $1 AND ended IS NULL
    RETURNING run, ready
)
SELECT pg_notify('holdfast', '[' || json_build_array(run, null, false, false, true, null)::text || ']')
FROM parked WHERE ready AND octet_length(run) < 1000;

-- name: crashed
-- Count one more crash of a tick.
UPDATE holdfast.runs SET crashes = crashes + 1 WHERE run = $1 RETURNING crashes;

-- name: owned
-- The live runs of a worker.
SELECT run, workflow, (SELECT min(due) FROM holdfast.timers WHERE timers.run = runs.id),
    status = 'pending' OR fact > delivered OR steps > 0 OR children > 0, crashes
FROM holdfast.runs WHERE owner = $1 AND ended IS NULL ORDER BY id;

-- name: behind
-- The runs of a worker whose log holds facts beyond the delivered mark.
SELECT run, fact FROM holdfast.runs WHERE owner = $1 AND fact > delivered ORDER BY id;

-- name: ended_children
-- The children of a worker's runs that have ended, of which their parents have not heard.
SELECT parent.run, key, child, children.position, children.status, true
FROM holdfast.runs AS parent
JOIN holdfast.children ON children.run = parent.id
JOIN holdfast.runs AS there ON there.run = children.child
WHERE parent.owner = $1 AND parent.children > 0 AND there.ended IS NOT NULL;

-- name: orphans
-- Children whose parent has ended, and that nobody has seen to.
SELECT parent.run, key, child, children.position, children.status,
    EXISTS (SELECT 1 FROM holdfast.runs AS there WHERE there.run = children.child AND there.ended IS NOT NULL)
FROM holdfast.children JOIN holdfast.runs AS parent ON parent.id = children.run
WHERE orphan LIMIT $1;

-- name: bury_orphan
-- An orphan has been seen to.
DELETE FROM holdfast.children
WHERE run = (SELECT id FROM holdfast.runs WHERE run = $1) AND key = $2 AND orphan;

-- ==== removing

-- name: leaving
-- Of these runs, those that ended before a time: what names others of their chains or a due time, and who needs
-- them. A run that continues says so in its last command. Held until they are gone; what a writer holds is left for
-- later.
SELECT run, id, position,
    (SELECT body FROM holdfast.events
     WHERE events.run = runs.id AND events.position = 1
       AND (strpos(body, '"previous":') > 0 OR strpos(body, '"due":') > 0)),
    (SELECT body FROM holdfast.events
     WHERE events.run = runs.id AND events.position = runs.command AND strpos(body, '"continued":') > 0),
    EXISTS (SELECT FROM holdfast.children WHERE children.run = runs.id),
    EXISTS (SELECT FROM holdfast.runs AS above JOIN holdfast.children ON children.run = above.id
            WHERE above.run = runs.parent AND children.child = runs.run),
    (SELECT since FROM holdfast.schedules WHERE schedules.workflow = runs.workflow)
FROM holdfast.runs WHERE run = ANY ($1::text[]) AND ended < $2 ORDER BY run FOR UPDATE OF runs SKIP LOCKED;

-- name: present
-- Which of these runs are there.
SELECT run FROM holdfast.runs WHERE run = ANY ($1::text[]);

-- name: remove_runs
-- Runs, and all that belongs to them. Ended ones have neither steps nor timers, whatever happened.
WITH events AS (DELETE FROM holdfast.events WHERE run = ANY ($1::bigint[])),
    chunks AS (DELETE FROM holdfast.chunks WHERE run = ANY ($1::bigint[])),
    streams AS (DELETE FROM holdfast.streams WHERE run = ANY ($1::bigint[])),
    hooks AS (DELETE FROM holdfast.hooks WHERE run = ANY ($1::bigint[])),
    deliveries AS (DELETE FROM holdfast.deliveries WHERE run = ANY ($1::bigint[])),
    steps AS (DELETE FROM holdfast.steps WHERE run = ANY ($1::bigint[])),
    timers AS (DELETE FROM holdfast.timers WHERE run = ANY ($1::bigint[]))
DELETE FROM holdfast.runs WHERE id = ANY ($1::bigint[]);

-- ==== who may call a server

-- name: tokens
-- Every token, by its hash.
SELECT id, scope, hash, created, note FROM holdfast.tokens ORDER BY created, id;

-- name: put_token
-- One more token.
INSERT INTO holdfast.tokens (id, scope, hash, created, note) VALUES ($1, $2, $3, $4, $5);

-- name: drop_token
-- Forget a token.
DELETE FROM holdfast.tokens WHERE id = $1 RETURNING id;

-- ==== the schema's history

-- name: lock_schema
-- Of the processes that open an empty or old store at once, one changes it.
SELECT pg_advisory_xact_lock($1);

-- name: schema
-- What is there: the server's encoding, and whether the schema and its history are. From the catalogue's tables, for
-- functions like to_regclass answer from a cache that may be older than the lock that we have waited for.
SELECT current_setting('server_encoding'), EXISTS (SELECT FROM pg_namespace WHERE nspname = 'holdfast'),
    EXISTS (SELECT FROM pg_tables WHERE schemaname = 'holdfast' AND tablename = 'migrations'),
    pg_is_in_recovery();

-- name: schema_tables
-- The tables in a schema of our name.
SELECT tablename FROM pg_tables WHERE schemaname = 'holdfast';

-- name: create_migrations
-- The schema, and the table of the migrations that it has had.
CREATE SCHEMA IF NOT EXISTS holdfast;
CREATE TABLE holdfast.migrations (
    number   integer NOT NULL PRIMARY KEY,
    name     text    NOT NULL,
    checksum text    NOT NULL,
    applied  bigint  NOT NULL
);

-- name: migrations
-- The migrations that this schema has had.
SELECT number, name, checksum FROM holdfast.migrations ORDER BY number;

-- name: identity
-- What no other store has: when this one was made, to the microsecond, and under which name.
SELECT current_database() || ' ' || applied FROM holdfast.migrations WHERE number = 1;

-- name: add_migration
-- One more migration.
INSERT INTO holdfast.migrations (number, name, checksum, applied) VALUES ($1, $2, $3, $4);

-- ==== queues

-- name: any_waiting
-- When the first of the steps that wait in these queues may start; NULL where none waits.
SELECT min(coalesce(due, 0)) FROM holdfast.steps WHERE queue = ANY ($1::text[]) AND holder IS NULL;

-- name: running
-- How many attempts hold a place in a queue, by limit key.
SELECT limit_key, count(*) FROM holdfast.steps WHERE queue = $1 AND holder IS NOT NULL GROUP BY limit_key;

-- name: waiting
-- The steps of a queue that may be taken, the best first. One whose run is being written is left out: it ends.
SELECT runs.run, steps.key, steps.attempt, steps.due, steps.limit_key, steps.position
FROM holdfast.steps JOIN holdfast.runs ON runs.id = steps.run
WHERE steps.queue = $1 AND steps.holder IS NULL AND (steps.due IS NULL OR steps.due <= $2)
  AND steps.name = ANY ($3::text[]) AND (steps.limit_key IS NULL OR steps.limit_key <> ALL ($4::text[]))
ORDER BY steps.priority DESC, steps.asked, steps.run, steps.position LIMIT $5
FOR NO KEY UPDATE OF steps SKIP LOCKED;

-- name: next_retry
-- When the next retry of a queue is due.
SELECT min(due) FROM holdfast.steps WHERE queue = $1 AND holder IS NULL AND due > $2;

-- name: hold_steps
-- A worker takes steps.
UPDATE holdfast.steps SET holder = $1
FROM unnest($2::text[], $3::text[]) AS t (run, key) JOIN holdfast.runs ON runs.run = t.run
WHERE steps.run = runs.id AND steps.key = t.key;

-- name: put_back
-- A worker gives up steps that it has taken.
UPDATE holdfast.steps SET holder = NULL
FROM unnest($2::text[], $3::text[]) AS t (run, key) JOIN holdfast.runs ON runs.run = t.run
WHERE steps.run = runs.id AND steps.key = t.key AND steps.holder = $1 RETURNING steps.key;

-- name: put_back_all
-- A worker is gone: what it has taken waits again.
UPDATE holdfast.steps SET holder = NULL WHERE holder = $1 RETURNING key;

-- name: held
-- What a worker has taken.
SELECT runs.run, steps.key, steps.attempt, steps.due, steps.limit_key, steps.position
FROM holdfast.steps JOIN holdfast.runs ON runs.id = steps.run
WHERE steps.holder = $1 ORDER BY steps.run, steps.position;

-- name: queues
-- How many steps wait and run in each queue, and since when the oldest waits.
SELECT queue, count(*) FILTER (WHERE holder IS NULL), count(holder), min(asked) FILTER (WHERE holder IS NULL)
FROM holdfast.steps WHERE queue IS NOT NULL GROUP BY queue ORDER BY queue;

-- name: starts
-- Recent starts in a queue.
SELECT time FROM holdfast.queue_starts WHERE queue = $1 AND time > $2 ORDER BY time;

-- name: drop_starts
-- Starts that no rate counts any more.
DELETE FROM holdfast.queue_starts WHERE queue = $1 AND time <= $2;

-- name: add_starts
-- More starts, at one moment.
INSERT INTO holdfast.queue_starts (queue, time) SELECT $1, $2 FROM generate_series(1, $3::integer);

-- ==== a look for `holdfast top`: each part goes through an index and stops at so many rows

-- name: gauge
-- Runs by status, parked ones, those created since.
SELECT
    (SELECT count(*) FROM (SELECT 1 FROM holdfast.runs WHERE status = 'pending' LIMIT $1) AS pending),
    (SELECT count(*) FROM (SELECT 1 FROM holdfast.runs WHERE status = 'running' LIMIT $1) AS running),
    (SELECT count(*) FROM (SELECT 1 FROM holdfast.runs WHERE status = 'completed' LIMIT $1) AS completed),
    (SELECT count(*) FROM (SELECT 1 FROM holdfast.runs WHERE status = 'failed' LIMIT $1) AS failed),
    (SELECT count(*) FROM (SELECT 1 FROM holdfast.runs WHERE status = 'cancelled' LIMIT $1) AS cancelled),
    (SELECT count(*) FROM (SELECT 1 FROM holdfast.runs WHERE parked IS NOT NULL LIMIT $1) AS parked),
    (SELECT count(*) FROM (SELECT 1 FROM holdfast.runs WHERE created > $2 LIMIT $1) AS started);

-- name: gauge_counters
-- Rows that were added and removed since the server began to count: what it counts anyway.
SELECT coalesce(sum(n_tup_ins) FILTER (WHERE relname = 'events'), 0)::bigint,
       coalesce(sum(n_tup_del) FILTER (WHERE relname = 'steps'), 0)::bigint
FROM pg_stat_all_tables WHERE schemaname = 'holdfast' AND relname IN ('events', 'steps');

-- name: gauge_oldest
-- The oldest run of each status that is no end.
(SELECT run, created FROM holdfast.runs WHERE status = 'pending' ORDER BY created, run LIMIT 1)
UNION ALL
(SELECT run, created FROM holdfast.runs WHERE status = 'running' ORDER BY created, run LIMIT 1);

-- name: gauge_free
-- Of the runs that have work to do and no worker, the one to which nothing has happened for longest.
SELECT run, time FROM (
    SELECT run, time FROM holdfast.runs WHERE owner IS NULL AND ready ORDER BY workflow, id LIMIT $1) AS free
ORDER BY time LIMIT 1;

-- name: gauge_undelivered
-- The oldest fact that no code has seen yet.
SELECT live.run, first.time
FROM (SELECT id, run, delivered, fact, parked FROM holdfast.runs WHERE status = 'running'
      ORDER BY created, run LIMIT $1) AS live
CROSS JOIN LATERAL (
    SELECT time FROM holdfast.events
    WHERE events.run = live.id AND position > live.delivered AND position <= live.fact
      AND type IN ('step_completed', 'step_failed', 'timer_fired', 'hook_received', 'hook_refused',
                   'cancel_requested', 'woken', 'child_ended')
    ORDER BY position LIMIT 1) AS first
WHERE live.parked IS NULL AND live.fact > live.delivered
ORDER BY first.time LIMIT 1;

-- name: gauge_workers
-- All workers, with how many runs each owns and how many steps of queues it holds.
SELECT id, pid, host, expires, counters,
    (SELECT count(*) FROM (SELECT 1 FROM holdfast.runs WHERE owner = workers.id LIMIT $1) AS owned),
    coalesce(held, 0)
FROM holdfast.workers LEFT JOIN (
    SELECT holder, count(*) AS held FROM holdfast.steps WHERE holder IS NOT NULL GROUP BY holder
) AS holding ON holder = id
ORDER BY id;

-- name: schedules
-- The schedules, in the order of the fields of `ScheduleRow`.
SELECT workflow, cron, timezone, missed, since, paused, keeper FROM holdfast.schedules ORDER BY workflow;

-- name: add_schedule
-- A schedule where its workflow has none.
INSERT INTO holdfast.schedules (workflow, cron, timezone, missed, since, paused, keeper)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING workflow;

-- name: change_schedule
-- A schedule as it is to be, where it is as it was believed to be.
UPDATE holdfast.schedules
SET cron = $8, timezone = $9, missed = $10, since = $11, paused = $12, keeper = $13
WHERE workflow = $1 AND cron = $2 AND timezone = $3 AND missed = $4 AND since = $5
  AND paused = $6 AND keeper IS NOT DISTINCT FROM $7 RETURNING workflow;

-- name: drop_schedule
-- A schedule away, where it is as it was believed to be.
DELETE FROM holdfast.schedules WHERE workflow = $1 AND cron = $2 AND timezone = $3 AND missed = $4 AND since = $5
  AND paused = $6 AND keeper IS NOT DISTINCT FROM $7 RETURNING workflow;
