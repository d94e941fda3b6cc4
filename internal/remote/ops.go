package remote

import (
	"embed"
	"slices"
	"strings"
	"time"
)

// # How a host is spoken to
//
// Everything that Keyturn does on a host is one of the ops below. An op is a
// fixed POSIX shell script (tried with dash, bash and busybox's ash) that needs
// nothing installed and leaves nothing running. It is asked for without a terminal, by
// a shell that stays as long as the connection, or by an "exec" request of its own (RFC
// 4254, section 6.5). The command of the latter is
//
//	[BECOME] [AS] sh -c 'SCRIPT' keyturn.OP ARG...
//	[BECOME] [AS] sh -c 'SCRIPT' keyturn.OP+OP... N ARG... N ARG...
//
// or several of those with " ; " between them. Of several ops none reads its input, and
// each runs, and answers, whatever came of those before it; the second form runs those
// of one account by one shell, and says of each how many arguments it has. BECOME is nothing, "sudo -n" or
// "doas -n", and AS is nothing or one of
//
//	setpriv --reuid=UID --regid=GID --init-groups
//	runuser -u USER --
//	su -s /bin/sh USER -c 'SCRIPT' keyturn.OP ARG...      (in the place of "sh -c")
//
// so that in each of them the last word that begins with "keyturn." names the op
// whatever stands before it. SCRIPT and every ARG are in single quotes, but for these two:
//
//	'  is written  '\''
//	\  is written  '\\'
//
// A script has no newline, no single quote and no exclamation mark in it, so that csh
// and fish may be the login shell too; a command stays below the 9,000 bytes that
// Dropbear takes.
//
// AS makes the op act as the account whose file is concerned: a program that acts
// as root in a directory that somebody else can write can be led anywhere. An op
// that changes something therefore refuses ("no owner UID") to act as root in a
// directory that does not belong to root, and asks to be run as its owner.
//
// # The shell that stays
//
// A request costs the host a session, a login shell, sudo or doas, and a shell that
// reads a script: as much as all that the usual op does. So, where the server is OpenSSH,
// a connection's first op for an account that logs in, and the second in a row for another,
// starts
//
//	[BECOME] [AS] sh -c 'SCRIPT' keyturn.shell
//
// in which each op is a function, and of which Dropbear would not take the 20 kB. It says the line
// "keyturn shell 1", and from then on reads, for one or several ops of which only the
// first may have input, and each of which is a process of its own,
//
//	MARK COUNT keyturn_OP ARG... [; keyturn_OP ARG...]...
//
// and COUNT lines of input: 0 for none, else BYTES, a dot and a newline. It answers with
// what they say, a newline, the exit status, a blank, MARK and a newline, and on stderr
// with what they say there, MARK and a newline. MARK is 32 random hex digits made for that
// line. So no byte is read or written that belongs to something else: a shell's own read
// takes no more than a line, which is also why lines are short.
//
// An exec request is the way where that shell does not greet so, is busy, ended or has to
// make room (MaxSessions 1), and for what it would not read as it is: more than 8 KiB, or
// anything but ASCII. A line that was begun is never asked for again by itself.
//
// # What comes back
//
// Lines, each a word, a blank and the rest. The first is "keyturn OP 1" (1 is the
// version of the grammar), the last "ok", or "no WORD [DETAIL]" if the op refuses.
// An answer without a last line was cut off: nothing is known about what was done,
// and since every op is "make it so", the way on is to do it again. The exit
// status is 0 whenever there is a last line; else the shell, sudo or the
// connection failed and stderr may say why.
//
// Content of files is given as it is, as a block: the line "content", the bytes
// (LIMIT+1 at most: one more than LIMIT means that there is more), a newline, NONCE
// and a newline. NONCE is 32 random hex digits made for this one call, so that no
// file can contain it. LISTING is a line of "ls -ldin": inode, mode as in
// "-rw-r--r--" (an eleventh character "+" or "." where there is an ACL or a label),
// links, uid, gid, size, three words of date, name.
//
// # The lock of a file
//
// Beside a file NAME that is being changed stands a directory .NAME.keyturn, made
// by hold and removed by release, 0700 and of the same owner as the directory. In
// it are
//
//	own.INSTALLATION.EPOCH.RUN.TOKEN   who holds the lock: an empty file, whose name says it
//	new.TOKEN                          what a swap is writing
//	prev.SHA256.SIZE.TOKEN             a hard link to an inode that a swap replaced, when it
//	                                   had SIZE bytes with that hash
//	next                               a private key made here that waits for install
//
// INSTALLATION, RUN and TOKEN are of [A-Za-z0-9_-], EPOCH is decimal. One run of one
// installation holds a lock at a time; within a run the highest epoch does, and
// TOKEN names one attempt. Whoever takes over writes its own file first and removes
// every new.* second; whoever swaps makes new.TOKEN first, checks the owner second
// and renames new.TOKEN third. So a swap of somebody who lost the lock has either
// happened before the takeover ends, or finds nothing to rename.
//
// A process that opened the file before it was replaced and appends to it afterwards
// appends to the inode that prev.* still names. Ops that answer with "prev" lines
// give such inodes, so that the line is merged and not lost; a swap that merged one
// names the prev it merged and the name it has from now on.
//
// # Refusals (no WORD)
//
//	absent DETAIL       there is no such file or directory
//	denied DETAIL       this user may not see or read it
//	loop, special       too many links; not a regular file (or its lock is a link)
//	owner UID           act as UID: the directory is theirs
//	fixed MODE [ATTR]   this user's own directory cannot be written; ATTR as lsattr says
//	shared MODE         root's directory can be written by others
//	held I E R          the lock is held by run R, epoch E of installation I
//	superseded I E R    the same run holds it with a later epoch E
//	lost                the lock, or what this op wrote, was taken away by a later attempt
//	changed             the file no longer has the content that was said
//	short               the bytes that arrived are not those that were sent
//	meta DETAIL         owner, mode or ACL could not be kept
//	link DETAIL         the file system has no hard links
//	links N             the file has N names, and the others would keep the old content
//	write DETAIL        writing failed: full, read-only, immutable, quota
//	sync DETAIL         done, but the disk did not confirm it
//	pending             release, or swap without MERGED: a prev was written to; merge it first
//	tool NAME           a program that is needed is missing
//	failed DETAIL       config: the sshd says why
//
// # The ops
//
// hello CONNECTION HOME -> connection "ADDR PORT ADDR PORT" and here PATH (both
// arguments back: SSH_CONNECTION and HOME, in double quotes, as the login shell
// expanded them; may be empty), uid N, gid N, user NAME, home PATH and shell PATH (of
// the account database), kernel TEXT, host NAME, time UNIXSECONDS, tools NAME..., drop
// setpriv|runuser|su (root only: how to act as another account).
//
// read NONCE LIMIT HOME [content|text PATH]... -> [home PATH] (HOME, if it is not
// empty, without links); for each PATH, in order: path K (from 0), then, where its
// directory can be entered, real PATH, and, if not only its text was asked for, its facts
// and dev N (the device that it is on); always: state file|absent|denied|special|loop;
// then, for a readable file, its block. Changes nothing.
//
// Facts are [writable] (this user may write the directory), [link] (PATH itself is a
// link), up LISTING of each directory from / to the one that holds it, [ls LISTING],
// [attr LINE]... (lsattr -d of "." and of the file), df LINE (df -P), dfi LINE (df -P
// -i), [mount LINE] (of /proc/self/mounts), [lock I.E.R.TOKEN]....
//
// hold PATH UMASK|- INSTALLATION EPOCH RUN TOKEN NONCE LIMIT content|sum|facts [HOME] ->
// [home PATH], real PATH, its facts and state as read gives them, if they were asked for;
// [prev NAME + block]..., and if the file is there: ls LISTING (unless it is the one that
// is among the facts), then its block, or sum SHA256. With "-" a file that is not there
// is refused; with UMASK it may be absent and missing directories are made. Takes or
// confirms the lock.
//
// swap DIR NAME INSTALLATION EPOCH RUN TOKEN OLD NEW MODE UID GID LIMIT NONCE EXCHANGE
// [MERGED BECOMES]... <BYTES -> now SHA256, [prev NAME + block]... EXCHANGE is the number of
// renameat2(2) there, or "-" where it is not known or no perl is there. OLD and NEW are
// SHA256.SIZE; OLD is "-" if the file must not exist yet, and then has MODE, UID and
// GID; else those are what the file has already. OLD equal to NEW writes nothing and makes
// what is there durable. Changes the file.
//
// release PATH INSTALLATION EPOCH RUN LIMIT NONCE -> ok, also where there is no
// lock; or [prev NAME + block]... no pending. Removes the lock.
//
// install DIR NAME INSTALLATION EPOCH RUN TOKEN OLD NEW MODE UID GID SUM PRIVATE PUBLIC
// CERTIFICATE [MODE UID GID]... <BYTES -> now SHA256. OLD (or "-") and NEW are SHA256 of the private key
// file before and after. BYTES, with hash SUM, are the private key file, X.pub and
// X-cert.pub, of so many bytes each; 0 for the last two means that there is none
// afterwards, and for the first that the key is "next". The modes and owners are of X.pub
// and of X-cert.pub, where they are not there already; of these, an owner or group that
// cannot be given is no refusal. Changes the identity.
//
// generate DIR NAME INSTALLATION EPOCH RUN TOKEN TYPE BITS openssh|pem COMMENT -> public
// LINE, sum SHA256. Makes "next", once, in the lock directory.
//
// identities NONCE DIR... -> for each private key file: identity
// openssh|pem|pkcs8|putty no|yes|unknown (is it encrypted), real PATH, ls LISTING,
// [link PATH] (it is a symbolic link, and leads there), [apart]... (beside that link is
// an X.pub or X-cert.pub that is not the one beside PATH), [public LINE] (derived on the
// host), [block] (the head of an encrypted OpenSSH key, which holds its public half),
// [pub LINE] (first line of X.pub), [cert]; left many, where there are more files or
// keys than it looks at; left name, where the name of a key holds a line break. Changes nothing, shows no private byte.
//
// login IDENTITY USER ADDRESS PORT KEY[,KEY]... SECONDS -> client VERSION, [accepted],
// log LINE... A login from that host with its own client; KEY is "type base64".
//
// accounts [NAME] -> account NAME:UID:GID:x|:HOME:SHELL (x: the shell can be executed),
// shadow NAME:set|none|locked|empty:LASTCHANGE:MAX:INACTIVE:EXPIRE where shadow can be
// read. Changes nothing.
//
// lookup USER PATTERN... -> groups NAME..., then for each PATTERN pattern K (from 0) and
// path PATH for each file that it matches, in the order of names. Changes nothing.
//
// uses FINGERPRINT SINCE -> [zone +HHMM] (where it bears on the times), log NAME for each log that could be read, and
// use LINE for each line in it of a login with that key. Changes nothing.
//
// sshd -> for each process from the shell up to the last SSH server in a row: proc PID
// PPID UID NAME, or hidden PID where /proc does not show it; default PATH (the sshd that
// PATH leads to, may be empty); and of that last server exe PATH (empty if hidden), arg
// WORD..., unit NAME and show KEY=VALUE..., and of each file that show EnvironmentFiles=
// names environment and set LINE..., or unread PATH. Changes nothing.
//
// config BINARY SPEC OPTION... -> version TEXT, how -G|-T|-h, set LINE... of sshd's own
// answer for the connection SPEC (sshd(8), -C), in which the host is the name of the
// address where that sshd looks names up; or [file PATH] (the file that it reads) and no
// failed. Changes nothing.

//go:embed ops/*.sh
var opFiles embed.FS

// op is one named script.
type op struct {
	name string
	// changes says that the op has an effect on the host, before and after which
	// the hook is called.
	changes bool
	// time is how long the op may take; the connection is closed after that.
	time  time.Duration
	parts string // the files that make up the script, in order: the last is the op itself
}

// Most ops take some milliseconds. A file system that hangs takes for ever.
const (
	usual = time.Minute
	long  = 3 * time.Minute
)

// The ops, each with what it is put together from.
var (
	opHello      = op{"hello", false, usual, "common who hello"}
	opRead       = op{"read", false, usual, "common give resolve facts read"}
	opHold       = op{"hold", true, usual, "common give resolve facts who lock sum prevs hold"}
	opSwap       = op{"swap", true, usual, "common give who lock sum prevs keep exchange swap"}
	opRelease    = op{"release", true, usual, "common give resolve who lock sum prevs keep release"}
	opInstall    = op{"install", true, usual, "common who lock sum keep install"}
	opGenerate   = op{"generate", true, long, "common who lock sum keep generate"}
	opIdentities = op{"identities", false, usual, "common resolve identities"}
	opLogin      = op{"login", false, long, "common who scratch login"}
	opAccounts   = op{"accounts", false, usual, "common passwd accounts"}
	opHomes      = op{"homes", false, usual, "common passwd homes"}
	opLookup     = op{"lookup", false, usual, "common lookup"}
	opUses       = op{"uses", false, long, "common uses"}
	opSshd       = op{"sshd", false, usual, "common sshd"}
	opConfig     = op{"config", false, long, "common who scratch files config"}
	opMain       = op{"main", false, usual, "common files main"}
)

// ops returns all of them.
func ops() []op {
	return []op{opHello, opRead, opHold, opSwap, opRelease, opInstall, opGenerate, opIdentities, opLogin, opAccounts, opHomes, opLookup, opUses, opSshd, opConfig, opMain}
}

// script returns the text of the op as it goes over the wire.
func (o op) script() string { return scriptOf([]op{o}) }

// shellScript returns the script of a shell that stays: what the ops have in common, each
// of them as a function, and the loop.
func shellScript() string {
	words := common(ops())
	for _, o := range ops() {
		words = append(words, "keyturn_"+o.name+"() (", o.body(), ");")
	}
	return strings.Join(append(words, statements("shell")), " ")
}

// In a script of several ops each but the last is a shell of its own, forked and not
// started anew, whose arguments are its own: the N that follow its N.
const (
	ownArguments  = `( n=$1; shift; i=$n; while [ $i -gt 0 ]; do set -- "$@" "$1"; shift; i=$((i-1)); done; shift $(($#-n));`
	nextArguments = `); shift $(($1+1));`
)

// scriptOf returns the script that runs ops one after another: what they have in
// common, once, and then what each does.
func scriptOf(list []op) string {
	words := common(list)
	for i, o := range list {
		switch {
		case len(list) == 1:
			words = append(words, o.body())
		case i == len(list)-1:
			words = append(words, "shift;", o.body())
		default:
			words = append(words, ownArguments, o.body(), nextArguments)
		}
	}
	return strings.Join(words, " ")
}

// body returns what an op does and nothing else does.
func (o op) body() string {
	return `echo "keyturn ` + o.name + ` 1"; ` + statements(o.parts[strings.LastIndexByte(o.parts, ' ')+1:])
}

// common returns what stands before the bodies of ops, each part once.
func common(list []op) (words []string) {
	var have []string
	for _, o := range list {
		parts := strings.Fields(o.parts)
		for _, part := range parts[:len(parts)-1] {
			if !slices.Contains(have, part) {
				have, words = append(have, part), append(words, statements(part))
			}
		}
	}
	return words
}

// statements returns the lines of a file of ops, joined by blanks. Lines that begin
// with "#" are comments; every other line ends where a blank may follow, which is why
// statements in those files end in ";".
func statements(part string) string {
	text, err := opFiles.ReadFile("ops/" + part + ".sh")
	if err != nil {
		panic("remote: internal error: " + err.Error())
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, " ")
}
