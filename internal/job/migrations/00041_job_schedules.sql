-- What starts runs by the clock.
CREATE TABLE job_schedules (
    tenant   TEXT   NOT NULL,
    name     TEXT   NOT NULL,
    kind     TEXT   NOT NULL, -- which planner
    args     TEXT   NOT NULL,
    actor    TEXT   NOT NULL, -- kind:id of who set it
    every    BIGINT NOT NULL, -- microseconds; 0: daily
    daily    BIGINT NOT NULL, -- minutes after midnight UTC; -1: every
    next_at  BIGINT NOT NULL, -- 0: switched off
    last_at  BIGINT NOT NULL,
    last_run TEXT   NOT NULL,
    outcome  TEXT   NOT NULL, -- what came of the last time, where no run did
    revision BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
);

CREATE INDEX job_schedules_next ON job_schedules (next_at) WHERE next_at > 0;
