package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/access/allowlist"
	"github.com/gatehouse-acs/gatehouse/door"
	"github.com/gatehouse-acs/gatehouse/internal/clock"
	"github.com/gatehouse-acs/gatehouse/internal/config"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"golang.org/x/sync/errgroup"
)

// Keys of the state that is kept beside the records.
const (
	stateConfiguration = "configuration" // SHA-256 of the configuration that was last recorded
	statePolicyFloor   = "policy_floor"  // highest allowlist version ever used, big-endian
)

const clockFile = "clock.json"

// controller is the daemon: everything that a door needs, wired.
type controller struct {
	cfg   *config.Controller
	log   *slog.Logger
	keys  *keys.ControllerKeys
	own   *keys.Verifier // of the log's own key
	trust *pki.Trust     // nil: works alone
	zone  *time.Location

	clock    *clock.Clock
	records  *visitorlog.Log
	policy   *allowlist.Source
	enrolled *enrollment
	buses    *buses
	timings  *timings
	doors    []*door.Door
	beside   *door.Neighbours
	link     *link // nil: works alone
}

// newController opens everything, and moves nothing yet. What is opened is
// closed by Close, also after an error.
func newController(ctx context.Context, cfg *config.Controller, configuration []byte, log *slog.Logger) (_ *controller, err error) {
	c := &controller{cfg: cfg, log: log, buses: newBuses(cfg, log), beside: door.NewNeighbours()}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	for _, open := range []func(context.Context) error{
		c.openKeys,
		c.openTrust,
		c.openClock,
		c.openRecords,
		func(ctx context.Context) error { return c.recordConfiguration(ctx, configuration) },
		c.openPolicy,
		c.openEnrolled,
		c.openDoors,
		c.openLink,
	} {
		if err := open(ctx); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *controller) openKeys(context.Context) (err error) {
	p, err := keyProvider(c.cfg.Keys.Provider, c.cfg.Data)
	if err != nil {
		return err
	}
	if c.keys, err = keys.LoadController(p); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w\nwithout its keys the controller does not start; `gatehouse init` makes them", err)
		}
		return err
	}
	c.log.Info("keys", "provider", p.Name(), "protection", p.Describe(), "log_key", c.keys.Log.KeyID())
	return nil
}

func (c *controller) openTrust(context.Context) (err error) {
	c.trust, err = pki.ReadTrust(c.cfg.Data)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.trust = nil
		if c.cfg.CRM != nil {
			return fmt.Errorf("the configuration names a CRM, but this controller has not joined one: run `gatehouse join BUNDLE --data %s`", c.cfg.Data)
		}
	case err != nil:
		return err
	case c.trust.Controller != c.cfg.Name:
		return fmt.Errorf("the configuration is for controller %q, but the data in %s is that of %q", c.cfg.Name, c.cfg.Data, c.trust.Controller)
	}
	c.zone = c.cfg.Zone
	if c.zone != nil {
		return nil
	}
	if c.trust == nil {
		return errors.New("no time zone: set `timezone` in the configuration, or join a CRM")
	}
	if c.zone, err = time.LoadLocation(c.trust.Timezone); err != nil {
		return fmt.Errorf("time zone of the CRM's bundle: %w", err)
	}
	return nil
}

func (c *controller) openClock(context.Context) error {
	path := filepath.Join(c.cfg.Data, clockFile)
	var m clock.Memory
	if b, err := os.ReadFile(path); err == nil {
		if err := json.Unmarshal(b, &m); err != nil {
			c.log.Warn("what was known of the clock is lost", "error", err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	ck, err := clock.New(clock.Options{
		Memory: m,
		Remember: func(m clock.Memory) {
			b, err := json.Marshal(m)
			if err == nil {
				err = keys.Replace(path, b)
			}
			if err != nil {
				c.log.Error("clock state not kept", "error", err)
			}
		},
		Logger: c.log,
	})
	if err != nil {
		return err
	}
	if c.trust != nil {
		ck.SetFloor(c.trust.Issued)
	}
	c.clock = ck
	_, state := ck.Now()
	c.log.Info("clock", "state", state, "zone", c.zone.String())
	return nil
}

func (c *controller) openRecords(context.Context) (err error) {
	if c.own, err = keys.NewVerifier(c.keys.Log.JWK(), keys.TypeRecord); err != nil {
		return err
	}
	c.records, err = visitorlog.Open(c.cfg.Data, visitorlog.Options{
		Controller:   c.cfg.Name,
		Signer:       c.keys.Log,
		Verifier:     c.own,
		Note:         c.keys.Log.NoteSigner,
		NoteVerifier: c.own.NoteVerifier,
		Sealer:       c.keys.Records,
		Clock:        c.stamp,
		Logger:       c.log,
	})
	if err != nil {
		return fmt.Errorf("visitor log: %w", err)
	}
	if r, ok := c.records.KnownReceipt(); ok {
		c.clock.SetFloor(r.Time)
	}
	return nil
}

func (c *controller) stamp() (time.Time, visitorlog.Clock) {
	now, s := c.clock.Stamp()
	return now, visitorlog.Clock(s)
}

// recordConfiguration records that the daemon runs under another
// configuration than before.
func (c *controller) recordConfiguration(ctx context.Context, configuration []byte) error {
	sum := sha256.Sum256(configuration)
	before, err := c.records.State(ctx, stateConfiguration)
	if err != nil {
		return fmt.Errorf("visitor log: %w", err)
	}
	if bytes.Equal(before, sum[:]) {
		return nil
	}
	detail := "sha256 " + hex.EncodeToString(sum[:])
	if before != nil {
		detail += ", before " + hex.EncodeToString(before)
	}
	_, err = c.records.Append(ctx, func(tx *visitorlog.Tx) (visitorlog.Draft, error) {
		return visitorlog.Draft{
			Type: visitorlog.ConfigurationChanged,
			Data: visitorlog.Data{Detail: detail},
		}, tx.Set(stateConfiguration, sum[:])
	})
	if err != nil {
		return fmt.Errorf("visitor log: %w", err)
	}
	return nil
}

func (c *controller) openPolicy(ctx context.Context) error {
	known, err := allowlistKeys(c.keys, c.fromCRM())
	if err != nil {
		return err
	}
	floor, err := c.policyFloor(ctx)
	if err != nil {
		return err
	}
	c.policy = allowlist.OpenSource(ctx, allowlist.SourceOptions{
		Path:     filepath.Join(c.cfg.Data, allowlist.FileName),
		Keys:     known,
		Floor:    floor,
		Applying: c.recordPolicy,
		Ladder:   c.ladder(),
		Clock:    c.clock,
		Logger:   c.log,
	})
	return nil
}

// ladder is the allowlist's ladder of age.
func (c *controller) ladder() allowlist.Ladder { return ladder(c.cfg.Allowlist, c.fromCRM()) }

// ladder is the ladder of age that a configuration makes. An allowlist that
// the site makes itself is current until it is replaced, unless the
// configuration lets it expire.
func ladder(cfg config.Allowlist, fromCRM bool) allowlist.Ladder {
	if !fromCRM && cfg.ExpiredAfter == 0 {
		return allowlist.Ladder{}
	}
	return allowlist.Ladder{StaleAfter: cfg.StaleAfter, ExpiredAfter: cfg.ExpiredAfter, ExpiredKinds: cfg.ExpiredKinds}
}

// fromCRM says that the CRM governs who may enter, and not the site.
func (c *controller) fromCRM() bool { return governedByCRM(c.trust) }

// governedByCRM is fromCRM of what a controller pinned; nil: nothing.
func governedByCRM(t *pki.Trust) bool { return t != nil && t.PolicyAuthority == pki.PolicyFromCRM }

// policyFloor is the highest allowlist version that this controller is known
// to have used, by its own state or by the CRM's word.
func (c *controller) policyFloor(ctx context.Context) (floor uint64, err error) {
	b, err := c.records.State(ctx, statePolicyFloor)
	if err != nil {
		return 0, fmt.Errorf("visitor log: %w", err)
	}
	if len(b) == 8 {
		floor = binary.BigEndian.Uint64(b)
	}
	if r, ok := c.records.KnownReceipt(); ok {
		floor = max(floor, r.PolicyVersion)
	}
	return floor, nil
}

// recordPolicy records a new allowlist and makes its version the floor, in one
// transaction, before anybody is let in by it.
func (c *controller) recordPolicy(ctx context.Context, m allowlist.Manifest) error {
	_, err := c.records.Append(ctx, func(tx *visitorlog.Tx) (visitorlog.Draft, error) {
		return visitorlog.Draft{
			Type: visitorlog.PolicyApplied,
			Data: visitorlog.Data{
				Policy: &visitorlog.Policy{Version: m.Version, Freshness: access.Fresh},
				Detail: fmt.Sprintf("%d credentials", m.Count),
			},
		}, tx.Set(statePolicyFloor, binary.BigEndian.AppendUint64(nil, m.Version))
	})
	return err
}

func (c *controller) openDoors(context.Context) error {
	var err error
	if c.timings, err = openTimings(c.cfg.Data); err != nil {
		c.log.Warn("timing", "error", err)
	}
	var lockdown door.Input
	if c.cfg.Lockdown != nil {
		in, err := c.buses.input(&c.cfg.Lockdown.Device)
		if err != nil {
			return fmt.Errorf("lockdown: %w", err)
		}
		lockdown = door.Share(in)
	}
	for i := range c.cfg.Doors {
		d, err := c.openDoor(&c.cfg.Doors[i], lockdown)
		if err != nil {
			return fmt.Errorf("door %q: %w", c.cfg.Doors[i].Name, err)
		}
		c.doors = append(c.doors, d)
	}
	for _, m := range c.misfits() {
		c.log.Warn("a rule and the readers do not fit", "part", m.Part, "what", m.What)
	}
	return nil
}

func (c *controller) openDoor(cfg *config.Door, lockdown door.Input) (*door.Door, error) {
	parts := door.Config{
		Name: cfg.Name,
		Times: door.Times{
			Unlock:         cfg.Unlock,
			UnlockExtended: cfg.UnlockExtended,
			HeldAfter:      cfg.HeldAfter,
			HeldWarning:    cfg.HeldWarning,
			ExitShunt:      cfg.REXShunt,
		},
		Zone:         c.zone,
		Lockdown:     lockdown,
		Log:          c.records,
		Allowlist:    c.policy,
		Enrolled:     c.enrolled,
		Clock:        c.clock,
		Logger:       c.log,
		Rules:        ownRules(cfg),
		FactorWindow: cfg.FactorWindow,
		DuressOpens:  cfg.Duress == config.DuressOpens,
		Limits:       c.limits(),
		Secrets:      c.secrets(),
		Neighbours:   c.beside,
	}
	var err error
	if parts.Strike, err = c.buses.strike(&cfg.Strike); err != nil {
		return nil, fmt.Errorf("strike: %w", err)
	}
	for _, in := range []struct {
		name   string
		device *config.Device
		input  *door.Input
	}{
		{"contact", cfg.Contact, &parts.Contact},
		{"rex", cfg.REX, &parts.RequestToExit},
		{"tamper", cfg.Tamper, &parts.Tamper},
	} {
		if in.device == nil {
			continue
		}
		if *in.input, err = c.buses.input(in.device); err != nil {
			return nil, fmt.Errorf("%s: %w", in.name, err)
		}
	}
	if cfg.Indicator != nil {
		if parts.Indicator, err = c.buses.indicator(cfg.Indicator); err != nil {
			return nil, fmt.Errorf("indicator: %w", err)
		}
	}
	for _, r := range cfg.Readers {
		device, formats, err := c.buses.reader(&r)
		if err != nil {
			return nil, fmt.Errorf("reader %q: %w", r.Name, err)
		}
		if err := c.timings.add(r.Name, device); err != nil {
			c.log.Warn("timing", "error", err)
		}
		keypad, facility := r.Device.Keys()
		parts.Readers = append(parts.Readers, door.ReaderConfig{
			Name: r.Name, Direction: r.Direction, Formats: formats, Reader: device,
			Factor: r.Proves(), Alone: r.Alone(), Keypad: keypad, KeypadFacility: facility,
		})
	}
	for _, s := range cfg.Scanners {
		device, err := c.buses.scanner(&s.Device)
		if err != nil {
			return nil, fmt.Errorf("scanner %q: %w", s.Name, err)
		}
		parts.Scanners = append(parts.Scanners, door.ScannerConfig{
			Name: s.Name, Direction: s.Direction, Factor: access.Factor(s.Factor), Scanner: c.enrolled.Use(s.Name, device),
			Identify: s.Identify, Alone: s.Alone(),
		})
	}
	return door.New(parts)
}

// secrets are what is kept of people in the log's state with.
func (c *controller) secrets() door.Secrets {
	return struct {
		*keys.Pepper
		*keys.Sealer
	}{c.keys.Pepper, c.keys.Records}
}

// limits are those of failures, at all doors.
func (c *controller) limits() access.Limits {
	l := c.cfg.Lockout
	return access.Limits{PersonAfter: l.PersonAfter, ReaderAfter: l.ReaderAfter, For: l.For}
}

// Run works until ctx ends, or until a door cannot go on: then everything
// ends, with all doors locked, for the service manager to start it again.
func (c *controller) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, d := range c.doors {
		g.Go(func() error { return d.Run(ctx) })
	}
	g.Go(func() error { return c.records.Run(ctx) })
	g.Go(func() error { return c.policy.Run(ctx) })
	g.Go(func() error { return c.runEnrollment(ctx) })
	g.Go(func() error {
		c.timings.run(ctx, func(err error) {
			if err != nil {
				c.log.Error("timing", "error", err)
			}
		})
		return nil
	})
	g.Go(func() error {
		c.clock.Run(ctx, func(s clock.Step) { c.recordStep(ctx, s) })
		return nil
	})
	if c.link != nil {
		// Doors work on without a link, whatever ended it.
		g.Go(func() error {
			if err := c.link.Run(ctx); err != nil {
				c.log.Error("the link to the CRM ended", "error", err)
			}
			return nil
		})
	}
	return g.Wait()
}

// recordStep records a jump of the clock.
func (c *controller) recordStep(ctx context.Context, s clock.Step) {
	c.log.Warn("the clock jumped", "by", s.By(), "from", s.From, "to", s.To)
	_, err := c.records.Append(ctx, func(*visitorlog.Tx) (visitorlog.Draft, error) {
		return visitorlog.Draft{
			Type: visitorlog.ClockCorrected,
			Data: visitorlog.Data{Detail: fmt.Sprintf("by %v: from %s to %s", s.By().Round(time.Millisecond),
				s.From.UTC().Format(time.RFC3339Nano), s.To.UTC().Format(time.RFC3339Nano))},
		}, nil
	})
	if err != nil {
		c.log.Error("clock correction not recorded", "error", err)
	}
}

// Close closes what newController opened. Run must have ended.
func (c *controller) Close() error {
	errs := []error{c.buses.Close()}
	if c.enrolled != nil {
		errs = append(errs, c.enrolled.Close())
	}
	if c.policy != nil {
		errs = append(errs, c.policy.Close())
	}
	if c.records != nil {
		errs = append(errs, c.records.Close())
	}
	return errors.Join(errs...)
}
