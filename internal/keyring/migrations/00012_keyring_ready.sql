-- Private keys that were made before anybody asked for them, until somebody does.
-- Each is handed out in the commit that deletes its row. id is the fingerprint.
CREATE TABLE ready_keys (
    tenant  TEXT   NOT NULL,
    id      TEXT   NOT NULL,
    public  BYTEA  NOT NULL,
    sealed  BYTEA  NOT NULL,
    created BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);
