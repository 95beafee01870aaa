-- The logs that this one goes on from, as JSON: pairs of an epoch, and the last seq up to which both are the same.
ALTER TABLE log ADD COLUMN earlier text NOT NULL DEFAULT '[]';
