package discovery

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"keyturn/internal/inventory"
	"keyturn/internal/reach"
	"keyturn/internal/remote"
	"keyturn/internal/trust"
)

// Bounds of one scan of one host.
const (
	maxAccounts = 1000
	maxNotes    = 200
)

// read scans a host. An error means that it could not be reached, or does not
// let us look at all.
func (d *Discoverer) read(ctx context.Context, tenant trust.TenantID, h inventory.Host) (inventory.Scan, error) {
	hands, err := d.reach.Open(ctx, tenant, h.ID)
	if err != nil {
		return inventory.Scan{}, err
	}
	defer hands.Close()
	s := scanner{hands: hands, scan: inventory.Scan{Host: h.ID, Outcome: inventory.Scanned}}
	sshd, err := hands.Sshd(ctx)
	if err != nil {
		return inventory.Scan{}, err
	}
	s.scan.Facts = inventory.Facts{
		System: hands.Kernel(), UID: hands.UID(), Home: hands.Home(), Banner: hands.Banner(),
		Sshd: sshd.Binary, Options: sshd.Options, Found: sshd.Found,
	}
	accounts, err := s.accounts(ctx)
	if err != nil {
		return inventory.Scan{}, err
	}
	for _, user := range accounts {
		if err := s.account(ctx, user); err != nil {
			return inventory.Scan{}, err
		}
	}
	if len(s.scan.Unread) > 0 {
		s.scan.Outcome, s.scan.Why = inventory.Partial, fmt.Sprintf("%d files or accounts cannot be read", len(s.scan.Unread))
	}
	return s.scan, nil
}

// A scanner is one scan under way.
type scanner struct {
	hands *reach.Hands
	scan  inventory.Scan
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
	var users []string
	for _, a := range accounts {
		users = append(users, a.User)
	}
	s.scan.Complete = true
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
	files, err := s.hands.Files(ctx, user, cfg.AuthorizedKeys)
	if err != nil {
		return s.unread(user, "", err)
	}
	for i, f := range files {
		switch {
		case f.Absent:
		case f.Unreadable:
			s.scan.Unread = append(s.scan.Unread, inventory.UnreadFile{User: user, Path: f.Path, Why: "permission denied"})
		default:
			s.scan.Files = append(s.scan.Files, inventory.FoundFile{
				File: s.file(user, f, i, inventory.AuthorizedFile), Authorized: inventory.AuthorizedKeysOf(f.Content),
			})
		}
	}
	identities, err := s.hands.Identities(ctx, user)
	if err != nil {
		return s.unread(user, "", err)
	}
	for i, id := range identities {
		s.scan.Files = append(s.scan.Files, inventory.FoundFile{
			File: inventory.File{
				Place: trust.Place{Host: s.scan.Host, User: user, Path: id.Path}, Kind: inventory.IdentityFile,
				SHA256: "", Mode: id.Mode, Owner: owner(id.UID, id.GID), Order: i,
			},
			Identity: inventory.Identity{Key: id.Key, Format: id.Info.Format, Encrypted: id.Info.Encrypted, Comment: id.Comment},
		})
	}
	return nil
}

// unread notes what could not be read, and goes on, unless the host is gone.
func (s *scanner) unread(user, path string, err error) error {
	if kind := trust.KindOf(err); kind == trust.Unavailable || kind == trust.Internal {
		return err
	}
	s.scan.Unread = append(s.scan.Unread, inventory.UnreadFile{User: user, Path: path, Why: sentence(err)})
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
