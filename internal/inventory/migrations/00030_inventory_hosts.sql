-- +goose Up
CREATE TABLE hosts (
    tenant     TEXT   NOT NULL,
    id         TEXT   NOT NULL,
    name       TEXT   NOT NULL,
    address    TEXT   NOT NULL,
    login_user TEXT   NOT NULL,
    become     TEXT   NOT NULL,
    mode       TEXT   NOT NULL,
    state      TEXT   NOT NULL,
    reason     TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    revision   BIGINT NOT NULL,
    -- What scans found. They alone write these, without a new revision.
    facts      TEXT   NOT NULL,
    machine    TEXT   NOT NULL,
    outcome    TEXT   NOT NULL,
    why        TEXT   NOT NULL,
    notes      TEXT   NOT NULL,
    tried_at   BIGINT NOT NULL,
    scanned_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX hosts_name ON hosts (tenant, name);
CREATE UNIQUE INDEX hosts_address ON hosts (tenant, address);
CREATE INDEX hosts_created ON hosts (tenant, created_at, id);
CREATE INDEX hosts_machine ON hosts (tenant, machine);

-- A host key is pinned for one host only: the primary key has no host.
CREATE TABLE host_pins (
    tenant      TEXT   NOT NULL,
    fingerprint TEXT   NOT NULL,
    host_id     TEXT   NOT NULL,
    public_key  BYTEA  NOT NULL,
    origin      TEXT   NOT NULL,
    added_at    BIGINT NOT NULL,
    PRIMARY KEY (tenant, fingerprint)
);
CREATE INDEX host_pins_host ON host_pins (tenant, host_id);

CREATE TABLE host_credentials (
    tenant     TEXT   NOT NULL,
    host_id    TEXT   NOT NULL,
    key_id     TEXT   NOT NULL,
    position   BIGINT NOT NULL,
    added_at   BIGINT NOT NULL,
    worked_at  BIGINT NOT NULL,
    PRIMARY KEY (tenant, host_id, key_id)
);
CREATE INDEX host_credentials_key ON host_credentials (tenant, key_id, host_id);
