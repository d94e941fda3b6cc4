-- +goose Up
-- What the host keys of a tenant's gateway are derived from. The seeds themselves are
-- the keyring's. Times are microseconds UTC, 0 for none.
CREATE TABLE seeds (
    tenant    TEXT    NOT NULL,
    id        TEXT    NOT NULL,
    state     TEXT    NOT NULL, -- queued, next, current, previous, retired or revoked
    since     BIGINT  NOT NULL, -- when it came into its state
    announced BIGINT  NOT NULL, -- since when its keys have been announced without a break
    left_at   BIGINT  NOT NULL, -- when they were presented last
    before    TEXT    NOT NULL, -- the seed whose place it took; empty for none
    run_id    TEXT    NOT NULL, -- that brings it into use, or brought it; empty for the first
    overlap   BIGINT  NOT NULL, -- how long each phase of that lasts, in microseconds
    retention BIGINT  NOT NULL, -- how long what it takes the place of is kept, likewise
    keep      BIGINT  NOT NULL, -- of one that is retired: until when it is kept
    created   BIGINT  NOT NULL,
    PRIMARY KEY (tenant, id)
);

CREATE UNIQUE INDEX seeds_current ON seeds (tenant) WHERE state = 'current';
