-- What a completed run returned, as JSON; the run that started it; and the time before which nobody may claim it.
ALTER TABLE workflow_runs ADD COLUMN result TEXT;
ALTER TABLE workflow_runs ADD COLUMN parent_run_id TEXT;
ALTER TABLE workflow_runs ADD COLUMN not_before TEXT;

-- Whether the program that claimed a run last cleans up when it is cancelled; until when it may do so, by the clock of
-- leases; and why it is cancelled.
ALTER TABLE workflow_runs ADD COLUMN cleans_up INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workflow_runs ADD COLUMN cancel_by TEXT;
ALTER TABLE workflow_runs ADD COLUMN cancel_reason TEXT;

-- Few runs are in any of these.
CREATE INDEX idx_workflow_runs_parent_run_id ON workflow_runs (parent_run_id) WHERE parent_run_id IS NOT NULL;
CREATE INDEX idx_workflow_runs_not_before ON workflow_runs (not_before)
    WHERE not_before IS NOT NULL AND status = 'pending';
CREATE INDEX idx_workflow_runs_cancel_by ON workflow_runs (cancel_by) WHERE cancel_by IS NOT NULL;

-- Signals to runs, in the order in which they came (rowid). One is taken by one step log.
CREATE TABLE workflow_signals (
    run_id   TEXT NOT NULL REFERENCES workflow_runs (id) ON DELETE CASCADE,
    id       TEXT NOT NULL,
    name     TEXT NOT NULL,
    payload  TEXT,
    sender   TEXT,
    sent_at  TEXT NOT NULL,
    taken_by TEXT,
    PRIMARY KEY (run_id, id)
);
CREATE INDEX idx_workflow_signals_waiting ON workflow_signals (run_id) WHERE taken_by IS NULL;
