-- +goose Up
-- By what a certificate was asked for, for when that ends: "token:" or "machine:" and the
-- id of the API token, or of the identity provider that vouched for the machine; '' of a
-- user in person.
ALTER TABLE certificates ADD COLUMN asked_with TEXT NOT NULL DEFAULT '';

CREATE INDEX certificates_by_asked_with ON certificates (tenant, asked_with, valid_before) WHERE asked_with <> '';

-- Until when an authority has signed.
CREATE INDEX certificates_by_authority ON certificates (tenant, authority, valid_before);
