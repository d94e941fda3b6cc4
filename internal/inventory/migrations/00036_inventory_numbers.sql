-- +goose Up
-- Keys that have a number as well, for clients that know keys by one: which was
-- given, and to a key made for whom. A number is never given again.
CREATE TABLE key_numbers (
    tenant  TEXT   NOT NULL,
    number  BIGINT NOT NULL,
    key_id  TEXT   NOT NULL,
    by_whom TEXT   NOT NULL,
    PRIMARY KEY (tenant, number),
    FOREIGN KEY (tenant, key_id) REFERENCES keys (tenant, id)
);

CREATE UNIQUE INDEX key_numbers_key ON key_numbers (tenant, key_id);

-- The last number that was given.
CREATE TABLE last_key_numbers (
    tenant TEXT   NOT NULL PRIMARY KEY,
    number BIGINT NOT NULL
);
