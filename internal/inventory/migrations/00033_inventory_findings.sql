-- +goose Up
-- scope is what was judged when the finding was made, "key:ID" or "host:ID":
-- judging it again replaces exactly the findings of that scope.
CREATE TABLE findings (
    tenant     TEXT   NOT NULL,
    id         TEXT   NOT NULL,
    scope      TEXT   NOT NULL,
    kind       TEXT   NOT NULL,
    level      TEXT   NOT NULL,
    key_id     TEXT   NOT NULL,
    host_id    TEXT   NOT NULL,
    login_user TEXT   NOT NULL,
    path       TEXT   NOT NULL,
    line_no    BIGINT NOT NULL,
    text       TEXT   NOT NULL,
    since      BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX findings_scope ON findings (tenant, scope);
CREATE INDEX findings_key ON findings (tenant, key_id);
CREATE INDEX findings_host ON findings (tenant, host_id);
CREATE INDEX findings_kind ON findings (tenant, kind, since, id);
CREATE INDEX findings_since ON findings (tenant, since, id);
