package allowlist

import (
	"fmt"

	"github.com/gatehouse-acs/gatehouse/access"
)

// Book is what a controller's doors would go by, by people instead of cards and in
// memory: to look ahead before anything is published. Add everybody, then Close.
type Book struct {
	builder *Builder
	people  map[string][]page
	compiled
}

type page struct {
	entry   access.Entry
	profile uint64
	by      access.Factor // any of which presents it
}

// NewBook returns an empty Book. The index keys nothing that leaves it.
func NewBook(index Indexer) *Book {
	return &Book{builder: NewBuilder(index, nil), people: make(map[string][]page)}
}

// Add writes a person into the book, as the rows of the controller would have
// them.
func (b *Book) Add(h *Holder) error {
	rows, err := b.builder.Rows(h)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if row.Entry == nil {
			continue
		}
		s, err := decodeEntry(row.Entry)
		if err != nil {
			return fmt.Errorf("person %s: %w", h.Entry.Person, err)
		}
		b.people[h.Entry.Person] = append(b.people[h.Entry.Person], page{s.entry, s.profile, presents(s.format)})
	}
	return nil
}

// Close gives everybody the rights that the words stand for.
func (b *Book) Close(words Rules) error {
	content, err := b.builder.Policy(words)
	if err != nil {
		return err
	}
	if b.compiled, err = parsePolicy(content); err != nil {
		return err
	}
	for _, pages := range b.people {
		for i := range pages {
			pages[i].entry.Rights = b.profiles[pages[i].profile]
		}
	}
	return nil
}

// People is how many people are in the book.
func (b *Book) People() int { return len(b.people) }

// presents are the factors by which a credential is found.
func presents(format string) access.Factor {
	switch format {
	case CodeFormat:
		return access.OneTimeCode
	case BiometricFormat:
		return access.Fingerprint | access.Iris
	}
	return access.Badge
}

// Entries are a person's credentials that any of the factors presents; none: the
// person has none such in the book.
func (b *Book) Entries(person string, by access.Factor) []*access.Entry {
	var entries []*access.Entry
	pages := b.people[person]
	for i := range pages {
		if pages[i].by&by != 0 {
			entries = append(entries, &pages[i].entry)
		}
	}
	return entries
}

// Rules are what a door asks for on the way in or out; nil where the policy says
// nothing of that.
func (b *Book) Rules(door string, side access.Direction) []access.Rule { return b.doors[door][side] }

// Site is what a door asks for beside factors; nil: nothing.
func (b *Book) Site(door string) *access.Door { return b.sites[door] }

// HasDoor reports whether the policy says anything of a door.
func (b *Book) HasDoor(door string) bool { return b.doors[door] != nil || b.sites[door] != nil }
