-- What a worker says of itself with each sign of life, as a JSON object of numbers.
ALTER TABLE holdfast.workers ADD COLUMN counters text NOT NULL DEFAULT '{}';
