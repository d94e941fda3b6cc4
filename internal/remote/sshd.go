package remote

// Sshd is which SSH server serves a session.
type Sshd struct{}
