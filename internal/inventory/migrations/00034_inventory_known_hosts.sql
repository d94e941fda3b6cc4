-- +goose Up
-- The lines of known_hosts files: by which host key an account of host_id knows
-- which hosts. about is the host of the inventory that the line names, or ''; a
-- line that names several has a row for each.
CREATE TABLE known_hosts (
    tenant     TEXT   NOT NULL,
    host_id    TEXT   NOT NULL,
    login_user TEXT   NOT NULL,
    path       TEXT   NOT NULL,
    line_no    BIGINT NOT NULL,
    about      TEXT   NOT NULL,
    marker     TEXT   NOT NULL,
    names      TEXT   NOT NULL,
    public_key BYTEA  NOT NULL,
    PRIMARY KEY (tenant, host_id, login_user, path, line_no, about)
);
CREATE INDEX known_hosts_about ON known_hosts (tenant, about);
