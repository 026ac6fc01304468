package config

import (
	"errors"
	"slices"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/drivers"
)

// Controller is the configuration of a door controller.
type Controller struct {
	Name      string       `toml:"controller"`
	Data      string       `toml:"data"`     // directory of keys and records; absolute
	Timezone  string       `toml:"timezone"` // empty: the one that the CRM pinned
	Keys      Keys         `toml:"keys"`
	HTTP      HTTP         `toml:"http"`
	CRM       *Link        `toml:"crm"` // nil: the controller works alone
	Allowlist Allowlist    `toml:"allowlist"`
	Formats   []badge.Spec `toml:"format"`
	Drivers   Drivers      `toml:"drivers"` // every driver in use
	Lockdown  *Lockdown    `toml:"lockdown"`
	Lockout   Lockout      `toml:"lockout"`
	Doors     []Door       `toml:"door"`

	Zone  *time.Location `toml:"-"` // of Timezone; nil: the one that the CRM pinned
	Table *badge.Table   `toml:"-"` // the built-in formats and Formats
}

// The key providers.
const (
	KeysFile       = "file"       // 0600 files in the data directory
	KeysCredential = "credential" // systemd's $CREDENTIALS_DIRECTORY
)

// Keys says where the controller's keys are.
type Keys struct {
	Provider string `toml:"provider"` // file or credential
}

// Link is the way to the CRM.
type Link struct {
	Broker string `toml:"broker"` // tls://host:port; empty: the one that the CRM pinned
}

// Allowlist is the ladder of age of the allowlist.
type Allowlist struct {
	StaleAfter   time.Duration `toml:"stale_after"`
	ExpiredAfter time.Duration `toml:"expired_after"` // 0: never
	ExpiredKinds []access.Kind `toml:"expired_kinds"` // who may enter under an expired one
}

// Lockdown is a key switch that denies everybody at every door.
type Lockdown struct {
	Device Device `toml:"device"`
}

// Door is one door. What is nil is not there.
type Door struct {
	Name           string        `toml:"name"`
	Unlock         time.Duration `toml:"unlock"`
	UnlockExtended time.Duration `toml:"unlock_extended"` // for people who need longer
	HeldAfter      time.Duration `toml:"held_after"`      // open for longer than this is an alarm
	HeldWarning    time.Duration `toml:"held_warning"`    // so long before the alarm the door says so; 0: it does not
	REXShunt       time.Duration `toml:"rex_shunt"`       // opening so soon after a request to exit is not forced
	Strike         Device        `toml:"strike"`
	Contact        *Device       `toml:"contact"`
	REX            *Device       `toml:"rex"`
	Tamper         *Device       `toml:"tamper"`
	Indicator      *Device       `toml:"indicator"`
	// Factors are the sets of factors of which the door asks any one on the way in,
	// where the allowlist has no rules for that; none: the badge.
	Factors      []Factors     `toml:"factors"`
	FactorsOut   []Factors     `toml:"factors_out"`   // the same on the way out
	FactorWindow time.Duration `toml:"factor_window"` // from one factor to the next
	Duress       string        `toml:"duress"`        // open or deny, to whoever is threatened
	Readers      []Reader      `toml:"reader"`
	Scanners     []Scanner     `toml:"scanner"`
}

// The ranges of a door's times.
const (
	minUnlock    = time.Second
	maxUnlock    = 5 * time.Minute
	minHeldAfter = time.Second
	maxHeldAfter = time.Hour
	minREXShunt  = time.Second
	maxREXShunt  = 5 * time.Minute
)

func (d *Door) setDefaults() {
	d.Unlock = 5 * time.Second
	d.UnlockExtended = 15 * time.Second
	d.HeldAfter = 30 * time.Second
	d.HeldWarning = 10 * time.Second
	d.REXShunt = 10 * time.Second
	d.FactorWindow = 10 * time.Second
	d.Duress = DuressOpens
}

// Reader is one reader of a door.
type Reader struct {
	Name      string           `toml:"name"`
	Direction access.Direction `toml:"direction"` // in or out
	Formats   []string         `toml:"formats"`   // tried in this order
	Factor    Factors          `toml:"factor"`    // what its card numbers prove; none: the badge
	// AllowAlone is that of a Scanner, for a reader that looks at fingers or eyes
	// and gives card numbers.
	AllowAlone bool   `toml:"allow_unauthenticated_single_factor"`
	Device     Device `toml:"device"`
}

// LoadController reads the configuration of a controller. If the file can be
// read the error is a Faults with everything that is wrong in it.
func LoadController(path string, o Options) (*Controller, error) {
	doc, err := Read(path)
	if err != nil {
		return nil, err
	}
	return ParseController(path, doc, o)
}

// ParseController is LoadController for a document that Read gave.
func ParseController(path, doc string, o Options) (*Controller, error) {
	c := &Controller{
		Data:      "/var/lib/gatehouse",
		Keys:      Keys{Provider: KeysFile},
		HTTP:      HTTP{Listen: "127.0.0.1:9180"},
		Allowlist: Allowlist{StaleAfter: 24 * time.Hour, ExpiredKinds: []access.Kind{access.Staff}},
		Lockout:   Lockout{PersonAfter: 5, ReaderAfter: 10, For: 5 * time.Minute},
	}
	d := parse(path, doc, o, c)
	if d.lines != nil { // it is TOML
		c.validate(d)
	}
	if err := d.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// reservedName is the CRM's own on the broker.
const reservedName = "gatehouse-crm"

func (c *Controller) validate(d *decoder) {
	if c.Name == reservedName {
		d.add("controller", "%q is the CRM's own name: choose another", c.Name)
	}
	d.name("controller", c.Name)
	c.Data = d.data(c.Data)
	c.Zone = d.zone(c.Timezone, c.CRM == nil)
	if p := c.Keys.Provider; p != KeysFile && p != KeysCredential {
		d.add("keys.provider", "there is no key provider %q: use %q or %q", p, KeysFile, KeysCredential)
	}
	d.http(c.HTTP)
	if c.CRM != nil && c.CRM.Broker != "" {
		d.broker("crm.broker", c.CRM.Broker)
	}
	c.Allowlist.validate(d)
	c.Lockout.validate(d)
	c.table(d)
	c.devices(d)
	if len(c.Doors) == 0 {
		d.add("door", "there is no door: describe each in a [[door]]")
	}
	doors, readers := names{}, names{}
	for i := range c.Doors {
		c.Doors[i].validate(d, index("door", i), doors)
		for j := range c.Doors[i].Readers {
			c.reader(d, index(index("door", i)+".reader", j), &c.Doors[i].Readers[j], readers)
		}
		for j := range c.Doors[i].Scanners {
			c.Doors[i].Scanners[j].validate(d, index(index("door", i)+".scanner", j), readers)
		}
		c.Doors[i].factors(d, index("door", i))
	}
	d.simulated()
}

func (a *Allowlist) validate(d *decoder) {
	d.within("allowlist.stale_after", a.StaleAfter, time.Minute, 365*24*time.Hour)
	if a.ExpiredAfter < 0 || a.ExpiredAfter != 0 && a.ExpiredAfter <= a.StaleAfter {
		d.add("allowlist.expired_after", `%q is not later than stale_after, which is %q; "0s" means never`, duration(a.ExpiredAfter), duration(a.StaleAfter))
	}
	kinds := []access.Kind{access.Staff, access.Contractor, access.Visitor}
	for i, k := range a.ExpiredKinds {
		if !slices.Contains(kinds, k) {
			d.add(index("allowlist.expired_kinds", i), "%q is not a kind of person: use %q, %q or %q", k, kinds[0], kinds[1], kinds[2])
		}
	}
}

// table adds the file's own formats to the built-in ones.
func (c *Controller) table(d *decoder) {
	c.Table = badge.Builtin()
	for i, s := range c.Formats {
		at := index("format", i)
		err := c.Table.Add(s)
		if err == nil {
			continue
		}
		for _, e := range flatten(err) {
			var fault *badge.SpecError
			if errors.As(e, &fault) {
				d.add(at+"."+fault.Key, "%v", fault.Err)
			} else {
				d.add(at, "%v", e)
			}
		}
	}
}

// place is a device with where it stands and what it is there.
type place struct {
	path   string
	part   string // reader, strike, input, indicator or scanner
	device *Device
}

// places are all devices, in the order of the file as far as that goes.
func (c *Controller) places() []place {
	var all []place
	note := func(path, part string, device *Device) {
		if device != nil && device.Own != nil {
			all = append(all, place{path, part, device})
		}
	}
	if c.Lockdown != nil {
		note("lockdown.device", "input", &c.Lockdown.Device)
	}
	for i := range c.Doors {
		door, at := &c.Doors[i], index("door", i)
		note(at+".strike", "strike", &door.Strike)
		note(at+".contact", "input", door.Contact)
		note(at+".rex", "input", door.REX)
		note(at+".tamper", "input", door.Tamper)
		note(at+".indicator", "indicator", door.Indicator)
		for j := range door.Readers {
			note(index(at+".reader", j)+".device", "reader", &door.Readers[j].Device)
		}
		for j := range door.Scanners {
			note(index(at+".scanner", j)+".device", "scanner", &door.Scanners[j].Device)
		}
	}
	return all
}

// devices checks every device, completes the settings of every driver in use,
// and reports what two devices would share.
func (c *Controller) devices(d *decoder) {
	if c.Lockdown != nil && c.Lockdown.Device.Driver == "" {
		d.missing("lockdown.device", "gpio")
	}
	used := c.places()
	taken := map[string]string{} // where a line was first used
	for name, settings := range c.Drivers {
		if own, ok := settings.(interface{ Ports() []string }); ok {
			for _, port := range own.Ports() {
				taken[port] = join("drivers", name)
			}
		}
	}
	for _, p := range used {
		d.checkDevice(p)
		for _, line := range p.device.Lines() {
			if first, ok := taken[line]; ok {
				d.add(p.path, "line %q is taken already, by %s on line %d of this file", line, first, d.lines.near(first))
				continue
			}
			taken[line] = p.path
		}
	}
	for _, p := range used {
		if _, ok := c.Drivers[p.device.Driver]; !ok {
			driver, _ := drivers.Lookup(p.device.Driver)
			settings := driver.Settings()
			d.checkOwn(p.path, settings) // a driver may not do without settings
			c.Drivers.set(p.device.Driver, settings)
		}
	}
	for _, driver := range drivers.Table {
		c.together(d, driver, slices.DeleteFunc(slices.Clone(used), func(p place) bool { return p.device.Driver != driver.Name || d.faulty(p.path) }))
	}
	for name, settings := range c.Drivers {
		if !slices.ContainsFunc(used, func(p place) bool { return p.device.Driver == name }) {
			delete(c.Drivers, name)
			continue
		}
		if r, ok := settings.(interface{ Resolve(dir string) }); ok {
			r.Resolve(c.Data)
		}
	}
}

// together reports what is wrong between the devices of a driver and its
// settings.
func (c *Controller) together(d *decoder, driver drivers.Driver, used []place) {
	settings, ok := c.Drivers[driver.Name]
	if !ok || d.faulty("drivers."+driver.Name) {
		return
	}
	devices := make([]any, len(used))
	for i, p := range used {
		devices[i] = p.device.Own
	}
	for i, err := range driver.Together(settings, devices) {
		if err != nil {
			d.add(used[i].path, "%s", inOneLine(err))
		}
	}
}

// missing reports a device that is not there; the example is a driver that has
// such a part. One that is there and at fault
// was reported.
func (d *decoder) missing(path, example string) {
	if _, there := d.lines[path]; there {
		return
	}
	d.add(path, `it is missing: name its driver and place, such as { driver = %q, … }`, example)
}

// names holds where each name was first used, and for what.
type names map[string]struct{ what, path string }

func (n names) use(d *decoder, path, what, name string) {
	if first, ok := n[name]; ok && name != "" {
		d.add(path, "there is a %s %q on line %d already", first.what, name, d.lines.near(first.path))
		return
	}
	n[name] = struct{ what, path string }{what, path}
}

func (v *Door) validate(d *decoder, at string, doors names) {
	d.name(at+".name", v.Name)
	doors.use(d, at+".name", "door", v.Name)
	d.within(at+".unlock", v.Unlock, minUnlock, maxUnlock)
	if _, given := d.lines[at+".unlock_extended"]; !given {
		v.UnlockExtended = max(v.UnlockExtended, v.Unlock)
	}
	d.within(at+".unlock_extended", v.UnlockExtended, minUnlock, maxUnlock)
	if v.UnlockExtended < v.Unlock {
		d.add(at+".unlock_extended", "%q is shorter than unlock, which is %q", duration(v.UnlockExtended), duration(v.Unlock))
	}
	d.within(at+".held_after", v.HeldAfter, minHeldAfter, maxHeldAfter)
	if _, given := d.lines[at+".held_warning"]; !given {
		v.HeldWarning = min(v.HeldWarning, v.HeldAfter/2)
	}
	if v.HeldWarning < 0 || v.HeldWarning >= v.HeldAfter {
		d.add(at+".held_warning", `%q is not between "0s" and held_after, which is %q: it comes so long before`, duration(v.HeldWarning), duration(v.HeldAfter))
	}
	d.within(at+".rex_shunt", v.REXShunt, minREXShunt, maxREXShunt)
	if v.Strike.Driver == "" {
		d.missing(at+".strike", "gpio")
	}
	if len(v.Readers) == 0 && len(v.Scanners) == 0 {
		d.add(at+".reader", "the door has no reader: describe each in a [[door.reader]]")
	}
}

func (c *Controller) reader(d *decoder, at string, v *Reader, readers names) {
	d.name(at+".name", v.Name)
	readers.use(d, at+".name", "reader", v.Name)
	d.direction(at+".direction", v.Direction)
	if v.Device.Driver == "" {
		d.missing(at+".device", "wiegand")
	}
	switch f := v.Proves(); f {
	case access.Badge, access.Fingerprint, access.Iris:
	default:
		d.add(at+".factor", "%q is not what a card number proves: use %q, or %q or %q of a reader that looks at those itself", f, access.Badge, access.Fingerprint, access.Iris)
	}
	if len(v.Formats) == 0 {
		d.add(at+".formats", `it is missing: name the formats of the cards, such as ["H10301"]; "gatehouse badge formats" lists them`)
	}
	for i, name := range v.Formats {
		path := index(at+".formats", i)
		if slices.Contains(v.Formats[:i], name) {
			d.add(path, "format %q is named twice", name)
		}
		if _, ok := c.Table.Format(name); ok || c.declares(name) {
			continue
		}
		if f, err := c.Table.Find(name); err == nil {
			d.add(path, "there is no format %q: did you mean %q?", name, f.Name())
		} else {
			d.add(path, "%v", err)
		}
	}
}

// direction checks on which side of a door something is.
func (d *decoder) direction(path string, v access.Direction) {
	if v != access.In && v != access.Out {
		d.add(path, "%q is not a direction: use %q or %q", v, access.In, access.Out)
	}
}

// declares reports whether the file itself describes a format. Its own faults
// are told where it stands.
func (c *Controller) declares(format string) bool {
	return slices.ContainsFunc(c.Formats, func(s badge.Spec) bool { return s.Name == format })
}
