-- The runs that wait for a slot in the order of their places, so that the next ones are found however many wait.

DROP INDEX idx_workflow_runs_queued;
CREATE INDEX idx_workflow_runs_queued ON workflow_runs (workflow_id, concurrency_key, queue_place)
    WHERE queue_place IS NOT NULL;
