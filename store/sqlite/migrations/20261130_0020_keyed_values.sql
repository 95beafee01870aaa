-- The keyed store: the last write of each key (state json, bytes, deleted or expired), and what is left of others for a
-- while: the ids of writes that were replaced, and the newest marker that was swept. The row with the highest revision is
-- never removed. value is JSON.
CREATE TABLE keyed_values (
    revision   INTEGER PRIMARY KEY,
    store      TEXT NOT NULL,
    key        TEXT NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('json', 'bytes', 'deleted', 'expired', 'replaced', 'swept')),
    value      TEXT,
    write_id   TEXT,
    bot_id     TEXT,
    digest     TEXT,
    written_at TEXT NOT NULL,
    expires_at TEXT,
    checksum   INTEGER NOT NULL
);
CREATE UNIQUE INDEX idx_keyed_values_key ON keyed_values (store, key) WHERE state IN ('json', 'bytes', 'deleted', 'expired');
CREATE INDEX idx_keyed_values_write ON keyed_values (write_id) WHERE write_id IS NOT NULL;
CREATE INDEX idx_keyed_values_expiring ON keyed_values (expires_at) WHERE expires_at IS NOT NULL AND state IN ('json', 'bytes');
CREATE INDEX idx_keyed_values_passed ON keyed_values (state, written_at) WHERE state IN ('deleted', 'expired', 'replaced', 'swept');
