package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/access/allowlist"
	"github.com/gatehouse-acs/gatehouse/internal/clock"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/sync/allowlist/follower"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"github.com/go-jose/go-jose/v4"
)

// Names in a controller's folder.
const (
	authorityFile = "policy-authority.json" // what was seen of who certifies the policy key
	spoolFolder   = "allowlist-parts"       // of an allowlist that is being fetched
)

// allowlistKeys are those by which an allowlist is read. Where the CRM governs,
// nothing that was signed here counts.
func allowlistKeys(k *keys.ControllerKeys, governed bool) (allowlist.Keys, error) {
	out := allowlist.Keys{Index: k.Pepper, Sealer: k.Allowlist}
	if governed {
		return out, nil
	}
	verifier, err := keys.NewVerifier(k.Policy.JWK(), keys.TypePolicy)
	if err != nil {
		return out, err
	}
	out.Verifier = verifier
	return out, nil
}

// authority knows who may sign the allowlist: it begins with the policy root that
// was pinned when the CRM was joined, and keeps what came after.
type authority struct {
	path   string
	pinned string // id of the root that was pinned when the CRM was joined

	mu     sync.Mutex
	root   jose.JSONWebKey
	serial uint64 // of the newest certificate that was seen
}

type authorityForm struct {
	V      int             `json:"v"`
	Pinned string          `json:"pinned"` // id of the root that was pinned when the CRM was joined
	Root   json.RawMessage `json:"root"`
	Serial uint64          `json:"serial"`
}

func openAuthority(dir string, trust *pki.Trust) (*authority, error) {
	a := &authority{path: filepath.Join(dir, authorityFile), pinned: trust.PolicyRoot.KeyID, root: trust.PolicyRoot}
	b, err := os.ReadFile(a.path)
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil
	}
	if err != nil {
		return nil, err
	}
	if err := a.parse(b); err != nil {
		return nil, fmt.Errorf("%s: %w", a.path, err)
	}
	return a, nil
}

func (a *authority) parse(b []byte) error {
	var form authorityForm
	if err := json.Unmarshal(b, &form); err != nil {
		return err
	}
	if form.V != 1 {
		return fmt.Errorf("version %d is not what is kept there", form.V)
	}
	if form.Pinned != a.root.KeyID {
		return nil // of a CRM that was joined before
	}
	root, err := keys.ParseJWK(form.Root)
	if err != nil {
		return err
	}
	a.root, a.serial = root, form.Serial
	return nil
}

// open verifies what leads to a policy key.
func (a *authority) open(jws []string) (*keys.PolicyKey, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return keys.OpenPolicyKey(a.root, jws)
}

// keep keeps what is seen of policy keys, if it is newer than what was.
func (a *authority) keep(k *keys.PolicyKey) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if k.Serial <= a.serial {
		return nil
	}
	root, err := json.Marshal(k.Root)
	if err != nil {
		return err
	}
	b, err := json.Marshal(authorityForm{1, a.pinned, root, k.Serial})
	if err != nil {
		return err
	}
	if err := keys.Replace(a.path, b); err != nil {
		return err
	}
	a.root, a.serial = k.Root, k.Serial
	return nil
}

// newFollower makes what follows the CRM's allowlist; nil where the site governs.
func (c *controller) newFollower(p follower.Publisher, a *authority, announce func()) (*follower.Follower, error) {
	if !c.fromCRM() {
		return nil, nil
	}
	blobs, err := c.keys.Pepper.Blobs()
	if err != nil {
		return nil, err
	}
	return follower.New(follower.Options{
		Controller: c.cfg.Name,
		Authority:  a.open,
		Serial:     a.serial,
		Certified:  a.keep,
		Generation: c.keys.Pepper.Generation(),
		Blobs:      blobs,
		Source:     c.policy,
		Publisher:  p,
		Applied:    announce, // somebody waits there until a leaver is known at the doors
		Clock:      passedClock{c.clock},
		Spool:      filepath.Join(c.cfg.Data, spoolFolder),
		Refused:    c.recordRefusal,
		Logger:     c.log,
	})
}

// passedClock tells what has certainly passed.
type passedClock struct{ *clock.Clock }

// Passed is now, or what the CRM last vouched for where that is later, or where
// nothing vouches for the clock.
func (p passedClock) Passed() time.Time {
	now, state := p.Now()
	if floor := p.Floor(); state == access.ClockUnset || floor.After(now) {
		return floor
	}
	return now
}

// maxRefusal is the longest text of a refusal in a record, in bytes.
const maxRefusal = 1000

// recordRefusal records that an allowlist was refused.
func (c *controller) recordRefusal(ctx context.Context, why follower.Refusal, detail string, more uint64) error {
	text := string(why) + ": " + plainText(detail, maxRefusal)
	if more > 0 {
		text += fmt.Sprintf("; %d more like it before were not recorded one by one", more)
	}
	now, _ := c.clock.Now()
	p := c.policy.Policy(now)
	_, err := c.records.Append(ctx, func(*visitorlog.Tx) (visitorlog.Draft, error) {
		return visitorlog.Draft{Type: visitorlog.PolicyRefused, Data: visitorlog.Data{
			Detail: text,
			Policy: &visitorlog.Policy{Version: p.Version, AgeSeconds: int64(p.Age / time.Second), Freshness: p.Freshness},
		}}, nil
	})
	return err
}

// plainText is a text as records take it: one line, and not too long.
func plainText(s string, most int) string {
	if len(s) > most {
		s = s[:most]
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, ""))
}

// heardWords says what was heard of the CRM's allowlist.
func heardWords(s *follower.Status) string {
	if s.Version == 0 {
		return "has not told its allowlist yet" + refusedWords(s)
	}
	words := fmt.Sprintf("its allowlist is version %d", s.Version)
	if !s.Fresh.IsZero() {
		words += ", the newest at " + s.Fresh.Local().Format(time.DateTime)
	}
	if s.Parts > 0 {
		words += fmt.Sprintf("; %d of %d parts are here", s.Parts-s.Missing, s.Parts)
	}
	return words + refusedWords(s)
}

func refusedWords(s *follower.Status) string {
	var n uint64
	for _, count := range s.Refused {
		n += count
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("; %d REFUSED, the last one: %s", n, plainText(s.LastRefusal, maxRefusal))
}
