-- Messages, mailboxes, and who writes. Ids are text, times are RFC 3339 in UTC with microseconds, JSON is text: what is
-- stored is what is read back, and the checksums of rows are those of the SQLite backend. Texts that are keys or ordered
-- have the collation "C", whose order is that of their bytes on every system.

-- One row: which log this is, and whether a tainted message was removed from it.
CREATE TABLE log (
    epoch         text NOT NULL,
    created_at    text NOT NULL,
    taint_removed boolean NOT NULL DEFAULT false
);

-- One row: where the log ends, and the highest fence. Who has it locked adds to the log.
CREATE TABLE log_end (
    one            boolean PRIMARY KEY DEFAULT true CHECK (one),
    last_seq       bigint NOT NULL,
    last_timestamp text COLLATE "C" NOT NULL,
    fence          bigint NOT NULL
) WITH (fillfactor = 10);
INSERT INTO log_end (last_seq, last_timestamp, fence) VALUES (0, '', 0);

-- The worker that writes: one incarnation of it, and the number of its last batch.
CREATE TABLE workers (
    id       text COLLATE "C" PRIMARY KEY,
    fence    bigint NOT NULL,
    batch    bigint NOT NULL,
    began_at timestamptz NOT NULL
) WITH (fillfactor = 10);

CREATE TABLE bots (
    id           text COLLATE "C" PRIMARY KEY,
    name         text COLLATE "C" NOT NULL UNIQUE,
    public_key   text,
    created_at   text NOT NULL,
    last_seen_at text NOT NULL
);

-- The log. seq is the commit order; checksum covers every other column but copied, which is false for the first message
-- with an id, and true for those of other senders.
CREATE TABLE bot_messages (
    seq               bigint PRIMARY KEY,
    id                text COLLATE "C" NOT NULL,
    sender_bot_id     text COLLATE "C" NOT NULL,
    sender_bot_name   text NOT NULL,
    recipient_bot_id  text COLLATE "C",
    recipient_channel text COLLATE "C",
    message_type      text NOT NULL,
    body              text NOT NULL,
    reply_to          text COLLATE "C",
    headers           text NOT NULL,
    timestamp         text COLLATE "C" NOT NULL,
    expires_at        text,
    tainted           boolean NOT NULL,
    checksum          bigint NOT NULL,
    copied            boolean NOT NULL DEFAULT false
);
CREATE UNIQUE INDEX bot_messages_id ON bot_messages (id) WHERE NOT copied;
CREATE UNIQUE INDEX bot_messages_copied ON bot_messages (id, sender_bot_id) WHERE copied;
-- Each index is written for every message that it has. The messages of a pair are found among those of the recipient,
-- in the index alone; and those since a time by their seqs, because times rise with them.
CREATE INDEX bot_messages_recipient ON bot_messages (recipient_bot_id, seq) INCLUDE (sender_bot_id)
    WHERE recipient_bot_id IS NOT NULL;
CREATE INDEX bot_messages_channel ON bot_messages (recipient_channel, seq) WHERE recipient_channel IS NOT NULL;
CREATE INDEX bot_messages_reply_to ON bot_messages (reply_to) WHERE reply_to IS NOT NULL;
CREATE INDEX bot_messages_tainted ON bot_messages (seq) WHERE tainted;

-- What has no place in the log yet, in the order of number where it is due at the same time. A damaged one loses its
-- due_at.
CREATE TABLE scheduled_messages (
    number            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id                text COLLATE "C" NOT NULL,
    sender_bot_id     text COLLATE "C" NOT NULL,
    sender_bot_name   text NOT NULL,
    recipient_bot_id  text COLLATE "C",
    recipient_channel text COLLATE "C",
    message_type      text NOT NULL,
    body              text NOT NULL,
    reply_to          text,
    headers           text NOT NULL,
    expires_at        text,
    due_at            text COLLATE "C",
    tainted           boolean NOT NULL,
    checksum          bigint NOT NULL,
    UNIQUE (id, sender_bot_id)
);
CREATE INDEX scheduled_messages_due_at ON scheduled_messages (due_at, number) WHERE due_at IS NOT NULL;

CREATE TABLE bot_channels (
    name              text COLLATE "C" PRIMARY KEY,
    created_at        text NOT NULL,
    created_by_bot_id text NOT NULL
);

CREATE TABLE bot_subscriptions (
    bot_id        text COLLATE "C" NOT NULL,
    channel_name  text COLLATE "C" NOT NULL REFERENCES bot_channels (name) ON DELETE CASCADE,
    subscribed_at text NOT NULL,
    start_seq     bigint NOT NULL,
    echo          boolean NOT NULL,
    group_name    text COLLATE "C",
    checksum      bigint NOT NULL,
    PRIMARY KEY (bot_id, channel_name)
);
CREATE INDEX bot_subscriptions_channel ON bot_subscriptions (channel_name);

CREATE TABLE channel_groups (
    channel_name text COLLATE "C" NOT NULL REFERENCES bot_channels (name) ON DELETE CASCADE,
    name         text COLLATE "C" NOT NULL,
    created_at   text NOT NULL,
    start_seq    bigint NOT NULL,
    checksum     bigint NOT NULL,
    PRIMARY KEY (channel_name, name)
);

-- A mailbox's place in the log; unsettled, floors and ahead are JSON. Its id is that of its bot, or channel/group. It is
-- replaced several times a second while it changes, in the same page if there is room.
CREATE TABLE mailboxes (
    id        text COLLATE "C" PRIMARY KEY,
    position  bigint NOT NULL,
    unsettled text NOT NULL,
    floors    text NOT NULL,
    ahead     text NOT NULL,
    gap_from  bigint,
    gap_to    bigint,
    checksum  bigint NOT NULL,
    CHECK ((gap_from IS NULL) = (gap_to IS NULL))
) WITH (fillfactor = 50);

CREATE TABLE dead_letters (
    mailbox_id text COLLATE "C" NOT NULL,
    seq        bigint NOT NULL,
    reason     text NOT NULL,
    attempts   integer NOT NULL,
    at         text COLLATE "C" NOT NULL,
    PRIMARY KEY (mailbox_id, seq)
);

-- Conversations: the first direct message of a pair opens one.
CREATE TABLE chat_sessions (
    id               text COLLATE "C" PRIMARY KEY,
    session_type     text NOT NULL DEFAULT 'user',
    peer_bot_id      text COLLATE "C",
    opened_by_bot_id text COLLATE "C",
    created_at       text NOT NULL
);
CREATE UNIQUE INDEX chat_sessions_pair
    ON chat_sessions (LEAST(opened_by_bot_id, peer_bot_id), GREATEST(opened_by_bot_id, peer_bot_id))
    WHERE session_type = 'bot-to-bot';

-- The keys by which bots are known. Roles are a JSON array of names.
CREATE TABLE keys (
    public_key   text COLLATE "C" PRIMARY KEY,
    bot_id       text COLLATE "C" NOT NULL REFERENCES bots (id),
    purpose      text NOT NULL CHECK (purpose IN ('bot', 'admin', 'enrol')),
    roles        text NOT NULL,
    label        text NOT NULL,
    created_at   text COLLATE "C" NOT NULL,
    created_by   text,
    expires_at   text,
    revoked_at   text,
    replaced_by  text,
    last_used_at text,
    checksum     bigint NOT NULL
);

-- Who came and went, what was refused, and who changed what.
CREATE TABLE security_events (
    id       bigint PRIMARY KEY,
    at       text COLLATE "C" NOT NULL,
    event    text NOT NULL,
    bot_id   text,
    key      text,
    address  text,
    object   text,
    detail   text,
    times    integer NOT NULL,
    checksum bigint NOT NULL
);
CREATE INDEX security_events_at ON security_events (at);
