//go:build linux

package lab

import "regexp"

// syslogPattern is a message as the C library's syslog(3) and journald send it:
// "<38>Nov 22 01:02:03 sshd[123]: text".
var syslogPattern = regexp.MustCompile(`^<\d{1,3}>(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d )?((?s:.*))$`)

// syslogLine returns a message without its header, as "TAG[PID]: text".
func syslogLine(message []byte) (string, bool) {
	m := syslogPattern.FindSubmatch(message)
	if m == nil {
		return "", false
	}
	line := m[1]
	for len(line) > 0 && (line[len(line)-1] == '\n' || line[len(line)-1] == 0) {
		line = line[:len(line)-1]
	}
	return string(line), true
}
