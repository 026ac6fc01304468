package publisher

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"

	"github.com/gatehouse-acs/gatehouse/access/allowlist"
)

// Difference is what the next version of a controller would change.
type Difference struct {
	Controller string `json:"controller"`
	// Anew says that nothing that was published before is of use to the controller:
	// everything is sent.
	Anew    bool               `json:"anew,omitempty"`
	People  []PersonDifference `json:"people"`
	Sources []SourceDifference `json:"sources"`
	Words   []WordDifference   `json:"words"`
}

// Empty says that there is nothing to publish.
func (d *Difference) Empty() bool {
	return !d.Anew && len(d.People)+len(d.Sources)+len(d.Words) == 0
}

// PersonDifference is what changes for one person.
type PersonDifference struct {
	Person string  `json:"person"`
	Gains  []Right `json:"gains,omitempty"`
	Loses  []Right `json:"loses,omitempty"`
	// How many credentials are new, gone, or otherwise than before.
	Added   int `json:"added,omitempty"`
	Removed int `json:"removed,omitempty"`
	Changed int `json:"changed,omitempty"`
}

// SourceDifference is what changes for everybody whose rights come from a source,
// such as a group.
type SourceDifference struct {
	Source string  `json:"source"`
	People int     `json:"people"`
	Gains  []Right `json:"gains,omitempty"`
	Loses  []Right `json:"loses,omitempty"`
}

// Right is a right to a door within a schedule.
type Right struct {
	Door     string `json:"door"`
	Schedule string `json:"schedule"`
}

// WordDifference is what changes in what doors ask for.
type WordDifference struct {
	Part   string `json:"part"`   // such as schedules, or doors
	Name   string `json:"name"`   // which one of them
	Change string `json:"change"` // added, removed or changed
}

// Diff says what the next version of a controller would change. It changes nothing.
func (p *Publisher) Diff(ctx context.Context, controller string) (d Difference, err error) {
	d = Difference{Controller: controller, People: []PersonDifference{}, Sources: []SourceDifference{}, Words: []WordDifference{}}
	c, err := p.collect(ctx, controller, false)
	if err != nil || c == nil {
		return d, err
	}
	d.Anew = c.fresh
	if err := p.diffPeople(ctx, c, &d); err != nil {
		return d, err
	}
	for i, before := range c.former {
		v := SourceDifference{Source: before.source, Gains: without(c.profiles[i].rights, before.rights), Loses: without(before.rights, c.profiles[i].rights)}
		if len(v.Gains)+len(v.Loses) == 0 {
			continue
		}
		if v.People, err = p.store.members(ctx, c.before.list, i); err != nil {
			return d, err
		}
		d.Sources = append(d.Sources, v)
	}
	d.Words, err = diffWords(c.before.words, c.words)
	return d, err
}

// diffPeople finds what changes for those whose rows are other than before.
func (p *Publisher) diffPeople(ctx context.Context, c *collected, d *Difference) error {
	byPerson := make(map[string][]change)
	for _, v := range c.rows {
		byPerson[v.person] = append(byPerson[v.person], v)
	}
	for _, person := range slices.Sorted(maps.Keys(byPerson)) {
		var old []sentRow
		if !c.fresh {
			var err error
			if old, err = p.store.ofPerson(ctx, c.before.list, person); err != nil {
				return err
			}
		}
		d.People = append(d.People, c.diffPerson(person, old, byPerson[person]))
	}
	return nil
}

func (c *collected) diffPerson(person string, old []sentRow, changes []change) PersonDifference {
	v := PersonDifference{Person: person}
	var before, after []allowlist.Right
	now := make(map[[16]byte]change)
	for _, row := range changes {
		now[row.key] = row
	}
	for _, row := range old {
		if row.active {
			before = append(before, c.former[row.profile].rights...)
		}
		changed, ok := now[row.key]
		delete(now, row.key)
		switch {
		case !ok && row.active:
			after = append(after, c.profiles[row.profile].rights...)
		case !ok:
		case changed.entry == nil:
			v.Removed++
		default:
			v.Changed++
			if changed.active {
				after = append(after, c.profiles[changed.profile].rights...)
			}
		}
	}
	for _, row := range now {
		v.Added++
		if row.active {
			after = append(after, c.profiles[row.profile].rights...)
		}
	}
	v.Gains, v.Loses = without(after, before), without(before, after)
	return v
}

// without are the rights of one that are not in the other, sorted.
func without(rights, other []allowlist.Right) []Right {
	var out []Right
	for _, r := range rights {
		if !slices.Contains(other, r) {
			out = append(out, Right(r))
		}
	}
	slices.SortFunc(out, func(a, b Right) int {
		return cmp.Or(cmp.Compare(a.Door, b.Door), cmp.Compare(a.Schedule, b.Schedule))
	})
	return slices.Compact(out)
}

// diffWords compares two policies' words, part by part.
func diffWords(before []byte, words allowlist.Rules) ([]WordDifference, error) {
	after, err := json.Marshal(words)
	if err != nil {
		return nil, err
	}
	old, err := parts(before)
	if err != nil {
		return nil, err
	}
	new, err := parts(after)
	if err != nil {
		return nil, err
	}
	all := make(map[[2]string]bool)
	for _, m := range []map[[2]string][]byte{old, new} {
		for k := range m {
			all[k] = true
		}
	}
	list := []WordDifference{}
	for _, k := range slices.SortedFunc(maps.Keys(all), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }) {
		was, is := old[k], new[k]
		what := "changed"
		switch {
		case bytes.Equal(was, is):
			continue
		case was == nil:
			what = "added"
		case is == nil:
			what = "removed"
		}
		list = append(list, WordDifference{k[0], k[1], what})
	}
	return list, nil
}

// parts takes the JSON of a policy's words apart: by part, such as schedules, and
// name.
func parts(words []byte) (map[[2]string][]byte, error) {
	all := make(map[[2]string][]byte)
	if len(words) == 0 {
		return all, nil
	}
	var top map[string]json.RawMessage
	if err := json.Unmarshal(words, &top); err != nil {
		return nil, err
	}
	for part, raw := range top {
		var named map[string]json.RawMessage
		if json.Unmarshal(raw, &named) == nil {
			for name, text := range named {
				all[[2]string{part, name}] = text
			}
			continue
		}
		var list []string
		if err := json.Unmarshal(raw, &list); err != nil {
			return nil, err
		}
		for _, name := range list {
			all[[2]string{part, name}] = []byte(name)
		}
	}
	return all, nil
}
