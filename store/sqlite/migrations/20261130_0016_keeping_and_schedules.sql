-- The runs of a workflow that have ended, oldest first: what retention looks at.
CREATE INDEX idx_workflow_runs_ended ON workflow_runs (workflow_id, COALESCE(completed_at, started_at))
    WHERE status IN ('completed', 'failed', 'cancelled');

-- Texts by which runs are found: all of a run as JSON, and each of them in the order of a list of runs.
ALTER TABLE workflow_runs ADD COLUMN attributes TEXT;
CREATE TABLE workflow_run_attributes (
    name       TEXT NOT NULL,
    value      TEXT NOT NULL,
    started_at TEXT NOT NULL,
    run_id     TEXT NOT NULL REFERENCES workflow_runs (id) ON DELETE CASCADE,
    PRIMARY KEY (name, value, started_at, run_id)
) WITHOUT ROWID;
CREATE INDEX idx_workflow_run_attributes_run_id ON workflow_run_attributes (run_id);
CREATE INDEX idx_workflow_runs_newest_of_key ON workflow_runs (concurrency_key, started_at)
    WHERE concurrency_key IS NOT NULL;

-- When runs are started by the clock. Each time of a schedule starts one run, whatever happens in between: next_at is
-- moved on in the transaction that creates the run, and the run knows of which schedule and time it is.
CREATE TABLE workflow_schedules (
    id                TEXT PRIMARY KEY,
    workflow_id       TEXT NOT NULL REFERENCES workflows (id) ON DELETE CASCADE,
    schedule          TEXT NOT NULL,
    is_cron           INTEGER NOT NULL CHECK (is_cron IN (0, 1)),
    paused            INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1)),
    anchor            TEXT NOT NULL,
    next_at           TEXT,
    queued_at         TEXT,
    last_at           TEXT,
    last_run_id       TEXT,
    fired             INTEGER NOT NULL DEFAULT 0,
    skipped           INTEGER NOT NULL DEFAULT 0,
    error             TEXT,
    created_at        TEXT NOT NULL,
    created_by_bot_id TEXT
);
CREATE INDEX idx_workflow_schedules_workflow_id ON workflow_schedules (workflow_id);
CREATE INDEX idx_workflow_schedules_next_at ON workflow_schedules (next_at) WHERE paused = 0 AND next_at IS NOT NULL;
CREATE INDEX idx_workflow_schedules_queued_at ON workflow_schedules (queued_at)
    WHERE paused = 0 AND queued_at IS NOT NULL;
ALTER TABLE workflow_runs ADD COLUMN schedule_id TEXT;
ALTER TABLE workflow_runs ADD COLUMN scheduled_at TEXT;
CREATE UNIQUE INDEX idx_workflow_runs_schedule ON workflow_runs (schedule_id, scheduled_at)
    WHERE schedule_id IS NOT NULL;
