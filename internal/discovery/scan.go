package discovery

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"keyturn/internal/inventory"
	"keyturn/internal/reach"
	"keyturn/internal/remote"
	"keyturn/internal/trust"
)

// Bounds of one scan of one host. What they leave out is noted.
const (
	maxAccounts = 1000
	maxNotes    = 200
	// maxBytes is of all authorized_keys files together: they are in memory
	// until the scan is recorded.
	maxBytes = 32 << 20
)

// read scans a host. An error means that it could not be reached, or does not
// let us look at all.
func (d *Discoverer) read(ctx context.Context, tenant trust.TenantID, h inventory.Host) (inventory.Scan, error) {
	hands, err := d.reach.Open(ctx, tenant, h.ID)
	if err != nil {
		return inventory.Scan{}, err
	}
	defer hands.Close()
	s := scanner{hands: hands, scan: inventory.Scan{Host: h.ID, Outcome: inventory.Scanned, Homeless: map[string]string{}, Opens: map[trust.KeyID]bool{hands.OpenedBy: true}}}
	sshd, err := hands.Sshd(ctx)
	if err != nil {
		return inventory.Scan{}, err
	}
	s.scan.Facts = inventory.Facts{
		System: hands.Kernel(), UID: hands.UID(), Home: hands.Home(), Banner: hands.Banner(),
		Sshd: sshd.Binary, Options: sshd.Options, Found: sshd.Found,
	}
	if s.scan.Facts.Machine, err = s.machine(ctx); err != nil {
		return inventory.Scan{}, err
	}
	accounts, err := s.accounts(ctx)
	if err != nil {
		return inventory.Scan{}, err
	}
	for some := range slices.Chunk(accounts, 32) {
		if err := s.skip(hands.AskAhead(ctx, some)); err != nil {
			return inventory.Scan{}, err
		}
		for _, user := range some {
			if err := s.account(ctx, user); err != nil {
				return inventory.Scan{}, err
			}
		}
	}
	if err := s.systemKnownHosts(ctx); err != nil {
		return inventory.Scan{}, err
	}
	if err := d.nameKnown(ctx, tenant, &s); err != nil {
		return inventory.Scan{}, err
	}
	if err := s.hostKeys(ctx); err != nil {
		return inventory.Scan{}, err
	}
	if err := s.byOrigin(ctx); err != nil {
		return inventory.Scan{}, err
	}
	if err := d.otherKeys(ctx, tenant, &s); err != nil {
		return inventory.Scan{}, err
	}
	if len(s.scan.Unread) > 0 {
		s.scan.Outcome, s.scan.Why = inventory.Partial, fmt.Sprintf("%d files or accounts cannot be read", len(s.scan.Unread))
	}
	return s.scan, nil
}

// otherKeys logs in by each key that is to open the host and did not now: one day it may
// be all that is left. That a host does not answer says nothing of a key.
func (d *Discoverer) otherKeys(ctx context.Context, tenant trust.TenantID, s *scanner) error {
	try := func(key, works trust.KeyID) error {
		err := d.reach.Try(ctx, tenant, s.scan.Host, key, works)
		switch kind := trust.KindOf(err); {
		case err == nil:
			s.scan.Opens[key] = true
		case kind == trust.Denied || kind == trust.Conflict:
			s.scan.Opens[key] = false
		case kind == trust.Internal:
			return err
		}
		return nil
	}
	works := s.hands.OpenedBy
	for _, c := range s.hands.Row.Credentials {
		if c.Key == s.hands.OpenedBy {
			continue
		}
		if err := try(c.Key, s.hands.OpenedBy); err != nil {
			return err
		}
		if s.scan.Opens[c.Key] {
			works = c.Key
		}
	}
	if !s.hands.Kept || len(s.hands.Row.Credentials) < 2 {
		return nil
	}
	delete(s.scan.Opens, s.hands.OpenedBy) // until it is seen to log in
	return try(s.hands.OpenedBy, works)
}

// A scanner is one scan under way.
type scanner struct {
	hands *reach.Hands
	scan  inventory.Scan
	bytes int                   // of content that is in scan
	hung  int                   // accounts that were given up because an op took too long
	known []trust.KnownHostLine // those of scan.Known, by index
	// authorities are the files of trusted certificate authorities that were read: most
	// often one for all accounts.
	authorities map[string]bool
}

// accounts returns whom to look at: everybody, where we can act as root, else
// the account that we are.
func (s *scanner) accounts(ctx context.Context) ([]string, error) {
	if !s.hands.Root() {
		s.note(inventory.NoteUnread, "", "", "only the account %s was looked at: the login is not root, and does not become root", s.hands.Login())
		return []string{s.hands.Login()}, nil
	}
	accounts, err := s.hands.Accounts(ctx)
	if err != nil {
		return nil, err
	}
	s.scan.Complete = true
	var users []string
	for _, a := range accounts {
		if _, err := inventory.ParseUser(a.User); err != nil {
			s.note(inventory.NoteUnread, "", "", "%s", sentence(err))
			continue
		}
		users = append(users, a.User)
	}
	if len(users) > maxAccounts {
		s.note(inventory.NoteLimit, "", "", "%d accounts are more than the %d that a scan looks at", len(users), maxAccounts)
		users, s.scan.Complete = users[:maxAccounts], false
	}
	return users, nil
}

// account reads what lets somebody in as user, and the identities of user.
func (s *scanner) account(ctx context.Context, user string) error {
	s.scan.Users = append(s.scan.Users, user)
	cfg, err := s.hands.AccountConfig(ctx, user)
	if err != nil {
		return s.unread(user, "", err)
	}
	s.unseen(user, cfg)
	if err := s.authoritiesIn(ctx, cfg.Config.TrustedUserCAKeys); err != nil {
		return err
	}
	files, known, identities, err := s.files(ctx, user, cfg.AuthorizedKeys)
	if err != nil {
		return s.unread(user, "", err)
	}
	s.knownHosts(user, known)
	for i, f := range files {
		switch {
		case f.Absent:
		case f.Unreadable:
			s.leave(user, f.Path, "permission denied")
		case s.bytes+len(f.Content) > maxBytes:
			s.note(inventory.NoteLimit, "", "", "the authorized keys of all accounts are more than %d bytes", maxBytes)
			s.leave(user, f.Path, "beyond the bytes that a scan reads")
		default:
			s.bytes += len(f.Content)
			s.add(inventory.FoundFile{
				File: s.file(user, f, i, inventory.AuthorizedFile), Authorized: inventory.AuthorizedKeysOf(f.Content, s.hands.Server()),
			})
		}
	}
	if identities.Left != "" {
		s.leave(user, "", identities.Left)
	}
	if identities.Homeless != "" {
		s.scan.Homeless[user] = identities.Homeless
	}
	for i, id := range identities.List {
		half := inventory.Identity{Key: id.Key, Format: id.Info.Format, Encrypted: id.Info.Encrypted, Comment: id.Comment, Link: id.Link, Apart: id.Apart}
		if len(id.Key.Blob()) > inventory.MaxKeyBlob {
			half.Key = trust.PublicKey{}
		}
		s.add(inventory.FoundFile{
			File: inventory.File{
				Place: trust.Place{Host: s.scan.Host, User: user, Path: id.Path}, Kind: inventory.IdentityFile,
				SHA256: "", Mode: id.Mode, Owner: owner(id.UID, id.GID), Order: i,
			},
			Identity: half,
		})
	}
	return nil
}

// add adds a file to the scan. One whose name is no text is noted instead: it
// is a user of the host who chose that name, and who must not be able to hold
// the scan of all hosts with it.
func (s *scanner) add(f inventory.FoundFile) {
	if err := inventory.CheckPlace(f.Place); err != nil {
		s.note(inventory.NoteUnread, f.User, "", "%s", sentence(err))
		return
	}
	s.scan.Files = append(s.scan.Files, f)
}

// leave says of a file, or with an empty path of an account, that it was not
// read, and why. What was known of it then stays.
func (s *scanner) leave(user, path, why string) {
	s.scan.Unread = append(s.scan.Unread, inventory.UnreadFile{User: user, Path: path, Why: why})
	s.note(inventory.NoteUnread, user, path, "%s: %s", strings.TrimSuffix(user+":"+path, ":"), why)
}

// hostKeys reads the public halves of the host keys that sshd is configured
// with, which everybody may read. That a host key has none is no loss: hosts
// are known by what they present.
func (s *scanner) hostKeys(ctx context.Context) error {
	login := s.hands.Login()
	cfg, err := s.hands.AccountConfig(ctx, login)
	if err != nil || len(cfg.Config.HostKey) == 0 {
		return s.skip(err)
	}
	var paths []string
	for _, path := range cfg.Config.HostKey {
		paths = append(paths, path+".pub")
	}
	files, err := s.hands.Files(ctx, login, paths)
	if err != nil {
		return s.skip(err)
	}
	for i, f := range files {
		key, comment, err := trust.ParsePublicKey(string(f.Content))
		if f.Absent || f.Unreadable || err != nil || len(key.Blob()) > inventory.MaxKeyBlob {
			continue
		}
		file := s.file("root", f, i, inventory.IdentityFile)
		file.Path = cfg.Config.HostKey[i]
		s.add(inventory.FoundFile{File: file, Role: inventory.HostKey, Identity: inventory.Identity{Key: key, Comment: comment}})
	}
	return nil
}

// machine returns a digest of machine-id(5), which is equal where two hosts are
// one machine or copies of one, or nothing where the host has none. The id
// itself is confidential.
func (s *scanner) machine(ctx context.Context) (string, error) {
	files, err := s.hands.Files(ctx, s.hands.Login(), []string{"/etc/machine-id"})
	if err != nil {
		return "", s.skip(err)
	}
	id := strings.TrimSpace(string(files[0].Content))
	if len(id) != 32 {
		return "", nil
	}
	sum := sha256.Sum256([]byte("keyturn machine " + id))
	return hex.EncodeToString(sum[:16]), nil
}

// skip passes over what a scan can do without, unless the host is gone.
func (s *scanner) skip(err error) error {
	if kind := trust.KindOf(err); err != nil && (kind == trust.Unavailable || kind == trust.Internal) {
		return err
	}
	return nil
}

// maxHung is of how many accounts a scan waits for files that hang.
const maxHung = 3

// unread notes what could not be read, and goes on, unless the host is gone.
func (s *scanner) unread(user, path string, err error) error {
	if errors.Is(err, remote.ErrTookLonger) && s.hung < maxHung {
		s.hung++
	} else if err := s.skip(err); err != nil {
		return err
	}
	s.leave(user, path, sentence(err))
	return nil
}

// unseen notes trust that lies in no file that a scan reads.
func (s *scanner) unseen(user string, cfg remote.AccountConfig) {
	for _, n := range cfg.Unseen {
		s.note(inventory.NoteUnseenTrust, user, "", "%s", n)
	}
	if cfg.Evaluated != "" {
		s.note(inventory.NoteConfig, user, "", "%s", cfg.Evaluated)
	}
}

// byOrigin notes what sshd does otherwise for connections from elsewhere: the accounts are
// looked at as it serves ours.
func (s *scanner) byOrigin(ctx context.Context) error {
	list, err := s.hands.ByOrigin(ctx)
	if err != nil {
		s.note(inventory.NoteConfig, "", "", "whether sshd takes other keys for some addresses is not known: %s", sentence(err))
		return s.skip(err)
	}
	for _, directive := range list {
		s.note(inventory.NoteUnseenTrust, "", "", "for other addresses than Keyturn's sshd may take other keys: %s", directive)
	}
	return nil
}

// authoritiesIn notes by whose certificates sshd lets people in: the keys of a file that
// TrustedUserCAKeys names, one on each line and without options.
func (s *scanner) authoritiesIn(ctx context.Context, path string) error {
	if path == "" || s.authorities[path] {
		return nil
	}
	if s.authorities == nil {
		s.authorities = map[string]bool{}
	}
	s.authorities[path] = true
	files, err := s.hands.Files(ctx, s.hands.Login(), []string{path})
	if err != nil || files[0].Unreadable {
		s.note(inventory.NoteUnread, "", path, "%s: whose certificates let people in cannot be read", path)
		return s.skip(err)
	}
	for l := range strings.Lines(string(files[0].Content)) {
		if key, comment, err := trust.ParsePublicKey(strings.TrimSpace(l)); err == nil {
			s.note(inventory.NoteUnseenTrust, "", path, "certificates of %s (%s %q) let people in, by %s", key.Fingerprint(), key.Type(), comment, path)
		}
	}
	return nil
}

func (s *scanner) note(about, user, path, format string, args ...any) {
	n := inventory.Note{About: about, User: user, Path: path, Text: fmt.Sprintf(format, args...)}
	same := func(o inventory.Note) bool { return o.About == n.About && o.Text == n.Text }
	if len(s.scan.Notes) < maxNotes && !slices.ContainsFunc(s.scan.Notes, same) {
		s.scan.Notes = append(s.scan.Notes, n)
	}
}

func (s *scanner) file(user string, f remote.File, order int, kind inventory.FileKind) inventory.File {
	return inventory.File{
		Place: trust.Place{Host: s.scan.Host, User: user, Path: f.Path}, Kind: kind,
		SHA256: f.SHA256, Size: f.Size, Mode: f.Mode, Owner: owner(f.UID, f.GID),
		Inode: f.Device + ":" + strconv.FormatUint(f.Inode, 10), FileSystem: f.FileSystem.Type,
		Fault: f.Fault, Fixed: f.Fixed, Order: order,
	}
}

func owner(uid, gid int) string { return strconv.Itoa(uid) + ":" + strconv.Itoa(gid) }
