-- Workflows. One writer at a time owns these tables (its fence is checked first in each transaction), and looks
-- before it writes. So rows that are written often have no foreign keys, whose checks would cost more than the rows.
-- Indexed columns do not change while a step ends or a lease is renewed, so that such an update touches no index.

CREATE TABLE workflows (
    id           text COLLATE "C" PRIMARY KEY,
    name         text COLLATE "C" NOT NULL,
    owner_bot_id text COLLATE "C" REFERENCES bots (id),
    concurrency  integer,
    definition   text NOT NULL,
    replaced     text, -- digests of the definitions that were replaced
    created_at   text COLLATE "C" NOT NULL,
    updated_at   text COLLATE "C" NOT NULL
);
CREATE UNIQUE INDEX workflows_owner ON workflows (name, COALESCE(owner_bot_id, ''));

CREATE TABLE workflow_runs (
    number             bigint GENERATED ALWAYS AS IDENTITY,
    id                 text COLLATE "C" PRIMARY KEY,
    workflow_id        text COLLATE "C" NOT NULL REFERENCES workflows (id),
    workflow_name      text COLLATE "C" NOT NULL,
    status             text COLLATE "C" NOT NULL CHECK (status IN
                       ('pending', 'running', 'paused', 'completed', 'failed', 'crashed', 'cancelled')),
    trigger_type       text COLLATE "C" NOT NULL,
    trigger_payload    text,
    context            text NOT NULL,
    started_at         text COLLATE "C" NOT NULL,
    completed_at       text COLLATE "C",
    error              text,
    concurrency_key    text COLLATE "C",
    result             text,
    parent_run_id      text COLLATE "C",
    not_before         text COLLATE "C",
    attributes         text,
    cancel_by          text COLLATE "C",
    continued_as       text COLLATE "C",
    fence              bigint NOT NULL DEFAULT 0,
    holder_bot_id      text COLLATE "C",
    lease_expires_at   text COLLATE "C",
    claim_id           text COLLATE "C",
    recoveries         integer NOT NULL DEFAULT 0,
    queue_place        bigint,
    queued_at          text COLLATE "C",
    queued_until       text COLLATE "C",
    stopped            boolean NOT NULL DEFAULT false,
    last_holder_bot_id text COLLATE "C",
    progress           integer NOT NULL DEFAULT 0,
    cleans_up          boolean NOT NULL DEFAULT false,
    cancel_reason      text,
    definition         text,
    created_by_bot_id  text COLLATE "C",
    forked_from        text,
    schedule_id        text COLLATE "C",
    scheduled_at       text COLLATE "C",
    -- Whose slots it shares: NULL is a key like any other, and an index knows no NULL that equals NULL.
    queue              text COLLATE "C" NOT NULL
                       GENERATED ALWAYS AS (CASE WHEN concurrency_key IS NULL THEN '-' ELSE '=' || concurrency_key END) STORED,
    ended_at           text COLLATE "C"
                       GENERATED ALWAYS AS (CASE WHEN status IN ('completed', 'failed', 'cancelled')
                                            THEN COALESCE(completed_at, started_at) END) STORED
) WITH (fillfactor = 80);
CREATE INDEX workflow_runs_newest ON workflow_runs (started_at, number);
CREATE INDEX workflow_runs_newest_of_workflow ON workflow_runs (workflow_id, started_at, number);
CREATE INDEX workflow_runs_newest_of_status ON workflow_runs (status, started_at, number);
CREATE INDEX workflow_runs_newest_of_key ON workflow_runs (concurrency_key, started_at, number)
    WHERE concurrency_key IS NOT NULL;
CREATE INDEX workflow_runs_parent ON workflow_runs (parent_run_id) WHERE parent_run_id IS NOT NULL;
CREATE INDEX workflow_runs_queued ON workflow_runs (workflow_id, queue, queue_place) WHERE queue_place IS NOT NULL;
CREATE INDEX workflow_runs_running ON workflow_runs (workflow_id, queue) WHERE status = 'running';
CREATE INDEX workflow_runs_cancel_by ON workflow_runs (cancel_by) WHERE cancel_by IS NOT NULL;
CREATE INDEX workflow_runs_ended ON workflow_runs (workflow_id, ended_at, number) WHERE ended_at IS NOT NULL;
CREATE INDEX workflow_runs_not_before ON workflow_runs (not_before)
    WHERE not_before IS NOT NULL AND status = 'pending';
CREATE UNIQUE INDEX workflow_runs_schedule ON workflow_runs (schedule_id, scheduled_at)
    WHERE schedule_id IS NOT NULL;

CREATE TABLE workflow_steps (
    number          bigint GENERATED ALWAYS AS IDENTITY,
    id              text COLLATE "C" PRIMARY KEY,
    run_id          text COLLATE "C" NOT NULL,
    step_id         text COLLATE "C" NOT NULL,
    step_name       text NOT NULL,
    status          text COLLATE "C" NOT NULL CHECK (status IN
                    ('pending', 'running', 'completed', 'failed', 'skipped', 'waiting_approval')),
    attempt         integer NOT NULL,
    idempotency_key text,
    input           text,
    output          text,
    error           text,
    started_at      text COLLATE "C",
    completed_at    text COLLATE "C",
    -- A step that was never running began when it ended; one that neither ran nor ended comes last: '~' is after
    -- every time.
    began           text COLLATE "C" NOT NULL
                    GENERATED ALWAYS AS (COALESCE(started_at, completed_at, '~')) STORED,
    waits           boolean NOT NULL GENERATED ALWAYS AS (status = 'waiting_approval') STORED
) WITH (fillfactor = 80);
CREATE INDEX workflow_steps_of_run ON workflow_steps (run_id, began, number);
CREATE INDEX workflow_steps_waiting ON workflow_steps (run_id, began, number) WHERE waits;

CREATE TABLE workflow_signals (
    number   bigint GENERATED ALWAYS AS IDENTITY,
    run_id   text COLLATE "C" NOT NULL,
    id       text COLLATE "C" NOT NULL,
    name     text COLLATE "C" NOT NULL,
    payload  text,
    sender   text,
    sent_at  text COLLATE "C" NOT NULL,
    taken_by text COLLATE "C",
    PRIMARY KEY (run_id, id)
);
CREATE INDEX workflow_signals_waiting ON workflow_signals (run_id, number) WHERE taken_by IS NULL;

CREATE TABLE workflow_run_attributes (
    name       text COLLATE "C" NOT NULL,
    value      text COLLATE "C" NOT NULL,
    started_at text COLLATE "C" NOT NULL,
    run_id     text COLLATE "C" NOT NULL,
    PRIMARY KEY (name, value, started_at, run_id)
);
CREATE INDEX workflow_run_attributes_of_run ON workflow_run_attributes (run_id);

CREATE TABLE workflow_schedules (
    id                text COLLATE "C" PRIMARY KEY,
    workflow_id       text COLLATE "C" NOT NULL REFERENCES workflows (id) ON DELETE CASCADE,
    schedule          text NOT NULL,
    is_cron           boolean NOT NULL,
    paused            boolean NOT NULL DEFAULT false,
    anchor            text COLLATE "C" NOT NULL,
    next_at           text COLLATE "C",
    queued_at         text COLLATE "C",
    last_at           text COLLATE "C",
    last_run_id       text COLLATE "C",
    fired             bigint NOT NULL DEFAULT 0,
    skipped           bigint NOT NULL DEFAULT 0,
    error             text,
    created_at        text COLLATE "C" NOT NULL,
    created_by_bot_id text COLLATE "C"
);
CREATE INDEX workflow_schedules_workflow ON workflow_schedules (workflow_id);
CREATE INDEX workflow_schedules_next ON workflow_schedules (next_at) WHERE NOT paused AND next_at IS NOT NULL;
CREATE INDEX workflow_schedules_queued ON workflow_schedules (queued_at) WHERE NOT paused AND queued_at IS NOT NULL;

CREATE TABLE workflow_commits (
    id           text COLLATE "C" PRIMARY KEY,
    bot_id       text COLLATE "C" NOT NULL,
    run_id       text COLLATE "C",
    digest       text COLLATE "C" NOT NULL,
    seqs         text NOT NULL,
    committed_at text COLLATE "C" NOT NULL
);
CREATE INDEX workflow_commits_of_run ON workflow_commits (run_id) WHERE run_id IS NOT NULL;
