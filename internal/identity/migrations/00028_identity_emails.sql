-- +goose Up
-- A user's address of e-mail as it was given, and as it is compared: in lower case.
-- Both are empty for a user who has none.
ALTER TABLE users ADD COLUMN email TEXT NOT NULL DEFAULT '';

ALTER TABLE users ADD COLUMN mailbox TEXT NOT NULL DEFAULT '';

CREATE UNIQUE INDEX users_mailbox ON users (tenant, mailbox) WHERE mailbox <> '';
