package sim

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
)

// asShell reports whether a command starts a shell that stays, and acts as it says.
func (p *process) asShell(command string) bool {
	commands, ok := split(command, p.env)
	if !ok || len(commands) != 1 || !slices.Equal(commands[0][max(0, len(commands[0])-1):], []string{"keyturn.shell"}) {
		return false
	}
	words, stderr := p.become(commands[0])
	return stderr == "" && len(words) == 4 && words[0] == "sh" && words[1] == "-c"
}

// shell serves a shell that stays, as internal/remote/ops/shell.sh does, until the end of
// its input.
func (h *Host) shell(conn net.Conn, p *process, channel ssh.Channel) {
	_, _ = io.WriteString(channel, "keyturn shell 1\n")
	for in := bufio.NewReader(channel); ; {
		line, err := in.ReadString('\n')
		words := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 3)
		if err != nil || len(words) < 3 {
			return
		}
		var input string
		for count, _ := strconv.Atoi(words[1]); count > 0; count-- {
			more, err := in.ReadString('\n')
			if err != nil {
				return
			}
			input += more
		}
		one := &process{host: h, subject: p.subject, user: p.user, env: p.env, stdin: []byte(strings.TrimSuffix(input, ".\n"))}
		status, stderr := h.execute(one, words[2])
		if status < 0 {
			_ = conn.Close()
			return
		}
		_, _ = fmt.Fprintf(channel, "%s\n%d %s\n", one.stdout.Bytes(), status, words[0])
		_, _ = fmt.Fprintf(channel.Stderr(), "%s%s\n", stderr, words[0])
	}
}
