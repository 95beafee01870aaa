-- The keyed store: the last write of each key (state json, bytes, deleted or expired), and what is left of others for a
-- while: the ids of writes that were replaced, and the newest marker that was swept. The row with the highest revision is
-- never removed. value is JSON.
CREATE TABLE keyed_values (
    revision   bigint PRIMARY KEY,
    store      text COLLATE "C" NOT NULL,
    key        text COLLATE "C" NOT NULL,
    state      text COLLATE "C" NOT NULL CHECK (state IN ('json', 'bytes', 'deleted', 'expired', 'replaced', 'swept')),
    value      text,
    write_id   text COLLATE "C",
    bot_id     text COLLATE "C",
    digest     text,
    written_at text COLLATE "C" NOT NULL,
    expires_at text COLLATE "C",
    checksum   bigint NOT NULL
);
CREATE UNIQUE INDEX keyed_values_key ON keyed_values (store, key) WHERE state IN ('json', 'bytes', 'deleted', 'expired');
CREATE INDEX keyed_values_write ON keyed_values (write_id) WHERE write_id IS NOT NULL;
CREATE INDEX keyed_values_expiring ON keyed_values (expires_at) WHERE expires_at IS NOT NULL AND state IN ('json', 'bytes');
CREATE INDEX keyed_values_passed ON keyed_values (state, written_at) WHERE state IN ('deleted', 'expired', 'replaced', 'swept');
