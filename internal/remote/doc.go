// Package remote is one host's hands: everything that Keyturn reads or changes on
// somebody else's server goes through a [Host], which speaks to it over a
// connection that package dial has made.
//
// What can be asked of a host is a short table of ops, each one fixed shell script;
// ops.go is their page. What is promised:
// a file is changed under a lock that every controller sees, only if it still is
// what was read, all at once, and with everything about it kept that is not its
// content; an appender's line is not lost; nothing stays behind.
package remote
