-- +goose Up
-- Whether the run has said that it takes nothing at the target: nobody waits for it there.
ALTER TABLE job_targets ADD COLUMN passed BIGINT NOT NULL DEFAULT 0;
