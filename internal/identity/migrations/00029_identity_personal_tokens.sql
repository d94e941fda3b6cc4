-- +goose Up
-- Whether a token asks as its owner where policies decide, rather than in its own name.
ALTER TABLE tokens ADD COLUMN personal BOOLEAN NOT NULL DEFAULT FALSE;
