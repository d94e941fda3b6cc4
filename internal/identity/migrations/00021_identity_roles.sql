-- Roles of the tenant's own; those that every tenant has are not here. login is
-- the name in lower case; permissions as users have them.
CREATE TABLE roles (
    tenant      TEXT   NOT NULL,
    login       TEXT   NOT NULL,
    name        TEXT   NOT NULL,
    permissions TEXT   NOT NULL,
    created     BIGINT NOT NULL,
    PRIMARY KEY (tenant, login),
    FOREIGN KEY (tenant) REFERENCES tenants (tenant)
);

-- The names of a user's roles, one a line.
ALTER TABLE users ADD COLUMN roles TEXT NOT NULL DEFAULT '';

-- What a token was before it was rotated, and until when that holds.
ALTER TABLE tokens ADD COLUMN old_hash BYTEA;

ALTER TABLE tokens ADD COLUMN old_until BIGINT NOT NULL DEFAULT 0;

CREATE INDEX tokens_old_hash ON tokens (old_hash);
