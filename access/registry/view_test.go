package registry

import (
	"strings"
	"testing"
	"time"
)

func TestWhoLooksAtPeopleIsInTheAudit(t *testing.T) {
	s := staffed(t)
	looks := func() (n int) {
		for after := uint64(0); ; {
			lines := must(s.Audit(ctx, AuditQuery{After: after, Kind: KindPerson}))(t)
			if len(lines) == 0 {
				return n
			}
			for _, l := range lines {
				if after = l.Seq; l.Action == "view" {
					n++
				}
			}
		}
	}
	for _, step := range []struct {
		what  string
		later time.Duration
		v     View
		want  int
	}{
		{"a list", 0, View{By: "guard.1", Kind: KindPerson}, 1},
		{"the same again", time.Minute, View{By: "guard.1", Kind: KindPerson}, 1},
		{"by another", 0, View{By: "guard.2", Kind: KindPerson}, 2},
		{"of others", 0, View{By: "guard.1", Kind: KindPerson, Filter: "group=ops"}, 3},
		{"a person", 0, View{By: "guard.1", Kind: KindPerson, ID: "p-1"}, 4},
		{"that person again", 0, View{By: "guard.1", Kind: KindPerson, ID: "p-1"}, 4},
		{"the list later", 14*time.Minute + time.Second, View{By: "guard.1", Kind: KindPerson}, 5},
	} {
		s.now = s.now.Add(step.later)
		if err := s.Viewed(ctx, step.v); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		if got := looks(); got != step.want {
			t.Errorf("%s: %d looks, want %d", step.what, got, step.want)
		}
	}
	line := must(s.Audit(ctx, AuditQuery{Kind: KindPerson, ID: "p-1"}))(t)
	if last := line[len(line)-1]; last.By != "guard.1" || last.Why != "shown" || last.Version != 0 || last.After != nil {
		t.Errorf("the line is %s", text(t, last))
	}
	wantError(t, s.Viewed(ctx, View{Kind: KindPerson}), "say who changes it")
	// Whatever is asked for is noted, so that nobody looks for so much that it is not.
	if err := s.Viewed(ctx, View{By: "guard.3", Kind: KindPerson, Filter: "group=\x1b\n" + strings.Repeat("é", 200)}); err != nil {
		t.Error(err)
	}
	wantIs(t, s.Viewed(ctx, View{By: "guard.1", Kind: KindPerson, ID: "p-1; \x1b["}), ErrNotFound)
	s.verify()
}
