package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/fields"
)

// Code is a one-time code that a visitor types at one door in the place of a
// badge, within a window in that of the visit. Its digits are shown once, when it
// is issued, kept sealed while it is open, and forgotten after that.
type Code struct {
	ID    string    `json:"code"` // as records name it; it tells nothing of the digits
	Visit string    `json:"visit"`
	Door  string    `json:"door"`
	From  time.Time `json:"from"`
	Until time.Time `json:"until"` // exclusive
	State CodeState `json:"state"`
	Ended time.Time `json:"ended,omitzero"` // when it was used up, withdrawn or had expired

	digits *string // nil: it is not open any more. A pointer, so that nothing prints them
}

// CodeState is what became of a code.
type CodeState string

// The states of a code.
const (
	CodeOpen      CodeState = "open"
	CodeUsed      CodeState = "used"
	CodeWithdrawn CodeState = "withdrawn"
	CodeExpired   CodeState = "expired"
)

// codeDigits is how many digits a code has: of a hundred million, few are open at
// once, and a door that is asked for many locks its keypad.
const codeDigits = 8

// longestCode is how long a code may be open.
const longestCode = 31 * 24 * time.Hour

func (*Code) kind() Kind    { return KindCode }
func (c *Code) key() string { return c.ID }
func (c *Code) secret() any { return &c.digits }

func (c *Code) settle() {
	instant(&c.From)
	instant(&c.Until)
	instant(&c.Ended)
}

func (c *Code) links() []link {
	links := []link{to("visit", KindVisit, c.Visit)}
	if c.State == CodeOpen {
		links = append(links, to("door", KindDoor, c.Door))
	}
	return links
}

// codePrefix begins what the keyed hash of a code is of.
const codePrefix = "\x00code\x00"

func (c *Code) lookup(index Indexer) []byte {
	if c.digits == nil {
		return nil
	}
	sum := index.Index([]byte(codePrefix + *c.digits))
	return sum[:]
}

func (c *Code) due() time.Time {
	if c.State != CodeOpen {
		return time.Time{}
	}
	return c.Until
}

func (c *Code) check(t *tx, _ object, f *faults) error {
	f.name("code", c.ID)
	if !t.guided {
		f.add("code", "codes are issued and withdrawn by `gatehouse-crm visits code`")
	}
	if c.State != CodeOpen {
		return nil
	}
	f.bounds(c.From, c.Until)
	o, err := t.old(objectName{KindVisit, c.Visit})
	switch {
	case errors.Is(err, ErrNotFound): // which is told already
		return nil
	case err != nil:
		return err
	}
	o.value.(*Visit).checkCode(c, f)
	return nil
}

// checkCode holds an open code to its visit.
func (v *Visit) checkCode(c *Code, f *faults) {
	switch {
	case v.State() == VisitClosed:
		f.add("visit", "visit %s is over, and code %s is for it", v.ID, c.ID)
	case !slices.Contains(v.Doors, c.Door):
		f.add("doors", "visit %s is not to door %s, for which code %s is: withdraw the code, or name one of the visit's doors", v.ID, fields.Quote(c.Door), c.ID)
	case c.From.Before(v.From) || c.Until.After(v.Until):
		f.add("until", "code %s would be valid outside of visit %s, which is from %s until %s: withdraw the code, or keep it within the visit",
			c.ID, v.ID, v.From.Format(time.RFC3339), v.Until.Format(time.RFC3339))
	case c.Until.Sub(c.From) > longestCode:
		f.add("until", "code %s would be valid for more than %d days", c.ID, longestCode/(24*time.Hour))
	}
}

// leaves says whether a door may know digits that are forgotten here.
func (c *Code) leaves(after object) bool {
	v, ok := after.(*Code)
	return c.digits != nil && (!ok || v.digits == nil)
}

func (*Code) mayGo() error { return refused("records name it: withdraw it") }

// What the audit says of codes.
const (
	actionIssueCode = "issue_code"
	actionWithdraw  = "withdraw"
	actionUse       = "use"
	actionExpire    = "expire"
)

// CodeOrder says what a code is to be for. A zero time is the visit's.
type CodeOrder struct {
	Visit string
	Door  string // "": the visit's, where it is only one
	From  time.Time
	Until time.Time
}

// IssueCode makes a one-time code for a visit that is not over. The digits are
// returned this once: they are to be shown to whoever asked, and nowhere else.
func (r *Registry) IssueCode(ctx context.Context, c Change, o CodeOrder) (row Row[Code], digits string, err error) {
	err = r.guided(ctx, c, func(t *tx) error {
		before, err := t.old(objectName{KindVisit, o.Visit})
		if err != nil {
			return err
		}
		v := before.value.(*Visit)
		code := Code{ID: NewID("code"), Visit: v.ID, Door: o.Door, From: o.From, Until: o.Until, State: CodeOpen}
		if code.Door == "" && len(v.Doors) == 1 {
			code.Door = v.Doors[0]
		}
		if code.Door == "" {
			return (faults{{"door", "is missing: the visit is to several doors, and a code opens one"}}).of(KindCode, code.ID)
		}
		if code.From.IsZero() {
			code.From = v.From
		}
		if code.Until.IsZero() {
			code.Until = v.Until
		}
		if !t.now.Before(code.Until) {
			return (faults{{"until", "is over already"}}).of(KindCode, code.ID)
		}
		if code.digits, err = t.newDigits(); err != nil {
			return err
		}
		digits = *code.digits
		row, err = r.Codes.create(t, actionIssueCode, code)
		return err
	})
	if err != nil {
		return Row[Code]{}, "", err
	}
	return row, digits, nil
}

// newDigits are those of no open code.
func (t *tx) newDigits() (*string, error) {
	const tries = 16
	for range tries {
		n, err := rand.Int(rand.Reader, big.NewInt(100_000_000))
		if err != nil {
			return nil, err
		}
		digits := fmt.Sprintf("%0*d", codeDigits, n)
		taken, err := t.taken(stored{objectName: objectName{KindCode, ""}, lookup: (&Code{digits: &digits}).lookup(t.r.o.Index)})
		if err != nil {
			return nil, err
		}
		if taken == "" {
			return &digits, nil
		}
	}
	return nil, errors.New("no free code was found: too many are open, withdraw some")
}

// WithdrawCode takes an open code back. Version is as of Update.
func (r *Registry) WithdrawCode(ctx context.Context, c Change, id string, version uint64) (row Row[Code], err error) {
	err = r.guided(ctx, c, func(t *tx) error {
		before, err := t.at(objectName{KindCode, id}, version)
		if err != nil {
			return err
		}
		if s := before.value.(*Code).State; s != CodeOpen {
			return refused("code %q is %s: only an open one is withdrawn", id, s)
		}
		row, err = t.endCode(id, actionWithdraw, CodeWithdrawn, t.now)
		return err
	})
	return row, err
}

// OpenCodes are the codes that are open still, the first to expire first.
func (r *Registry) OpenCodes(ctx context.Context) (codes []Row[Code], err error) {
	err = r.Codes.eachDue(ctx, r.r, time.Time{}, func(row Row[Code]) error {
		codes = append(codes, row)
		return nil
	})
	return codes, err
}

// codeUser is in whose name codes are used up: doors tell of it.
var codeUser = Change{By: "gatehouse-crm", Why: "a door told so"}

// CodeUsed notes that a code was used up at the moment at. That of a code which
// is not open any more, or not there, is no news and no error: doors tell it as
// often as they send a record. A code that was withdrawn or had expired when the
// door heard of that too late becomes a used one.
func (r *Registry) CodeUsed(ctx context.Context, id string, at time.Time) error {
	row, err := r.Codes.Get(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil:
		return err
	case row.Value.State == CodeUsed:
		return nil // without the writer's lock
	}
	return r.guided(ctx, codeUser, func(t *tx) error {
		_, err := t.endCode(id, actionUse, CodeUsed, at)
		return err
	})
}

// endCode ends a code and forgets its digits.
func (t *tx) endCode(id, action string, state CodeState, at time.Time) (Row[Code], error) {
	return t.r.Codes.update(t, action, id, 0, func(c *Code) error {
		if c.State == CodeUsed {
			return nil
		}
		c.State, c.Ended, c.digits = state, at, nil
		return nil
	})
}

// endCodes ends the open codes of a visit.
func (t *tx) endCodes(visit, action string, state CodeState) error {
	return t.eachCode(visit, func(c *Code) error {
		_, err := t.endCode(c.ID, action, state, t.now)
		return err
	})
}

// eachCode calls f with the open codes of a visit.
func (t *tx) eachCode(visit string, f func(*Code) error) error {
	return t.eachNaming(KindCode, objectName{KindVisit, visit}, func(o object) error {
		if c := o.(*Code); c.State == CodeOpen {
			return f(c)
		}
		return nil
	})
}
