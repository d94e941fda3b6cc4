package trust

// A TenantID names who owns a set of hosts: 32 lower-case hex digits.
type TenantID string

// Installation stands where a tenant stands, for what belongs to the
// installation as a whole and to none of its tenants. No tenant has this id.
const Installation TenantID = "00000000000000000000000000000000"

// A HostID names a host for as long as it is known, across renames and changes
// of address: a UUID in text form.
type HostID string

// A KeyID names a key in the inventory: the UUID (version 5) of its tenant, its
// role and the SHA-256 of its blob. A key that is found again has its old id.
type KeyID string

// A RunID names one execution of a procedure: a UUID (version 7) in text form.
type RunID string

// A SeedID names what host keys are derived from: a UUID in text form.
type SeedID string

// A Login is an account on a host (the "user name" of RFC 4252, section 5).
type Login struct {
	Host HostID
	User string
}

// A Place is where one half of a key lies: the file Path that belongs to the
// account User of Host.
type Place struct {
	Host HostID
	User string
	Path string
}
