-- Whether a message has, or had, a budget, which its answers inherit. Mostly there is none, and nothing is looked up.
ALTER TABLE log ADD COLUMN budgets boolean NOT NULL DEFAULT false;
