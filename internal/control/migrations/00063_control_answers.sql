-- +goose Up
-- What requests made in the last minutes, for clients that lost the answer and ask again.
-- request is the SHA-256 of who asked and for what, made the id of what came of it, or
-- several, and state the SHA-256 of how that was then.
CREATE TABLE answers (
    tenant  TEXT   NOT NULL,
    request TEXT   NOT NULL,
    made    TEXT   NOT NULL,
    state   TEXT   NOT NULL,
    created BIGINT NOT NULL,
    PRIMARY KEY (tenant, request)
);
CREATE INDEX answers_by_age ON answers (tenant, created);
