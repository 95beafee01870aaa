-- Subscriptions to patterns of channels' names. What one brings to a channel is a row of bot_subscriptions that names it.
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

ALTER TABLE bot_subscriptions ADD COLUMN pattern TEXT;
