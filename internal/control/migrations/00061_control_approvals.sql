-- +goose Up
-- What takes the approval of another user, and was asked for. Actors are kind:id, and
-- persons ids of users: whoever asked, or in whose name a token did. Times are
-- microseconds UTC, 0 for none.
CREATE TABLE approvals (
    tenant      TEXT   NOT NULL,
    id          TEXT   NOT NULL,
    subject     TEXT   NOT NULL, -- run:ID, key:ID for a reveal, setting:NAME
    value       TEXT   NOT NULL, -- of a setting, what it is to be
    asked_by    TEXT   NOT NULL,
    person      TEXT   NOT NULL,
    asked_at    BIGINT NOT NULL,
    until       BIGINT NOT NULL, -- when it lapses: the request, or the approval
    approved_by TEXT   NOT NULL,
    approved_at BIGINT NOT NULL,
    spent_at    BIGINT NOT NULL, -- when what was approved of was done
    PRIMARY KEY (tenant, id)
);

CREATE INDEX approvals_subject ON approvals (tenant, subject, until);

CREATE INDEX approvals_open ON approvals (tenant, until) WHERE spent_at = 0;
