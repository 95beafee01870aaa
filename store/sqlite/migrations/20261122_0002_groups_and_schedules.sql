-- Groups that share a mailbox, messages that wait until they are due, and what retention took from a mailbox.

ALTER TABLE bot_subscriptions ADD COLUMN group_name TEXT;

CREATE TABLE channel_groups (
    channel_name TEXT NOT NULL REFERENCES bot_channels (name) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    created_at   TEXT NOT NULL,
    start_seq    INTEGER NOT NULL,
    PRIMARY KEY (channel_name, name)
) WITHOUT ROWID;

-- A mailbox's id is that of its bot, or channel/group: no bot's id has a slash.
CREATE TABLE mailboxes_with_groups (
    id         TEXT PRIMARY KEY,
    position   INTEGER NOT NULL,
    unsettled  TEXT NOT NULL DEFAULT '[]',
    floors     TEXT NOT NULL DEFAULT '{}',
    ahead      TEXT NOT NULL DEFAULT '[]',
    gap_from   INTEGER,
    gap_to     INTEGER,
    CHECK ((gap_from IS NULL) = (gap_to IS NULL))
) WITHOUT ROWID;
INSERT INTO mailboxes_with_groups (id, position, unsettled, floors, ahead)
    SELECT bot_id, position, unsettled, floors, ahead FROM mailboxes;
DROP TABLE mailboxes;
ALTER TABLE mailboxes_with_groups RENAME TO mailboxes;

CREATE TABLE dead_letters_with_groups (
    mailbox_id TEXT NOT NULL,
    seq        INTEGER NOT NULL,
    reason     TEXT NOT NULL,
    attempts   INTEGER NOT NULL,
    at         TEXT NOT NULL,
    PRIMARY KEY (mailbox_id, seq)
) WITHOUT ROWID;
INSERT INTO dead_letters_with_groups (mailbox_id, seq, reason, attempts, at)
    SELECT bot_id, seq, reason, attempts, at FROM dead_letters;
DROP TABLE dead_letters;
ALTER TABLE dead_letters_with_groups RENAME TO dead_letters;

-- What has no place in the log yet; checksum covers every other column. A damaged one loses its due_at.
CREATE TABLE scheduled_messages (
    id                TEXT PRIMARY KEY,
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
    CHECK ((recipient_bot_id IS NULL) <> (recipient_channel IS NULL))
);
CREATE INDEX idx_scheduled_messages_due_at ON scheduled_messages (due_at) WHERE due_at IS NOT NULL;
