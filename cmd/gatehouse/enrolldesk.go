package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/access/allowlist"
	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/biometric/enroll"
	"github.com/gatehouse-acs/gatehouse/biometric/enrolled"
	"github.com/gatehouse-acs/gatehouse/door"
	"github.com/gatehouse-acs/gatehouse/internal/config"
	"github.com/gatehouse-acs/gatehouse/internal/control"
	"github.com/gatehouse-acs/gatehouse/internal/metrics"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"golang.org/x/sync/errgroup"
)

// enrollment is what the controller knows of fingers and eyes. Without a store
// nobody is matched.
type enrollment struct {
	store  *enrolled.Store
	desk   *enroll.Desk
	socket *control.Server
	faults []metrics.Fault // of the start, for as long as the daemon runs
	err    error           // why there is no store
}

// openEnrolled opens what was enrolled, before the doors. If it is damaged the
// doors work on with what needs no finger; but if others can read it, nothing
// does.
func (c *controller) openEnrolled(ctx context.Context) error {
	c.enrolled = &enrollment{err: errors.New("this controller has no scanner of fingers or eyes")}
	path := filepath.Join(c.cfg.Data, enrolled.FileName)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) && !hasScanners(c.cfg) {
		return nil
	}
	e := c.enrolled
	if e.store, e.err = enrolled.Open(ctx, path, enrolled.Keys{Index: c.keys.Pepper, Sealer: c.keys.Templates}); e.err != nil {
		if !errors.Is(e.err, enrolled.ErrDamaged) || ctx.Err() != nil {
			return e.err
		}
		e.wrong(c.log, e.err)
	} else {
		e.desk = enroll.New(enroll.Options{
			Store: e.store, Journal: journal{c.records}, Known: c.onAllowlist, Now: c.clock.Now, Zone: c.zone, Logger: c.log,
		})
	}
	var err error
	if e.socket, err = control.Listen(filepath.Join(c.cfg.Data, control.SocketName)); err != nil {
		e.wrong(c.log, fmt.Errorf("gatehouse enroll cannot be used: %w", err))
	}
	return nil
}

// wrong is told of what the doors work on without.
func (e *enrollment) wrong(log *slog.Logger, err error) {
	log.Error("enrolments", "error", err)
	e.faults = append(e.faults, metrics.Fault{Part: "enrolments", What: err.Error()})
}

func hasScanners(cfg *config.Controller) bool {
	for i := range cfg.Doors {
		if len(cfg.Doors[i].Scanners) > 0 {
			return true
		}
	}
	return false
}

// Use makes a scanner known, and gives the one that the door is to use.
func (e *enrollment) Use(name string, s biometric.Scanner) biometric.Scanner {
	if e.desk == nil {
		return s
	}
	return e.desk.Use(name, s)
}

// References are what was enrolled of a person at a scanner.
func (e *enrollment) References(person, scanner string) ([]biometric.Reference, error) {
	if e.store == nil {
		return nil, e.err
	}
	return e.store.References(person, scanner)
}

// Person is whose the finger or eye in a slot is; "": nobody's.
func (e *enrollment) Person(scanner string, slot uint32) (person string, duress bool, err error) {
	if e.store == nil {
		return "", false, e.err
	}
	return e.store.Person(scanner, slot)
}

// Status is how the enrolments are; nil: there are none.
func (e *enrollment) Status(ctx context.Context) *enroll.Status {
	if e.desk == nil {
		return nil
	}
	s := e.desk.Status(ctx)
	return &s
}

// Faults are what is wrong with the enrolments.
func (e *enrollment) Faults(ctx context.Context) []metrics.Fault {
	faults := e.faults
	if s := e.Status(ctx); s != nil && s.Fault != "" {
		faults = append(faults[:len(faults):len(faults)], metrics.Fault{Part: "enrolments", What: s.Fault})
	}
	return faults
}

var (
	descEnrolled = metric.Desc("enrolled", "Fingers and eyes that are enrolled, by the state of their rows.", "state")
	descOrphans  = metric.Desc("enrolment_findings", "What the last check of the scanners found, by its kind.", "kind")
	descLooked   = metric.Desc("enrolment_checked_timestamp_seconds", "When the scanners were last checked.")
)

func (e *enrollment) collect(v metrics.Values) {
	s := e.Status(context.Background())
	if s == nil {
		return
	}
	for _, state := range []enrolled.State{enrolled.Pending, enrolled.Active, enrolled.Revoked, enrolled.Owed} {
		v.Gauge(descEnrolled, float64(s.Rows[state.String()]), state.String())
	}
	for _, kind := range []enroll.Kind{enroll.SlotWithoutRow, enroll.RowWithoutSlot, enroll.NotListed, enroll.Exchanged, enroll.Unreadable, enroll.SlotOwed} {
		v.Gauge(descOrphans, float64(s.Found[kind]), string(kind))
	}
	if !s.Checked.IsZero() {
		v.Gauge(descLooked, float64(s.Checked.Unix()))
	}
}

// Close closes the store. Nobody may use it any more.
func (e *enrollment) Close() error {
	var errs []error
	if e.socket != nil {
		errs = append(errs, e.socket.Close())
	}
	if e.store != nil {
		errs = append(errs, e.store.Close())
	}
	return errors.Join(errs...)
}

// runEnrollment checks the scanners each night, and answers gatehouse enroll,
// until ctx ends.
func (c *controller) runEnrollment(ctx context.Context) error {
	e := c.enrolled
	g, ctx := errgroup.WithContext(ctx)
	if e.desk != nil {
		g.Go(func() error { return e.desk.Run(ctx) })
	}
	if e.socket != nil {
		// Doors work on without it.
		g.Go(func() error {
			if err := e.socket.Serve(ctx, c.serveEnrollment); err != nil {
				c.log.Error("gatehouse enroll cannot be used any more", "error", err)
			}
			return nil
		})
	}
	return g.Wait()
}

// journal writes the records of enrolments.
type journal struct{ log *visitorlog.Log }

func (j journal) Append(ctx context.Context, draft visitorlog.Draft, key string, value []byte) error {
	_, err := j.log.Append(ctx, func(tx *visitorlog.Tx) (visitorlog.Draft, error) {
		if key == "" {
			return draft, nil
		}
		return draft, tx.Set(key, value)
	})
	return err
}

func (j journal) State(ctx context.Context, key string) ([]byte, error) { return j.log.State(ctx, key) }

// onAllowlist gives those of the persons that have a credential which was not
// taken back.
func (c *controller) onAllowlist(ctx context.Context, persons []string) (_ map[string]bool, err error) {
	known := make(map[string]bool, len(persons))
	if len(persons) == 0 {
		return known, nil
	}
	read, err := allowlistKeys(c.keys, c.fromCRM())
	if err != nil {
		return nil, err
	}
	list, err := allowlist.Open(filepath.Join(c.cfg.Data, allowlist.FileName), read)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, list.Close()) }()
	asked := make(map[string]bool, len(persons))
	for _, p := range persons {
		asked[p] = true
	}
	err = list.Each(ctx, func(l *allowlist.Listed) error {
		if l.State != access.Revoked && asked[l.Person] { // who lost a badge is given another
			known[l.Person] = true
		}
		return nil
	})
	return known, err
}

// station is one side of a door, lent.
type station struct {
	*door.Loan
	scanners []string
}

func (s station) Scanners() []string { return s.scanners }

func (s station) Show(f access.Factor) {
	s.Loan.Show(map[access.Factor]door.Pattern{
		access.Badge: door.AskBadge, access.Fingerprint: door.AskFingerprint, access.Iris: door.AskIris,
	}[f])
}

// The requests of gatehouse enroll, and their arguments.
const (
	doEnroll  = "enroll"
	doRevoke  = "enroll revoke"
	doCopy    = "enroll copy"
	doList    = "enroll list"
	doOrphans = "enroll orphans"

	argDoor   = "door"
	argSide   = "side"
	argAt     = "scanner"
	argPerson = "person"
	argNotice = "notice"
	argFrom   = "from"
	argTo     = "to"
	argBy     = "by"
	argWipe   = "wipe"
)

// serveEnrollment answers one gatehouse enroll.
func (c *controller) serveEnrollment(ctx context.Context, r control.Request, t *control.Conn) error {
	desk, a := c.enrolled.desk, r.Args
	if desk == nil {
		return c.enrolled.err
	}
	stands := r.Do == doRevoke || r.Do == doCopy // in the record
	needed := map[string]bool{argPerson: stands, argBy: stands || a[argWipe] != ""}
	for _, id := range []string{argPerson, argBy} {
		if a[id] != "" || needed[id] {
			if err := enroll.CheckPerson(a[id]); err != nil {
				return fmt.Errorf("--%s: %w", id, err)
			}
		}
	}
	c.log.Info("enrolment", "request", r.Do, "person", a[argPerson])
	switch r.Do {
	case doEnroll:
		return c.enrollAt(ctx, a, t)
	case doRevoke:
		return desk.Revoke(ctx, a[argPerson], a[argBy], t)
	case doCopy:
		return desk.Copy(ctx, a[argPerson], a[argFrom], a[argTo], a[argBy], t)
	case doList:
		rows, err := desk.List(ctx)
		for _, row := range rows {
			err = errors.Join(err, t.Result(listed(row)))
		}
		return err
	case doOrphans:
		report, err := desk.Check(ctx, t)
		if err == nil && a[argWipe] != "" {
			if err = desk.Wipe(ctx, report, a[argBy], t); err != nil {
				return err
			}
			report, err = desk.Check(ctx, t)
		}
		for _, f := range report.Findings {
			err = errors.Join(err, t.Result(f))
		}
		for _, u := range report.Unchecked {
			err = errors.Join(err, t.Result(u))
		}
		return err
	}
	return fmt.Errorf("the daemon knows no %q: is it of another version than this command?", r.Do)
}

// enrollAt borrows one side of a door for a session.
func (c *controller) enrollAt(ctx context.Context, a map[string]string, t *control.Conn) error {
	at, err := c.side(a[argDoor], access.Direction(a[argSide]))
	if err != nil {
		return err
	}
	if only := a[argAt]; only != "" {
		if !slices.Contains(at.scanners, only) {
			return fmt.Errorf("--scanner: there is no %q on that side: there are %q", only, at.scanners)
		}
		at.scanners = []string{only}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	loan, err := c.doors[at.door].Lend(ctx, at.side)
	if err != nil {
		return err
	}
	defer loan.Return()
	name := c.cfg.Doors[at.door].Name
	t.Say(fmt.Sprintf("Door %s, side %s: until this session ends, nothing is decided there, and it opens for nobody.", name, at.side))
	return c.enrolled.desk.Enroll(ctx, enroll.Request{Door: name, Side: at.side, Person: a[argPerson], Notice: a[argNotice]},
		station{loan, at.scanners}, t)
}

// doorSide is a side of a door that has scanners.
type doorSide struct {
	door     int // of the configuration's
	side     access.Direction
	scanners []string
}

// side finds the one side of a door that is meant. What is not said may be left
// out where there is one only.
func (c *controller) side(name string, side access.Direction) (doorSide, error) {
	var words []string
	var found []doorSide
	for i := range c.cfg.Doors {
		d := &c.cfg.Doors[i]
		for _, v := range []access.Direction{access.In, access.Out} {
			at := doorSide{door: i, side: v}
			for _, s := range d.Scanners {
				if s.Direction == v {
					at.scanners = append(at.scanners, s.Name)
				}
			}
			if at.scanners == nil {
				continue
			}
			words = append(words, fmt.Sprintf("--door %s --side %s", d.Name, v))
			if (name == "" || name == d.Name) && (side == "" || side == v) {
				found = append(found, at)
			}
		}
	}
	if len(found) != 1 {
		return doorSide{}, fmt.Errorf("say at which door and side: there are %q", words)
	}
	return found[0], nil
}
