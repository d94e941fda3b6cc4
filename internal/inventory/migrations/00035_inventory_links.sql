-- +goose Up
-- An identity file that is a symbolic link: the file that it leads to, or '', and
-- whether the public half or certificate beside the link is another one than beside
-- that file. Known from the next scan on.
ALTER TABLE identity_places ADD COLUMN link TEXT NOT NULL DEFAULT '';
ALTER TABLE identity_places ADD COLUMN link_apart BOOLEAN NOT NULL DEFAULT FALSE;
