-- Grants of OAuth 2.0 (RFC 6749): what a user's password was exchanged for. access
-- and refresh are the SHA-256 of the two tokens, which a refresh replaces.
CREATE TABLE oauth_grants (
    tenant        TEXT   NOT NULL,
    id            TEXT   NOT NULL,
    owner         TEXT   NOT NULL,
    access        BYTEA  NOT NULL,
    access_until  BIGINT NOT NULL,
    refresh       BYTEA  NOT NULL,
    refresh_until BIGINT NOT NULL,
    created       BIGINT NOT NULL,
    PRIMARY KEY (tenant, id),
    FOREIGN KEY (tenant, owner) REFERENCES users (tenant, id)
);

-- Found before the tenant is known.
CREATE UNIQUE INDEX oauth_grants_access ON oauth_grants (access);

CREATE UNIQUE INDEX oauth_grants_refresh ON oauth_grants (refresh);

CREATE INDEX oauth_grants_owner ON oauth_grants (tenant, owner, created);
