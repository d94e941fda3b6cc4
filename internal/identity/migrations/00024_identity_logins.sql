-- Web logins, in a table that knows how long they last: those that are open end. id is the SHA-256 in hex of what the
-- client holds. One ends at ends, and earlier if it was last seen longer ago than
-- idle.
DROP TABLE web_logins;

CREATE TABLE logins (
    tenant  TEXT   NOT NULL,
    id      TEXT   NOT NULL,
    owner   TEXT   NOT NULL,
    created BIGINT NOT NULL,
    seen    BIGINT NOT NULL,
    idle    BIGINT NOT NULL,
    ends    BIGINT NOT NULL,
    PRIMARY KEY (tenant, id),
    FOREIGN KEY (tenant, owner) REFERENCES users (tenant, id)
);

CREATE UNIQUE INDEX logins_id ON logins (id);

CREATE INDEX logins_owner ON logins (tenant, owner);

CREATE INDEX logins_ends ON logins (tenant, ends);
