-- +goose Up
-- Another random text after every change of what signs, and of what revokes more than
-- single certificates.
CREATE TABLE authority_versions (
    tenant  TEXT NOT NULL,
    version TEXT NOT NULL,
    PRIMARY KEY (tenant)
);
