package control

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"keyturn/internal/identity"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// verbs is every verb with the permissions that it needs. A verb that asks for
// others, or that is not here, fails TestVerbsRefuseFirst.
var verbs = map[string][]identity.Permission{
	"ShowAccount":  {identity.AccountRead},
	"ListAccounts": {identity.All},
	"AddAccount":   {identity.All},
	"CreateToken":  {identity.TokensWrite},
	"ListTokens":   {identity.TokensRead},
	"RotateToken":  {identity.TokensWrite},
	"RevokeToken":  {identity.TokensWrite},

	"Logout": {},
	"WhoAmI": {},

	"ListUsers":       {identity.UsersRead},
	"ShowUser":        {identity.UsersRead},
	"AddUser":         {identity.UsersWrite},
	"SetUserRights":   {identity.UsersWrite},
	"SetUserEmail":    {identity.UsersWrite, identity.AppsWrite},
	"SetUserPassword": {identity.UsersWrite, identity.AppsWrite},
	"RemoveUser":      {identity.UsersWrite},
	"OfferTOTP":       {},
	"ConfirmTOTP":     {},
	"RemoveTOTP":      {identity.UsersWrite, identity.AppsWrite},
	"ListRoles":       {identity.UsersRead},
	"SetRole":         {identity.UsersWrite},
	"RemoveRole":      {identity.UsersWrite},

	"ListApplications":     {identity.AppsRead},
	"ShowApplication":      {identity.AppsRead},
	"AddApplication":       {identity.AppsWrite},
	"SetApplication":       {identity.AppsWrite},
	"RemoveApplication":    {identity.AppsWrite},
	"ListReusablePolicies": {identity.AppsRead},
	"ShowPolicy":           {identity.AppsRead},
	"AddPolicy":            {identity.AppsWrite},
	"SetPolicy":            {identity.AppsWrite},
	"UsePolicy":            {identity.AppsWrite},
	"UnusePolicy":          {identity.AppsWrite},
	"RemovePolicy":         {identity.AppsWrite},
	"AllowLogin":           {identity.AppsWrite},
	"TestLogin":            {identity.AppsRead, identity.UsersRead, identity.HostsRead},
	"SearchAccessLog":      {identity.AuditLogsRead},
	"RevokeApplication":    {identity.AppsWrite},
	"SetApplicationExtra":  {identity.AppsWrite},
	"StartPolicyTest":      {identity.PolicyTestWrite},
	"ShowPolicyTest":       {identity.PolicyTestRead},
	"ListPolicyTestUsers":  {identity.PolicyTestRead},
	"CheckUser":            {identity.AppsRead},
	"ListGroups":           {identity.OrganizationsRead},
	"ShowGroup":            {identity.OrganizationsRead},
	"AddGroup":             {identity.OrganizationsWrite},
	"SetGroup":             {identity.OrganizationsWrite},
	"RemoveGroup":          {identity.OrganizationsWrite},
	"ListIPLists":          {identity.OrganizationsRead},
	"ShowIPList":           {identity.OrganizationsRead},
	"AddIPList":            {identity.OrganizationsWrite},
	"SetIPList":            {identity.OrganizationsWrite},
	"RemoveIPList":         {identity.OrganizationsWrite},

	"ShowJWKs":   {identity.OrganizationsRead},
	"SetJWKDays": {identity.OrganizationsWrite},
	"RotateJWK":  {identity.OrganizationsWrite},

	"ListProviders":  {identity.UsersRead},
	"AddProvider":    {identity.UsersWrite, identity.AppsWrite},
	"SetProvider":    {identity.UsersWrite, identity.AppsWrite},
	"RemoveProvider": {identity.UsersWrite},
	"TestProvider":   {identity.UsersWrite},

	"ListHosts":            {identity.HostsRead},
	"ShowHost":             {identity.HostsRead},
	"ListKnownHosts":       {identity.HostsRead},
	"ListFindings":         {identity.HostsRead},
	"AddHost":              {identity.HostsWrite, identity.KeysWrite},
	"AddHostCredential":    {identity.HostsWrite, identity.KeysWrite},
	"RemoveHostCredential": {identity.HostsWrite},
	"RemoveHost":           {identity.HostsWrite},
	"SetHostMode":          {identity.HostsWrite},
	"ConfirmHost":          {identity.HostsWrite},
	"Scan":                 {identity.HostsWrite},

	"ListTargets":   {identity.ZeroTrustRead},
	"ShowTarget":    {identity.ZeroTrustRead},
	"CreateTargets": {identity.ZeroTrustWrite},
	"UpdateTarget":  {identity.ZeroTrustWrite},
	"RemoveTargets": {identity.ZeroTrustWrite},

	"ListDiscoveries": {identity.HostsRead},
	"ShowDiscovery":   {identity.HostsRead},
	"CreateDiscovery": {identity.HostsWrite},
	"RemoveDiscovery": {identity.HostsWrite},

	"ListKeys":      {identity.KeysRead},
	"SearchKeys":    {identity.KeysRead},
	"ShowKey":       {identity.KeysRead},
	"ExportKey":     {identity.KeysRead},
	"RevealKey":     {identity.KeysReveal},
	"ApproveReveal": {identity.KeysReveal},
	"ImportKey":     {identity.KeysWrite},
	"GenerateKey":   {identity.KeysWrite},
	"SetKeyFacts":   {identity.KeysWrite},
	"DeleteKey":     {identity.KeysWrite},
	"RestoreKey":    {identity.KeysWrite},
	"SupplyKey":     {identity.KeysSupply},
	"Rotate":        {identity.KeysWrite, identity.RunsWrite},
	"Rollback":      {identity.KeysWrite, identity.RunsWrite},
	"Retire":        {identity.KeysWrite, identity.RunsWrite},

	"ListUsableKeys": {identity.KeysUse},
	"SignWithKey":    {identity.KeysUse},
	"ListKeyUsers":   {identity.KeysRead},
	"SetKeyUsers":    {identity.KeysWrite, identity.UsersWrite},

	"GenerateNumberedKey": {identity.KeysWrite},
	"ListNumberedKeys":    {identity.KeysRead},
	"ShowNumberedKey":     {identity.KeysRead},
	"DeleteNumberedKey":   {identity.KeysWrite},

	"ListRuns":      {identity.RunsRead},
	"ShowRun":       {identity.RunsRead},
	"ListRunPlaces": {identity.RunsRead},
	"WaitForRun":    {identity.RunsRead},
	"PauseRun":      {identity.RunsWrite},
	"PauseAllRuns":  {identity.RunsWrite},
	"ResumeRun":     {identity.RunsWrite},
	"ResumeAllRuns": {identity.RunsWrite},
	"BackRun":       {identity.RunsWrite},
	"LeaveRun":      {identity.RunsWrite},
	"ApproveRun":    {identity.RunsWrite},

	"ApproveBack":    {identity.KeysWrite, identity.RunsWrite},
	"ListApprovals":  {identity.RunsRead},
	"RefuseApproval": {identity.RunsRead},
	"ApproveSetting": {identity.SettingsWrite},

	"ShowSeed":                   {identity.ZeroTrustRead},
	"RotateSeed":                 {identity.ZeroTrustWrite},
	"ListHostIdentities":         {identity.ZeroTrustRead},
	"PrintKnownHosts":            {identity.ZeroTrustRead},
	"CertifyHost":                {identity.ZeroTrustRead, identity.CertificatesIssue},
	"ShowSSHSettings":            {identity.ZeroTrustRead},
	"SetAuditKey":                {identity.ZeroTrustWrite},
	"ListAuthorities":            {identity.CertificatesRead},
	"ShowAuthority":              {identity.CertificatesRead},
	"CreateAuthority":            {identity.CertificatesWrite},
	"RotateAuthority":            {identity.CertificatesWrite},
	"SetAuthorityProfile":        {identity.CertificatesWrite},
	"RemoveAuthority":            {identity.CertificatesWrite},
	"ListApplicationAuthorities": {identity.AppsRead},
	"ShowApplicationAuthority":   {identity.AppsRead},
	"CreateApplicationAuthority": {identity.AppsWrite},
	"RemoveApplicationAuthority": {identity.AppsWrite},
	"ListGatewayAuthorities":     {identity.SSHAuditingRead},
	"CreateGatewayAuthority":     {identity.SSHAuditingWrite},
	"RemoveGatewayAuthority":     {identity.SSHAuditingWrite},

	"ListHostTargets":  {identity.ZeroTrustRead},
	"ShowHostTarget":   {identity.ZeroTrustRead},
	"AddHostTarget":    {identity.ZeroTrustWrite},
	"ChangeHostTarget": {identity.ZeroTrustWrite},
	"RemoveHostTarget": {identity.ZeroTrustWrite},

	"ListCertificates":   {identity.CertificatesRead},
	"ShowCertificate":    {identity.CertificatesRead},
	"Issue":              {identity.CertificatesIssue},
	"RevokeCertificates": {identity.CertificatesWrite},
	"KRL":                {identity.CertificatesRead},

	"Count": {identity.MetricsRead},

	"ShowKEK":       {identity.SettingsRead},
	"RotateKEK":     {identity.All},
	"RotateDataKey": {identity.All},

	"ListSettings": {identity.SettingsRead},
	"SetSetting":   {identity.SettingsWrite},
}

// unasked is what anybody may call: what says who somebody is, and what the
// program itself calls.
var unasked = []string{
	"AccessToken", "Bearer", "BeginLogin", "FinishLogin", "FollowOwners", "IssueServiceToken", "Login", "LoginProviders", "Password",
	"PasswordGrant", "PasswordLogin", "PollDeviceLogin", "PublishedJWKs", "Ready", "RefreshGrant", "Schedule", "ServiceToken", "StartDeviceLogin",
	"Stock", "Token", "TokenLogin", "UserToken", "WebLogin",
}

// Whoever may not do a thing is refused before anything is read, checked, made or
// written, and learns which permission that takes. The verbs are called on a plane
// that has no store, keyring or engine to touch, with arguments that say nothing.
func TestVerbsRefuseFirst(t *testing.T) {
	plane := reflect.ValueOf(New(nil, nil, nil, nil))
	var found []string
	for i := range plane.NumMethod() {
		name, verb := plane.Type().Method(i).Name, plane.Method(i)
		if verb.Type().NumIn() < 2 || verb.Type().In(1) != reflect.TypeFor[identity.Actor]() {
			if !slices.Contains(unasked, name) {
				t.Errorf("%s takes no actor, and is not among those that need none", name)
			}
			continue
		}
		found = append(found, name)
		for _, lacking := range verbs[name] {
			var others []identity.Permission
			for _, g := range identity.Permissions {
				if may := (identity.Actor{Permissions: []identity.Permission{g.Permission}}); !may.May(lacking) {
					others = append(others, g.Permission)
				}
			}
			if err := call(verb, identity.Actor{Tenant: storetest.Tenant, Permissions: others}); trust.KindOf(err) != trust.Denied || !strings.Contains(err.Error(), string(lacking)) {
				t.Errorf("%s, without %s only: got %v, want a refusal that names it", name, lacking, err)
			}
		}
		if err := call(verb, identity.Actor{Tenant: storetest.Tenant, Permissions: verbs[name]}); trust.KindOf(err) == trust.Denied {
			t.Errorf("%s needs more than %q: %v", name, verbs[name], err)
		}
	}
	slices.Sort(found)
	if want := slices.Sorted(maps.Keys(verbs)); !slices.Equal(found, want) {
		t.Errorf("the verbs are %q, and the permissions of these are known: %q", found, want)
	}
}

// call calls a verb with nothing but an actor. Getting as far as to touch what
// is not there is an error.
func call(verb reflect.Value, actor identity.Actor) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("it went on: %v", p)
		}
	}()
	args := []reflect.Value{reflect.ValueOf(context.Background()), reflect.ValueOf(actor)}
	for i := 2; i < verb.Type().NumIn(); i++ {
		args = append(args, reflect.Zero(verb.Type().In(i)))
	}
	out := verb.Call(args)
	err, _ = out[len(out)-1].Interface().(error)
	return err
}

// A Plane wires, and keeps nothing: state that verbs share would be state that
// two nodes do not.
func TestPlaneIsSmall(t *testing.T) {
	const most = 10
	if n := reflect.TypeFor[Plane]().NumField(); n > most {
		t.Errorf("Plane has %d fields, more than %d: it holds what belongs into a mechanism", n, most)
	}
}

func TestPageLimit(t *testing.T) {
	for _, test := range []struct{ asked, want int }{{0, 100}, {1, 1}, {MaxPage, MaxPage}, {MaxPage + 1, -1}, {-1, -1}} {
		got, err := Page{Limit: test.asked}.limit()
		if test.want < 0 && trust.KindOf(err) != trust.Invalid || test.want >= 0 && (err != nil || got != test.want) {
			t.Errorf("limit %d: got %d, %v; want %d", test.asked, got, err, test.want)
		}
	}
}

// A dry run needs no more than a scan does, and may tell of keys: it changes
// nothing.
func TestDryRunNeedsLess(t *testing.T) {
	for _, test := range []struct {
		has    []identity.Permission
		denied bool
	}{
		{[]identity.Permission{identity.KeysRead, identity.HostsWrite}, false},
		{[]identity.Permission{identity.KeysRead, identity.HostsRead, identity.RunsWrite}, true},
		{[]identity.Permission{identity.HostsWrite, identity.RunsWrite}, true},
	} {
		dry := func(ctx context.Context, actor identity.Actor) (trust.RunID, error) {
			return New(nil, nil, nil, nil).Rotate(ctx, actor, Rotate{DryRun: true})
		}
		err := call(reflect.ValueOf(dry), identity.Actor{Tenant: storetest.Tenant, Permissions: test.has})
		if got := trust.KindOf(err) == trust.Denied; got != test.denied {
			t.Errorf("with %q: %v", test.has, err)
		}
	}
}
