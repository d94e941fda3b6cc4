-- +goose Up
-- How many more numbers may be given before somebody has to count who has one.
ALTER TABLE last_key_numbers ADD COLUMN room BIGINT NOT NULL DEFAULT 0;
