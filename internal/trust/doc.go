// Package trust is Keyturn's dictionary: what things are called, the text
// formats in which SSH writes down whom it trusts, and the kinds of error that
// every other package speaks.
//
// It does no I/O, reads no clock and imports nothing of ours; everything else
// may import it. Words come from RFC 4251 to 4254, OpenSSH's PROTOCOL files,
// sshd_config(5) and NIST IR 7966.
//
// # Files that are changed: AuthorizedKeys and KnownHosts
//
// Both are lists of lines. Parsing never fails and Bytes gives back what came
// in, byte for byte; what is no key line is a blank, comment or unknown line and
// stays as it is. A line is its text and its ending; two lines hold the same key
// if the blobs are equal, whatever the comments say.
//
//	f := trust.ParseAuthorizedKeys(data)
//	f.AddSuccessor(old, next) // next beside each line of old, same options
//	data = f.Bytes()
//
// Adding and removing are exact inverses, also through writing and reading in
// between. For that, a file keeps its state at the end: one without a final
// newline has none after an edit either. An added last line takes the missing
// newline over: the line before is given one. An added line ends as the line
// that it follows ("\r\n" stays "\r\n"). UndoAuthorizedKeys takes an edit back
// when others wrote in between.
//
// # What a server makes of them
//
// A line that holds a key need not grant anything: an option that the server
// does not know, an option misspelt, a byte order mark, and the line is passed
// over in silence. AuthorizedLine.HonoredBy tells for one line and one version
// of OpenSSH, Dropbear or TinySSH; WouldAccept tells for a login and all files,
// which line let it in, or why each line that holds the key did not. Both are
// compared with the real servers, login by login, over testdata/corpus.
//
// # What sshd is told: SSHDConfig
//
// ParseSSHDConfig reads what "sshd -T -C" prints. Where that may not be run,
// SSHDSource evaluates sshd_config itself, with Include and Match; callers read
// the files that it names as missing. From either come the files in which an
// account's keys lie (AuthorizedKeysPaths), and whether a key or an account is
// let in at all (AcceptsKey, AllowsAccount).
//
// # Public key files
//
// ParsePublicFile reads one public key as OpenSSH, RFC 4716 or PKCS#8 has it, and
// PublicKey.PublicFile writes those. Both are compared with ssh-keygen, openssl and
// puttygen.
//
// # Certificates and what is revoked
//
// Certificate is one of OpenSSH's certificates, field by field, for keys of every type
// that has them; Unsigned is what its CA signs. KRL is the list of what opens nothing any
// more. Both are read from and written for ssh-keygen, x/crypto and sshd, byte for byte.
//
// # What is never held here
//
// RecognizePrivateKey tells what a private key file is and which key it holds,
// without a passphrase. It keeps no private byte; package keyring does.
package trust
