-- What a bot is owed, with a checksum over the rest of its row; NULL in a row that was written before there was one.
ALTER TABLE mailboxes ADD COLUMN checksum INTEGER;
ALTER TABLE bot_subscriptions ADD COLUMN checksum INTEGER;
ALTER TABLE channel_groups ADD COLUMN checksum INTEGER;
