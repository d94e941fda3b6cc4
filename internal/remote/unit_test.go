package remote

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyturn/internal/need"
)

// What systemd.exec(5) says of EnvironmentFile=.
func TestReadEnvironment(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "",
		"A=b":                                  "A=b",
		"A=b\nA=c\n":                           "A=c",
		"  A =  b c \t\n\nB=\n":                "A=b c|B=",
		"# A=b\n; B=c\nno assignment\nC=d\n":   "C=d",
		"# goes \\\nA=on\nB=c\n":               "B=c",
		"no assignment \\\nA=b\n":              "A=b",
		"A=\"b  c \" \n":                       "A=b  c ",
		"A='b \\ \"c\"'\"d\"\n":                `A=b \ "c"d`,
		"A=\"\\\"\\$x \\n \\\\\"\n":            `A="$x \n \`,
		"A=b\\ \\\n c\\\"\n":                   `A=b  c"`,
		"A=it's \"not\" quoted\n":              `A=it's "not" quoted`,
		"A=\"two\nlines\"\nB='of\\\nthem'\n":   "A=two\nlines|B=of\\\nthem",
		"A=\"joined \\\nline\"\n":              "A=joined line",
		"A=\"no end\nB=c":                      "A=no end\nB=c",
		"A=b=c # no comment\n":                 "A=b=c # no comment",
		"SSHD_OPTS=-f /etc/other -o 'A=b c'\n": "SSHD_OPTS=-f /etc/other -o 'A=b c'",
	} {
		values := map[string]string{}
		readEnvironment(text, values)
		var got []string
		for _, name := range slices.Sorted(maps.Keys(values)) {
			got = append(got, name+"="+values[name])
		}
		if got := strings.Join(got, "|"); got != want {
			t.Errorf("%q is read as %q, want %q", text, got, want)
		}
	}
}

// What systemd.service(5) says of variables in command lines.
func TestUnitArgv(t *testing.T) {
	for _, c := range []struct {
		line, environment string
		files             []string
		want              string
	}{
		{"/sshd -i $OPTS", "", nil, "/sshd|-i"},
		{"/sshd -i $OPTS", `OPTS=-4 "X=a b"`, nil, "/sshd|-i|-4"},
		{"/sshd -i $OPTS", `"OPTS=-f /a"`, []string{"OPTS=-f /b\n"}, "/sshd|-i|-f|/b"},
		{"/sshd -i $OPTS", "", []string{"OPTS=-f /b\n", "X=\nOPTS='-o \"A=b c\"'\n"}, "/sshd|-i|-o|A=b c"},
		{"/sshd -i ${OPTS} -f${X}/$$", "", []string{"OPTS=a b\nX=/etc\n"}, "/sshd|-i|a b|-f/etc/$"},
		{"/sshd -i ${OPTS}", "", nil, "/sshd|-i|"},
	} {
		u := systemdUnit{exec: "{ path=/sshd ; argv[]=" + c.line + " ; ignore_errors=no }", environment: c.environment, files: c.files}
		if got := strings.Join(u.argv(), "|"); got != c.want {
			t.Errorf("%s with %q and %q is %q, want %q", c.line, c.environment, c.files, got, c.want)
		}
	}
	if argv := (systemdUnit{}).argv(); argv != nil {
		t.Errorf("no unit has the command line %q", argv)
	}
}

// The op reads the environment files of the unit that serves the session, and says
// which it could not read. The machine is one that systemd runs, as far as the op can
// tell: the test gives it a /proc of its own and a systemctl.
func TestEnvironmentFilesOfUnit(t *testing.T) {
	for _, sh := range []string{"dash", "bash", "busybox sh"} {
		t.Run(sh, func(t *testing.T) {
			argv := strings.Fields(sh)
			argv[0] = need.Program(t, argv[0], argv[0])
			dir := t.TempDir()
			file := func(name, text string) string {
				t.Helper()
				path := filepath.Join(dir, name)
				must(t, os.MkdirAll(filepath.Dir(path), 0o755))
				must(t, os.WriteFile(path, []byte(text), 0o755))
				return path
			}
			first := file("default/ssh", "# options\nSSHD_OPTS=-p 2200\nOTHER=\\x")
			file("more/a b.env", "SSHD_OPTS=\"-f /etc/ssh/other -o \\\n'Match=a  b'\"\n")
			file("bin/systemctl", "#!/bin/sh\ncat <<'END'\n"+strings.Join([]string{
				"ExecStart={ path=/usr/sbin/sshd ; argv[]=/usr/sbin/sshd -i $SSHD_OPTS ; ignore_errors=yes ; pid=0 }",
				"Environment=SSHD_OPTS=-4",
				"EnvironmentFiles=" + first + " (ignore_errors=yes)",
				"EnvironmentFiles=" + dir + "/absent (ignore_errors=yes)",
				"EnvironmentFiles=" + dir + "/needed (ignore_errors=no)",
				"EnvironmentFiles=" + dir + "/more/*.env (ignore_errors=no)",
			}, "\n")+"\nEND\n")
			proc := filepath.Join(dir, "proc")
			script := "mkdir -p " + proc + "/$$; printf 'Name:\\tsshd\\nPPid:\\t0\\nUid:\\t0\\n' >" + proc + "/$$/status; " +
				"printf 'sshd: me@notty\\0' >" + proc + "/$$/cmdline; echo 0::/system.slice/ssh@1.service >" + proc + "/$$/cgroup; " +
				strings.ReplaceAll(opSshd.script(), "/proc/", proc+"/")
			cmd := exec.CommandContext(t.Context(), argv[0], append(argv[1:], "-c", script, "keyturn.sshd")...)
			cmd.Env = []string{"PATH=" + filepath.Join(dir, "bin") + ":" + os.Getenv("PATH")}
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			must(t, err)
			a, _, err := parseReply(out, "sshd", "")
			must(t, err)
			s, err := new(Host).findSshd(t.Context(), a)
			must(t, err)
			if got, want := strings.Join(s.Options, "|"), "-i|-f|/etc/ssh/other|-o|Match=a  b"; got != want {
				t.Errorf("options %q, want %q; the op says\n%s%s", got, want, out, stderr.Bytes())
			}
			if got, want := strings.Join(s.Unread, "|"), dir+"/needed"; got != want {
				t.Errorf("unread %q, want %q", got, want)
			}
		})
	}
}
