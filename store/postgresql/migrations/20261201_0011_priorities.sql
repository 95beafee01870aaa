-- The priority of a message: -1, 0 or 1; the checksum of a row covers it, too, unless it is 0. What is not 0 is found in
-- an index, by recipient and priority.
ALTER TABLE bot_messages ADD COLUMN priority smallint NOT NULL DEFAULT 0;
ALTER TABLE scheduled_messages ADD COLUMN priority smallint NOT NULL DEFAULT 0;

CREATE INDEX bot_messages_priority ON bot_messages (recipient_bot_id, priority, seq) WHERE priority <> 0;
