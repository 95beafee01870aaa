-- Commits that were carried out, so that one that is sent again gets its first answer.
CREATE TABLE workflow_commits (
    id           TEXT PRIMARY KEY,
    bot_id       TEXT NOT NULL,
    run_id       TEXT REFERENCES workflow_runs (id) ON DELETE CASCADE,
    digest       TEXT NOT NULL,
    seqs         TEXT NOT NULL,
    committed_at TEXT NOT NULL
);
CREATE INDEX idx_workflow_commits_run_id ON workflow_commits (run_id) WHERE run_id IS NOT NULL;
