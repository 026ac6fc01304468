package door

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// What the log's state keeps beside failures. It changes in the transaction of
// the record that it follows from: a restart forgets nothing. What names people
// is keyed and sealed.
const (
	whereStates = "where/" // of a person, by keyed hash
	// OccupancyStates begin the keys of how many people are in areas.
	OccupancyStates = "occupancy/"
	usedStates      = "used/"     // of what opens once
	totpStates      = "totp/"     // of a person, by keyed hash: the step that was accepted last
	begunStates     = "begun/"    // of a door: when a supervisor came in last
	disabledStates  = "disabled/" // of a door: why
	freeStates      = "free/"     // of a door that stands unlocked by its schedule
)

// Prefixes of what a record says was used up.
const (
	usedCode = "code:"
	usedTOTP = "totp:"
)

var errNoSecrets = errors.New("there are no secrets to keep with who is where")

// hashed is the hex digits of a keyed hash, of n bytes.
func hashed(s Secrets, what, person string, n int) string {
	index := s.Index([]byte(what + "\x00" + person))
	return hex.EncodeToString(index[:n])
}

func whereKey(s Secrets, person string) string { return whereStates + hashed(s, "where", person, 16) }

// totpName is how a record names the person of a step that was used up.
func totpName(s Secrets, person string) string { return hashed(s, "totp", person, 8) }

// whereabouts are access.Whereabouts as they are kept.
type whereabouts struct {
	Area   string            `json:"area"` // "": outside
	Wall   int64             `json:"wall_ms"`
	Clock  access.ClockState `json:"clock"`
	Boot   string            `json:"boot"`
	Uptime int64             `json:"uptime_ns"`
}

func sealWhere(s Secrets, key, area string, now access.Moment) []byte {
	// No earlier than it was.
	b, err := json.Marshal(whereabouts{area, now.Wall.UnixMilli() + 1, now.Clock, now.Boot, int64(max(0, now.Uptime))})
	if err != nil {
		panic(err) // numbers and strings always marshal
	}
	return s.Seal(b, []byte(key))
}

func openWhere(s Secrets, key string, sealed []byte) (w whereabouts, err error) {
	plain, err := s.Open(sealed, []byte(key))
	if err != nil {
		return w, err
	}
	return w, json.Unmarshal(plain, &w)
}

func (w whereabouts) since(now access.Moment) time.Duration {
	return now.Since(access.Moment{Wall: time.UnixMilli(w.Wall), Clock: w.Clock, Boot: w.Boot, Uptime: time.Duration(w.Uptime)})
}

// kept is what the log keeps that bears on somebody at a door. A door that asks
// for nothing of the kind has none, and nothing is read for it.
type kept struct {
	where     access.Whereabouts
	counted   string // the area in which they are counted; "": in none
	sealed    []byte // their whereabouts as they are kept; nil: unknown
	restored  []byte // what they become if nobody passes by the grant
	occupants int    // of the area that the way leads into, this person too
	begun     bool
	codeUsed  bool
	lastTOTP  uint64 // the step that was accepted last
	damaged   string // what cannot be read, in words
}

// site is what is asked at the door beside factors; nil: nothing.
func (d *Door) site() *access.Door { return d.cfg.Allowlist.Site(d.cfg.Name) }

// leads are the areas between which somebody passes; "": outside.
func leads(site *access.Door, side access.Direction) (from, to string) {
	if site.OutOf != nil {
		from = site.OutOf.Name
	}
	if site.Into != nil {
		to = site.Into.Name
	}
	if side == access.Out {
		from, to = to, from
	}
	return from, to
}

// tracked reports whether the door is one between areas.
func tracked(site *access.Door) bool { return site != nil && (site.Into != nil || site.OutOf != nil) }

// area is the one that a record of a passage names: that into which the door
// leads, or else that which it leads out of.
func area(site *access.Door) string {
	switch {
	case site == nil:
		return ""
	case site.Into != nil:
		return site.Into.Name
	case site.OutOf != nil:
		return site.OutOf.Name
	}
	return ""
}

// keeps reports whether anything that the log keeps bears on somebody.
func (d *Door) keeps(p *presented) bool {
	site, e := d.site(), p.entry
	return e != nil && (e.Code != nil || len(e.TOTP) > 0 && p.given.Has(access.TOTP) || tracked(site) || site != nil && site.FirstPerson)
}

// recall reads what get knows of it.
func (d *Door) recall(p *presented, get func(key string) ([]byte, error)) (k kept, err error) {
	if !d.keeps(p) {
		return kept{}, nil
	}
	site, e, secrets := d.site(), p.entry, d.cfg.Secrets
	if secrets == nil {
		return kept{}, errNoSecrets
	}
	if e.Code != nil {
		b, err := get(usedStates + usedCode + e.Code.ID)
		if err != nil {
			return kept{}, err
		}
		k.codeUsed = len(b) > 0
	}
	if len(e.TOTP) > 0 && p.given.Has(access.TOTP) {
		if k.lastTOTP, err = d.lastTOTP(e.Person, get); err != nil {
			return kept{}, err
		}
	}
	if tracked(site) {
		if err := d.recallWhere(&k, p, site, get); err != nil {
			return kept{}, err
		}
	}
	if site != nil && site.FirstPerson && p.side == access.In {
		b, err := get(begunStates + d.cfg.Name)
		if err != nil {
			return kept{}, err
		}
		k.begun = d.begun(b)
	}
	return k, nil
}

// recallWhere reads where somebody is, and how many are where they want to go.
func (d *Door) recallWhere(k *kept, p *presented, site *access.Door, get func(string) ([]byte, error)) (err error) {
	key := whereKey(d.cfg.Secrets, p.entry.Person)
	if k.sealed, err = get(key); err != nil {
		return err
	}
	k.restored = k.sealed
	now := d.cfg.Clock.Moment()
	if len(k.sealed) > 0 {
		w, err := openWhere(d.cfg.Secrets, key, k.sealed)
		if err != nil {
			// They may be where they should not go again, and may always leave.
			w.Area = area(site)
			k.damaged = "what was kept of where the person is is damaged: they count as inside"
		} else {
			k.counted = w.Area
		}
		k.where = access.Whereabouts{Area: w.Area, Known: true, Ago: w.since(now)}
	}
	if t := d.awaited(key, p.side); t != nil && bytes.Equal(t.wrote, k.sealed) {
		// Granted here a moment ago, and not through yet.
		k.restored, k.where = t.before, access.Whereabouts{}
		if w, err := openWhere(d.cfg.Secrets, key, t.before); err == nil {
			k.where = access.Whereabouts{Area: w.Area, Known: true, Ago: w.since(now)}
		}
	}
	if _, to := leads(site, p.side); to != "" && site.Into != nil && site.Into.Name == to && site.Into.Occupancy > 0 {
		b, err := get(OccupancyStates + to)
		if err != nil {
			return err
		}
		n, ok := ParseOccupancy(b)
		if !ok {
			k.damaged = sentences(k.damaged, fmt.Sprintf("how many people are in %q is damaged: it counts as full until it is reset", to))
		}
		k.occupants = n
	}
	return nil
}

// others are how many people are in the area, without those who want to go there
// now.
func (k *kept) others(area string, with *presented) int {
	n := k.occupants
	if k.counted == area {
		n--
	}
	if with != nil && with.kept.counted == area {
		n--
	}
	return max(0, n)
}

// damagedOccupancy is more than any area holds.
const damagedOccupancy = math.MaxInt32

// ParseOccupancy reads how many people are in an area from its state. Where that
// is damaged, nobody knows, and it is more than any area holds.
func ParseOccupancy(b []byte) (n int, ok bool) {
	if len(b) == 0 {
		return 0, true
	}
	v, err := strconv.ParseUint(string(b), 10, 31)
	if err != nil || v == 0 || v >= damagedOccupancy || string(strconv.AppendUint(nil, v, 10)) != string(b) {
		return damagedOccupancy, false
	}
	return int(v), true
}

// count adds to how many people are in an area. What is damaged stays so.
func countIn(tx *visitorlog.Tx, area string, add int) error {
	if area == "" {
		return nil
	}
	b, err := tx.Get(OccupancyStates + area)
	if err != nil {
		return err
	}
	n, ok := ParseOccupancy(b)
	if !ok {
		return nil
	}
	return setOccupancy(tx, area, n+add)
}

func setOccupancy(tx *visitorlog.Tx, area string, n int) error {
	if n = min(n, damagedOccupancy-1); n <= 0 {
		return tx.Set(OccupancyStates+area, nil)
	}
	return tx.Set(OccupancyStates+area, strconv.AppendInt(nil, int64(n), 10))
}

// begun reports whether what is kept of a door says that a supervisor came in
// today, or since the start while nobody knows what day it is.
func (d *Door) begun(b []byte) bool {
	day, _, _ := strings.Cut(string(b), " ")
	return day != "" && day == d.today()
}

func (d *Door) today() string {
	if now := d.cfg.Clock.Moment(); now.Clock != access.ClockUnset {
		return now.Wall.In(d.cfg.Zone).Format(time.DateOnly)
	} else if now.Boot != "" {
		return "boot:" + now.Boot
	}
	return ""
}

// trace is what a grant left in the log's state, to be taken back if nobody
// passes by it.
type trace struct {
	key           string
	side          access.Direction
	before, wrote []byte // nil: nothing
	from, to      string // the areas between which somebody was counted
}

// leave keeps where a grant leads somebody, and what it uses up.
func (d *Door) leave(tx *visitorlog.Tx, p *presented) error {
	site, e := d.site(), p.entry
	if p.code != "" && p.given.Has(access.OneTimeCode) { // though a badge may have opened
		what := usedCode + p.code
		p.used = append(p.used, what)
		if err := tx.Set(usedStates+what, []byte{1}); err != nil {
			return err
		}
	}
	if tracked(site) && d.cfg.Secrets != nil {
		_, to := leads(site, p.side)
		key := whereKey(d.cfg.Secrets, e.Person)
		t := trace{key: key, side: p.side, before: p.restored, from: p.counted, to: to}
		t.wrote = sealWhere(d.cfg.Secrets, key, to, d.cfg.Clock.Moment())
		if err := t.set(tx); err != nil {
			return err
		}
		t.from = "" // to where they go back
		if w, err := openWhere(d.cfg.Secrets, key, t.before); err == nil {
			t.from = w.Area
		}
		p.traces = append(p.traces, t)
	}
	if day := d.today(); site != nil && site.FirstPerson && p.side == access.In && e.Supervisor && day != "" {
		key := begunStates + d.cfg.Name
		before, err := tx.Get(key)
		if err != nil {
			return err
		}
		// Another supervisor's is not the same.
		t := trace{key: key, side: p.side, before: before, wrote: fmt.Appendf(nil, "%s %d", day, d.cfg.Clock.Moment().Uptime)}
		if err := t.set(tx); err != nil {
			return err
		}
		p.traces = append(p.traces, t)
	}
	return nil
}

func (t *trace) set(tx *visitorlog.Tx) error {
	if t.from != t.to {
		if err := errors.Join(countIn(tx, t.from, -1), countIn(tx, t.to, 1)); err != nil {
			return err
		}
	}
	return tx.Set(t.key, t.wrote)
}

// takeBack takes traces back. Where something else has come after one, that does
// not come back to it either, should it be taken back too.
func (n *Neighbours) takeBack(tx *visitorlog.Tx, traces []trace) error {
	for _, t := range traces {
		now, err := tx.Get(t.key)
		if err != nil {
			return err
		}
		if u, ok := n.wasUndone(t.before); ok {
			t.before, t.from = u.before, u.from
		}
		if len(now) == 0 || !bytes.Equal(now, t.wrote) {
			n.undo(t)
			continue
		}
		t.from, t.to, t.wrote = t.to, t.from, t.before
		if err := t.set(tx); err != nil {
			return err
		}
	}
	return nil
}

// awaited is what a grant on a side left of whom it is still awaited that they
// pass; nil: nothing.
func (d *Door) awaited(key string, side access.Direction) *trace {
	for _, t := range *d.traces.Load() {
		if t.key == key && t.side == side {
			return &t
		}
	}
	return nil
}

// lastTOTP is the step that was accepted last of somebody. Of one that cannot be
// read, nobody knows: then every one that their device shows now was.
func (d *Door) lastTOTP(person string, get func(string) ([]byte, error)) (uint64, error) {
	key := totpStates + totpName(d.cfg.Secrets, person)
	b, err := get(key)
	if err != nil || len(b) == 0 {
		return 0, err
	}
	if last, ok := openStep(d.cfg.Secrets, key, b); ok {
		return last, nil
	}
	now, _ := d.cfg.Clock.Now()
	return stepAt(now) + 1, nil
}

// stepAt is the step of RFC 6238 at a moment.
func stepAt(now time.Time) uint64 { return uint64(max(0, now.Unix()/30)) }

func openStep(s Secrets, key string, sealed []byte) (uint64, bool) {
	b, err := s.Open(sealed, []byte(key))
	if err != nil || len(b) != 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(b), true
}

func setStep(tx *visitorlog.Tx, s Secrets, name string, step uint64) error {
	key := totpStates + name
	return tx.Set(key, s.Seal(binary.BigEndian.AppendUint64(nil, step), []byte(key)))
}

// spend accepts the TOTP that somebody gave, once: whoever comes with the same one
// afterwards has given a wrong one. A step is used up by a denial, too.
func (d *Door) spend(tx *visitorlog.Tx, p *presented) error {
	if !p.given.Has(access.TOTP) || p.entry == nil {
		return nil
	}
	name := totpName(d.cfg.Secrets, p.entry.Person)
	if p.step <= p.lastTOTP {
		p.given &^= access.TOTP
		p.refused = access.TOTP
		p.detail = sentences(p.detail, "the one-time password was used before")
		return setStep(tx, d.cfg.Secrets, name, p.lastTOTP) // which may have been damaged
	}
	p.used = append(p.used, usedTOTP+name+":"+strconv.FormatUint(p.step, 10))
	return setStep(tx, d.cfg.Secrets, name, p.step)
}

// RestoreUsed keeps what records say was used up, in the transaction of another
// record: a controller whose database is older than what it has told the CRM
// revives nothing. What it does not know it passes over.
func RestoreUsed(tx *visitorlog.Tx, s Secrets, used []string) error {
	for _, what := range used {
		switch {
		case strings.HasPrefix(what, usedCode):
			if err := tx.Set(usedStates+what, []byte{1}); err != nil {
				return err
			}
		case strings.HasPrefix(what, usedTOTP):
			name, digits, _ := strings.Cut(strings.TrimPrefix(what, usedTOTP), ":")
			step, err := strconv.ParseUint(digits, 10, 64)
			if len(name) != 16 || err != nil {
				continue
			}
			b, err := tx.Get(totpStates + name)
			if err != nil {
				return err
			}
			if last, ok := openStep(s, totpStates+name, b); ok && last >= step {
				continue
			}
			if err := setStep(tx, s, name, step); err != nil {
				return err
			}
		}
	}
	return nil
}

// NotUsed are those of them that get does not know to be used up.
func NotUsed(get func(key string) ([]byte, error), s Secrets, used []string) (left []string, err error) {
	for _, what := range used {
		switch {
		case strings.HasPrefix(what, usedCode):
			b, err := get(usedStates + what)
			if err != nil {
				return nil, err
			}
			if len(b) == 0 {
				left = append(left, what)
			}
		case strings.HasPrefix(what, usedTOTP):
			name, digits, _ := strings.Cut(strings.TrimPrefix(what, usedTOTP), ":")
			step, err := strconv.ParseUint(digits, 10, 64)
			if len(name) != 16 || err != nil { // or it would never become known
				continue
			}
			b, err := get(totpStates + name)
			if err != nil {
				return nil, err
			}
			if last, ok := openStep(s, totpStates+name, b); !ok || last < step {
				left = append(left, what)
			}
		}
	}
	return left, nil
}

// companions are those whom a record names.
func companions(p *presented) []visitorlog.Companion {
	c := p.companion
	if c == nil {
		return nil
	}
	role := visitorlog.RoleSecond
	if p.entry.Escorted && c.MayEscort {
		role = visitorlog.RoleEscort
	}
	return slices.Clip([]visitorlog.Companion{{Person: c.Person, Kind: c.Kind, Role: role}})
}
