package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/drivers"
)

// Factors is a set of factors, written as "badge+fingerprint".
type Factors access.Factor

// UnmarshalText reads a set of at least one.
func (f *Factors) UnmarshalText(b []byte) error {
	set, err := access.ParseFactors(string(b))
	*f = Factors(set)
	return err
}

func (f Factors) String() string { return access.Factor(f).String() }

// Scanner is a sensor of fingers or eyes at a door.
type Scanner struct {
	Name      string           `toml:"name"`
	Direction access.Direction `toml:"direction"` // in or out
	Factor    Factors          `toml:"factor"`    // fingerprint or iris
	Identify  bool             `toml:"identify"`  // finds out who it is while nobody has shown a badge
	// AllowAlone lets what it says open a door by itself, though whoever reaches
	// its wires can say the same.
	AllowAlone bool   `toml:"allow_unauthenticated_single_factor"`
	Device     Device `toml:"device"`
}

// Alone reports whether what the scanner says may open a door by itself.
func (s *Scanner) Alone() bool { return s.AllowAlone || s.Device.Authenticated() }

// Proves is the factor that a card at the reader is.
func (r *Reader) Proves() access.Factor {
	if r.Factor == 0 {
		return access.Badge
	}
	return access.Factor(r.Factor)
}

// Alone reports whether a card at the reader may open a door by itself. A badge
// always may, where that is all that a door asks for.
func (r *Reader) Alone() bool {
	return r.Proves() == access.Badge || r.AllowAlone || r.Device.Authenticated()
}

// What Duress may be.
const (
	DuressOpens  = "open"
	DuressDenies = "deny"
)

// Lockout says after how many failures people and readers are locked out.
type Lockout struct {
	PersonAfter int           `toml:"person_after"` // 0: never
	ReaderAfter int           `toml:"reader_after"` // 0: never
	For         time.Duration `toml:"for"`
}

const (
	minFactorWindow = time.Second
	maxFactorWindow = time.Minute
	maxLockoutAfter = 100
	minLockout      = 10 * time.Second
	maxLockout      = 24 * time.Hour
)

func (l *Lockout) validate(d *decoder) {
	for _, after := range []struct {
		key   string
		value int
	}{{"person_after", l.PersonAfter}, {"reader_after", l.ReaderAfter}} {
		if after.value < 0 || after.value > maxLockoutAfter {
			d.add("lockout."+after.key, "%d is outside 0 to %d; 0 means never", after.value, maxLockoutAfter)
		}
	}
	d.within("lockout.for", l.For, minLockout, maxLockout)
}

// taker is a part of a door that takes a factor.
type taker struct {
	what          string // such as scanner "a-finger"
	factor        access.Factor
	identifies    bool // tells who somebody is of whom nothing is known yet
	authenticated bool // badges count as such, and PINs, which come after what says whose they are
	allowed       bool // to open alone all the same
}

// keyed are the factors that are given at a keypad.
const keyed = access.PIN | access.TOTP | access.OneTimeCode

// takers are what takes factors on a side of the door.
func (v *Door) takers(side access.Direction) []taker {
	var all []taker
	for i := range v.Readers {
		r := &v.Readers[i]
		if r.Direction != side {
			continue
		}
		all = append(all, taker{
			what: fmt.Sprintf("reader %q", r.Name), factor: r.Proves(), identifies: true,
			authenticated: r.Proves() == access.Badge || r.Device.Authenticated(), allowed: r.AllowAlone,
		})
		if encoding, _ := r.Device.Keys(); encoding != "" {
			for _, f := range keyed.Names() {
				factor, _ := access.ParseFactors(f)
				all = append(all, taker{
					what: fmt.Sprintf("the keypad of reader %q", r.Name), factor: factor, authenticated: true,
					identifies: factor == access.OneTimeCode,
				})
			}
		}
	}
	for i := range v.Scanners {
		if s := &v.Scanners[i]; s.Direction == side {
			all = append(all, taker{
				what: fmt.Sprintf("scanner %q", s.Name), factor: access.Factor(s.Factor), identifies: s.Identify,
				authenticated: s.Device.Authenticated(), allowed: s.AllowAlone,
			})
		}
	}
	return all
}

// Sides are the sides of the door on which something is.
func (v *Door) Sides() []access.Direction {
	return slices.DeleteFunc([]access.Direction{access.In, access.Out}, func(side access.Direction) bool {
		return len(v.takers(side)) == 0
	})
}

// Fits says why a set of factors opens to nobody on a side of the door; nil: it
// does, maybe only to who gave another factor First.
func (v *Door) Fits(set access.Factor, side access.Direction) error {
	var taken access.Factor
	identified := false
	for _, t := range v.takers(side) {
		taken |= t.factor
		identified = identified || t.identifies
	}
	switch missing := set &^ taken; {
	case missing != 0 && missing&^keyed == 0:
		return fmt.Errorf("no reader with the direction %q has a keypad: say of the device that has one how it sends", side)
	case missing != 0:
		return fmt.Errorf("nothing with the direction %q takes %s: describe what does in a [[door.reader]] or a [[door.scanner]]", side, missing)
	case !identified:
		return fmt.Errorf("nothing with the direction %q says who somebody is: add a reader, or set identify = true on a scanner", side)
	}
	for _, t := range v.exposed(set, side) {
		if !t.allowed {
			return fmt.Errorf("%s is not authenticated, and whoever reaches its wires can speak in its name: add a second factor, or set allow_unauthenticated_single_factor = true on it", t.what)
		}
	}
	return nil
}

// First are the factors of which one has to come before a set that fits, as
// nothing in the set says who somebody is; 0: something does.
func (v *Door) First(set access.Factor, side access.Direction) access.Factor {
	var first access.Factor
	for _, t := range v.takers(side) {
		switch {
		case !t.identifies:
		case set.Has(t.factor):
			return 0
		case t.factor == access.OneTimeCode: // nobody is asked for that who was not given one
		default:
			first |= t.factor
		}
	}
	return first
}

// Exposed names the readers and scanners on a side of the door that open it
// alone by a set, and are not authenticated.
func (v *Door) Exposed(set access.Factor, side access.Direction) []string {
	var names []string
	for _, t := range v.exposed(set, side) {
		if t.allowed {
			names = append(names, t.what)
		}
	}
	return names
}

// exposed are the takers of a set's only factor that are not authenticated.
func (v *Door) exposed(set access.Factor, side access.Direction) []taker {
	return slices.DeleteFunc(v.takers(side), func(t taker) bool { return t.factor != set || t.authenticated })
}

// Sets are the sets of factors of which the door asks any one on a side, where
// the allowlist has no rules for that.
func (v *Door) Sets(side access.Direction) []access.Factor {
	_, factors := v.asked(side)
	if len(factors) == 0 {
		return []access.Factor{access.Badge}
	}
	sets := make([]access.Factor, len(factors))
	for i, f := range factors {
		sets[i] = access.Factor(f)
	}
	return sets
}

// asked is what the configuration says of a side, and under which key.
func (v *Door) asked(side access.Direction) (key string, factors []Factors) {
	if side == access.Out {
		return "factors_out", v.FactorsOut
	}
	return "factors", v.Factors
}

func (v *Door) factors(d *decoder, at string) {
	d.within(at+".factor_window", v.FactorWindow, minFactorWindow, maxFactorWindow)
	if v.Duress != DuressOpens && v.Duress != DuressDenies {
		d.add(at+".duress", "%q is not %q or %q: what becomes of a person who is threatened; both raise a silent alarm", v.Duress, DuressOpens, DuressDenies)
	}
	v.factorsOf(d, at, access.In)
	v.factorsOf(d, at, access.Out)
}

// factorsOf checks what the door asks for on a side.
func (v *Door) factorsOf(d *decoder, at string, side access.Direction) {
	key, factors := v.asked(side)
	path := at + "." + key
	_, given := d.lines[path]
	if given && len(factors) == 0 {
		d.add(path, `it is empty: name what the door asks for, such as ["badge+fingerprint"]`)
		return
	}
	if len(v.Readers) == 0 && len(v.Scanners) == 0 || d.faulty(at+".reader") || d.faulty(at+".scanner") {
		return // reported already
	}
	if !given {
		if err := v.Fits(access.Badge, side); err != nil && slices.Contains(v.Sides(), side) {
			d.add(path, "it is missing, and the door then asks for the badge on the way %s: %v", side, err)
		}
		return
	}
	for i, set := range factors {
		path := index(path, i)
		if slices.Contains(factors[:i], set) {
			d.add(path, "%q is there twice", set)
			continue
		}
		f := access.Factor(set)
		if err := v.Fits(f, side); err != nil && set != 0 {
			d.add(path, "%q lets nobody %s: %v", set, side, err)
		} else if first := v.First(f, side); first != 0 && set != 0 {
			d.add(path, "%q says nothing of who somebody is: add the %s, or set identify = true on a scanner", set, strings.Join(first.Names(), " or the "))
		}
	}
}

func (s *Scanner) validate(d *decoder, at string, readers names) {
	d.name(at+".name", s.Name)
	readers.use(d, at+".name", "scanner", s.Name)
	d.direction(at+".direction", s.Direction)
	if s.Device.Driver == "" {
		d.missing(at+".device", "fingerprint")
	} else if driver, ok := drivers.Lookup(s.Device.Driver); ok && !driver.Scans {
		d.add(at+".device", "driver %q has no scanners: those that have are %s", s.Device.Driver, strings.Join(scanning(), ", "))
	}
	switch f := access.Factor(s.Factor); f {
	case 0:
		d.add(at+".factor", "it is missing: use %q or %q", access.Fingerprint, access.Iris)
	case access.Fingerprint, access.Iris:
		if m := s.Device.modality(); m != "" && m != biometric.Modality(f.String()) {
			d.add(at+".factor", "%q is not what this scanner takes: that is %q", f, m)
		}
	default:
		d.add(at+".factor", "%q is not what a scanner takes: use %q or %q", f, access.Fingerprint, access.Iris)
	}
	if s.Identify && s.Device.Own != nil && !s.Device.identifies() {
		d.add(at+".identify", "this scanner keeps nothing, and compares only with what is known of a person: leave identify out, and ask for a badge first")
	}
}

// scanning names the drivers that have scanners.
func scanning() []string {
	var names []string
	for _, driver := range drivers.Table {
		if driver.Scans {
			names = append(names, driver.Name)
		}
	}
	return names
}
