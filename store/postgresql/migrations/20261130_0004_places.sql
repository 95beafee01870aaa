-- Where the log was when a worker opened it last, and on which timeline: a copy is somewhere else, and a server that was
-- restored to an earlier moment, or promoted, has a later timeline. And by which key its workers are known.
ALTER TABLE log ADD COLUMN place text;
ALTER TABLE log ADD COLUMN timeline text;
ALTER TABLE log ADD COLUMN worker_key text;
