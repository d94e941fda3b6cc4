-- For who asks what of a kind has happened, and when: ids ascend with time.
CREATE INDEX events_action ON events (tenant, action, id);
