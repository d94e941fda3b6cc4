-- +goose Up
-- The ids of the applications that let a certificate, as certificate_applications has
-- them, with commas between; empty for those from before this was kept.
ALTER TABLE certificates ADD COLUMN applications TEXT NOT NULL DEFAULT '';
