-- The priority of a message: -1, 0 or 1; the checksum of a row covers it, too, unless it is 0. What is not 0 is
-- found in an index, by recipient and priority.
--
-- The log has no such message yet. So the index is made for an empty table, and then given to the log, which it would
-- otherwise read.
ALTER TABLE bot_messages ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE scheduled_messages ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;

CREATE TABLE prioritized (recipient_bot_id TEXT, priority INTEGER NOT NULL);
CREATE INDEX idx_bot_messages_priority ON prioritized (recipient_bot_id, priority) WHERE priority <> 0;

PRAGMA writable_schema = ON;

UPDATE sqlite_master
    SET tbl_name = 'bot_messages',
        sql = 'CREATE INDEX idx_bot_messages_priority ON bot_messages (recipient_bot_id, priority) WHERE priority <> 0'
    WHERE type = 'index' AND name = 'idx_bot_messages_priority';

PRAGMA writable_schema = RESET;

DROP TABLE prioritized;
