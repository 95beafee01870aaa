-- Whether a message comes from outside, or answers one that does; the checksum of such a row covers it, too.
ALTER TABLE bot_messages ADD COLUMN tainted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE scheduled_messages ADD COLUMN tainted INTEGER NOT NULL DEFAULT 0;

-- Whether there is any, at the start: mostly there is none.
CREATE INDEX idx_bot_messages_tainted ON bot_messages (seq) WHERE tainted = 1;
CREATE INDEX idx_scheduled_messages_tainted ON scheduled_messages (id) WHERE tainted = 1;

-- Whether there was one that has been removed: who answers it, answers what nobody knows.
ALTER TABLE log ADD COLUMN taint_removed INTEGER NOT NULL DEFAULT 0;
