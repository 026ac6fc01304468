package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/access/allowlist"
	"github.com/gatehouse-acs/gatehouse/internal/decisionview"
	"github.com/spf13/cobra"
)

// situationFlags are how things stand at the door that an explanation is asked
// about, beside the person who is there. The daemon knows; this command asks.
type situationFlags struct {
	threat      uint8
	disabled    string
	where       string
	ago         time.Duration
	occupants   int
	interlocked string
	begun, used bool
	over        bool
	company     []string
}

// outside is what --where says of somebody who is in no area.
const outside = "outside"

func (f *situationFlags) register(cmd *cobra.Command) {
	p := cmd.Flags()
	p.Uint8Var(&f.threat, "threat", 0, "the level of `threat`, 0 to "+strconv.Itoa(int(access.MaxThreat)))
	p.StringVar(&f.disabled, "disabled", "", "as if the door had been disabled by a command, and `why`")
	p.StringVar(&f.where, "where", "", "the `area` that the person went into last, or "+outside+" (default: not known)")
	p.DurationVar(&f.ago, "ago", time.Hour, "how `long` ago that was")
	p.IntVar(&f.occupants, "occupants", 0, "how `many` others are in the area that the door leads into")
	p.StringVar(&f.interlocked, "interlocked", "", "the `door` that is open and must be closed first")
	p.BoolVar(&f.begun, "begun", false, "as if a supervisor had come in today")
	p.BoolVar(&f.used, "code-used", false, "as if the one-time code had been used before")
	p.BoolVar(&f.over, "over", false, "as if the time to give more, or for others to come, were up")
	p.StringSliceVar(&f.company, "company", nil, "the `ids` of those who wait to pass together with the person")
}

// fill fills in all but the company.
func (f *situationFlags) fill(q *access.Query) error {
	if f.threat > uint8(access.MaxThreat) {
		return fmt.Errorf("--threat: %d is above %d", f.threat, access.MaxThreat)
	}
	q.Threat, q.Disabled, q.Occupants, q.Interlocked = access.Threat(f.threat), f.disabled, f.occupants, f.interlocked
	q.Begun, q.CodeUsed, q.Over = f.begun, f.used, f.over
	if f.where != "" {
		q.Where = access.Whereabouts{Area: f.where, Known: true, Ago: f.ago}
	}
	if f.where == outside {
		q.Where.Area = ""
	}
	return nil
}

var errEveryoneFound = errors.New("everyone was found")

// find finds the company on an allowlist, by any credential with which they may
// pass: that they proved who they are is supposed.
func (f *situationFlags) find(ctx context.Context, l *allowlist.List, q *access.Query) error {
	if len(f.company) == 0 {
		return nil
	}
	missing, alone := slices.Clone(f.company), *q
	err := l.Each(ctx, func(c *allowlist.Listed) error {
		n := slices.Index(missing, c.Person)
		if n < 0 || !decisionview.Waits(&alone, &c.Entry) {
			return nil
		}
		missing = slices.Delete(missing, n, n+1)
		q.Company = append(q.Company, &c.Entry)
		if len(missing) == 0 {
			return errEveryoneFound
		}
		return nil
	})
	switch {
	case errors.Is(err, errEveryoneFound):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("--company: %q has no credential on the allowlist that lets them pass here now: give the ids of people who wait at the door", missing[0])
}

// typedCode reads the digits of a one-time code.
func typedCode(stdin io.Reader) (func(*allowlist.List) (*allowlist.Listed, error), error) {
	digits, err := firstLine(stdin)
	if err != nil {
		return nil, err
	}
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return nil, errors.New("--code: give the digits of the code on standard input")
	}
	return func(l *allowlist.List) (*allowlist.Listed, error) { return l.FindCode([]byte(digits)) }, nil
}

// describeSite writes what a door asks beside factors.
func describeSite(s allowlist.Site, areas map[string]allowlist.Area) string {
	var words []string
	say := func(on bool, format string, args ...any) {
		if on {
			words = append(words, fmt.Sprintf(format, args...))
		}
	}
	a := areas[s.Into]
	say(s.Into != "", "into %s", s.Into)
	say(s.OutOf != "", "out of %s", s.OutOf)
	say(a.Passback != "", "%s anti-passback", a.Passback)
	say(a.Timed != "", "not in again within %s", a.Timed)
	say(a.Occupancy > 0, "at most %d in", a.Occupancy)
	say(s.ServerRoom, "server room")
	say(s.TwoPerson, "two persons")
	say(len(s.Interlock) > 0, "only while %s is closed", strings.Join(s.Interlock, " and "))
	say(s.FirstPerson, "a supervisor first")
	say(s.Free != "", "unlocked in %s", s.Free)
	say(s.Disabled != "", "out of use: %s", s.Disabled)
	return strings.Join(words, ", ")
}
