-- +goose Up
-- Because of which applications a certificate was allowed, for when what those let in to is
-- taken back.
CREATE TABLE certificate_applications (
    tenant       TEXT   NOT NULL,
    application  TEXT   NOT NULL,
    valid_before BIGINT NOT NULL,
    serial       BIGINT NOT NULL,
    PRIMARY KEY (tenant, application, valid_before, serial),
    FOREIGN KEY (tenant, serial) REFERENCES certificates (tenant, serial)
);
