-- How many steps of a run were recorded when it last lost its holder: with more of them, it has made progress since.
ALTER TABLE workflow_runs ADD COLUMN progress INTEGER NOT NULL DEFAULT 0;

-- Of a run that was forked: the run that it was forked from and the step before which that was, as JSON, so that a
-- fork can be repeated.
ALTER TABLE workflow_runs ADD COLUMN forked_from TEXT;
