-- A user's second factor: since when the user has one, or 0; and the time step of
-- the last code that logged in. The secret is sealed in the keyring.
ALTER TABLE users ADD COLUMN totp BIGINT NOT NULL DEFAULT 0;

ALTER TABLE users ADD COLUMN totp_step BIGINT NOT NULL DEFAULT 0;
