-- Who holds a run, what it waits for, and the definition that it started with. What these mean is in store/leases.py.

ALTER TABLE workflow_runs ADD COLUMN holder_bot_id TEXT;
ALTER TABLE workflow_runs ADD COLUMN fence INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workflow_runs ADD COLUMN lease_expires_at TEXT;
ALTER TABLE workflow_runs ADD COLUMN claim_id TEXT;
ALTER TABLE workflow_runs ADD COLUMN recoveries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workflow_runs ADD COLUMN queue_place INTEGER;
ALTER TABLE workflow_runs ADD COLUMN queued_at TEXT;
ALTER TABLE workflow_runs ADD COLUMN queued_until TEXT;
ALTER TABLE workflow_runs ADD COLUMN definition TEXT;

-- Runs that can still go on get the definition that they would have gone on with.
UPDATE workflow_runs SET definition = (SELECT definition FROM workflows WHERE id = workflow_id)
    WHERE status IN ('pending', 'running', 'paused', 'crashed');

-- For people, newest first.
CREATE INDEX idx_workflow_runs_started_at ON workflow_runs (started_at);

-- For claims: the slots that are taken, and who waits for one. Few runs are in either.
CREATE INDEX idx_workflow_runs_running ON workflow_runs (workflow_id, concurrency_key) WHERE status = 'running';
CREATE INDEX idx_workflow_runs_queued ON workflow_runs (workflow_id, concurrency_key) WHERE queue_place IS NOT NULL;

-- For approvals, which are few among many steps.
CREATE INDEX idx_workflow_steps_waiting ON workflow_steps (run_id) WHERE status = 'waiting_approval';
