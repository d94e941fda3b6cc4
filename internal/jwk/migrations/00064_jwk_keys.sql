-- +goose Up
-- The keys by which tokens of an account are signed: public halves, by the ids that the
-- private ones have in the keyring, with certificates in DER. until is how long one is
-- published that signs no more; 0 is for the one that signs, of which there is one.
CREATE TABLE jwks (
    tenant      TEXT   NOT NULL,
    id          TEXT   NOT NULL,
    kid         TEXT   NOT NULL,
    certificate BYTEA  NOT NULL,
    created     BIGINT NOT NULL,
    until       BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX jwks_signing ON jwks (tenant) WHERE until = 0;

-- After how many days another takes its place, where that was said.
CREATE TABLE jwk_terms (
    tenant TEXT   NOT NULL,
    days   BIGINT NOT NULL,
    PRIMARY KEY (tenant)
);
