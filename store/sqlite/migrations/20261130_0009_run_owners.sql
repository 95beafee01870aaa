-- Whose a run is: the bot that created it, if its key said which one it is, and the one that held it last.
ALTER TABLE workflow_runs ADD COLUMN created_by_bot_id TEXT;
ALTER TABLE workflow_runs ADD COLUMN last_holder_bot_id TEXT;
UPDATE workflow_runs SET last_holder_bot_id = holder_bot_id;
