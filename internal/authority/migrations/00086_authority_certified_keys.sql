-- +goose Up
-- What was signed for a key, for when that is in wrong hands.
CREATE INDEX certificates_by_key ON certificates (tenant, public_key, valid_before);
