-- +goose Up
-- One file in which halves of keys lie. A file that several accounts share
-- has a row, and its places, for each of them.
CREATE TABLE place_files (
    tenant       TEXT   NOT NULL,
    host_id      TEXT   NOT NULL,
    login_user   TEXT   NOT NULL,
    path         TEXT   NOT NULL,
    kind         TEXT   NOT NULL,
    sha256       TEXT   NOT NULL,
    size         BIGINT NOT NULL,
    mode         BIGINT NOT NULL,
    owner        TEXT   NOT NULL,
    inode        TEXT   NOT NULL,
    filesystem   TEXT   NOT NULL,
    fault        TEXT   NOT NULL,
    fixed        TEXT   NOT NULL,
    ord          BIGINT NOT NULL,
    changed_at   BIGINT NOT NULL,
    last_read    BIGINT NOT NULL,
    unread_why   TEXT   NOT NULL,
    PRIMARY KEY (tenant, host_id, login_user, path, kind)
);

CREATE TABLE authorized_places (
    tenant     TEXT    NOT NULL,
    host_id    TEXT    NOT NULL,
    login_user TEXT    NOT NULL,
    path       TEXT    NOT NULL,
    key_id     TEXT    NOT NULL,
    ordinal    BIGINT  NOT NULL,
    line_no    BIGINT  NOT NULL,
    options    BYTEA   NOT NULL,
    raw        BYTEA   NOT NULL,
    comment    TEXT    NOT NULL,
    authority  BOOLEAN NOT NULL,
    refused    TEXT    NOT NULL,
    seen_at    BIGINT  NOT NULL,
    PRIMARY KEY (tenant, host_id, login_user, path, key_id, ordinal)
);
CREATE INDEX authorized_places_key ON authorized_places (tenant, key_id, host_id, login_user, path, ordinal);

CREATE TABLE identity_places (
    tenant     TEXT    NOT NULL,
    host_id    TEXT    NOT NULL,
    login_user TEXT    NOT NULL,
    path       TEXT    NOT NULL,
    key_id     TEXT    NOT NULL,
    format     TEXT    NOT NULL,
    encrypted  BOOLEAN NOT NULL,
    comment    TEXT    NOT NULL,
    seen_at    BIGINT  NOT NULL,
    PRIMARY KEY (tenant, host_id, login_user, path)
);
CREATE INDEX identity_places_key ON identity_places (tenant, key_id, host_id, login_user, path);

-- What lay where when a key was taken out of use. The bytes are sealed in the
-- keyring under the name in snapshot. Host names are those of that day.
CREATE TABLE archived_places (
    tenant       TEXT   NOT NULL,
    key_id       TEXT   NOT NULL,
    run_id       TEXT   NOT NULL,
    kind         TEXT   NOT NULL,
    host_id      TEXT   NOT NULL,
    host_name    TEXT   NOT NULL,
    login_user   TEXT   NOT NULL,
    path         TEXT   NOT NULL,
    ordinal      BIGINT NOT NULL,
    line_no      BIGINT NOT NULL,
    snapshot     TEXT   NOT NULL,
    kept_path    TEXT   NOT NULL,
    archived_at  BIGINT NOT NULL,
    PRIMARY KEY (tenant, key_id, run_id, kind, host_id, login_user, path, ordinal)
);
CREATE INDEX archived_places_host ON archived_places (tenant, host_id);
