package receiver

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
)

const (
	// NonceFor is how long a nonce is good after it was given out, by the
	// controller's monotonic clock: that, and no date, is what makes a command fresh.
	NonceFor = wire.CommandFor
	// repeatFor is how long the same nonce is given to whoever asks again: a second
	// ask must not spoil the command that is on its way.
	repeatFor = NonceFor / 3
	// skew is how far the CRM's clock and a controller's may be apart, both
	// synchronised, before a command's own dates speak against it.
	skew = 2 * time.Minute
	// keptUsed is of how many used nonces it is known that they were used, and not
	// only that they are not the one that is good.
	keptUsed = 16
)

// Refusal is why a command was not obeyed.
type Refusal string

// The reasons to refuse a command, in the order in which they are looked for.
const (
	Malformed       Refusal = "malformed"        // it cannot be read
	Retained        Refusal = "retained"         // a broker had kept it
	WrongController Refusal = "wrong_controller" // it is addressed to another one
	WrongSignature  Refusal = "wrong_signature"  // the chain does not lead from the pinned root to it
	Replayed        Refusal = "replayed"         // its nonce was used
	WrongNonce      Refusal = "wrong_nonce"      // its nonce was not given out since the start
	Late            Refusal = "late"             // its nonce was given out too long ago
	Expired         Refusal = "expired"          // by its own date
	Early           Refusal = "early"            // by its own date it comes from the future
	UnknownDoor     Refusal = "unknown_door"     // there is no such door here
	Failed          Refusal = "failed"           // the door did not answer, or could not record it
)

// Refusals are all of them, in that order.
func Refusals() []Refusal {
	return []Refusal{Malformed, Retained, WrongController, WrongSignature, Replayed, WrongNonce, Late, Expired, Early, UnknownDoor, Failed}
}

// nonceUsed reports whether what is refused for this reason was signed for the
// nonce that had been given out, and has used it up: there are no more of these
// than nonces.
func (r Refusal) nonceUsed() bool {
	switch r {
	case Late, Expired, Early, UnknownDoor, Failed:
		return true
	}
	return false
}

// refusal is a Refusal with words.
type refusal struct {
	why    Refusal
	detail string
}

func (r *refusal) Error() string { return string(r.why) + ": " + r.detail }

func refuse(why Refusal, format string, args ...any) error {
	return &refusal{why, fmt.Sprintf(format, args...)}
}

// why is the Refusal of an error.
func why(err error) (Refusal, string) {
	var r *refusal
	if errors.As(err, &r) {
		return r.why, r.detail
	}
	return Failed, err.Error()
}

// reading is the controller's clock, read once.
type reading struct {
	monotonic time.Time // of this process alone
	wall      time.Time
	state     access.ClockState
	floor     time.Time // the CRM has vouched for it; zero: none
}

// gate lets each nonce through once. It decides and does nothing: it reads no
// clock, and draws no nonce. A new one knows of no nonce, so that nothing from
// before a restart is obeyed.
type gate struct {
	controller string
	nonce      string // "": none is good
	given      time.Time
	used       []string // the newest last
}

// offered is the nonce that is good; "": none.
func (g *gate) offered(now time.Time) string {
	if g.nonce == "" || now.Sub(g.given) > NonceFor {
		return ""
	}
	return g.nonce
}

// ask has a nonce be good for a while. The fresh one is taken unless there is one
// that was given out just before.
func (g *gate) ask(now time.Time, fresh string) {
	if g.nonce != "" && now.Sub(g.given) <= repeatFor {
		return
	}
	g.nonce, g.given = fresh, now
}

// admit decides on a command whose signature was verified, and uses up its nonce
// whatever else is wrong with it.
func (g *gate) admit(c *wire.Command, now reading) error {
	if c.Controller != g.controller {
		return refuse(WrongController, "it is for %q", c.Controller)
	}
	for _, used := range g.used {
		if used == c.Nonce {
			return refuse(Replayed, "its nonce was used before")
		}
	}
	if g.nonce == "" || subtle.ConstantTimeCompare([]byte(g.nonce), []byte(c.Nonce)) != 1 {
		return refuse(WrongNonce, "its nonce is not the one that was given out")
	}
	g.nonce = ""
	g.used = append(g.used, c.Nonce)
	g.used = g.used[max(0, len(g.used)-keptUsed):]
	// A clock that nothing vouches for says nothing: the nonce has said it.
	believed := now.state == access.ClockSynchronised
	switch age := now.monotonic.Sub(g.given); {
	case age > NonceFor:
		return refuse(Late, "its nonce was given out %v ago", age.Round(time.Second))
	case believed && now.wall.After(c.Expires.Add(skew)), now.floor.After(c.Expires.Add(skew)):
		return refuse(Expired, "it was good until %s: compare the clocks of the CRM and of this controller", c.Expires.Format(time.RFC3339))
	case believed && now.wall.Add(skew).Before(c.Issued):
		return refuse(Early, "it was issued at %s: compare the clocks of the CRM and of this controller", c.Issued.Format(time.RFC3339))
	}
	return nil
}
