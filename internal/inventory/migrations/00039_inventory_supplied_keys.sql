-- +goose Up
-- Which key is to take the place of one whose private half its owner keeps, when that
-- is rotated: the owner has made it, and gave its public half.
CREATE TABLE supplied_keys (
    tenant  TEXT   NOT NULL,
    old_id  TEXT   NOT NULL,
    new_id  TEXT   NOT NULL,
    by_whom TEXT   NOT NULL,
    at      BIGINT NOT NULL,
    PRIMARY KEY (tenant, old_id),
    FOREIGN KEY (tenant, old_id) REFERENCES keys (tenant, id),
    FOREIGN KEY (tenant, new_id) REFERENCES keys (tenant, id)
);

CREATE UNIQUE INDEX supplied_keys_new ON supplied_keys (tenant, new_id);
