-- +goose Up
CREATE TABLE keys (
    tenant          TEXT    NOT NULL,
    id              TEXT    NOT NULL,
    kind            TEXT    NOT NULL,
    fingerprint     TEXT    NOT NULL,
    public_key      BYTEA   NOT NULL,
    comment         TEXT    NOT NULL,
    owner           TEXT    NOT NULL,
    state           TEXT    NOT NULL,
    custody         TEXT    NOT NULL,
    container       TEXT    NOT NULL,
    compromised     BOOLEAN NOT NULL,
    created_at      BIGINT  NOT NULL,
    last_rotated_at BIGINT  NOT NULL,
    deleted_at      BIGINT  NOT NULL,
    revision        BIGINT  NOT NULL,
    -- What free text is looked for in: lower case.
    search          TEXT    NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX keys_created ON keys (tenant, created_at, id, kind, state, custody);
CREATE INDEX keys_fingerprint ON keys (tenant, fingerprint, id);

-- The rotated inventory: a key that a run took out of use. undone_at tells
-- that a later run, or the same one, brought it back.
CREATE TABLE key_rotations (
    tenant       TEXT   NOT NULL,
    key_id       TEXT   NOT NULL,
    run_id       TEXT   NOT NULL,
    became       TEXT   NOT NULL,
    by_whom      TEXT   NOT NULL,
    at           BIGINT NOT NULL,
    archived_at  BIGINT NOT NULL,
    retain_until BIGINT NOT NULL,
    purged_at    BIGINT NOT NULL,
    undone_run   TEXT   NOT NULL,
    undone_at    BIGINT NOT NULL,
    PRIMARY KEY (tenant, key_id, run_id)
);
CREATE INDEX key_rotations_run ON key_rotations (tenant, run_id);
CREATE INDEX key_rotations_undone ON key_rotations (tenant, undone_run);
CREATE INDEX key_rotations_at ON key_rotations (tenant, at, key_id);
CREATE INDEX key_rotations_retain ON key_rotations (tenant, retain_until, key_id);

CREATE TABLE key_replacements (
    tenant TEXT NOT NULL,
    old_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    new_id TEXT NOT NULL,
    PRIMARY KEY (tenant, old_id, run_id, new_id)
);
CREATE INDEX key_replacements_new ON key_replacements (tenant, new_id, old_id, run_id);
