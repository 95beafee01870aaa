-- After a backup was put into place, and before a worker starts: once, as the owner of the schema or a superuser.
BEGIN;
-- What was acknowledged after the backup is not in it, and its seqs will be assigned again: clients forget them when they
-- see another epoch.
UPDATE posthouse.log SET epoch = gen_random_uuid()::text;
-- A program may still hold a run by a claim from after the backup: the next claim must not have the same fence.
UPDATE posthouse.workflow_runs SET fence = fence + 1000000;
COMMIT;
