// Package trust is Keyturn's dictionary: what things are called, the text
// formats in which SSH writes down whom it trusts, and the kinds of error that
// every other package speaks.
//
// It does no I/O, reads no clock and imports nothing of ours; everything else
// may import it. Words come from RFC 4251 to 4254, OpenSSH's PROTOCOL files,
// sshd_config(5) and NIST IR 7966.
package trust
