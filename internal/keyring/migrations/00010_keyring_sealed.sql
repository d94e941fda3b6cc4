-- Keysets, each wrapped by what the wrapper column names. The row of id 'root',
-- the only one of the installation, is wrapped by the KEK of that name; the row
-- of id 'data' of a tenant seals what is the tenant's and is wrapped by 'root'.
CREATE TABLE keysets (
    tenant  TEXT   NOT NULL,
    id      TEXT   NOT NULL,
    wrapper TEXT   NOT NULL,
    wrapped BYTEA  NOT NULL,
    created BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);

-- Private halves. public is the blob of RFC 4253, section 6.6; revealed is when
-- the private half last left in a file, or 0.
CREATE TABLE private_keys (
    tenant   TEXT   NOT NULL,
    id       TEXT   NOT NULL,
    public   BYTEA  NOT NULL,
    sealed   BYTEA  NOT NULL,
    created  BIGINT NOT NULL,
    revealed BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);

-- Whatever else is sealed, by what it is and which one.
CREATE TABLE sealed_values (
    tenant  TEXT   NOT NULL,
    kind    TEXT   NOT NULL,
    id      TEXT   NOT NULL,
    sealed  BYTEA  NOT NULL,
    created BIGINT NOT NULL,
    PRIMARY KEY (tenant, kind, id)
);

-- The keys that open personal data. An erased one leaves its row, without the
-- key, so that nothing is sealed to that person again.
CREATE TABLE person_keys (
    tenant  TEXT   NOT NULL,
    person  TEXT   NOT NULL,
    wrapped BYTEA,
    created BIGINT NOT NULL,
    erased  BIGINT NOT NULL,
    PRIMARY KEY (tenant, person)
);
