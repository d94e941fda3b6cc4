-- +goose Up
-- What an identity provider said of a user at the last login: claims is a JSON object
-- from names of claims to lists of texts.
CREATE TABLE user_claims (
    tenant   TEXT NOT NULL,
    user_id  TEXT NOT NULL,
    provider TEXT NOT NULL,
    claims   TEXT NOT NULL,
    PRIMARY KEY (tenant, user_id),
    FOREIGN KEY (tenant, user_id) REFERENCES users (tenant, id)
);
