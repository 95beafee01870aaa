-- One row, once a worker has led: who leads, or led, where its clients find it, and until when nobody else may take
-- over, by this server's clock. NULL: it has given its lease up. A leader's row in `workers` changes with every batch;
-- this one only with its renewals, which therefore wait for no batch.
CREATE TABLE leadership (
    one        boolean PRIMARY KEY DEFAULT true CHECK (one),
    worker_id  text COLLATE "C" NOT NULL,
    fence      bigint NOT NULL,
    url        text,
    tap        text,
    since      timestamptz NOT NULL,
    expires_at timestamptz
) WITH (fillfactor = 10);
