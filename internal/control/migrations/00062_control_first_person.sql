-- +goose Up
-- What a machine asked for takes two persons: the first one who approved, or ''.
ALTER TABLE approvals ADD COLUMN first_person TEXT NOT NULL DEFAULT '';
