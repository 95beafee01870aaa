-- The whole schema as it should be after every migration. A test compares it with what the migrations make.

CREATE TABLE schema_migrations (
    name       TEXT PRIMARY KEY,
    checksum   TEXT NOT NULL,
    applied_at TEXT NOT NULL
);

CREATE TABLE log (
    epoch      TEXT NOT NULL,
    created_at TEXT NOT NULL,
    taint_removed INTEGER NOT NULL DEFAULT 0,
    budgets    INTEGER NOT NULL DEFAULT 0,
    earlier    TEXT NOT NULL DEFAULT '[]'
);

CREATE TABLE bots (
    id           TEXT PRIMARY KEY,
    name         TEXT NOT NULL UNIQUE,
    public_key   TEXT,
    created_at   TEXT NOT NULL,
    last_seen_at TEXT NOT NULL
);

CREATE TABLE keys (
    public_key   TEXT PRIMARY KEY,
    bot_id       TEXT NOT NULL REFERENCES bots (id),
    purpose      TEXT NOT NULL CHECK (purpose IN ('bot', 'admin', 'enrol')),
    roles        TEXT NOT NULL,
    label        TEXT NOT NULL,
    created_at   TEXT NOT NULL,
    created_by   TEXT,
    expires_at   TEXT,
    revoked_at   TEXT,
    replaced_by  TEXT,
    last_used_at TEXT,
    checksum     INTEGER NOT NULL
);

-- Messages and who wants them

CREATE TABLE bot_messages (
    seq               INTEGER PRIMARY KEY,
    id                TEXT NOT NULL,
    sender_bot_id     TEXT NOT NULL,
    sender_bot_name   TEXT NOT NULL,
    recipient_type    TEXT NOT NULL CHECK (recipient_type IN ('direct', 'channel')),
    recipient_bot_id  TEXT,
    recipient_channel TEXT,
    message_type      TEXT NOT NULL,
    body              TEXT NOT NULL,
    reply_to          TEXT,
    timestamp         TEXT NOT NULL,
    headers           TEXT NOT NULL DEFAULT '{}',
    expires_at        TEXT,
    checksum          INTEGER NOT NULL,
    copied            INTEGER NOT NULL DEFAULT 0,
    tainted INTEGER NOT NULL DEFAULT 0,
    priority INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX idx_bot_messages_id ON bot_messages (id) WHERE copied = 0;
CREATE UNIQUE INDEX idx_bot_messages_copied ON bot_messages (id, sender_bot_id) WHERE copied = 1;
CREATE INDEX idx_bot_messages_channel ON bot_messages (recipient_channel) WHERE recipient_channel IS NOT NULL;
CREATE INDEX idx_bot_messages_pair ON bot_messages (sender_bot_id, recipient_bot_id)
    WHERE recipient_bot_id IS NOT NULL;
CREATE INDEX idx_bot_messages_priority ON bot_messages (recipient_bot_id, priority) WHERE priority <> 0;
CREATE INDEX idx_bot_messages_recipient ON bot_messages (recipient_bot_id) WHERE recipient_bot_id IS NOT NULL;
CREATE INDEX idx_bot_messages_reply_to ON bot_messages (reply_to) WHERE reply_to IS NOT NULL;
CREATE INDEX idx_bot_messages_tainted ON bot_messages (seq) WHERE tainted = 1;
CREATE INDEX idx_bot_messages_timestamp ON bot_messages (timestamp);

CREATE TABLE bot_channels (
    name              TEXT PRIMARY KEY,
    created_at        TEXT NOT NULL,
    created_by_bot_id TEXT NOT NULL
);

CREATE TABLE bot_subscriptions (
    bot_id        TEXT NOT NULL,
    channel_name  TEXT NOT NULL REFERENCES bot_channels (name) ON DELETE CASCADE,
    subscribed_at TEXT NOT NULL,
    start_seq     INTEGER NOT NULL DEFAULT 0,
    echo          INTEGER NOT NULL DEFAULT 0 CHECK (echo IN (0, 1)),
    group_name    TEXT,
    checksum      INTEGER,
    pattern       TEXT,
    PRIMARY KEY (bot_id, channel_name)
) WITHOUT ROWID;
CREATE INDEX idx_bot_subscriptions_channel ON bot_subscriptions (channel_name);

CREATE TABLE bot_patterns (
    bot_id        TEXT NOT NULL,
    pattern       TEXT NOT NULL,
    subscribed_at TEXT NOT NULL,
    start_seq     INTEGER NOT NULL,
    echo          INTEGER NOT NULL CHECK (echo IN (0, 1)),
    group_name    TEXT,
    checksum      INTEGER NOT NULL,
    PRIMARY KEY (bot_id, pattern)
) WITHOUT ROWID;

CREATE TABLE channel_groups (
    channel_name TEXT NOT NULL REFERENCES bot_channels (name) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    created_at   TEXT NOT NULL,
    start_seq    INTEGER NOT NULL,
    checksum     INTEGER,
    PRIMARY KEY (channel_name, name)
) WITHOUT ROWID;

CREATE TABLE mailboxes (
    id         TEXT PRIMARY KEY,
    position   INTEGER NOT NULL,
    unsettled  TEXT NOT NULL DEFAULT '[]',
    floors     TEXT NOT NULL DEFAULT '{}',
    ahead      TEXT NOT NULL DEFAULT '[]',
    gap_from   INTEGER,
    gap_to     INTEGER,
    checksum   INTEGER,
    CHECK ((gap_from IS NULL) = (gap_to IS NULL))
) WITHOUT ROWID;

CREATE TABLE dead_letters (
    mailbox_id TEXT NOT NULL,
    seq        INTEGER NOT NULL,
    reason     TEXT NOT NULL,
    attempts   INTEGER NOT NULL,
    at         TEXT NOT NULL,
    PRIMARY KEY (mailbox_id, seq)
) WITHOUT ROWID;

CREATE TABLE scheduled_messages (
    id                TEXT NOT NULL,
    due_at            TEXT,
    sender_bot_id     TEXT NOT NULL,
    sender_bot_name   TEXT NOT NULL,
    recipient_bot_id  TEXT,
    recipient_channel TEXT,
    message_type      TEXT NOT NULL,
    body              TEXT NOT NULL,
    reply_to          TEXT,
    headers           TEXT NOT NULL DEFAULT '{}',
    expires_at        TEXT,
    checksum          INTEGER NOT NULL,
    tainted INTEGER NOT NULL DEFAULT 0,
    priority INTEGER NOT NULL DEFAULT 0,
    CHECK ((recipient_bot_id IS NULL) <> (recipient_channel IS NULL))
);
CREATE UNIQUE INDEX idx_scheduled_messages_id ON scheduled_messages (id, sender_bot_id);
CREATE INDEX idx_scheduled_messages_due_at ON scheduled_messages (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX idx_scheduled_messages_tainted ON scheduled_messages (id) WHERE tainted = 1;

CREATE TABLE workflow_commits (
    id           TEXT PRIMARY KEY,
    bot_id       TEXT NOT NULL,
    run_id       TEXT REFERENCES workflow_runs (id) ON DELETE CASCADE,
    digest       TEXT NOT NULL,
    seqs         TEXT NOT NULL,
    committed_at TEXT NOT NULL
);
CREATE INDEX idx_workflow_commits_run_id ON workflow_commits (run_id) WHERE run_id IS NOT NULL;

CREATE TABLE chat_sessions (
    id               TEXT PRIMARY KEY,
    created_at       TEXT NOT NULL,
    session_type     TEXT NOT NULL DEFAULT 'user',
    peer_bot_id      TEXT,
    opened_by_bot_id TEXT
);
CREATE UNIQUE INDEX idx_chat_sessions_pair
    ON chat_sessions (min(opened_by_bot_id, peer_bot_id), max(opened_by_bot_id, peer_bot_id))
    WHERE session_type = 'bot-to-bot';

-- Workflows

CREATE TABLE workflows (
    id           TEXT PRIMARY KEY,
    name         TEXT NOT NULL,
    owner_type   TEXT NOT NULL CHECK (owner_type IN ('bot', 'global')),
    owner_bot_id TEXT REFERENCES bots (id),
    definition   TEXT NOT NULL,
    created_at   TEXT NOT NULL,
    updated_at   TEXT NOT NULL,
    replaced     TEXT,
    CHECK ((owner_type = 'bot') = (owner_bot_id IS NOT NULL))
);
CREATE UNIQUE INDEX idx_workflows_owner ON workflows (name, owner_type, COALESCE(owner_bot_id, ''));

CREATE TABLE workflow_runs (
    id              TEXT PRIMARY KEY,
    workflow_id     TEXT NOT NULL REFERENCES workflows (id),
    workflow_name   TEXT NOT NULL,
    status          TEXT NOT NULL CHECK (status IN
                    ('pending', 'running', 'paused', 'completed', 'failed', 'crashed', 'cancelled')),
    trigger_type    TEXT NOT NULL,
    trigger_payload TEXT,
    context         TEXT NOT NULL DEFAULT '{}',
    started_at      TEXT NOT NULL,
    completed_at    TEXT,
    error           TEXT,
    concurrency_key TEXT,
    holder_bot_id TEXT, fence INTEGER NOT NULL DEFAULT 0, lease_expires_at TEXT, claim_id TEXT,
    recoveries INTEGER NOT NULL DEFAULT 0, queue_place INTEGER, queued_at TEXT, queued_until TEXT, definition TEXT,
    stopped INTEGER NOT NULL DEFAULT 0, created_by_bot_id TEXT, last_holder_bot_id TEXT,
    progress INTEGER NOT NULL DEFAULT 0, forked_from TEXT,
    result TEXT, parent_run_id TEXT, not_before TEXT,
    cleans_up INTEGER NOT NULL DEFAULT 0, cancel_by TEXT, cancel_reason TEXT,
    attributes TEXT, schedule_id TEXT, scheduled_at TEXT,
    continued_as TEXT
);
CREATE INDEX idx_workflow_runs_cancel_by ON workflow_runs (cancel_by) WHERE cancel_by IS NOT NULL;
CREATE INDEX idx_workflow_runs_ended ON workflow_runs (workflow_id, COALESCE(completed_at, started_at))
    WHERE status IN ('completed', 'failed', 'cancelled');
CREATE INDEX idx_workflow_runs_newest_of_key ON workflow_runs (concurrency_key, started_at)
    WHERE concurrency_key IS NOT NULL;
CREATE INDEX idx_workflow_runs_newest_of_status ON workflow_runs (status, started_at);
CREATE INDEX idx_workflow_runs_newest_of_workflow ON workflow_runs (workflow_id, started_at);
CREATE INDEX idx_workflow_runs_not_before ON workflow_runs (not_before)
    WHERE not_before IS NOT NULL AND status = 'pending';
CREATE INDEX idx_workflow_runs_parent_run_id ON workflow_runs (parent_run_id) WHERE parent_run_id IS NOT NULL;
CREATE INDEX idx_workflow_runs_queued ON workflow_runs (workflow_id, concurrency_key, queue_place)
    WHERE queue_place IS NOT NULL;
CREATE INDEX idx_workflow_runs_running ON workflow_runs (workflow_id, concurrency_key) WHERE status = 'running';
CREATE UNIQUE INDEX idx_workflow_runs_schedule ON workflow_runs (schedule_id, scheduled_at)
    WHERE schedule_id IS NOT NULL;
CREATE INDEX idx_workflow_runs_started_at ON workflow_runs (started_at);
CREATE INDEX idx_workflow_runs_status ON workflow_runs (status);
CREATE INDEX idx_workflow_runs_workflow_id ON workflow_runs (workflow_id);

CREATE TABLE workflow_steps (
    id              TEXT PRIMARY KEY,
    run_id          TEXT NOT NULL REFERENCES workflow_runs (id) ON DELETE CASCADE,
    step_id         TEXT NOT NULL,
    step_name       TEXT NOT NULL,
    status          TEXT NOT NULL CHECK (status IN
                    ('pending', 'running', 'completed', 'failed', 'skipped', 'waiting_approval')),
    attempt         INTEGER NOT NULL DEFAULT 1,
    idempotency_key TEXT,
    input           TEXT,
    output          TEXT,
    error           TEXT,
    started_at      TEXT,
    completed_at    TEXT
);
CREATE INDEX idx_workflow_steps_run_id ON workflow_steps (run_id, COALESCE(started_at, completed_at, '~'));
CREATE INDEX idx_workflow_steps_waiting ON workflow_steps (run_id) WHERE status = 'waiting_approval';

CREATE TABLE workflow_cancellations (
    run_id    TEXT PRIMARY KEY,
    reason    TEXT NOT NULL,
    cancel_by TEXT NOT NULL,
    after_id  TEXT,
    last_id   TEXT NOT NULL
);

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

CREATE TABLE workflow_run_attributes (
    name       TEXT NOT NULL,
    value      TEXT NOT NULL,
    started_at TEXT NOT NULL,
    run_id     TEXT NOT NULL REFERENCES workflow_runs (id) ON DELETE CASCADE,
    PRIMARY KEY (name, value, started_at, run_id)
) WITHOUT ROWID;
CREATE INDEX idx_workflow_run_attributes_run_id ON workflow_run_attributes (run_id);

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

-- Security

CREATE TABLE security_events (
    id       INTEGER PRIMARY KEY,
    at       TEXT NOT NULL,
    event    TEXT NOT NULL,
    bot_id   TEXT,
    key      TEXT,
    address  TEXT,
    object   TEXT,
    detail   TEXT,
    times    INTEGER NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE INDEX idx_security_events_at ON security_events (at);

CREATE TABLE removals (
    number      INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    at          TEXT NOT NULL,
    bot_id      TEXT NOT NULL,
    bot_name    TEXT NOT NULL,
    reference   TEXT,
    what        TEXT NOT NULL,
    scrubbed_at TEXT,
    checksum    INTEGER NOT NULL
);

-- Keyed values

CREATE TABLE keyed_values (
    revision   INTEGER PRIMARY KEY,
    store      TEXT NOT NULL,
    key        TEXT NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('json', 'bytes', 'deleted', 'expired', 'replaced', 'swept')),
    value      TEXT,
    write_id   TEXT,
    bot_id     TEXT,
    digest     TEXT,
    written_at TEXT NOT NULL,
    expires_at TEXT,
    checksum   INTEGER NOT NULL
);
CREATE UNIQUE INDEX idx_keyed_values_key ON keyed_values (store, key) WHERE state IN ('json', 'bytes', 'deleted', 'expired');
CREATE INDEX idx_keyed_values_write ON keyed_values (write_id) WHERE write_id IS NOT NULL;
CREATE INDEX idx_keyed_values_expiring ON keyed_values (expires_at) WHERE expires_at IS NOT NULL AND state IN ('json', 'bytes');
CREATE INDEX idx_keyed_values_passed ON keyed_values (state, written_at) WHERE state IN ('deleted', 'expired', 'replaced', 'swept');

-- Moving

CREATE TABLE house_move (
    id    TEXT PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('leaving', 'left', 'arriving')),
    place TEXT NOT NULL,
    at    TEXT NOT NULL
);
