-- The steps of a run in the order in which they began, so that a long history is read in portions without sorting it
-- for each. The expression is the one of store/sqlite/workflows/steps.py; '~' comes after every time.

DROP INDEX idx_workflow_steps_run_id;
CREATE INDEX idx_workflow_steps_run_id ON workflow_steps (run_id, COALESCE(started_at, completed_at, '~'));
