-- +goose Up
-- Keys that only some users may have signed with. Each has a row whose user_id is
-- '', and one for each of those users: without the others, nobody may.
CREATE TABLE key_users (
    tenant  TEXT NOT NULL,
    key_id  TEXT NOT NULL,
    user_id TEXT NOT NULL,
    PRIMARY KEY (tenant, key_id, user_id),
    FOREIGN KEY (tenant, key_id) REFERENCES keys (tenant, id)
);
