package wire

import (
	"encoding/base64"
	"errors"
	"fmt"
	"time"
)

// Limits of what brings the allowlist. A manifest of the largest size still fits
// into a publication, and that into MaxPayload.
const (
	MaxPublication = 224 << 10 // bytes of down/manifest
	MaxManifest    = 160 << 10 // bytes of a manifest's JWS
	MaxFresh       = 2 << 10   // bytes of a fresh token's JWS
	MaxAuthority   = 17        // JWS that lead from the policy root to the policy key
	MaxDeltas      = 64        // of a manifest
	MaxPart        = 190 << 10 // bytes of one part of a blob, sealed
	MaxParts       = 2000      // of all blobs of a manifest together
	MaxRows        = 1 << 24   // of one blob
	MaxFetch       = 2 << 10   // bytes of up/fetch
	MaxFetchParts  = 16        // parts that one fetch asks for
	maxAuthority   = 2 << 10   // bytes of one JWS of an authority
)

// The typ in the protected headers of what the policy key signs.
const (
	ManifestType = "gatehouse-manifest+jwt"
	FreshType    = "gatehouse-fresh+jwt"
)

// Hash is the SHA-256 of a sealed part.
type Hash [32]byte

// String is the hash as it stands in a manifest.
func (h Hash) String() string { return base64.RawURLEncoding.EncodeToString(h[:]) }

// MarshalText writes the hash as String does.
func (h Hash) MarshalText() ([]byte, error) {
	return base64.RawURLEncoding.AppendEncode(nil, h[:]), nil
}

// UnmarshalText reads what MarshalText wrote.
func (h *Hash) UnmarshalText(text []byte) error {
	b, err := base64.RawURLEncoding.DecodeString(string(text))
	if err != nil || len(b) != len(h) {
		return fmt.Errorf("%q is not a SHA-256 in base64url", shorten(string(text)))
	}
	*h = Hash(b)
	return nil
}

// Publication is the payload of down/manifest. The broker keeps it, and so does
// whoever carries it: only what is signed in it counts.
type Publication struct {
	V          int    `json:"v"`
	Controller string `json:"controller"`
	// Authority leads from the policy root to the key that signed the rest: a
	// pair of JWS for each new root, and the key's certificate
	// (keys.OpenPolicyKey).
	Authority []string `json:"authority"`
	Manifest  string   `json:"manifest"` // compact JWS of a Manifest
	Fresh     string   `json:"fresh"`    // compact JWS of a Fresh
}

// Manifest says what a version of a controller's allowlist consists of: a
// snapshot, and deltas that follow each other from the snapshot, or from before
// it, up to the version. A blob says what rows are and not how they change: a
// delta may be applied to any version from its From to its To, and brings To.
//
// The same version may be signed again, with other blobs that bring the same.
type Manifest struct {
	V          int       `json:"v"`
	Controller string    `json:"controller"`
	Version    uint64    `json:"version"` // from 1 on; rises with each change
	Created    time.Time `json:"created"` // of the version
	// Expires is until when a controller begins to use this version. What is in
	// use already stays so.
	Expires time.Time `json:"expires"`
	// Generation names the pepper by which the rows are found and the blobs are
	// sealed (keys.Pepper.Generation).
	Generation string `json:"generation"`
	Count      uint64 `json:"count"` // rows of the version, all in all
	Snapshot   Blob   `json:"snapshot"`
	Deltas     []Blob `json:"deltas"` // the oldest first: each begins where the one before ends
	// Urgent says that the last delta takes something away.
	Urgent bool `json:"urgent,omitempty"`
}

// Blob is a snapshot or a delta, in sealed parts.
type Blob struct {
	ID    string `json:"id"`             // 32 random hex digits
	From  uint64 `json:"from,omitempty"` // the version that a delta begins from; 0: a snapshot
	To    uint64 `json:"to"`             // the version that it brings
	Rows  uint64 `json:"rows"`           // removed ones too
	Bytes uint64 `json:"bytes"`          // of all parts, sealed
	Parts []Hash `json:"parts"`
}

// Fresh says that a version is the newest there is, at a time.
type Fresh struct {
	V          int       `json:"v"`
	Controller string    `json:"controller"`
	Version    uint64    `json:"version"`
	Time       time.Time `json:"time"`  // the CRM's clock
	Until      time.Time `json:"until"` // after it the token says nothing
}

// Fetch is the payload of up/fetch: parts of a blob are asked for.
type Fetch struct {
	V          int    `json:"v"`
	Controller string `json:"controller"`
	Blob       string `json:"blob"`
	Parts      []int  `json:"parts"` // their places, from 0 on, rising
	Have       uint64 `json:"have"`  // the version in use; 0: none
}

// Marshal writes the publication, or says why nobody would accept it.
func (p *Publication) Marshal() ([]byte, error) { return marshal(p, MaxPublication, "publication") }

// ParsePublication reads a publication. What is signed in it is yet to be
// verified.
func ParsePublication(payload []byte) (*Publication, error) {
	p := new(Publication)
	if err := parse(payload, p, MaxPublication, "publication"); err != nil {
		return nil, err
	}
	return p, nil
}

// Sign writes the manifest and signs it. The signer's typ must be ManifestType.
func (m *Manifest) Sign(s Signer) (jws string, err error) {
	return signPayload(m, s, MaxManifest, "manifest")
}

// OpenManifest verifies a manifest's signature and reads it. The verifier is of
// the policy key.
func OpenManifest(jws string, v Verifier) (*Manifest, error) {
	payload, err := openPayload(jws, v, ManifestType, MaxManifest, "manifest")
	if err != nil {
		return nil, err
	}
	return ParseManifest(payload)
}

// ParseManifest reads a manifest's payload, whose signature the caller has
// verified.
func ParseManifest(payload []byte) (*Manifest, error) {
	m := new(Manifest)
	if err := parse(payload, m, MaxManifest, "manifest"); err != nil {
		return nil, err
	}
	return m, nil
}

// Sign writes the token and signs it. The signer's typ must be FreshType.
func (f *Fresh) Sign(s Signer) (jws string, err error) {
	return signPayload(f, s, MaxFresh, "fresh token")
}

// OpenFresh verifies a fresh token's signature and reads it. The verifier is of
// the policy key.
func OpenFresh(jws string, v Verifier) (*Fresh, error) {
	payload, err := openPayload(jws, v, FreshType, MaxFresh, "fresh token")
	if err != nil {
		return nil, err
	}
	return ParseFresh(payload)
}

// ParseFresh reads a fresh token's payload, whose signature the caller has
// verified.
func ParseFresh(payload []byte) (*Fresh, error) {
	f := new(Fresh)
	if err := parse(payload, f, MaxFresh, "fresh token"); err != nil {
		return nil, err
	}
	return f, nil
}

// Marshal writes the request, or says why nobody would answer it.
func (f *Fetch) Marshal() ([]byte, error) { return marshal(f, MaxFetch, "fetch") }

// ParseFetch reads a request for parts.
func ParseFetch(payload []byte) (*Fetch, error) {
	f := new(Fetch)
	if err := parse(payload, f, MaxFetch, "fetch"); err != nil {
		return nil, err
	}
	return f, nil
}

func signPayload(p payload, s Signer, limit int, what string) (string, error) {
	b, err := marshal(p, limit, what)
	if err != nil {
		return "", err
	}
	jws, err := s.Sign(b)
	if err != nil {
		return "", fmt.Errorf("sign %s: %w", what, err)
	}
	if len(jws) > limit {
		return "", fmt.Errorf("%s: %w: %d bytes, more than %d", what, ErrTooLarge, len(jws), limit)
	}
	return jws, nil
}

func openPayload(jws string, v Verifier, typ string, limit int, what string) ([]byte, error) {
	if len(jws) > limit {
		return nil, fmt.Errorf("%s: %w: %d bytes, more than %d", what, ErrTooLarge, len(jws), limit)
	}
	payload, err := v.Verify(jws)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	// The policy key signs other things too; the type keeps them apart.
	if err := checkType(jws, typ); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return payload, nil
}

// Urgent deltas go before everything else, so a controller may be told of a
// version before it has fetched the one before: Path says what it is to apply.

// Path are the blobs that bring a controller which has a version to the
// manifest's: deltas alone where they reach back so far, else the snapshot and
// what follows it. It is empty where nothing is missing. From 0, or with another
// pepper than the manifest's, only a snapshot leads there: give 0 then.
func (m *Manifest) Path(have uint64) []Blob {
	if have >= m.Version {
		return nil
	}
	if have > 0 && len(m.Deltas) > 0 && m.Deltas[0].From <= have {
		return after(m.Deltas, have)
	}
	return append([]Blob{m.Snapshot}, after(m.Deltas, m.Snapshot.To)...)
}

// after are the deltas that bring something new to a version.
func after(deltas []Blob, have uint64) []Blob {
	for i, d := range deltas {
		if d.To > have {
			return deltas[i:len(deltas):len(deltas)]
		}
	}
	return nil
}

func (p *Publication) check() error {
	if err := checkHead(p.V, p.Controller); err != nil {
		return err
	}
	if n := len(p.Authority); n == 0 || n > MaxAuthority {
		return fmt.Errorf("authority has %d parts, want 1 to %d", n, MaxAuthority)
	}
	for _, jws := range p.Authority {
		if err := checkJWS("authority", jws, maxAuthority); err != nil {
			return err
		}
	}
	if err := checkJWS("manifest", p.Manifest, MaxManifest); err != nil {
		return err
	}
	return checkJWS("fresh", p.Fresh, MaxFresh)
}

func checkJWS(what, jws string, limit int) error {
	switch {
	case jws == "":
		return fmt.Errorf("%s is missing", what)
	case len(jws) > limit:
		return fmt.Errorf("%s: %w: %d bytes, more than %d", what, ErrTooLarge, len(jws), limit)
	case !isPlain(jws):
		return fmt.Errorf("%s is not a compact JWS", what)
	}
	return nil
}

func (m *Manifest) check() error {
	if err := checkHead(m.V, m.Controller); err != nil {
		return err
	}
	if err := CheckEpoch(m.Generation); err != nil {
		return fmt.Errorf("generation: %w", err)
	}
	if m.Version == 0 || m.Version > MaxSize || m.Count > MaxSize {
		return errors.New("a number is out of range")
	}
	if err := checkTimes(m.Created, m.Expires); err != nil {
		return err
	}
	if err := m.Snapshot.check(); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	if m.Snapshot.From != 0 {
		return errors.New("snapshot: it is a delta")
	}
	if m.Deltas == nil {
		return errors.New("deltas are missing")
	}
	if len(m.Deltas) > MaxDeltas {
		return fmt.Errorf("deltas: %w: %d, more than %d", ErrTooLarge, len(m.Deltas), MaxDeltas)
	}
	return m.checkDeltas()
}

// checkDeltas makes sure that what Path returns always ends at the version.
func (m *Manifest) checkDeltas() error {
	parts, end := len(m.Snapshot.Parts), m.Snapshot.To
	for i := range m.Deltas {
		d := &m.Deltas[i]
		if err := d.check(); err != nil {
			return fmt.Errorf("delta %d: %w", i, err)
		}
		if d.From == 0 {
			return fmt.Errorf("delta %d: it is a snapshot", i)
		}
		if i == 0 && d.From > m.Snapshot.To || i > 0 && d.From != m.Deltas[i-1].To {
			return fmt.Errorf("delta %d begins at version %d: there is a gap before it, or it repeats something", i, d.From)
		}
		parts, end = parts+len(d.Parts), max(m.Snapshot.To, d.To)
	}
	if parts > MaxParts {
		return fmt.Errorf("%w: %d parts, more than %d", ErrTooLarge, parts, MaxParts)
	}
	if n := len(m.Deltas); end != m.Version || n > 0 && m.Deltas[n-1].To != m.Version {
		return fmt.Errorf("its blobs do not end at version %d", m.Version)
	}
	return nil
}

func (b *Blob) check() error {
	if err := CheckEpoch(b.ID); err != nil {
		return err
	}
	switch {
	case b.To == 0 || b.To > MaxSize || b.From >= b.To:
		return fmt.Errorf("from version %d to %d: out of range", b.From, b.To)
	case len(b.Parts) == 0 || len(b.Parts) > MaxParts:
		return fmt.Errorf("%d parts, want 1 to %d", len(b.Parts), MaxParts)
	case b.Rows > MaxRows:
		return fmt.Errorf("%w: %d rows, more than %d", ErrTooLarge, b.Rows, MaxRows)
	case b.Bytes <= uint64(len(b.Parts)-1)*MaxPart || b.Bytes > uint64(len(b.Parts))*MaxPart:
		return fmt.Errorf("%d bytes are not in %d parts", b.Bytes, len(b.Parts))
	}
	return nil
}

func (f *Fresh) check() error {
	if err := checkHead(f.V, f.Controller); err != nil {
		return err
	}
	if f.Version == 0 || f.Version > MaxSize {
		return errors.New("a number is out of range")
	}
	return checkTimes(f.Time, f.Until)
}

// checkTimes refuses a span that is missing or ends before it begins.
func checkTimes(from, until time.Time) error {
	for _, t := range []time.Time{from, until} {
		if t.IsZero() {
			return errors.New("a time is missing")
		}
		if err := checkTime(t); err != nil {
			return err
		}
	}
	if !until.After(from) {
		return fmt.Errorf("it ends on %s, before it begins", until.Format(time.RFC3339))
	}
	return nil
}

func (f *Fetch) check() error {
	if err := checkHead(f.V, f.Controller); err != nil {
		return err
	}
	if err := CheckEpoch(f.Blob); err != nil {
		return err
	}
	if n := len(f.Parts); n == 0 || n > MaxFetchParts {
		return fmt.Errorf("%d parts, want 1 to %d", n, MaxFetchParts)
	}
	for i, n := range f.Parts {
		if n < 0 || n >= MaxParts || i > 0 && n <= f.Parts[i-1] {
			return fmt.Errorf("part %d is out of range or not in order", n)
		}
	}
	if f.Have > MaxSize {
		return errors.New("a number is out of range")
	}
	return nil
}
