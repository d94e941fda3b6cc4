-- +goose Up
-- What each is, besides what is asked for by column, is a document: JSON.
CREATE TABLE access_applications (
    tenant     TEXT   NOT NULL,
    id         TEXT   NOT NULL,
    aud        TEXT   NOT NULL,
    name       TEXT   NOT NULL,
    type       TEXT   NOT NULL,
    domain     TEXT   NOT NULL,
    document   TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX access_applications_aud ON access_applications (tenant, aud);

-- A policy is of one application, or of none where any may use it.
CREATE TABLE access_policies (
    tenant         TEXT   NOT NULL,
    id             TEXT   NOT NULL,
    application_id TEXT   NOT NULL,
    name           TEXT   NOT NULL,
    action         TEXT   NOT NULL,
    rules          BIGINT NOT NULL,
    document       TEXT   NOT NULL,
    created_at     BIGINT NOT NULL,
    updated_at     BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);

-- Which policies an application has, its own and those of all, and in what order.
CREATE TABLE access_application_policies (
    tenant         TEXT   NOT NULL,
    application_id TEXT   NOT NULL,
    precedence     BIGINT NOT NULL,
    policy_id      TEXT   NOT NULL,
    PRIMARY KEY (tenant, application_id, precedence),
    FOREIGN KEY (tenant, application_id) REFERENCES access_applications (tenant, id),
    FOREIGN KEY (tenant, policy_id) REFERENCES access_policies (tenant, id)
);
CREATE UNIQUE INDEX access_application_policies_once ON access_application_policies (tenant, policy_id, application_id);

-- What rules name by its id: groups and lists of networks, told apart by kind.
CREATE TABLE access_sets (
    tenant     TEXT   NOT NULL,
    kind       TEXT   NOT NULL,
    id         TEXT   NOT NULL,
    name       TEXT   NOT NULL,
    rules      BIGINT NOT NULL,
    document   TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, kind, id)
);

-- Another random text after every change of any of the above.
CREATE TABLE access_versions (
    tenant  TEXT NOT NULL,
    version TEXT NOT NULL,
    PRIMARY KEY (tenant)
);
