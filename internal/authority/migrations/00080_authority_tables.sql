-- Certificate authorities: one row for each key. What came in the place of another
-- has its name. signs_from and signs_until say when it signs, and trusted_until how
-- long hosts are told to trust it; 0 is for ever. removed is when it ceased to be one,
-- or 0. profile is JSON. application is "" for one of the whole tenant.
CREATE TABLE authorities (
    tenant        TEXT   NOT NULL,
    id            TEXT   NOT NULL,
    name          TEXT   NOT NULL,
    purpose       TEXT   NOT NULL,
    application   TEXT   NOT NULL,
    public        BYTEA  NOT NULL,
    comment       TEXT   NOT NULL,
    profile       TEXT   NOT NULL,
    created       BIGINT NOT NULL,
    signs_from    BIGINT NOT NULL,
    signs_until   BIGINT NOT NULL,
    trusted_until BIGINT NOT NULL,
    removed       BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX authorities_by_name ON authorities (tenant, name, created);

-- Certificates, from before they are signed: unsigned is what the authority signs,
-- and says the rest. public_key is the fingerprint of the key that is certified, person
-- the id of whom it is for, and why who let them.
CREATE TABLE certificates (
    tenant       TEXT   NOT NULL,
    serial       BIGINT NOT NULL,
    authority    TEXT   NOT NULL,
    key_id       TEXT   NOT NULL,
    public_key   TEXT   NOT NULL,
    person       TEXT   NOT NULL,
    why          TEXT   NOT NULL,
    unsigned     BYTEA  NOT NULL,
    created      BIGINT NOT NULL,
    valid_before BIGINT NOT NULL,
    PRIMARY KEY (tenant, serial),
    FOREIGN KEY (tenant, authority) REFERENCES authorities (tenant, id)
);
CREATE INDEX certificates_by_time ON certificates (tenant, created, serial);
CREATE INDEX certificates_by_key_id ON certificates (tenant, key_id, valid_before);
CREATE INDEX certificates_by_person ON certificates (tenant, person, valid_before);

-- What is revoked. kind is serial, key-id, key or authority; authority is of a serial
-- number or key id, and else ''; value is the number, the key id, or the fingerprint of
-- public. until is when nothing is left to revoke, or 0.
CREATE TABLE revocations (
    tenant    TEXT   NOT NULL,
    kind      TEXT   NOT NULL,
    authority TEXT   NOT NULL,
    value     TEXT   NOT NULL,
    public    BYTEA  NOT NULL,
    reason    TEXT   NOT NULL,
    created   BIGINT NOT NULL,
    until     BIGINT NOT NULL,
    PRIMARY KEY (tenant, kind, authority, value)
);

-- The number of the last key revocation list, and when it came to be.
CREATE TABLE revocation_lists (
    tenant  TEXT   NOT NULL,
    version BIGINT NOT NULL,
    changed BIGINT NOT NULL,
    PRIMARY KEY (tenant)
);
