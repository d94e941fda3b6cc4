-- +goose Up
-- Who asked for a seed: the id of a user, a token or a machine; empty for the first, and
-- for those from before this was kept.
ALTER TABLE seeds ADD COLUMN asked_by TEXT NOT NULL DEFAULT '';
