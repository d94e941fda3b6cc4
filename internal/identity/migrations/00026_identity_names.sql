-- +goose Up
-- Names of tenants that differ in case only are one name, as those of users are.
DROP INDEX tenants_name;

CREATE UNIQUE INDEX tenants_name ON tenants (lower(name));

-- A machine has so many logins at a time, and the one that ends first gives way.
CREATE INDEX machine_logins_name ON machine_logins (tenant, provider, name, ends);
