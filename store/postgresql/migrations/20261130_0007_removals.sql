-- Who removed what, and when; without any content. scrubbed_at is the time since when nothing of it is left in tables.
CREATE TABLE removals (
    number      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id          text COLLATE "C" NOT NULL UNIQUE,
    at          text COLLATE "C" NOT NULL,
    bot_id      text COLLATE "C" NOT NULL,
    bot_name    text NOT NULL,
    reference   text,
    what        text NOT NULL,
    scrubbed_at text COLLATE "C",
    checksum    bigint NOT NULL
);
