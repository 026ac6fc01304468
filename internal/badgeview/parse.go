package badgeview

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/gatehouse-acs/gatehouse/badge"
)

// ParseCard reads a card as a person writes it, FORMAT:facility:number[:issue[:oem]]
// or FORMAT:number where the format has no facility, or as Decode prints it. No
// error has a number.
func ParseCard(table *badge.Table, text string) (badge.Credential, error) {
	if strings.HasPrefix(text, "{") {
		f, c, err := ReadCard(table, text)
		if err != nil {
			return badge.Credential{}, err
		}
		return checked(f, c)
	}
	name, rest, ok := strings.Cut(text, ":")
	if !ok {
		return badge.Credential{}, errors.New("it is no card: write FORMAT:facility:number")
	}
	formats, err := Find(table, []string{name})
	if err != nil {
		return badge.Credential{}, err
	}
	f := formats[0]
	c := f.New()
	fields := []*uint64{&c.Facility, &c.Number, &c.Issue, &c.OEM}
	numbers := strings.Split(rest, ":")
	facility := slices.ContainsFunc(f.Fields(), func(d badge.Field) bool { return d.Name == "facility" && !d.Fixed })
	switch {
	case len(numbers) == 1 && facility:
		return badge.Credential{}, fmt.Errorf("a card of format %s has a facility: write %s:facility:number", f.Name(), f.Name())
	case len(numbers) == 1:
		fields = fields[1:2]
	case len(numbers) > len(fields):
		return badge.Credential{}, fmt.Errorf("the card has %d numbers, at most %d are there", len(numbers), len(fields))
	}
	for i, text := range numbers {
		if *fields[i], err = strconv.ParseUint(text, 10, 64); err != nil {
			return badge.Credential{}, fmt.Errorf("the card's number %d is not a whole number in decimal digits: write FORMAT:facility:number", i+1)
		}
	}
	return checked(f, c)
}

func checked(f *badge.Format, c badge.Credential) (badge.Credential, error) {
	if _, err := f.Encode(c); err != nil {
		return badge.Credential{}, fmt.Errorf("it is no card: %w", err) // which names the bounds, and no number of the card
	}
	return c, nil
}
