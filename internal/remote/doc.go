// Package remote is one host's hands: everything that Keyturn reads or changes on
// somebody else's server goes through a [Host].
package remote
