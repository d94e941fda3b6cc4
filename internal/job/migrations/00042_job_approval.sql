-- +goose Up
-- Until when somebody has to approve of a run that waits for that; 0: it does not.
ALTER TABLE job_runs ADD COLUMN approve_by BIGINT NOT NULL DEFAULT 0;
