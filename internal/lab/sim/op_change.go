package sim

import (
	"path"
	"strconv"
	"strings"
)

// hold PATH UMASK|- INSTALLATION EPOCH RUN TOKEN NONCE LIMIT content|sum|facts [HOME]
func (p *process) hold(arg []string) *refusal {
	file, create, c, nonce, what := arg[0], arg[1], claim{arg[2], arg[3], arg[4], arg[5]}, arg[6], arg[8]
	limit, _ := strconv.Atoi(arg[7])
	facts := what == "facts"
	if facts {
		p.home(arg[9])
	}
	f, why := p.resolve(file)
	if why != "" && facts {
		p.say("state %s", why)
	}
	if why == "absent" && create != "-" {
		if r := p.makeDirectories(f.path, create); r != nil {
			return r
		}
		f, why = p.resolve(file)
	}
	if why != "" {
		return no(why, "%s", file)
	}
	p.say("real %s/%s", strings.TrimSuffix(f.path, "/"), f.name)
	state, n := p.state(f)
	if facts {
		p.facts(f)
		p.say("state %s", state)
	}
	if r := p.ours(f.dir); r != nil {
		return r
	}
	seen := n != nil && facts && n.links == 1
	switch {
	case n == nil && create == "-":
		return no("absent", "%s", file)
	case n != nil && n.isDir():
		return no("special", "%s", n.listing(f.name))
	}
	lock, r := p.takeLock(f, c)
	if r != nil {
		return r
	}
	for _, o := range lock.names("prev.*") {
		if lock.entries[o] == n {
			_ = p.host.fs.remove(p.subject, lock, o)
		}
	}
	p.prevs(lock, limit, nonce)
	if n == nil {
		return nil
	}
	if !seen {
		p.say("ls %s", n.listing("../"+f.name))
	}
	switch {
	case !p.may(n, toRead):
		return no("denied", "%s", file)
	case n.links != 1:
		return no("links", "%d", n.links)
	case what == "sum":
		p.say("sum %s", n.sum())
	default:
		p.give(n.data, limit, nonce)
	}
	return nil
}

// makeDirectories is mkdir -p with an umask, below what is there.
func (p *process) makeDirectories(dir, umask string) *refusal {
	fs := p.host.fs
	at := path.Clean(dir)
	var missing []string
	for {
		if n, err := fs.walk(p.subject, at); err == nil && n.isDir() {
			if r := p.ours(n); r != nil {
				return r
			}
			break
		}
		missing = append(missing, path.Base(at))
		at = path.Dir(at)
	}
	mask, _ := strconv.ParseUint(umask, 8, 32)
	for i := len(missing) - 1; i >= 0; i-- {
		n, err := fs.enter(p.subject, at)
		if err == nil {
			err = fs.mkdir(p.subject, n, missing[i], 0o777&^uint32(mask))
		}
		if err != nil {
			return failed("write", err)
		}
		at = path.Join(at, missing[i])
	}
	if err := fs.sync(); err != nil {
		return failed("write", err)
	}
	return nil
}

// takeLock takes or confirms the lock, and fences off whoever acted before.
func (p *process) takeLock(f place, c claim) (*inode, *refusal) {
	fs := p.host.fs
	lock := f.dir.entries[f.lockName()]
	if lock == nil {
		if err := fs.mkdir(p.subject, f.dir, f.lockName(), 0o700); err != nil {
			return nil, failed("write", err)
		}
		lock = f.dir.entries[f.lockName()]
	}
	switch {
	case !lock.isDir():
		return nil, no("special", "%s", lock.listing(f.lockName()))
	case !p.may(lock, toEnter):
		return nil, no("owner", "%d", lock.uid)
	}
	if _, r := held(lock, c); r != nil {
		return nil, r
	}
	if lock.entries[c.name()] == nil {
		if _, err := fs.create(p.subject, lock, c.name(), 0o600); err != nil {
			return nil, failed("write", err)
		}
	}
	// The claims go that ours takes over from, and what they were writing.
	for _, o := range lock.names("own.*") {
		if o != c.name() {
			_ = fs.remove(p.subject, lock, o)
		}
	}
	for _, o := range lock.names("new.*") {
		_ = fs.remove(p.subject, lock, o)
	}
	return lock, nil
}

// swap DIR NAME INSTALLATION EPOCH RUN TOKEN OLD NEW MODE UID GID LIMIT NONCE EXCHANGE
// [MERGED BECOMES]... <BYTES
func (p *process) swap(arg []string) *refusal {
	c, old, next, nonce, merged := claim{arg[2], arg[3], arg[4], arg[5]}, arg[6], arg[7], arg[12], arg[14:]
	limit, _ := strconv.Atoi(arg[11])
	fs := p.host.fs
	f, lock, r := p.enter(arg[0], arg[1])
	if r != nil {
		return r
	}
	if own, r := held(lock, c); r != nil {
		return r
	} else if own != c.token {
		return no("lost", "")
	}
	if len(merged) == 0 && p.prevs(lock, limit, nonce) {
		return no("pending", "")
	}
	if old == next {
		return p.confirm(f, lock, old, merged)
	}
	if p.host.pretends() {
		p.say("now %s", sumOf(next))
		return nil
	}
	n, err := fs.create(p.subject, lock, "new."+c.token, 0o600)
	if err != nil {
		return failed("write", err)
	}
	var like *inode
	prev := "prev." + old + "." + c.token
	give := func(r *refusal) *refusal {
		_ = fs.remove(p.subject, lock, "new."+c.token)
		if like != nil && lock.entries[prev] == like {
			_ = fs.remove(p.subject, lock, prev)
		}
		return r
	}
	if old == "-" {
		if f.file() != nil {
			return give(no("changed", ""))
		}
	} else {
		if f.file() == nil {
			return give(failed("link", errAbsent))
		}
		if err := fs.link(p.subject, f.file(), lock, prev); err != nil {
			return give(failed("link", err))
		}
		like = f.file()
	}
	if r := p.keep(n, like, arg[8], arg[9], arg[10]); r != nil {
		return give(r)
	}
	if err := fs.write(n, p.stdin); err != nil {
		return give(failed("write", err))
	}
	if n.sum() != sumOf(next) {
		return give(no("short", ""))
	}
	if err := fs.sync(); err != nil {
		return give(failed("write", err))
	}
	if like != nil && like.sum() != sumOf(old) {
		return give(no("changed", ""))
	}
	if err := fs.rename(p.subject, lock, "new."+c.token, f.dir, f.name); err != nil {
		return give(failed("write", err))
	}
	p.merge(lock, merged)
	if err := fs.sync(); err != nil {
		return failed("sync", err)
	}
	p.say("now %s", f.file().sum())
	p.prevs(lock, limit, nonce)
	return nil
}

// confirm is a swap that writes nothing and makes what is there durable.
func (p *process) confirm(f place, lock *inode, old string, merged []string) *refusal {
	n := f.file()
	if n == nil || n.sum() != sumOf(old) {
		return no("changed", "")
	}
	p.merge(lock, merged)
	if err := p.host.fs.sync(); err != nil {
		return failed("sync", err)
	}
	p.say("now %s", n.sum())
	return nil
}

// merge gives the replaced inodes whose content was merged their new names.
func (p *process) merge(lock *inode, merged []string) {
	for i := 0; i+1 < len(merged); i += 2 {
		_ = p.host.fs.rename(p.subject, lock, merged[i], lock, merged[i+1])
	}
}

// release PATH INSTALLATION EPOCH RUN LIMIT NONCE
func (p *process) release(arg []string) *refusal {
	f, why := p.resolve(arg[0])
	switch {
	case why == "absent":
		return nil
	case why != "":
		return no(why, "%s", arg[0])
	}
	if n := f.dir.entries[f.lockName()]; n == nil || !n.isDir() {
		return nil
	}
	_, lock, r := p.enter(f.path, f.name)
	if r != nil {
		return r
	}
	if _, r := held(lock, claim{arg[1], arg[2], arg[3], ""}); r != nil {
		return r
	}
	limit, _ := strconv.Atoi(arg[4])
	if p.prevs(lock, limit, arg[5]) {
		return no("pending", "")
	}
	fs := p.host.fs
	for _, pattern := range []string{"prev.*", "new.*", "next", "own.*"} {
		for _, o := range lock.names(pattern) {
			_ = fs.remove(p.subject, lock, o)
		}
	}
	if err := fs.rmdir(p.subject, f.dir, f.lockName()); err != nil {
		return failed("write", err)
	}
	return nil
}

// install DIR NAME INSTALLATION EPOCH RUN TOKEN OLD NEW MODE UID GID SUM PRIVATE
// PUBLIC CERTIFICATE [MODE UID GID]... <BYTES
func (p *process) install(arg []string) *refusal {
	c, old, next, mode, uid, gid, all := claim{arg[2], arg[3], arg[4], arg[5]}, arg[6], arg[7], arg[8], arg[9], arg[10], arg[11]
	private, _ := strconv.Atoi(arg[12])
	public, _ := strconv.Atoi(arg[13])
	certificate, _ := strconv.Atoi(arg[14])
	fs := p.host.fs
	f, lock, r := p.enter(arg[0], arg[1])
	if r != nil {
		return r
	}
	if own, r := held(lock, c); r != nil {
		return r
	} else if own != c.token {
		return no("lost", "")
	}
	if hexSum(p.stdin) != all || private+public+certificate != len(p.stdin) {
		return no("short", "")
	}
	if private == 0 || hexSum(p.stdin[:private]) != next {
		return no("lost", "")
	}
	if n := f.file(); n == nil && old != "-" || n != nil && n.sum() != old && n.sum() != next {
		return no("changed", "")
	}
	if p.host.pretends() {
		p.say("now %s", next)
		return nil
	}
	parts := []struct {
		beside, at     string
		mode, uid, gid string
		data           []byte
	}{
		{".key", f.name, mode, uid, gid, p.stdin[:private]},
		{".pub", f.name + ".pub", arg[15], arg[16], arg[17], p.stdin[private : private+public]},
		{".cert", f.name + "-cert.pub", arg[18], arg[19], arg[20], p.stdin[private+public:]},
	}
	defer func() {
		for _, o := range lock.names("new." + c.token + ".*") {
			_ = fs.remove(p.subject, lock, o)
		}
	}()
	for _, part := range parts {
		n, err := fs.create(p.subject, lock, "new."+c.token+part.beside, 0o600)
		if err == nil {
			err = fs.write(n, part.data)
		}
		if err != nil {
			return failed("write", err)
		}
		// Whose the last two are keeps nobody from a login.
		if r := p.keep(n, f.dir.entries[part.at], part.mode, part.uid, part.gid); r != nil && part.at == f.name {
			return r
		}
	}
	if err := fs.sync(); err != nil {
		return failed("write", err)
	}
	// No .pub stands beside the old key, nor beside the new one, while they change.
	for _, part := range parts[1:] {
		if err := fs.remove(p.subject, f.dir, part.at); err != nil {
			return failed("write", err)
		}
	}
	for _, part := range parts {
		if len(part.data) == 0 {
			continue
		}
		if err := fs.sync(); err != nil {
			return failed("write", err)
		}
		if err := fs.rename(p.subject, lock, "new."+c.token+part.beside, f.dir, part.at); err != nil {
			return failed("write", err)
		}
	}
	_ = fs.remove(p.subject, lock, "next")
	if err := fs.sync(); err != nil {
		return failed("sync", err)
	}
	p.say("now %s", f.file().sum())
	return nil
}

// sumOf returns the hash in SHA256.SIZE.
func sumOf(name string) string {
	sum, _, _ := strings.Cut(name, ".")
	return sum
}
