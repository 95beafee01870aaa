-- Who removed what, and when; without any content. scrubbed_at is the time since when nothing of it is left in the files.
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
