-- An id belongs to its sender: another sender's same id is another message. The log's first message with an id has
-- copied = 0; those of other senders have 1.
--
-- So the unique constraint becomes an index of the firsts, which has the same b-tree: every message is the first with
-- its id so far. ALTER TABLE cannot drop a constraint, and reads every row to add a column to a table with a CHECK; to
-- copy a log of ten million messages takes minutes and three times its space. Here only the schema's text changes,
-- whatever the length of the log: a row that ends before the new column has its default. The index of copies is empty,
-- so it is made for an empty table, and then given to the log, which it would otherwise read. Delayed messages are few:
-- their index is made again.

CREATE TABLE copies (id TEXT NOT NULL, sender_bot_id TEXT NOT NULL);
CREATE UNIQUE INDEX idx_bot_messages_copied ON copies (id, sender_bot_id);

PRAGMA writable_schema = ON;

UPDATE sqlite_master SET sql = 'CREATE TABLE bot_messages (
    seq               INTEGER PRIMARY KEY,
    id                TEXT NOT NULL,
    sender_bot_id     TEXT NOT NULL,
    sender_bot_name   TEXT NOT NULL,
    recipient_type    TEXT NOT NULL CHECK (recipient_type IN (''direct'', ''channel'')),
    recipient_bot_id  TEXT,
    recipient_channel TEXT,
    message_type      TEXT NOT NULL,
    body              TEXT NOT NULL,
    reply_to          TEXT,
    timestamp         TEXT NOT NULL,
    headers           TEXT NOT NULL DEFAULT ''{}'',
    expires_at        TEXT,
    checksum          INTEGER NOT NULL,
    copied            INTEGER NOT NULL DEFAULT 0
)' WHERE type = 'table' AND name = 'bot_messages';

UPDATE sqlite_master
    SET name = 'idx_bot_messages_id',
        sql = 'CREATE UNIQUE INDEX idx_bot_messages_id ON bot_messages (id) WHERE copied = 0'
    WHERE type = 'index' AND name = 'sqlite_autoindex_bot_messages_1';

UPDATE sqlite_master
    SET tbl_name = 'bot_messages',
        sql = 'CREATE UNIQUE INDEX idx_bot_messages_copied ON bot_messages (id, sender_bot_id) WHERE copied = 1'
    WHERE type = 'index' AND name = 'idx_bot_messages_copied';

UPDATE sqlite_master SET sql = 'CREATE TABLE scheduled_messages (
    id                TEXT NOT NULL,
    due_at            TEXT,
    sender_bot_id     TEXT NOT NULL,
    sender_bot_name   TEXT NOT NULL,
    recipient_bot_id  TEXT,
    recipient_channel TEXT,
    message_type      TEXT NOT NULL,
    body              TEXT NOT NULL,
    reply_to          TEXT,
    headers           TEXT NOT NULL DEFAULT ''{}'',
    expires_at        TEXT,
    checksum          INTEGER NOT NULL,
    CHECK ((recipient_bot_id IS NULL) <> (recipient_channel IS NULL))
)' WHERE type = 'table' AND name = 'scheduled_messages';

UPDATE sqlite_master
    SET name = 'ids_of_scheduled', sql = 'CREATE UNIQUE INDEX ids_of_scheduled ON scheduled_messages (id)'
    WHERE type = 'index' AND name = 'sqlite_autoindex_scheduled_messages_1';

PRAGMA writable_schema = RESET;

DROP TABLE copies;
DROP INDEX ids_of_scheduled;
CREATE UNIQUE INDEX idx_scheduled_messages_id ON scheduled_messages (id, sender_bot_id);
