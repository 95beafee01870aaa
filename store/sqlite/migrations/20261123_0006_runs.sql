-- Whether a person paused a run, so that nobody claims it; what that means is in store/leases.py.
ALTER TABLE workflow_runs ADD COLUMN stopped INTEGER NOT NULL DEFAULT 0;

-- For people, newest first: the runs of one workflow, and those of one status.
CREATE INDEX idx_workflow_runs_newest_of_workflow ON workflow_runs (workflow_id, started_at);
CREATE INDEX idx_workflow_runs_newest_of_status ON workflow_runs (status, started_at);
