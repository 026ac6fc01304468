package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/drivers/sim"
	"github.com/gatehouse-acs/gatehouse/internal/metrics"
	"golang.org/x/sync/errgroup"
)

const (
	controllerName = "demo"
	startWithin    = 20 * time.Second
	pollEvery      = 50 * time.Millisecond
	connectEvery   = 2 * time.Millisecond
)

// The times of the demo's doors are short, so that nobody has to wait.
const (
	unlockFor   = 2 * time.Second
	heldAfter   = 2500 * time.Millisecond
	heldWarning = time.Second
	// Somebody who is asked for a finger or an eye has so long.
	factorWindow = 2 * time.Second
	lockedOutFor = 10 * time.Second
	// Those who pass only together wait so long for each other at server-room-b.
	companyWithin = 2 * time.Second
)

const controllerConfig = `# Written by gatehouse-demo.
controller = %q
data = %q
timezone = %q

[http]
listen = "127.0.0.1:0"

[crm]
broker = "tls://localhost:%s"

[drivers.sim]
socket = "site.sock"

[lockdown]
device = { driver = "sim", line = "lockdown" }

[lockout]
for = "%v"
`

const doorConfig = `
[[door]]
name = "server-room-%[1]s"
unlock = "%[2]v"
unlock_extended = "%[3]v"
held_after = "%[4]v"
held_warning = "%[5]v"
rex_shunt = "%[2]v"
strike = { driver = "sim", line = "%[1]s.strike" }
contact = { driver = "sim", line = "%[1]s.contact" }
rex = { driver = "sim", line = "%[1]s.rex" }
tamper = { driver = "sim", line = "%[1]s.tamper" }
indicator = { driver = "sim", line = "%[1]s.indicator" }

[[door.reader]]
name = "%[1]s-in"
direction = "in"
formats = ["H10301"]
device = { driver = "sim", line = "%[1]s-in" }

[[door.reader]]
name = "%[1]s-out"
direction = "out"
formats = ["H10301"]
device = { driver = "sim", line = "%[1]s-out" }
`

const crmConfig = `# Written by gatehouse-demo.
data = %q
timezone = %q

[mqtt]
listen = "127.0.0.1:0"

[http]
listen = "127.0.0.1:0"
`

// site is the virtual site with its two real programs.
type site struct {
	dir      string
	screen   *screen
	network  *network
	wires    *sim.Site
	lights   *lights
	sensors  *sensors
	crm      *daemon
	door     *daemon
	doorHTTP string
	// outOfHours is why somebody is denied who comes at the wrong time: on a
	// machine whose clock nothing vouches for, that is the clock.
	outOfHours string
	clockUnset bool

	mu   sync.Mutex
	held map[string]time.Time // when a card was last held to a reader
}

func (s *site) doorDir() string { return filepath.Join(s.dir, "door") }
func (s *site) crmDir() string  { return filepath.Join(s.dir, "crm") }

// doorConfig is the file of the controller's configuration.
func (s *site) doorConfig() string { return filepath.Join(s.dir, "door.toml") }

// zone is the site's time zone. It has no daylight saving, so that "later" is
// always later.
const zone = "Etc/UTC"

// setUp makes keys and certificates, and has the controller join the CRM as people
// would, by the programs' own commands. A folder that was set up is used again.
func (s *site) setUp(ctx context.Context) error {
	laid, err := s.laidOut()
	if err != nil {
		return err
	}
	if !laid {
		if err := s.join(ctx); err != nil {
			return err
		}
		if err := os.WriteFile(s.layoutFile(), []byte(layout), 0o600); err != nil {
			return err
		}
	}
	_, err = s.change(ctx, "", append([]string{"schedules", "change", "later"}, later(time.Now().UTC())...)...)
	return err
}

// layout is that of a folder: what stands in the registry, which is filled once.
// It is changed with that.
const layout = "2\n"

func (s *site) layoutFile() string { return filepath.Join(s.dir, "layout") }

// laidOut reports whether the folder was set up before. It refuses one that this
// program cannot go on with.
func (s *site) laidOut() (bool, error) {
	is, err := os.ReadFile(s.layoutFile())
	switch {
	case err == nil && string(is) == layout:
		return true, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return false, err
	}
	for _, dir := range []string{s.doorDir(), s.crmDir()} {
		if _, err := os.Lstat(dir); err == nil {
			return false, fmt.Errorf("%q was set up by another version of the demo, or not to the end: remove the folder, or name another one with --data", s.dir)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return false, nil
}

// join makes the controller one that the CRM knows.
func (s *site) join(ctx context.Context) error {
	if _, err := tool(ctx, "gatehouse-crm", "pki", "init", "--data", s.crmDir(), "--host", "localhost", "--timezone", zone); err != nil {
		return err
	}
	if _, err := tool(ctx, "gatehouse", "init", "--data", s.doorDir(), "--controller", controllerName); err != nil {
		return err
	}
	bundle := filepath.Join(s.dir, controllerName+".bundle")
	request := filepath.Join(s.doorDir(), "request.json")
	if _, err := tool(ctx, "gatehouse-crm", "controllers", "approve", request, "--data", s.crmDir(), "--out", bundle, "--policy", "crm", "--yes"); err != nil {
		return err
	}
	shown, err := tool(ctx, "gatehouse-crm", "pki", "show", "--data", s.crmDir(), "--json")
	if err != nil {
		return err
	}
	var crm struct{ Fingerprint string }
	if err := json.Unmarshal([]byte(shown), &crm); err != nil {
		return fmt.Errorf("gatehouse-crm pki show: %w", err)
	}
	if err := s.register(ctx); err != nil {
		return err
	}
	_, err = tool(ctx, "gatehouse", "join", bundle, "--data", s.doorDir(), "--fingerprint", crm.Fingerprint)
	return err
}

// known waits until the controller uses the newest allowlist that the registry
// has.
func (s *site) known(ctx context.Context) error {
	for {
		var status struct {
			Controllers []struct {
				Version  uint64 `json:"version"`
				Reported uint64 `json:"reported"`
				Changed  bool   `json:"changed"`
			}
		}
		said, err := tool(ctx, "gatehouse-crm", "policy", "status", "--json", "--data", s.crmDir())
		if err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(said), &status); err != nil {
			return err
		}
		if c := status.Controllers; len(c) == 1 && !c[0].Changed && c[0].Version > 0 && c[0].Version == c[0].Reported {
			return nil
		}
		if err := pause(ctx, pollEvery); err != nil {
			return fmt.Errorf("the controller does not use the newest allowlist: %w", err)
		}
	}
}

// start starts the two programs and connects the wires.
func (s *site) start(ctx context.Context, g *errgroup.Group) (err error) {
	crmFile := filepath.Join(s.dir, "crm.toml")
	if err := os.WriteFile(crmFile, fmt.Appendf(nil, crmConfig, s.crmDir(), zone), 0o600); err != nil {
		return err
	}
	broker := make(chan string, 1)
	s.crm, err = startDaemon("gatehouse-crm", filepath.Join(s.dir, "crm.log"), func(line []byte) {
		if e, ok := parseEvent(line); ok && e.Msg == "broker inside" {
			broker <- e.Address
		}
	}, "run", "--config", crmFile, "--log-format", "json")
	if err != nil {
		return err
	}
	address, err := await(ctx, s.crm, broker)
	if err != nil {
		return err
	}
	if s.network, err = newNetwork(address); err != nil {
		return err
	}
	g.Go(func() error { return s.network.Run(ctx) })

	if s.sensors, err = plugIn(filepath.Join(s.dir, "reader-d.key")); err != nil {
		return err
	}
	config := fmt.Appendf(nil, controllerConfig, controllerName, s.doorDir(), zone, s.network.Port(), lockedOutFor)
	for _, room := range []string{"a", "b"} {
		config = fmt.Appendf(config, doorConfig, room, unlockFor, 2*unlockFor, heldAfter, heldWarning)
	}
	config = append(config, s.sensors.config()...)
	if err := os.WriteFile(s.doorConfig(), config, 0o600); err != nil {
		return err
	}
	if err := s.key(ctx); err != nil {
		return err
	}
	ready := make(chan string, 1)
	s.door, err = startDaemon("gatehouse", filepath.Join(s.dir, "door.log"), func(line []byte) {
		e, ok := parseEvent(line)
		if !ok {
			return
		}
		if e.Msg == "ready" {
			ready <- e.HTTP
		}
		s.screen.feed(e)
	}, "run", "--demo", "--config", s.doorConfig(), "--log-format", "json", "--log-level", "debug")
	if err != nil {
		return err
	}
	if s.wires, err = connect(ctx, s.door, filepath.Join(s.doorDir(), "site.sock")); err != nil {
		return err
	}
	s.lights = newLights()
	lights, outputs := s.lights, s.wires.Outputs()
	g.Go(func() error {
		lights.follow(outputs)
		return nil
	})
	if s.doorHTTP, err = await(ctx, s.door, ready); err != nil {
		return err
	}
	if err := s.known(ctx); err != nil {
		return err
	}
	if err := s.healthy(ctx); err != nil {
		return err
	}
	var status struct {
		Clock struct{ State access.ClockState }
	}
	if err := metrics.Status(ctx, s.doorHTTP, &status); err != nil {
		return err
	}
	s.outOfHours = string(access.ReasonOutOfSchedule)
	if s.clockUnset = status.Clock.State == access.ClockUnset; s.clockUnset {
		s.outOfHours = string(access.ReasonClockUnset)
	}
	return nil
}

// key gives the reader of server-room-d its own key, as whoever mounts it would
// on the bench: the controller must not run meanwhile. It has one already where
// the folder is used again.
func (s *site) key(ctx context.Context) error {
	if s.sensors.keyed() {
		return nil
	}
	if _, err := tool(ctx, "gatehouse", "osdp", "keyset", "--install", "--yes", "--demo", "--config", s.doorConfig(), "--by", "the demo"); err != nil {
		return err
	}
	return s.sensors.remember()
}

// connect connects the wires as soon as the controller listens, so that its
// first look at them finds them whole.
func connect(ctx context.Context, d *daemon, socket string) (*sim.Site, error) {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	for {
		wires, err := sim.Dial(socket)
		if err == nil {
			return wires, nil
		}
		select {
		case <-d.done:
			return nil, d.died()
		case <-ctx.Done():
			return nil, fmt.Errorf("the controller does not listen: %w", err)
		case <-time.After(connectEvery):
		}
	}
}

// await waits for what a program says when it is ready.
func await(ctx context.Context, d *daemon, said <-chan string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	select {
	case s := <-said:
		return s, nil
	case <-d.done:
		return "", d.died()
	case <-ctx.Done():
		return "", fmt.Errorf("%s did not become ready: %w", d.name, context.Cause(ctx))
	}
}

// healthy waits until the controller finds nothing wrong: until it has noticed
// that its wires are connected.
func (s *site) healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	for {
		h, err := metrics.CheckHealth(ctx, s.doorHTTP)
		if err == nil && len(h.Faults) == 0 {
			return nil
		}
		if pause(ctx, pollEvery) != nil {
			return fmt.Errorf("the controller is not healthy: %v, %v", h.Faults, err)
		}
	}
}

// stop ends the two programs, the door first, and then takes the wires away.
func (s *site) stop() error {
	var errs []error
	for _, d := range []**daemon{&s.door, &s.crm} {
		if *d != nil {
			errs = append(errs, (*d).Stop())
			*d = nil
		}
	}
	if s.wires != nil {
		errs = append(errs, s.wires.Close())
		s.wires = nil
	}
	if s.sensors != nil {
		s.sensors.unplug()
		s.sensors = nil
	}
	return errors.Join(errs...)
}
