// Package keys holds the secrets of a controller and of a CRM: where they are
// kept, how they are read, and what is done with them. However its secrets are
// printed, logged or encoded, a mask comes out instead.
//
// Signatures over JSON are compact JWS (RFC 7515); signatures over checkpoints
// are C2SP signed notes (https://c2sp.org/signed-note). One key may do both:
// the bytes that a JWS signs begin with "eyJ", those of a cosignature with
// "cosignature/v1\n", and those of a checkpoint with the log's origin and a
// newline, which a JWS signing input never contains. So a signature of one
// sort is never one of another.
package keys

import (
	"fmt"
	"log/slog"
)

// Algorithm is the algorithm of a signing key, by its JOSE name (RFC 7518,
// RFC 8037).
type Algorithm string

// The algorithms of signing keys.
const (
	ES256 Algorithm = "ES256" // ECDSA over P-256 with SHA-256: a TPM can hold such a key
	EdDSA Algorithm = "EdDSA" // Ed25519
)

// The values of the typ header. Each sort of signed object has its own, so
// that one cannot be passed off as another signed with the same key.
const (
	TypeRecord  = "gatehouse-record+jwt"
	TypeReceipt = "gatehouse-receipt+jwt"
	TypePolicy  = "gatehouse-policy+jwt"
	TypeRequest = "gatehouse-request+jwt"
	TypeBundle  = "gatehouse-bundle+jwt"

	TypePolicyRoot    = "gatehouse-policy-root+jwt"    // a new policy root, by the former and by itself
	TypePolicyKey     = "gatehouse-policy-key+jwt"     // the certificate of a CRM's policy key
	TypePolicyRequest = "gatehouse-policy-request+jwt" // the request for one
	TypeManifest      = "gatehouse-manifest+jwt"
	TypeFresh         = "gatehouse-fresh+jwt"
	TypeCommand       = "gatehouse-command+jwt"
)

// The names of a controller's keys, as a Provider knows them.
const (
	NameLog      = "log.key"      // signs records and checkpoints
	NameSeal     = "seal.key"     // seals what identifies people
	NamePepper   = "pepper.key"   // keys the index of credentials
	NamePolicy   = "policy.key"   // signs the site's own allowlist; of a CRM, what it tells the doors
	NameTLS      = "tls.key"      // opens connections to the broker
	NameIdentity = "identity.key" // opens what the CRM seals to this controller
)

// The names of a CRM's keys.
const (
	NameCA         = "ca.key"          // certifies controllers and the broker
	NameBroker     = "broker.key"      // the broker's TLS key
	NameCRM        = "crm.key"         // the CRM's own TLS key towards the broker
	NameCosigner   = "cosigner.key"    // signs receipts, bundles and cosignatures
	NamePolicyRoot = "policy-root.key" // certifies the keys that sign allowlists
)

// mask is embedded by every secret. However the secret is printed or encoded,
// the mask's text comes out instead.
type mask string

func (m mask) text() string { return "[" + string(m) + "]" }

// String returns a text without any of the secret.
func (m mask) String() string { return m.text() }

// GoString returns a text without any of the secret.
func (m mask) GoString() string { return m.text() }

// Format writes a text without any of the secret, whatever the verb is.
func (m mask) Format(f fmt.State, _ rune) { fmt.Fprint(f, m.text()) }

// LogValue returns a text without any of the secret.
func (m mask) LogValue() slog.Value { return slog.StringValue(m.text()) }

// MarshalText returns a text without any of the secret.
func (m mask) MarshalText() ([]byte, error) { return []byte(m.text()), nil }

// MarshalJSON returns a text without any of the secret.
func (m mask) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, "%q", m.text()), nil }
