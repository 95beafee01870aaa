-- Subscriptions to patterns of channels' names. What one brings to a channel is a row of bot_subscriptions that names it.
CREATE TABLE bot_patterns (
    bot_id        text COLLATE "C" NOT NULL,
    pattern       text COLLATE "C" NOT NULL,
    subscribed_at text NOT NULL,
    start_seq     bigint NOT NULL,
    echo          boolean NOT NULL,
    group_name    text COLLATE "C",
    checksum      bigint NOT NULL,
    PRIMARY KEY (bot_id, pattern)
);

ALTER TABLE bot_subscriptions ADD COLUMN pattern text COLLATE "C";
