package main

import (
	"bufio"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// floorOf is in the environment of a process that is the bare server, and says of what
// type the key of its authority is.
const floorOf = "KEYTURN_SIGNING_FLOOR"

func startSigningFloor(b *testing.B, kind string) signingServer {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), os.Args[0], "-test.run", "^TestSigningFloor$", "-test.v")
	cmd.Env = append(os.Environ(), floorOf+"="+kind, fmt.Sprintf("GOGC=%d", gcPercent))
	cmd.Dir = b.TempDir()
	cmd.SysProcAttr = dieWithParent()
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if address, ok := strings.CutPrefix(lines.Text(), "floor at "); ok {
			return signingServer{b, cmd.Process.Pid, address, "none"}
		}
	}
	b.Fatal("the bare server has not started")
	return signingServer{}
}

// TestSigningFloor is no test, but the bare server of BenchmarkIssue.
func TestSigningFloor(t *testing.T) {
	kind := os.Getenv(floorOf)
	if kind == "" {
		return
	}
	private := crypto.Signer(nil)
	var err error
	if kind == "ed25519" {
		_, private, err = ed25519.GenerateKey(rand.Reader)
	} else {
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	f := &signingFloor{lines: make(chan floorLine, benchSigners)}
	if f.ca, err = ssh.NewSignerFromSigner(private); err != nil {
		t.Fatal(err)
	}
	if f.log, err = os.Create("audit"); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go f.commit()
	fmt.Println("floor at", listener.Addr())
	t.Fatal(http.Serve(listener, f))
}

// A signingFloor makes certificates for whoever asks.
type signingFloor struct {
	ca    ssh.Signer
	log   *os.File
	lines chan floorLine
}

// A floorLine is one of the log, and who is told when it is durable.
type floorLine struct {
	text []byte
	done chan error
}

// commit writes the lines that there are, each with a hash of all before it, and syncs
// them together.
func (f *signingFloor) commit() {
	var chain [sha256.Size]byte
	for first := range f.lines {
		group, out := []floorLine{first}, []byte(nil)
		for len(f.lines) > 0 {
			group = append(group, <-f.lines)
		}
		for _, line := range group {
			chain = sha256.Sum256(append(chain[:], line.text...))
			out = fmt.Appendf(out, "%x %s\n", chain, line.text)
		}
		_, err := f.log.Write(out)
		if err == nil {
			err = f.log.Sync()
		}
		for _, line := range group {
			line.done <- err
		}
	}
}

func (f *signingFloor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var in struct {
		PublicKey  string   `json:"public_key"`
		Principals []string `json:"principals"`
	}
	cert, err := &ssh.Certificate{}, json.NewDecoder(r.Body).Decode(&in)
	if err == nil {
		cert.Key, _, _, _, err = ssh.ParseAuthorizedKey([]byte(in.PublicKey))
	}
	if err == nil {
		err = f.sign(cert, in.Principals)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{"certificate": string(ssh.MarshalAuthorizedKey(cert))})
}

func (f *signingFloor) sign(cert *ssh.Certificate, principals []string) error {
	var serial [8]byte
	rand.Read(serial[:])
	now := time.Now()
	cert.Serial, cert.CertType, cert.KeyId, cert.ValidPrincipals = binary.BigEndian.Uint64(serial[:]), ssh.UserCert, "admin", principals
	cert.ValidAfter, cert.ValidBefore = uint64(now.Add(-time.Minute).Unix()), uint64(now.Add(5*time.Minute).Unix())
	cert.Extensions = map[string]string{"permit-pty": ""}
	if err := cert.SignCert(rand.Reader, f.ca); err != nil {
		return err
	}
	line, err := json.Marshal(map[string]any{
		"at": now, "serial": cert.Serial, "key_id": cert.KeyId, "principals": principals, "public_key": ssh.FingerprintSHA256(cert.Key),
	})
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	f.lines <- floorLine{line, done}
	return <-done
}
