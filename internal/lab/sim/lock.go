package sim

import (
	"strconv"
	"strings"
)

// A claim is who acts under the lock of a file: arguments that most ops share.
type claim struct {
	installation, epoch, run, token string
}

// name returns the name of the file that makes the claim.
func (c claim) name() string {
	return "own." + c.installation + "." + c.epoch + "." + c.run + "." + c.token
}

func epoch(text string) int64 {
	n, _ := strconv.ParseInt(text, 10, 64)
	return n
}

// held refuses by name if another installation or run has a claim in the lock
// directory, or a later epoch of this one. own is the token of this epoch's
// claim, or empty.
func held(lock *inode, c claim) (own string, r *refusal) {
	for _, o := range lock.names("own.*") {
		f := strings.Split(o, ".")
		if len(f) != 5 {
			continue
		}
		switch {
		case f[1] != c.installation || f[3] != c.run:
			return "", no("held", "%s %s %s", f[1], f[2], f[3])
		case epoch(f[2]) > epoch(c.epoch):
			return "", no("superseded", "%s %s %s", f[1], f[2], f[3])
		case epoch(f[2]) == epoch(c.epoch):
			own = f[4]
		}
	}
	return own, nil
}

// ours refuses where somebody else could exchange what lies beneath our feet.
func (p *process) ours(dir *inode) *refusal {
	switch {
	case p.uid != 0:
		switch {
		case p.may(dir, toWrite):
		case dir.uid == p.uid:
			return no("fixed", "%s", strings.Fields(dir.listing("."))[1])
		default:
			return no("owner", "%d", dir.uid)
		}
	case dir.uid != 0:
		return no("owner", "%d", dir.uid)
	case dir.mode&0o022 != 0:
		return no("shared", "%s", strings.Fields(dir.listing("."))[1])
	}
	return nil
}

// A place is a file, or where one would be: its directory, which is there.
type place struct {
	dir        *inode
	path, name string // of the directory; in it
}

func (f place) file() *inode { return f.dir.entries[f.name] }

func (f place) lockName() string { return "." + f.name + ".keyturn" }

// resolve finds the directory of a path; else why says why not.
func (p *process) resolve(path string) (f place, why string) {
	at := strings.LastIndexByte(path, '/')
	f.path, f.name = path[:max(at, 1)], path[at+1:]
	dir, err := p.host.fs.enter(p.subject, f.path)
	switch {
	case err == errDenied:
		return f, "denied"
	case err != nil:
		return f, "absent"
	case f.name == "" || f.name == "." || f.name == "..":
		return f, "special"
	}
	f.dir = dir
	return f, ""
}

// enter stands in the lock directory of a file.
func (p *process) enter(dirPath, name string) (f place, lock *inode, r *refusal) {
	dir, err := p.host.fs.enter(p.subject, dirPath)
	if err != nil {
		return place{}, nil, no("absent", "%s", dirPath)
	}
	if r := p.ours(dir); r != nil {
		return place{}, nil, r
	}
	f = place{dir, dirPath, name}
	lock = dir.entries[f.lockName()]
	if lock == nil || !lock.isDir() || !p.may(lock, toEnter) {
		return place{}, nil, no("lost", "")
	}
	return f, lock, nil
}

// prevs gives the replaced inodes that somebody has written to since.
func (p *process) prevs(lock *inode, limit int, nonce string) (pending bool) {
	for _, o := range lock.names("prev.*") {
		n := lock.entries[o]
		if strings.HasPrefix(o, "prev."+n.sum()+".") {
			continue
		}
		p.say("prev %s", o)
		p.give(n.data, limit, nonce)
		pending = true
	}
	return pending
}

// keep gives a file the owner and mode of like, or where that is nil those that
// are named.
func (p *process) keep(n, like *inode, mode, uid, gid string) *refusal {
	bits, _ := strconv.ParseUint(mode, 8, 32)
	u, _ := strconv.Atoi(uid)
	g, _ := strconv.Atoi(gid)
	if like != nil {
		bits, u, g = uint64(like.mode), like.uid, like.gid
	}
	if err := p.host.fs.setOwner(p.subject, n, u, g, uint32(bits)); err != nil {
		_ = p.host.fs.setOwner(p.subject, n, n.uid, n.gid, uint32(bits))
		return no("meta", "%d:%d, not %d:%d", n.uid, n.gid, u, g)
	}
	return nil
}
