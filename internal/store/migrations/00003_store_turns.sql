-- No rows: on PostgreSQL, transactions that write lock this table to take turns.
CREATE TABLE turns (
    turn TEXT NOT NULL PRIMARY KEY
);
