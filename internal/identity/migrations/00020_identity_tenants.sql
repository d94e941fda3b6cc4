CREATE TABLE tenants (
    tenant  TEXT   NOT NULL PRIMARY KEY,
    name    TEXT   NOT NULL,
    created BIGINT NOT NULL
);

CREATE UNIQUE INDEX tenants_name ON tenants (name);

-- login is the name in lower case, by which a user is found; password an
-- argon2id hash, or empty for a user who has none; permissions their names, one
-- a line.
CREATE TABLE users (
    tenant      TEXT   NOT NULL,
    id          TEXT   NOT NULL,
    login       TEXT   NOT NULL,
    name        TEXT   NOT NULL,
    password    TEXT   NOT NULL,
    permissions TEXT   NOT NULL,
    created     BIGINT NOT NULL,
    PRIMARY KEY (tenant, id),
    FOREIGN KEY (tenant) REFERENCES tenants (tenant)
);

CREATE UNIQUE INDEX users_login ON users (tenant, login);

-- API tokens. hash is the SHA-256 of the token; owner the user on whose behalf
-- it acts; parent the token that made it, or empty; expires 0 for never; used 0
-- for not yet.
CREATE TABLE tokens (
    tenant      TEXT   NOT NULL,
    id          TEXT   NOT NULL,
    name        TEXT   NOT NULL,
    hash        BYTEA  NOT NULL,
    permissions TEXT   NOT NULL,
    owner       TEXT   NOT NULL,
    parent      TEXT   NOT NULL,
    created     BIGINT NOT NULL,
    expires     BIGINT NOT NULL,
    used        BIGINT NOT NULL,
    PRIMARY KEY (tenant, id),
    FOREIGN KEY (tenant, owner) REFERENCES users (tenant, id)
);

-- Found before the tenant is known.
CREATE UNIQUE INDEX tokens_hash ON tokens (hash);

CREATE UNIQUE INDEX tokens_id ON tokens (id);

CREATE INDEX tokens_owner ON tokens (tenant, owner);

CREATE INDEX tokens_parent ON tokens (tenant, parent);

-- Web logins: id is the SHA-256 in hex of the id that the client holds.
CREATE TABLE web_logins (
    tenant  TEXT   NOT NULL,
    id      TEXT   NOT NULL,
    owner   TEXT   NOT NULL,
    created BIGINT NOT NULL,
    seen    BIGINT NOT NULL,
    PRIMARY KEY (tenant, id),
    FOREIGN KEY (tenant, owner) REFERENCES users (tenant, id)
);

CREATE UNIQUE INDEX web_logins_id ON web_logins (id);

CREATE INDEX web_logins_owner ON web_logins (tenant, owner);

CREATE INDEX web_logins_seen ON web_logins (tenant, seen);
