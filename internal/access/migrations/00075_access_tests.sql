-- +goose Up
-- Policies that were tested, as they were then: document is JSON.
CREATE TABLE access_policy_tests (
    tenant     TEXT   NOT NULL,
    id         TEXT   NOT NULL,
    document   TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX access_policy_tests_age ON access_policy_tests (tenant, created_at, id);
