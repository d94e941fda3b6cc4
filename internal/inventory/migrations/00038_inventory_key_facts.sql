-- +goose Up
-- What people say of a key: what it is for, until when it is meant to be used (0:
-- nobody said), and words of their own to find it by. And when Keyturn last gave its
-- private half to somebody, or 0.
ALTER TABLE keys ADD COLUMN purpose TEXT NOT NULL DEFAULT '';
ALTER TABLE keys ADD COLUMN expires_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE keys ADD COLUMN revealed_at BIGINT NOT NULL DEFAULT 0;

CREATE INDEX keys_expires ON keys (tenant, expires_at, id) WHERE expires_at > 0;

CREATE INDEX keys_owner ON keys (tenant, owner, id) WHERE owner <> '';

CREATE TABLE key_labels (
    tenant TEXT NOT NULL,
    key_id TEXT NOT NULL,
    name   TEXT NOT NULL,
    value  TEXT NOT NULL,
    PRIMARY KEY (tenant, key_id, name),
    FOREIGN KEY (tenant, key_id) REFERENCES keys (tenant, id)
);

CREATE INDEX key_labels_name ON key_labels (tenant, name, value, key_id);
