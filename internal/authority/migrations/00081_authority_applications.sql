-- Applications have an authority each, and are asked for it by their ids.
CREATE INDEX authorities_by_application ON authorities (tenant, application, id);
