-- One execution of a procedure. Times are microseconds UTC, 0 for none.
CREATE TABLE job_runs (
    tenant     TEXT   NOT NULL,
    id         TEXT   NOT NULL,
    procedure  TEXT   NOT NULL,
    subject    TEXT   NOT NULL,
    args       TEXT   NOT NULL,
    plan       TEXT   NOT NULL, -- JSON: rows, waves, sizes of the lists
    actor      TEXT   NOT NULL, -- kind:id of who started it
    state      TEXT   NOT NULL,
    direction  TEXT   NOT NULL,
    pos        BIGINT NOT NULL, -- the last row of which a target was begun; -1: none
    wave       BIGINT NOT NULL, -- and its wave
    begun      BIGINT NOT NULL, -- targets of that stage below this number have all been begun
    flying     BIGINT NOT NULL, -- targets whose intent is written, and no outcome
    skipped    TEXT   NOT NULL, -- JSON: names of rows that the run does without
    reason     TEXT   NOT NULL, -- the sentence that a user reads
    back_of    TEXT   NOT NULL, -- the run that this one takes back, or ''
    back_by    TEXT   NOT NULL, -- the run that takes this one back, or ''
    back_args  TEXT   NOT NULL, -- JSON: how the way back was asked for
    line       BIGINT NOT NULL, -- its place in the line of open runs, in the order in which they were started
    asked      BIGINT NOT NULL, -- raised by every verb, so that what was decided before it is not begun after it
    asked_by   TEXT   NOT NULL,
    owner      TEXT   NOT NULL, -- the engine that works on it, or ''
    epoch      BIGINT NOT NULL, -- the fence: raised by every claim
    beat       BIGINT NOT NULL, -- raised by the owner while it lives
    revision   BIGINT NOT NULL, -- raised by every change of this row
    wake_at    BIGINT NOT NULL, -- not to be worked on before
    created_at BIGINT NOT NULL,
    started_at BIGINT NOT NULL,
    ended_at   BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);

CREATE INDEX job_runs_due ON job_runs (state, wake_at);

CREATE INDEX job_runs_subject ON job_runs (tenant, subject, id);

CREATE INDEX job_runs_line ON job_runs (tenant, line) WHERE state IN ('running', 'waiting', 'paused', 'held');

-- What a run works on, fixed when it is planned.
CREATE TABLE job_targets (
    tenant  TEXT   NOT NULL,
    run     TEXT   NOT NULL,
    list    TEXT   NOT NULL,
    n       BIGINT NOT NULL,
    host    TEXT   NOT NULL,
    name    TEXT   NOT NULL,
    spec    TEXT   NOT NULL,
    left_at BIGINT NOT NULL, -- when a person left it out; 0: not left
    left_by TEXT   NOT NULL,
    PRIMARY KEY (tenant, run, list, n)
);

CREATE INDEX job_targets_host ON job_targets (tenant, run, host);

CREATE INDEX job_targets_left ON job_targets (tenant, run, list, n) WHERE left_at > 0;

-- One target in one row in one direction, from the moment it was intended.
CREATE TABLE job_journal (
    tenant      TEXT   NOT NULL,
    run         TEXT   NOT NULL,
    direction   TEXT   NOT NULL,
    pos         BIGINT NOT NULL, -- number of the row in the plan
    n           BIGINT NOT NULL, -- number of the target in that row's list
    state       TEXT   NOT NULL, -- intended, done, failed, waiting, left
    attempt     BIGINT NOT NULL, -- how often it was intended
    tries       BIGINT NOT NULL, -- how often in succession it was unavailable
    epoch       BIGINT NOT NULL, -- of the claim that intended it
    intended_at BIGINT NOT NULL,
    done_at     BIGINT NOT NULL,
    error       TEXT   NOT NULL,
    result      TEXT   NOT NULL, -- JSON that the step saved, or ''
    PRIMARY KEY (tenant, run, direction, pos, n)
);

-- Which targets wait, and until when, and which have failed: these until the
-- greatest integer. The journal itself has no index but its key: PostgreSQL then
-- writes outcomes without touching an index, of which a page would be shared,
-- and so contended for, by many concurrent outcomes.
CREATE TABLE job_due (
    tenant    TEXT   NOT NULL,
    run       TEXT   NOT NULL,
    direction TEXT   NOT NULL,
    pos       BIGINT NOT NULL,
    n         BIGINT NOT NULL,
    next_at   BIGINT NOT NULL,
    behind    TEXT   NOT NULL, -- the run whose end it waits for, or ''
    PRIMARY KEY (tenant, run, direction, pos, n)
);

CREATE INDEX job_due_behind ON job_due (tenant, behind) WHERE behind <> '';

CREATE INDEX job_due_next ON job_due (tenant, run, direction, pos, next_at);

-- A name such as key:UUID is in at most one open run.
CREATE TABLE job_exclusive (
    tenant TEXT NOT NULL,
    what   TEXT NOT NULL,
    run    TEXT NOT NULL,
    PRIMARY KEY (tenant, what)
);

CREATE INDEX job_exclusive_run ON job_exclusive (tenant, run);
