package publisher

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/access/allowlist"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
)

const (
	// urgentAlone is how many bytes of other rows there may be before a version of
	// its own is made of what takes something away.
	urgentAlone = 64 << 10
	// mostChanged is how many rows a delta may change, since others wait while its
	// transaction goes on. With more, a snapshot is made.
	mostChanged = 20_000
	// overtakenOften is how often making a version is begun again because another
	// publisher was faster.
	overtakenOften = 10
)

// Scope is how much of what is not published yet goes into a version.
type Scope int

// The scopes.
const (
	Everything  Scope = iota
	Revocations       // only what takes something away
)

// Made is what Make has done.
type Made struct {
	Controller string `json:"controller"`
	Version    uint64 `json:"version"` // the newest; 0: nothing was ever published
	Versions   int    `json:"versions"`
	Rows       int    `json:"rows"` // changed, of all versions that were made
	Pending    bool   `json:"pending,omitempty"`
}

// Make makes the versions that are missing of a controller: one, or before a large
// one another of what takes something away. Published, which may be nil, is told
// after each. Where nothing was changed there is no new version.
func (p *Publisher) Make(ctx context.Context, controller string, scope Scope, published func()) (Made, error) {
	lock := p.one(controller)
	lock.Lock()
	defer lock.Unlock()
	for n := 1; ; n++ {
		m, err := p.make(ctx, controller, scope, published)
		if errors.Is(err, errOvertaken) && n < overtakenOften {
			continue
		}
		if err != nil {
			err = fmt.Errorf("publish for %s: %w", controller, err)
		}
		return m, err
	}
}

func (p *Publisher) make(ctx context.Context, controller string, scope Scope, published func()) (m Made, err error) {
	m.Controller = controller
	if _, err := p.o.Authority(); err != nil { // before the work
		return m, err
	}
	c, err := p.collect(ctx, controller, false)
	if err != nil || c == nil {
		return m, err
	}
	m.Version = c.before.version
	if c.other {
		if err := p.store.unmake(ctx, controller); err != nil {
			return m, err
		}
	}
	for {
		v := c.next(scope, p.urgentAlone)
		if v == nil {
			break
		}
		// A snapshot would bring what is not to go out yet.
		if len(v.rows) > p.mostChanged && !v.snapshot && scope == Everything {
			if c, err = p.collect(ctx, controller, true); err != nil {
				return m, err
			}
			continue
		}
		if err := p.makeRoom(ctx, controller); err != nil {
			return m, err
		}
		unused := c.before.list
		if err := p.makePart(ctx, c, v); err != nil {
			return m, err
		}
		m.Version, m.Versions, m.Rows = c.before.version, m.Versions+1, m.Rows+len(v.rows)
		if published != nil {
			published()
		}
		if unused != c.before.list {
			if err := p.store.dropList(ctx, unused); err != nil {
				return m, err
			}
		}
	}
	m.Pending = c.fresh || len(c.rows) > 0 || !c.documented
	if c.fresh {
		return m, nil
	}
	head := c.head
	if m.Pending {
		head = c.reached
	}
	if c.before.head != head || c.before.taken != c.head || c.before.mark != c.mark {
		return m, p.store.advance(ctx, c.before, head, c.head, c.mark)
	}
	return m, nil
}

// change is a row that is other than the one that the controller has.
type change struct {
	sentRow
	entry []byte // nil: it is removed
	added bool   // the controller has no row of that key
	takes bool   // something away
}

// collected is what is to be published for a controller.
type collected struct {
	before published
	above  uint64 // the next version is above this one
	secret Secret
	fresh  bool // nothing that was published before is of use: a snapshot is made
	words  allowlist.Rules
	head   uint64
	mark   string // of the head
	// other says that the lines of the audit by which was published before are not
	// the registry's any more, and reached up to which all was published; 0 then.
	other   bool
	reached uint64

	rows []change // what is left to publish, in the order of their keys
	// profiles are those that rows may name. The first ones are those from before.
	profiles   []profile
	former     []profile
	document   []byte
	documented bool // what was published says the same
	narrowed   bool // a source of rights has lost some
}

// collect gathers what is to be published. It is nil where there is nothing to say
// of a controller and never was. With anew, it is everything.
func (p *Publisher) collect(ctx context.Context, controller string, anew bool) (c *collected, err error) {
	c = new(collected)
	if c.secret, err = p.o.Secret(controller); err != nil {
		return nil, err
	}
	if c.before, err = readPublished(ctx, p.store.r, controller); err != nil {
		return nil, err
	}
	if c.fresh, err = p.useless(ctx, c); err != nil {
		return nil, err
	}
	c.fresh = c.fresh || anew
	same, err := p.same(ctx, c.before)
	if err != nil {
		return nil, err
	}
	if c.other = !same; same {
		c.reached = c.before.head
	}
	if !c.fresh {
		if c.former, err = p.store.profiles(ctx, c.before.list); err != nil {
			return nil, err
		}
	}
	builder := allowlist.NewBuilder(c.secret, sources(c.former))
	found, since, err := p.visit(ctx, c, builder)
	if err != nil {
		return nil, err
	}
	if c.before.version == 0 && len(found) == 0 && len(c.words.Doors) == 0 && c.head == 0 {
		return nil, nil // it has no doors
	}
	if err := p.define(ctx, c, builder.Profiles()); err != nil {
		return nil, err
	}
	return c, p.compare(ctx, c, found, since)
}

// useless says whether a controller can make nothing of what was published before:
// it has another pepper, blobs were lost, or it uses a later version, so that what
// is here was put back to an older state, or the controller had another source.
func (p *Publisher) useless(ctx context.Context, c *collected) (bool, error) {
	all, err := p.store.reported(ctx)
	if err != nil {
		return false, err
	}
	c.above = max(c.before.version, all[c.before.name].version)
	if c.above >= wire.MaxSize {
		return false, fmt.Errorf("the controller says that it uses version %d, above which there is no other", c.above)
	}
	if c.before.version == 0 || c.before.generation != c.secret.Generation() || c.above > c.before.version {
		return true, nil
	}
	list, err := current(ctx, p.store.r, c.before.name)
	if err != nil {
		return false, err
	}
	for _, b := range list {
		switch _, err := os.Stat(p.blobPath(b.ID)); {
		case errors.Is(err, fs.ErrNotExist):
			return true, nil
		case err != nil:
			return false, err
		}
	}
	return len(list) == 0, nil
}

// same says whether the registry is the one by which was published, and not an
// older state of it, which may have gone on in another way.
func (p *Publisher) same(ctx context.Context, before published) (bool, error) {
	mark, err := p.o.Registry.Mark(ctx, before.taken)
	return mark == before.mark, err
}

func sources(profiles []profile) []string {
	names := make([]string, len(profiles))
	for i, v := range profiles {
		names[i] = v.source
	}
	return names
}

// visit asks the registry for rows: those of people who were changed since the
// last version, or all.
func (p *Publisher) visit(ctx context.Context, c *collected, builder *allowlist.Builder) (found []change, since uint64, err error) {
	if !c.fresh {
		since = c.reached
	}
	numbers := make(map[string]int) // of profiles
	visit := func(h *allowlist.Holder) error {
		rows, err := builder.Rows(h)
		if err != nil {
			return err
		}
		number, known := numbers[h.Source]
		if !known {
			// Of somebody of whom all is removed there may be none.
			if number = slices.Index(builder.Profiles(), h.Source); number >= 0 {
				numbers[h.Source] = number
			}
		}
		for i, r := range rows {
			v := change{sentRow: sentRow{key: r.Key, person: h.Entry.Person, profile: number}, entry: r.Entry}
			if r.Entry != nil {
				v.active, v.digest = h.Credentials[i].State == access.Active, c.digest(r.Entry)
			}
			found = append(found, v)
		}
		return nil
	}
	c.words, c.head, err = p.o.Registry.Publish(ctx, c.before.name, since, visit)
	if since > 0 && errors.Is(err, p.o.Forgotten) {
		found, since = nil, 0
		c.words, c.head, err = p.o.Registry.Publish(ctx, c.before.name, since, visit)
	}
	if errors.Is(err, p.o.Unknown) {
		// Its last door is gone, or it never had one.
		if c.before.version == 0 {
			return nil, 0, nil
		}
		c.words, found, since = allowlist.Rules{}, nil, 0
		c.head, err = p.o.Registry.Changes(ctx)
	}
	if err == nil {
		c.mark, err = p.o.Registry.Mark(ctx, c.head)
	}
	if err != nil {
		return nil, 0, err
	}
	return found, since, sortRows(found)
}

// digest tells whether an entry is another. It is keyed, as a name could be
// guessed.
func (c *collected) digest(entry []byte) [16]byte {
	return c.secret.Index(append([]byte("\x00published entry\x00"), entry...))
}

// sortRows puts rows into the order of their keys. Where a key is there to be set
// and to be removed, it comes first that it is set.
func sortRows(rows []change) error {
	slices.SortStableFunc(rows, func(a, b change) int {
		if n := bytes.Compare(a.key[:], b.key[:]); n != 0 {
			return n
		}
		return cmp.Compare(len(b.entry), len(a.entry))
	})
	for i := 1; i < len(rows); i++ {
		if rows[i].key == rows[i-1].key && rows[i].entry != nil {
			return fmt.Errorf("persons %q and %q have the same card or code", rows[i-1].person, rows[i].person)
		}
	}
	return nil
}

// define learns the rights of all profiles, and writes the policy document.
func (p *Publisher) define(ctx context.Context, c *collected, names []string) error {
	rights, err := p.o.Registry.Rights(ctx, c.before.name, names)
	if err != nil && !errors.Is(err, p.o.Unknown) {
		return err
	}
	c.profiles = make([]profile, len(names))
	for i, name := range names {
		c.profiles[i] = profile{name, rights[name]}
	}
	for i, v := range c.former {
		c.narrowed = c.narrowed || loses(v.rights, c.profiles[i].rights)
	}
	if c.document, err = c.write(c.words, c.profiles); err != nil {
		return err
	}
	c.documented = !c.fresh && sha256.Sum256(c.document) == c.before.document
	return nil
}

// write writes a policy document.
func (c *collected) write(words allowlist.Rules, profiles []profile) ([]byte, error) {
	b := allowlist.NewBuilder(c.secret, sources(profiles))
	for _, v := range profiles {
		if err := b.Define(v.source, v.rights); err != nil {
			return nil, err
		}
	}
	return b.Policy(words)
}

// loses says whether some of the rights are not there any more.
func loses(before, after []allowlist.Right) bool {
	return slices.ContainsFunc(before, func(r allowlist.Right) bool { return !slices.Contains(after, r) })
}

// findOneByOne is how many rows are looked up each by itself. With more, all that
// the controller has are read.
const findOneByOne = 5000

// compare keeps the rows that are other than those that the controller has.
func (p *Publisher) compare(ctx context.Context, c *collected, found []change, since uint64) error {
	found = slices.CompactFunc(found, func(a, b change) bool { return a.key == b.key })
	if c.fresh {
		c.rows = slices.DeleteFunc(found, func(v change) bool { return v.entry == nil })
		return nil
	}
	if since > 0 && len(found) <= findOneByOne {
		for _, v := range found {
			old, there, err := p.store.find(ctx, c.before.list, v.key)
			if err != nil {
				return err
			}
			c.keep(v, old, there)
		}
		return nil
	}
	i := 0
	if err := p.store.eachSent(ctx, c.before.list, func(old sentRow) error {
		for ; i < len(found) && bytes.Compare(found[i].key[:], old.key[:]) < 0; i++ {
			c.keep(found[i], sentRow{}, false)
		}
		switch {
		case i < len(found) && found[i].key == old.key:
			c.keep(found[i], old, true)
			i++
		case since == 0: // everything was visited, and this was not there
			c.keep(change{sentRow: old}, old, true)
		}
		return nil
	}); err != nil {
		return err
	}
	for ; i < len(found); i++ {
		c.keep(found[i], sentRow{}, false)
	}
	return nil
}

// keep adds a row if the controller has it otherwise.
func (c *collected) keep(v change, old sentRow, there bool) {
	switch {
	case v.entry == nil && !there:
		return
	case v.entry == nil:
		v.sentRow, v.takes = old, true
	case there && v.digest == old.digest:
		return
	case there:
		v.takes = old.active && !v.active || c.loses(old.profile, v.profile)
	default:
		v.added = true
	}
	c.rows = append(c.rows, v)
}

// loses says whether who had one profile loses rights by having another.
func (c *collected) loses(before, after int) bool {
	if before == after || before >= len(c.former) {
		return false
	}
	return loses(c.former[before].rights, c.profiles[after].rights)
}

// part is what goes into one version.
type part struct {
	snapshot bool
	rows     []change
	document []byte // nil: as it was
	profiles []profile
	words    allowlist.Rules
	urgent   bool
	last     bool // nothing is left after it
	narrow   bool // it only takes away: the rest of it is to be worked out
}

// next takes what goes into the next version; nil: nothing does.
func (c *collected) next(scope Scope, urgentAlone int) *part {
	all := &part{snapshot: c.fresh, rows: c.rows, document: c.document, profiles: c.profiles, words: c.words, last: true}
	if c.fresh {
		if scope == Revocations {
			return nil
		}
		c.rows, c.fresh, c.documented = nil, false, true
		return all
	}
	var takes, others []change
	size := 0
	for _, v := range c.rows {
		if v.takes {
			takes = append(takes, v)
		} else {
			others, size = append(others, v), size+len(v.key)+len(v.entry)
		}
	}
	if c.documented {
		all.document = nil
	}
	all.urgent = len(takes) > 0 || c.narrowed
	switch {
	case scope == Revocations && !all.urgent, len(c.rows) == 0 && c.documented:
		return nil
	case scope == Revocations:
		c.rows, c.narrowed = others, false
		return &part{rows: takes, urgent: true, narrow: true}
	case all.urgent && size > urgentAlone:
		c.rows, c.narrowed, c.documented = others, false, true
		all.rows, all.last = takes, false
		return all
	}
	c.rows, c.narrowed, c.documented = nil, false, true
	return all
}

// makePart makes a version: a snapshot, or a delta from the version before.
func (p *Publisher) makePart(ctx context.Context, c *collected, v *part) (err error) {
	next := c.before
	next.version, next.created, next.generation = c.above+1, p.o.Clock().UTC().Truncate(time.Microsecond), c.secret.Generation()
	next.head, next.taken, next.mark, next.urgent = c.reached, c.head, c.mark, v.urgent
	if v.last {
		next.head = c.head
	}
	if v.narrow {
		if err := c.restrict(v); err != nil {
			return err
		}
	}
	if next.words, err = json.Marshal(v.words); err != nil {
		return err
	}
	if v.document != nil {
		next.document = sha256.Sum256(v.document)
	}
	if v.snapshot {
		err = p.makeSnapshot(ctx, c, v, next)
	} else {
		err = p.makeDelta(ctx, c, v, next)
	}
	if err != nil {
		return err
	}
	c.former, c.above = v.profiles, next.version
	c.before, err = readPublished(ctx, p.store.r, next.name)
	return err
}

// restrict writes the document of a version that only takes away: what doors ask
// for stays as it was, and each source keeps those of its rights that it still
// has. Sources that are new here are those of people who have lost something.
func (c *collected) restrict(v *part) error {
	if err := json.Unmarshal(c.before.words, &v.words); err != nil {
		return fmt.Errorf("what was published: %w", err)
	}
	v.profiles = slices.Clone(c.profiles)
	for i, old := range c.former {
		var both []allowlist.Right
		for _, r := range old.rights {
			if slices.Contains(c.profiles[i].rights, r) {
				both = append(both, r)
			}
		}
		v.profiles[i].rights = both
	}
	for i := len(c.former); i < len(c.profiles); i++ {
		v.profiles[i].rights = slices.DeleteFunc(slices.Clone(v.profiles[i].rights), func(r allowlist.Right) bool { return !named(v.words, r.Schedule) })
	}
	document, err := c.write(v.words, v.profiles)
	if err != nil {
		return err
	}
	if sha256.Sum256(document) != c.before.document {
		v.document = document
	}
	return nil
}

// named says whether the words have a schedule.
func named(words allowlist.Rules, schedule string) bool {
	_, ok := words.Schedules[schedule]
	return ok || schedule == access.AlwaysName
}

// makeSnapshot makes a version that goes on from nothing.
func (p *Publisher) makeSnapshot(ctx context.Context, c *collected, v *part, next published) error {
	blob, err := p.writeBlob(c.secret, next.name, 0, next.version, func(w *wire.BlobWriter) error {
		if err := w.Policy(v.document); err != nil {
			return err
		}
		return writeRows(w, v.rows)
	})
	if err != nil {
		return err
	}
	rows := make([]sentRow, len(v.rows))
	for i := range v.rows {
		rows[i] = v.rows[i].sentRow
	}
	next.rows = uint64(len(rows))
	if next.list, err = p.store.newList(ctx, rows, v.profiles); err == nil {
		err = p.store.transact(ctx, func(tx *sql.Tx) error { return p.announce(ctx, tx, c.before.version, next, blob) })
	}
	if err != nil {
		return errors.Join(err, os.Remove(p.blobPath(blob.ID)), p.store.dropList(context.WithoutCancel(ctx), next.list))
	}
	return nil
}

// makeDelta makes a version that goes on from the one before.
func (p *Publisher) makeDelta(ctx context.Context, c *collected, v *part, next published) error {
	blob, err := p.writeBlob(c.secret, next.name, c.before.version, next.version, func(w *wire.BlobWriter) error {
		if v.document != nil {
			if err := w.Policy(v.document); err != nil {
				return err
			}
		}
		return writeRows(w, v.rows)
	})
	if err != nil {
		return err
	}
	for _, r := range v.rows {
		switch {
		case r.entry == nil:
			next.rows--
		case r.added:
			next.rows++
		}
	}
	err = p.store.transact(ctx, func(tx *sql.Tx) error {
		// First, so that who was overtaken changes nothing.
		if err := p.announce(ctx, tx, c.before.version, next, blob); err != nil {
			return err
		}
		if err := changeSent(ctx, tx, next.list, v.rows); err != nil {
			return err
		}
		return writeProfiles(ctx, tx, next.list, v.profiles)
	})
	if err != nil {
		err = errors.Join(err, os.Remove(p.blobPath(blob.ID)))
	}
	return err
}

func changeSent(ctx context.Context, tx *sql.Tx, list int64, rows []change) error {
	var set []sentRow
	for _, v := range rows {
		if v.entry != nil {
			set = append(set, v.sentRow)
			continue
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM sent WHERE list = $1 AND key = $2`, list, v.key[:]); err != nil {
			return err
		}
	}
	return writeSent(ctx, tx, list, set)
}

// writeRows writes rows in a blob's order: those that are removed, then those that
// are set.
func writeRows(w *wire.BlobWriter, rows []change) error {
	for _, removed := range []bool{true, false} {
		for _, v := range rows {
			if (v.entry == nil) != removed {
				continue
			}
			if err := w.Row(wire.Row{Key: v.key, Entry: v.entry}); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeBlob writes a blob into its file, durably. Nothing names it yet.
func (p *Publisher) writeBlob(s Secret, controller string, from, to uint64, write func(*wire.BlobWriter) error) (b wire.Blob, err error) {
	file := new(lateFile)
	w := wire.NewBlobWriter(file, s.Blobs, controller, from, to)
	path := p.blobPath(w.ID())
	if file.File, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return b, err
	}
	err = write(w)
	if err == nil {
		b, err = w.Close()
	}
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = syncDir(p.blobs())
	}
	if err != nil {
		err = errors.Join(err, os.Remove(path))
	}
	return b, err
}

// lateFile is a file whose name is the blob's, which the writer makes up.
type lateFile struct{ *os.File }

func (f *lateFile) Write(b []byte) (int, error) { return f.File.Write(b) }

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// announce makes a version the newest, in the transaction that brings its rows. A
// snapshot supersedes every blob before it.
func (p *Publisher) announce(ctx context.Context, tx *sql.Tx, before uint64, next published, blob wire.Blob) error {
	switch there, err := readPublished(ctx, tx, next.name); {
	case err != nil:
		return err
	case there.version != before:
		return errOvertaken
	}
	if blob.From == 0 {
		old, err := current(ctx, tx, next.name)
		if err != nil {
			return err
		}
		for _, b := range old {
			if err := supersede(ctx, tx, b, next.created); err != nil {
				return err
			}
		}
	}
	if err := insertBlob(ctx, tx, next.name, blob); err != nil {
		return err
	}
	if err := p.sign(ctx, tx, &next); err != nil {
		return err
	}
	if err := writeController(ctx, tx, before, next); err != nil {
		return err
	}
	return writeMade(ctx, tx, next)
}

// sign signs the manifest of what is published, of the blobs that are there.
func (p *Publisher) sign(ctx context.Context, q queryer, v *published) error {
	a, err := p.o.Authority()
	if err != nil {
		return err
	}
	now := p.o.Clock().UTC().Truncate(time.Second)
	m := wire.Manifest{
		V: wire.Version, Controller: v.name, Version: v.version, Created: v.created, Expires: now.Add(p.o.Valid),
		Generation: v.generation, Count: v.rows, Deltas: []wire.Blob{}, Urgent: v.urgent,
	}
	all, err := current(ctx, q, v.name)
	if err != nil {
		return err
	}
	for _, b := range all {
		if b.From == 0 {
			m.Snapshot = b
		} else {
			m.Deltas = append(m.Deltas, b)
		}
	}
	v.expires, v.key = m.Expires, a.KeyID
	v.manifest, err = m.Sign(a.Manifests)
	return err
}
