-- Identity providers. login is the name in lower case; kind "people" or "machines";
-- audiences, scopes, rules (claim=value -> Role) and required (claim=value) are one a
-- line. A client secret is sealed in the keyring.
CREATE TABLE identity_providers (
    tenant     TEXT   NOT NULL,
    id         TEXT   NOT NULL,
    login      TEXT   NOT NULL,
    name       TEXT   NOT NULL,
    kind       TEXT   NOT NULL,
    issuer     TEXT   NOT NULL,
    client     TEXT   NOT NULL,
    secret     BIGINT NOT NULL,
    audiences  TEXT   NOT NULL,
    scopes     TEXT   NOT NULL,
    name_claim TEXT   NOT NULL,
    rules      TEXT   NOT NULL,
    required   TEXT   NOT NULL,
    created    BIGINT NOT NULL,
    PRIMARY KEY (tenant, id),
    FOREIGN KEY (tenant) REFERENCES tenants (tenant)
);

CREATE UNIQUE INDEX identity_providers_login ON identity_providers (tenant, login);

-- Who a user is at an identity provider; both empty for a user of our own.
ALTER TABLE users ADD COLUMN provider TEXT NOT NULL DEFAULT '';

ALTER TABLE users ADD COLUMN subject TEXT NOT NULL DEFAULT '';

CREATE UNIQUE INDEX users_subject ON users (tenant, provider, subject) WHERE provider <> '';

-- Logins that have gone to an identity provider and not come back. id is the SHA-256
-- in hex of the state, or of the device code where device is not 0; challenge that of
-- what only the client knows.
CREATE TABLE begun_logins (
    tenant    TEXT   NOT NULL,
    id        TEXT   NOT NULL,
    provider  TEXT   NOT NULL,
    device    BIGINT NOT NULL,
    challenge TEXT   NOT NULL,
    nonce     TEXT   NOT NULL,
    redirect  TEXT   NOT NULL,
    source    TEXT   NOT NULL,
    ends      BIGINT NOT NULL,
    PRIMARY KEY (tenant, id),
    FOREIGN KEY (tenant, provider) REFERENCES identity_providers (tenant, id)
);

-- Found before the tenant is known.
CREATE UNIQUE INDEX begun_logins_id ON begun_logins (id);

CREATE INDEX begun_logins_provider ON begun_logins (tenant, provider);

CREATE INDEX begun_logins_source ON begun_logins (tenant, source);

-- Logins of machines: id is the SHA-256 in hex of the login token; roles one a line.
CREATE TABLE machine_logins (
    tenant   TEXT   NOT NULL,
    id       TEXT   NOT NULL,
    provider TEXT   NOT NULL,
    name     TEXT   NOT NULL,
    roles    TEXT   NOT NULL,
    ends     BIGINT NOT NULL,
    PRIMARY KEY (tenant, id),
    FOREIGN KEY (tenant, provider) REFERENCES identity_providers (tenant, id)
);

-- Found before the tenant is known.
CREATE UNIQUE INDEX machine_logins_id ON machine_logins (id);

CREATE INDEX machine_logins_provider ON machine_logins (tenant, provider);

CREATE INDEX machine_logins_ends ON machine_logins (tenant, ends);
