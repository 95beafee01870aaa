-- Who came and went, what was refused, and who changed what; what is recorded is in bus/core/recording.py.
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
