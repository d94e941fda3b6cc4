-- +goose Up
-- The newest certificate of each host key at the gateway, of those that were ever asked
-- for. algorithm is the key's type, authority what signed it.
CREATE TABLE host_certificates (
    tenant    TEXT   NOT NULL,
    seed      TEXT   NOT NULL,
    host      TEXT   NOT NULL,
    algorithm TEXT   NOT NULL,
    authority TEXT   NOT NULL,
    serial    BIGINT NOT NULL,
    PRIMARY KEY (tenant, seed, host, algorithm, authority),
    FOREIGN KEY (tenant, seed) REFERENCES seeds (tenant, id) ON DELETE CASCADE
);
