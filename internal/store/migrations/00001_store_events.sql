-- The log: one row for each change of state, written in the commit that makes
-- the change. Leaf and personal are docs/design/0002-audit-leaf.md; the other
-- columns repeat what the leaf says, to find it by. idx is the place of the
-- leaf in the tenant's Merkle tree, and null until it is given one.
CREATE TABLE events (
    tenant     TEXT   NOT NULL,
    id         TEXT   NOT NULL,
    at         BIGINT NOT NULL,
    actor_kind TEXT   NOT NULL,
    actor_id   TEXT   NOT NULL,
    action     TEXT   NOT NULL,
    subject    TEXT   NOT NULL,
    leaf       BYTEA  NOT NULL,
    personal   BYTEA,
    idx        BIGINT,
    PRIMARY KEY (tenant, id)
);

CREATE INDEX events_subject ON events (tenant, subject, id);

CREATE UNIQUE INDEX events_idx ON events (tenant, idx) WHERE idx IS NOT NULL;
