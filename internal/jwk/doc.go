// Package jwk holds by which keys the tokens of an account are signed, as JSON Web Keys
// (RFC 7517): one that signs, and those before it, which are published for as long as
// tokens that they signed may be about.
//
// A key is RSA of 2048 bits, for RS256 (RFC 7518, section 3.3), which is what libraries
// that verify tokens know from Cloudflare. It is exchanged after some days, by itself, and
// by hand. The private half of one that signs no more is destroyed at once.
package jwk
