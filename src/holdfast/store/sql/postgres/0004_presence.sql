-- The advisory lock that a worker's session holds for as long as it is there; NULL: it has none, so only its lease
-- tells of its death. A new number for each session, so that a new one never waits for a lost one's end.
ALTER TABLE holdfast.workers ADD COLUMN session bigint;
