-- +goose Up
-- What a tenant chose. A setting without a row has its default.
CREATE TABLE settings (
    tenant     TEXT   NOT NULL,
    name       TEXT   NOT NULL,
    value      TEXT   NOT NULL,
    changed_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
);
