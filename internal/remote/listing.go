package remote

import (
	"strconv"
	"strings"
)

// A listing is one line of "ls -ldin": what stat(2) says, in a form that every
// POSIX system prints.
type listing struct {
	inode    uint64
	mode     string // as in "-rw-r--r--", with the eleventh character if there is one
	links    int
	uid, gid int
	size     int64
	name     string
}

// parseListing reads "inode mode links uid gid size month day time name".
func parseListing(text string) (l listing, ok bool) {
	fields := make([]string, 0, 9)
	rest := strings.TrimLeft(text, " ")
	for len(fields) < 9 {
		field, after, found := strings.Cut(rest, " ")
		if !found || field == "" {
			return listing{}, false
		}
		fields = append(fields, field)
		rest = strings.TrimLeft(after, " ")
	}
	l.name, l.mode = rest, fields[1]
	var err [5]error
	l.inode, err[0] = strconv.ParseUint(fields[0], 10, 64)
	l.links, err[1] = strconv.Atoi(fields[2])
	l.uid, err[2] = strconv.Atoi(fields[3])
	l.gid, err[3] = strconv.Atoi(fields[4])
	l.size, err[4] = strconv.ParseInt(fields[5], 10, 64)
	for _, e := range err {
		if e != nil {
			return listing{}, false
		}
	}
	return l, len(l.mode) >= 10 && l.name != ""
}

// permissions returns the mode's bits, as chmod(1) takes them.
func (l listing) permissions() (bits uint32) {
	if len(l.mode) < 10 {
		return 0
	}
	for _, c := range []byte(l.mode[1:10]) {
		bits <<= 1
		if c != '-' && c != 'S' && c != 'T' {
			bits |= 1
		}
	}
	for i, special := range map[int]uint32{3: 0o4000, 6: 0o2000, 9: 0o1000} {
		if strings.ContainsRune("sStT", rune(l.mode[i])) {
			bits |= special
		}
	}
	return bits
}
