package control

import (
	"slices"

	"keyturn/internal/access"
	"keyturn/internal/authority"
	"keyturn/internal/identity"
	"keyturn/internal/inventory"
	"keyturn/internal/job"
	"keyturn/internal/keyring"
	"keyturn/internal/policy"
	"keyturn/internal/rotation"
	"keyturn/internal/trust"
)

// The words of the packages below in which verbs ask and answer. Front doors
// speak them through this package: they import no other.
type (
	Actor      = identity.Actor
	Permission = identity.Permission
	Tenant     = identity.Tenant
	Token      = identity.Token
	NewToken   = identity.NewToken
	User       = identity.User
	Role       = identity.Role
	Rights     = identity.Rights

	Host          = inventory.Host
	HostFilter    = inventory.HostFilter
	HostState     = inventory.HostState
	KnownHost     = inventory.KnownHost
	Target        = inventory.Target
	TargetAddress = inventory.TargetAddress
	TargetFilter  = inventory.TargetFilter
	Mode          = inventory.Mode
	Become        = inventory.Become
	Key           = inventory.Key
	NumberedKey   = inventory.NumberedKey
	KeyFilter     = inventory.KeyFilter
	KeyState      = inventory.KeyState
	KeyKind       = inventory.KeyKind
	Relationship  = inventory.Relationship
	Finding       = inventory.Finding
	FindingFilter = inventory.FindingFilter
	FindingKind   = inventory.FindingKind
	KeyPage       = inventory.Page

	KeySpec   = keyring.Spec
	KEKStatus = keyring.KEKStatus

	AuthorityFilter    = authority.Filter
	AuthorityPurpose   = authority.Purpose
	ProfileChange      = authority.ProfileChange
	Certificate        = authority.Issued
	CertificateOptions = authority.Options

	Provider          = identity.Provider
	NewProvider       = identity.NewProvider
	ProviderKind      = identity.ProviderKind
	PublishedProvider = identity.PublishedProvider

	Application       = access.Application
	ApplicationFilter = access.ApplicationFilter
	ApplicationType   = policy.ApplicationType
	Criterion         = access.Criterion
	Policy            = access.Policy
	PolicyAction      = policy.Action
	SSHRules          = access.SSHRules
	Group             = access.Group
	GroupFilter       = access.GroupFilter
	IPList            = access.IPList
	AccessPage        = access.Page
	Rule              = policy.Rule
	Expression        = policy.Expression
	HostCriterion     = policy.Criterion
	Attributes        = policy.Attributes
	LoginDecision     = policy.Decision
	Protocol          = policy.Protocol

	LoginToken     = identity.LoginToken
	DeviceLogin    = identity.DeviceLogin
	BrowserLogin   = identity.BrowserLogin
	LoginAnswer    = identity.Answer
	DeviceProgress = identity.DeviceProgress
	OAuthTokens    = identity.OAuthTokens
	Throttled      = identity.Throttled

	RunSummary  = job.Summary
	RunFilter   = job.Filter
	RunState    = job.State
	PlaceReport = rotation.PlaceReport
	KeysError   = rotation.KeysError
)

// The values of those words that front doors name.
const (
	AdminUser = identity.AdminUser

	Inventory = inventory.Inventory
	Enforced  = inventory.Enforced

	Allow       = policy.Allow
	ProtocolSSH = policy.ProtocolSSH
	SSH         = policy.SSH
	SelfHosted  = policy.SelfHosted

	UserKey = inventory.UserKey
	HostKey = inventory.HostKey

	ActiveKey  = inventory.Active
	RotatedKey = inventory.Rotated
	RetiredKey = inventory.Retired
	DeletedKey = inventory.Deleted

	DeviceDone = identity.DeviceDone

	RunRunning = job.Running
	RunWaiting = job.Waiting
	RunPaused  = job.Paused
	RunHeld    = job.Held
	RunDone    = job.Done
	RunBack    = job.WentBack
	RunPartial = job.Partial
)

// ParseClaimRule reads "claim=value -> Role".
func ParseClaimRule(text string) (identity.ClaimRule, error) { return identity.ParseClaimRule(text) }

// ParseClaimMatch reads "claim=value".
func ParseClaimMatch(text string) (identity.ClaimMatch, error) { return identity.ParseClaimMatch(text) }

// ParseRule reads a rule on who may log in, such as "email_domain:example.com".
func ParseRule(text string) (Rule, error) { return policy.ParseRule(text) }

// ParseKeyID reads a key's id in any text form of a UUID.
func ParseKeyID(id string) (trust.KeyID, error) { return inventory.ParseKeyID(id) }

// Permissions describes every permission that can be given.
func Permissions() []identity.Grant { return slices.Clone(identity.Permissions) }

// ParsePermissions reads permissions by their names.
func ParsePermissions(names []string) ([]Permission, error) { return identity.ParsePermissions(names) }
