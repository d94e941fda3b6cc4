// Package access keeps the rules on who may log in where: applications with their
// criteria, policies in and beside applications, groups, and lists of networks.
// It holds rows, bounds them, and gives back what was written; package policy
// says what they mean.
//
// Every function takes the caller's store.Tx: what it writes is part of one
// commit with the caller's event.
//
// # What is kept
//
// Fields that decide something have names here. Whatever else a writer said of a
// thing is in its Extra, a JSON object, and comes back with the same content. An
// Extra may ask something of people that Keyturn does not see to, such as the
// approval of somebody else: see demands. Such a policy lets nobody in, rather
// than everybody without having asked.
//
// # Deciding
//
// Books has the policy.Rulebook of a tenant's rules as a transaction sees them.
// It compiles again only after rows have changed: each change leaves another
// random version behind, so that what was compiled within a transaction that came
// to nothing is never taken for what is there. One transaction compiles, those that want
// the same wait for it; and only the documents of policies that changed are parsed again.
package access
