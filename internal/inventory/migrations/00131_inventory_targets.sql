-- +goose Up
-- Hosts as access rules know them. hostname is as it was written, hostname_key in lower
-- case; written says that somebody wrote it as a target, and not only added the host.
CREATE TABLE targets (
    tenant       TEXT    NOT NULL,
    host_id      TEXT    NOT NULL,
    hostname     TEXT    NOT NULL,
    hostname_key TEXT    NOT NULL,
    written      BOOLEAN NOT NULL,
    created_at   BIGINT  NOT NULL,
    modified_at  BIGINT  NOT NULL,
    PRIMARY KEY (tenant, host_id),
    FOREIGN KEY (tenant, host_id) REFERENCES hosts (tenant, id)
);
CREATE INDEX targets_hostname ON targets (tenant, hostname_key, host_id);
CREATE INDEX targets_created ON targets (tenant, created_at, host_id);

-- An address is one target's in its virtual network. ip_key is the version of IP and the
-- address in hex, so that ranges compare as text; ip is as it was written.
CREATE TABLE target_addresses (
    tenant  TEXT NOT NULL,
    network TEXT NOT NULL,
    ip_key  TEXT NOT NULL,
    host_id TEXT NOT NULL,
    ip      TEXT NOT NULL,
    PRIMARY KEY (tenant, network, ip_key),
    FOREIGN KEY (tenant, host_id) REFERENCES targets (tenant, host_id)
);
CREATE INDEX target_addresses_host ON target_addresses (tenant, host_id);
CREATE INDEX target_addresses_ip ON target_addresses (tenant, ip_key);

CREATE TABLE target_tags (
    tenant  TEXT NOT NULL,
    host_id TEXT NOT NULL,
    name    TEXT NOT NULL,
    value   TEXT NOT NULL,
    PRIMARY KEY (tenant, host_id, name),
    FOREIGN KEY (tenant, host_id) REFERENCES targets (tenant, host_id)
);
CREATE INDEX target_tags_name ON target_tags (tenant, name, value, host_id);
