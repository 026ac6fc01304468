package test

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/door"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp/keyring"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp/panel"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp/pd"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// vault is a door that asks for a badge and an eye, with all its parts on one
// OSDP reader behind a real terminal, and with a real log.
type vault struct {
	*testing.T
	far    *pd.Peripheral
	strike chan bool // what the strike was told
	log    *visitorlog.Log
	format *badge.Format

	mu    sync.Mutex
	words []string // on the reader's display
}

// Ada is who may enter. The vault is the clock, the allowlist and the store of
// eyes in one.
const ada = "p-1"

func (v *vault) Now() (time.Time, access.ClockState) { return time.Now(), access.ClockSynchronised }

func (v *vault) Moment() access.Moment {
	return access.Moment{Wall: time.Now(), Clock: access.ClockSynchronised, Boot: "b"}
}

func (v *vault) entry() *access.Entry {
	return &access.Entry{Person: ada, Kind: access.Staff, State: access.Active, Rights: []access.Right{{Door: "vault", Schedule: access.Always()}}}
}

func (v *vault) Lookup(badge.Credential) (*access.Entry, error)   { return v.entry(), nil }
func (v *vault) CheckPIN(*access.Entry, []byte) (ok, duress bool) { return false, false }
func (v *vault) Rules(string, access.Direction) []access.Rule     { return nil }
func (v *vault) Site(string) *access.Door                         { return nil }
func (v *vault) Code([]byte) (*access.Entry, error)               { return nil, nil }
func (v *vault) PolicyAt(string, time.Time) access.Policy {
	return access.Policy{Version: 1, Freshness: access.Fresh}
}

// enrolled are Ada's eyes at the door's scanner.
type enrolled struct{}

func (enrolled) References(person, scanner string) ([]biometric.Reference, error) {
	if person != ada || scanner != "eye" {
		return nil, nil
	}
	return []biometric.Reference{{Part: biometric.RightIris, Template: biometric.NewTemplate([]byte("Ada's right eye"))}}, nil
}

func (enrolled) Person(string, uint32) (string, bool, error) { return "", false, nil }

func (v *vault) Person(string) (*access.Entry, error) { return nil, nil }

func (v *vault) Unlock() error { v.strike <- true; return nil }
func (v *vault) Lock() error   { v.strike <- false; return nil }

// newVault has the door run until the test ends.
func newVault(t *testing.T) *vault {
	t.Helper()
	v := &vault{T: t, strike: make(chan bool, 100)}
	data := filepath.Join(t.TempDir(), "data")
	_, err := keys.InitController(pki.KeysDir(data), keys.ES256)
	v.must(err)
	k, err := keys.LoadController(keys.File(pki.KeysDir(data)))
	v.must(err)
	own, err := keys.NewVerifier(k.Log.JWK(), keys.TypeRecord)
	v.must(err)
	v.log, err = visitorlog.Open(data, visitorlog.Options{
		Controller: "north-1", Signer: k.Log, Verifier: own, Note: k.Log.NoteSigner, NoteVerifier: own.NoteVerifier, Sealer: k.Records,
		Clock: func() (time.Time, visitorlog.Clock) {
			return time.Now(), visitorlog.Clock{State: access.ClockSynchronised, Boot: "b"}
		},
	})
	v.must(err)
	t.Cleanup(func() { v.must(v.log.Close()) })

	key := osdp.Key{0: 0xA1, 15: 0x5F}
	ring, err := keyring.Open(filepath.Join(data, keyring.FileName), k.Readers)
	v.must(err)
	store := ring.For("a", 0)
	v.must(store.Begin(key))
	v.must(store.Commit(key))
	v.must(ring.Close())

	master, slave, err := pty.Open()
	v.must(err)
	v.far = pd.New(pd.Config{Key: key, Baud: 115200, ScanTimeout: time.Second, Handle: v.shows, Capabilities: []osdp.Capability{
		{Function: osdp.FunctionInputs, Level: 1, Count: 2}, {Function: osdp.FunctionText, Level: 1, Count: 1},
		{Function: osdp.FunctionSecurity, Level: 1, Count: 1}, {Function: osdp.FunctionBiometrics, Level: 3, Count: 1},
	}})
	served := make(chan struct{})
	go func() {
		defer close(served)
		pd.Serve(master, pd.Wire{}, v.far)
	}()
	t.Cleanup(func() {
		slave.Close()
		<-served
		master.Close()
	})

	settings := panel.DefaultSettings()
	settings.Lines = []panel.Line{{Name: "a", Port: slave.Name(), Baud: 115200}}
	settings.Resolve(data)
	settings.SealWith(k.Readers.Seal, k.Readers.Open)
	silent := slog.New(slog.DiscardHandler)
	bus, err := panel.Open(settings, silent)
	v.must(err)
	reader, err := bus.Reader(&panel.Device{Line: "a"}, nil)
	v.must(err)
	eye, err := bus.Scanner(&panel.Device{Line: "a", Parts: []biometric.Part{biometric.RightIris}, Threshold: 180})
	v.must(err)
	lamp, err := bus.Indicator(&panel.Device{Line: "a"})
	v.must(err)
	v.format, _ = badge.Builtin().Format("H10301")
	d, err := door.New(door.Config{
		Name: "vault", Times: door.Times{Unlock: time.Second, UnlockExtended: time.Second, HeldAfter: time.Minute, ExitShunt: time.Second}, Zone: time.UTC,
		Readers:  []door.ReaderConfig{{Name: "in", Direction: access.In, Formats: []*badge.Format{v.format}, Reader: reader}},
		Scanners: []door.ScannerConfig{{Name: "eye", Direction: access.In, Factor: access.Iris, Scanner: eye}},
		Strike:   v, Indicator: lamp, Log: v.log, Allowlist: v, Enrolled: enrolled{}, Clock: v, Logger: silent,
		Rules: map[access.Direction][]access.Rule{access.In: {{Schedule: access.Always(), AnyOf: []access.Factor{access.Badge | access.Iris}}}}, FactorWindow: 2 * time.Second,
	})
	v.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		v.must(<-ended)
		v.must(bus.Close())
	})
	v.eventually("the reader has its Secure Channel", v.far.Online)
	return v
}

func (v *vault) must(err error) {
	v.Helper()
	if err != nil {
		v.Fatal(err)
	}
}

func (v *vault) eventually(what string, ok func() bool) {
	v.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			v.Fatalf("%s: not within 10 s", what)
		}
	}
}

// shows is told each command that the reader carries out.
func (v *vault) shows(c osdp.Command) {
	if text, ok := c.(osdp.ShowText); ok {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.words = append(v.words, string(bytes.TrimSpace([]byte(text.Text))))
	}
}

// shown reports whether the reader's display has shown some words since they
// were last forgotten.
func (v *vault) shown(words string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Contains(v.words, words)
}

// forget forgets what the display has shown.
func (v *vault) forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.words = nil
}

// opened reports whether the strike was unlocked since it was last asked.
func (v *vault) opened() bool {
	opened := false
	for {
		select {
		case unlocked := <-v.strike:
			opened = opened || unlocked
		default:
			return opened
		}
	}
}

// decided waits for the decision on an attempt, from record n on.
func (v *vault) decided(n *uint64) visitorlog.Data {
	v.Helper()
	var data visitorlog.Data
	v.eventually("a decision", func() bool {
		entries, err := v.log.Entries(context.Background(), *n, 100)
		v.must(err)
		for _, e := range entries {
			*n = e.Seq + 1
			if e.Record.Data.Decision != "" {
				data = e.Record.Data
				return true
			}
		}
		return false
	})
	return data
}

// A door that asks for a badge and an eye opens for the two together, over the
// Secure Channel, and for nothing less.
func TestADoorThatAsksForAnEyeOpensForNothingLess(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	right := func(score byte) *pd.Trait {
		return &pd.Trait{Type: osdp.RightIris, Template: osdp.Secret("Ada's right eye"), Score: score, Brief: true}
	}
	next := uint64(0)
	for i, c := range []struct {
		name   string
		eye    *pd.Trait
		forge  bool // frames of the Secure Channel
		reason access.Reason
	}{
		{"the right eye", right(200), false, access.ReasonGranted},
		{"nobody's eye", nil, false, access.ReasonFactorMissing},
		{"another's eye", &pd.Trait{Type: osdp.RightIris, Template: osdp.Secret("Bob's"), Brief: true}, false, access.ReasonFactorMismatch},
		{"a score below the threshold", right(179), false, access.ReasonFactorMismatch},
		{"a channel that is forged", right(200), true, access.ReasonFactorUnavailable},
		{"the right eye again", right(200), false, access.ReasonGranted},
	} {
		v.forget()
		card, err := v.format.Encode(badge.Credential{Format: "H10301", Number: uint64(i)}) // one that is left on a reader is one presentation
		v.must(err)
		v.far.Present(card.Bits())
		v.eventually("the reader asks for an eye", func() bool { return v.shown("Look here") })
		if v.opened() {
			t.Fatalf("%s: the badge alone has opened the door", c.name)
		}
		if c.forge {
			v.far.Inject(pd.WrongMAC, 3)
		}
		v.far.Hold(c.eye)
		got := v.decided(&next)
		if got.Reason != c.reason {
			t.Errorf("%s: the decision is %s, %s (%+v), not %s", c.name, got.Decision, got.Reason, got.Outcomes, c.reason)
		}
		v.far.Hold(nil)
		if c.reason == access.ReasonGranted {
			v.eventually("the strike is unlocked", v.opened)
		}
		v.forget()
		v.eventually("the door is as before", func() bool { return v.shown("Show your badge") && v.far.Online() })
		if v.opened() {
			t.Errorf("%s: the door has opened for it", c.name)
		}
	}
}
