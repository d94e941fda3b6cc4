package agent

import (
	"bytes"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/trust"
)

// maxBindings bounds over how many hosts an agent is forwarded, as OpenSSH does.
const maxBindings = 16

// A binding says which session a connection is for: PROTOCOL.agent, section 1.
type binding struct {
	session []byte
	hostKey trust.PublicKey
	// forwarding says that the agent was forwarded to that host, so that what comes
	// over the connection may come from there.
	forwarding bool
}

// The extensions that are known here.
const (
	extensionQuery = "query"
	extensionBind  = "session-bind@openssh.com"
)

// extension answers to a message that only some agents know.
func (c *client) extension(message []byte) ([]byte, error) {
	var m struct {
		Name     string `sshtype:"27"`
		Contents []byte `ssh:"rest"`
	}
	if err := ssh.Unmarshal(message, &m); err != nil {
		return nil, malformed(err)
	}
	switch m.Name {
	case extensionQuery:
		return ssh.Marshal(struct {
			Name        string `sshtype:"29"`
			Query, Bind string
		}{extensionQuery, extensionQuery, extensionBind}), nil
	case extensionBind:
		return []byte{success}, c.sessionBind(m.Contents)
	}
	// No reason to tell anybody: clients ask for what there may be.
	return []byte{failure}, nil
}

// sessionBind notes which session the connection is for, if the host has signed for it.
func (c *client) sessionBind(contents []byte) error {
	var m struct {
		HostKey, Session, Signature []byte
		Forwarding                  bool
	}
	if err := ssh.Unmarshal(contents, &m); err != nil {
		return malformed(err)
	}
	hostKey, err := ssh.ParsePublicKey(m.HostKey)
	if err != nil {
		return malformed(err)
	}
	signature := new(ssh.Signature)
	if err := ssh.Unmarshal(m.Signature, signature); err != nil {
		return malformed(err)
	}
	if err := hostKey.Verify(m.Session, signature); err != nil {
		return trust.Errorf(trust.Denied, "a client binds a session that host key %s has not signed", trust.PublicKeyOf(hostKey).Fingerprint())
	}
	b := binding{m.Session, trust.PublicKeyOf(hostKey), m.Forwarding}
	for _, known := range c.bound {
		switch {
		case !known.forwarding:
			return trust.Errorf(trust.Denied, "a client binds a connection that is for the login to one host to another session")
		case bytes.Equal(known.session, b.session) && known.hostKey == b.hostKey:
			return nil
		case bytes.Equal(known.session, b.session):
			return trust.Errorf(trust.Denied, "a client binds one session to two hosts")
		}
	}
	if len(c.bound) == maxBindings {
		return trust.Errorf(trust.Exhausted, "a client binds a connection to more than %d sessions", maxBindings)
	}
	c.bound = append(c.bound, b)
	return nil
}

// forwardedTo returns the key of the host that the agent is forwarded to over the
// connection, the first if there are several, and whether there is one.
func (c *client) forwardedTo() (host trust.PublicKey, ok bool) {
	for _, b := range c.bound {
		if b.forwarding {
			return b.hostKey, true
		}
	}
	return trust.PublicKey{}, false
}

// bind refuses a request that does not fit the sessions that its connection is for, and
// fills in what those tell.
func (c *client) bind(r *Request) error {
	var host trust.PublicKey
	host, r.Forwarded = c.forwardedTo()
	if r.Forwarded && !c.server.Forwarded {
		return trust.Errorf(trust.Denied, "a signature was asked for over the agent that is forwarded to the host with key %s", host.Fingerprint()).
			WithHint("--forwarded lets forwarded agents ask; ssh -J needs none")
	}
	if len(c.bound) == 0 || !r.What.IsLogin() {
		return nil
	}
	last := c.bound[len(c.bound)-1]
	switch {
	case last.forwarding: // the host's own client is older, and binds nothing
		return nil
	case !bytes.Equal(last.session, r.What.Session):
		return trust.Errorf(trust.Denied, "a login was to be signed for another session than the one that its connection is for")
	case !r.What.HostKey.IsZero() && r.What.HostKey != last.hostKey:
		return trust.Errorf(trust.Denied, "a login was to be signed for another host than the one that its connection is for")
	}
	r.HostKey = last.hostKey
	return nil
}
