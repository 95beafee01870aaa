-- The keys by which bots are known. Roles are a JSON array of names; checksum covers every other column.
CREATE TABLE keys (
    public_key   TEXT PRIMARY KEY,
    bot_id       TEXT NOT NULL REFERENCES bots (id),
    purpose      TEXT NOT NULL CHECK (purpose IN ('bot', 'admin', 'enrol')),
    roles        TEXT NOT NULL,
    label        TEXT NOT NULL,
    created_at   TEXT NOT NULL,
    created_by   TEXT,
    expires_at   TEXT,
    revoked_at   TEXT,
    replaced_by  TEXT,
    last_used_at TEXT,
    checksum     INTEGER NOT NULL
);
