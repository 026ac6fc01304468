package rig

import (
	"slices"
	"testing"
	"time"
)

func TestAnOpeningIsAccountedForByAGrantOfItsOwn(t *testing.T) {
	noon := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	grant := func(door string, after time.Duration, change func(*Record)) (r Record) {
		r.Time, r.Data.Door, r.Data.Decision, r.Data.Reason = noon.Add(after), door, "granted", "granted"
		if change != nil {
			change(&r)
		}
		return r
	}
	late := func(reason string) func(*Record) {
		return func(r *Record) {
			occurred := r.Time
			r.Data.Late, r.Data.Occurred, r.Data.Reason = true, &occurred, reason
			r.Time = r.Time.Add(time.Hour)
		}
	}
	opened := Unlock{"a", noon}
	for name, c := range map[string]struct {
		unlocks []Unlock
		records []Record
		left    []Unlock
	}{
		"a grant before it":             {[]Unlock{opened}, []Record{grant("a", -time.Second, nil)}, nil},
		"none":                          {[]Unlock{opened}, nil, []Unlock{opened}},
		"a grant after it":              {[]Unlock{opened}, []Record{grant("a", time.Millisecond, nil)}, []Unlock{opened}},
		"a grant long before it":        {[]Unlock{opened}, []Record{grant("a", -time.Minute, nil)}, []Unlock{opened}},
		"a grant at another door":       {[]Unlock{opened}, []Record{grant("b", -time.Second, nil)}, []Unlock{opened}},
		"a denial":                      {[]Unlock{opened}, []Record{grant("a", -time.Second, func(r *Record) { r.Data.Decision = "denied" })}, []Unlock{opened}},
		"one grant for two":             {[]Unlock{opened, opened}, []Record{grant("a", -time.Second, nil)}, []Unlock{opened}},
		"two grants for one":            {[]Unlock{opened}, []Record{grant("a", -time.Second, nil), grant("a", -2*time.Second, nil)}, nil},
		"a late grant":                  {[]Unlock{opened}, []Record{grant("a", 0, late("granted"))}, []Unlock{opened}},
		"a late break-glass":            {[]Unlock{opened}, []Record{grant("a", 0, late("granted_break_glass"))}, nil},
		"a break-glass written at once": {[]Unlock{opened}, []Record{grant("a", time.Second/2, func(r *Record) { r.Data.Reason = "granted_break_glass" })}, nil},
	} {
		if left := Unaccounted(c.unlocks, c.records); !slices.Equal(left, c.left) {
			t.Errorf("%s: %v are left, want %v", name, left, c.left)
		}
	}
}
