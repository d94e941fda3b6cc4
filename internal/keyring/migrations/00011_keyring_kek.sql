-- Of the root keyset: what the source of the KEK needs to make it again, such as
-- the salt of a passphrase, and nothing where the source holds the KEK itself.
ALTER TABLE keysets ADD COLUMN seed BYTEA;

-- When the keyset was last wrapped anew ('root') or given a new key ('data'), or 0.
ALTER TABLE keysets ADD COLUMN rotated BIGINT NOT NULL DEFAULT 0;
