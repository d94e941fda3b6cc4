-- +goose Up
-- What an identity provider said at a login, as in user_claims: provider is '' of a login
-- by a password.
ALTER TABLE logins ADD COLUMN provider TEXT NOT NULL DEFAULT '';

ALTER TABLE logins ADD COLUMN claims TEXT NOT NULL DEFAULT 'null';
