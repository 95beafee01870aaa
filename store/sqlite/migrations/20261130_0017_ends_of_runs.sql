-- The run as which a completed run continues. Until now it was found by its parent.
ALTER TABLE workflow_runs ADD COLUMN continued_as TEXT;
UPDATE workflow_runs SET continued_as = (
        SELECT next.id FROM workflow_runs AS next
        WHERE next.parent_run_id = workflow_runs.id AND next.trigger_type = 'continued' ORDER BY next.rowid LIMIT 1)
    WHERE status = 'completed' AND result IS NULL
        AND id IN (SELECT parent_run_id FROM workflow_runs WHERE trigger_type = 'continued');

-- Runs that were cancelled, or are to be, whose children were not all cancelled with them: those that come after the
-- run `after_id`, up to `last_id`. What is started later, to clean up, lives on.
CREATE TABLE workflow_cancellations (
    run_id    TEXT PRIMARY KEY,
    reason    TEXT NOT NULL,
    cancel_by TEXT NOT NULL,
    after_id  TEXT,
    last_id   TEXT NOT NULL
);

-- Digests of the definitions that were replaced, as a JSON array: a program that still has one does not bring it back.
ALTER TABLE workflows ADD COLUMN replaced TEXT;
