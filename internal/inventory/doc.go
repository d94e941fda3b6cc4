// Package inventory keeps what is known of a tenant's SSH trust: its hosts and
// the credentials that open them, its keys, the places in which halves of keys
// lie, which key replaced which, and what is wrong with any of it. It holds
// rows and answers questions about them; it reaches no host, reads no clock
// and decides nothing.
//
// # Transactions
//
// Every function takes the caller's store.Tx, so that what it writes is part
// of one commit with the caller's own rows and audit event. All rows are those
// of the transaction's tenant. A function that changes rows needs a
// transaction of store.Update. Where two callers could write the same row,
// the row carries a revision: hand in the value that was read, with its
// revision, and the write is refused with a Conflict if somebody was faster.
//
// # Keys and places
//
// A key has one row, named by KeyIDOf: the same key found again, anywhere and
// at any time, is the same row. Its places say where its halves lie: a line
// of an authorized_keys file (AuthorizedPlace) or a private key file
// (IdentityPlace). A relationship of NIST IR 7966 is an identity place and an
// authorized place with the same key; it has no row of its own.
//
// Places are known file by file. RecordScan and PutFile replace exactly the
// rows of the file that they are given and touch nothing when its bytes have
// not changed. A file that could not be read this time keeps its rows, which
// from then on carry the time since when they are hearsay.
//
// # Replacements
//
// A key that a run replaces moves to the rotated inventory in the commit that
// starts the run, and is kept there until its retention ends. Going back to it
// is a replacement too, with the two keys exchanged; the earlier one is then
// marked as undone.
package inventory
