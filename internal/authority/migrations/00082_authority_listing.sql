-- Clients list the authorities of applications by thousands, and page by page: this has
-- all that such a listing reads.
CREATE INDEX authorities_of_applications ON authorities (tenant, id, application, signs_from, signs_until, public) WHERE removed = 0 AND application <> '';
