-- What a worker says of itself with each sign of life, as a JSON object of numbers.
ALTER TABLE workers ADD COLUMN counters TEXT NOT NULL DEFAULT '{}';
