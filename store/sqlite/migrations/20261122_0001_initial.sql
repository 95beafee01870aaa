-- The first schema. Ids are UUIDs, times are RFC 3339 in UTC with microseconds, JSON is text.

CREATE TABLE bots (
    id           TEXT PRIMARY KEY,
    name         TEXT NOT NULL UNIQUE,
    public_key   TEXT,
    created_at   TEXT NOT NULL,
    last_seen_at TEXT NOT NULL
);

CREATE TABLE workflows (
    id           TEXT PRIMARY KEY,
    name         TEXT NOT NULL,
    owner_type   TEXT NOT NULL CHECK (owner_type IN ('bot', 'global')),
    owner_bot_id TEXT REFERENCES bots (id),
    definition   TEXT NOT NULL,
    created_at   TEXT NOT NULL,
    updated_at   TEXT NOT NULL,
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
    concurrency_key TEXT
);
CREATE INDEX idx_workflow_runs_workflow_id ON workflow_runs (workflow_id);
CREATE INDEX idx_workflow_runs_status ON workflow_runs (status);

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
CREATE INDEX idx_workflow_steps_run_id ON workflow_steps (run_id);

-- The log. seq is the commit order; checksum covers every other column.
CREATE TABLE bot_messages (
    seq               INTEGER PRIMARY KEY,
    id                TEXT NOT NULL UNIQUE,
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
    checksum          INTEGER NOT NULL
);
CREATE INDEX idx_bot_messages_pair ON bot_messages (sender_bot_id, recipient_bot_id)
    WHERE recipient_bot_id IS NOT NULL;
CREATE INDEX idx_bot_messages_recipient ON bot_messages (recipient_bot_id) WHERE recipient_bot_id IS NOT NULL;
CREATE INDEX idx_bot_messages_channel ON bot_messages (recipient_channel) WHERE recipient_channel IS NOT NULL;
CREATE INDEX idx_bot_messages_timestamp ON bot_messages (timestamp);
CREATE INDEX idx_bot_messages_reply_to ON bot_messages (reply_to) WHERE reply_to IS NOT NULL;

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
    PRIMARY KEY (bot_id, channel_name)
) WITHOUT ROWID;
CREATE INDEX idx_bot_subscriptions_channel ON bot_subscriptions (channel_name);

-- A mailbox's place in the log; unsettled, floors and ahead are JSON (fields of store.repository.MailboxState).
CREATE TABLE mailboxes (
    bot_id     TEXT PRIMARY KEY REFERENCES bots (id),
    position   INTEGER NOT NULL,
    unsettled  TEXT NOT NULL DEFAULT '[]',
    floors     TEXT NOT NULL DEFAULT '{}',
    ahead      TEXT NOT NULL DEFAULT '[]'
) WITHOUT ROWID;

CREATE TABLE dead_letters (
    bot_id   TEXT NOT NULL REFERENCES bots (id),
    seq      INTEGER NOT NULL,
    reason   TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    at       TEXT NOT NULL,
    PRIMARY KEY (bot_id, seq)
) WITHOUT ROWID;

-- Conversations. A database that already has some with people keeps them, and its table gets our columns.
CREATE TABLE IF NOT EXISTS chat_sessions (
    id         TEXT PRIMARY KEY,
    created_at TEXT NOT NULL
);
ALTER TABLE chat_sessions ADD COLUMN session_type TEXT NOT NULL DEFAULT 'user';
ALTER TABLE chat_sessions ADD COLUMN peer_bot_id TEXT;
ALTER TABLE chat_sessions ADD COLUMN opened_by_bot_id TEXT;
CREATE UNIQUE INDEX idx_chat_sessions_pair
    ON chat_sessions (min(opened_by_bot_id, peer_bot_id), max(opened_by_bot_id, peer_bot_id))
    WHERE session_type = 'bot-to-bot';

-- One row: which database this is. A client that meets another epoch talks to another log.
CREATE TABLE log (
    epoch      TEXT NOT NULL,
    created_at TEXT NOT NULL
);
