package door

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// Action is what somebody orders.
type Action string

// The actions. Threat, ResetPassback and ResetOccupancy are of the whole
// controller, whichever of its doors is given them.
const (
	UnlockOnce     Action = "unlock"          // for as long as a grant does
	SetThreat      Action = "threat"          // the level from now on; 0: none
	Disable        Action = "disable"         // nobody passes until it is enabled
	Enable         Action = "enable"          // what is disabled by the policy stays so
	Identify       Action = "identify"        // the indicator shows which door it is
	ResetPassback  Action = "reset_passback"  // of one person: nobody knows where they are
	ResetOccupancy Action = "reset_occupancy" // how many are in an area
	GiveCode       Action = "code"            // a guard's code that opens this door once
)

// Order is a command that somebody with the right to it gave. Whoever hands it to
// a door has made sure of that, and that it is fresh.
type Order struct {
	Action   Action
	ID       string // of the command; once for all time
	Operator string // pseudonymous id
	Why      string

	Threat access.Threat // SetThreat: up to access.MaxThreat
	Person string        // ResetPassback, and GiveCode: who passes by it
	Kind   access.Kind   // GiveCode: theirs; "": a visitor
	Host   string        // GiveCode: whom they visit; "": nobody
	Area   string        // ResetOccupancy
	Count  int           // ResetOccupancy: how many are in
	Code   [16]byte      // GiveCode: what CodeIndex makes of the digits
}

// ErrRefused is what Order returns of an order that is not carried out. The
// record says so, too, and why.
var ErrRefused = errors.New("the door refused the order")

// aliveWithin is how long a door may take to notice that it is given an order: what
// waits behind it is not to wait for one that hangs.
const aliveWithin = 2 * time.Second

const (
	done        = "done"
	maxThreats  = "a lockdown holds"
	maxOccupant = 1_000_000
)

// Order carries out an order. It returns when what was ordered is recorded and
// done, or is about to be. An order that is refused is recorded as well, and gives
// ErrRefused. After any other error nothing was done, but that a door which was to
// be disabled is, and a level of threat that was to rise did, until a restart.
func (d *Door) Order(ctx context.Context, o Order) error {
	switch o.Action {
	case SetThreat, ResetPassback, ResetOccupancy: // of all doors, also where this one hangs
	default:
		// Or it would be recorded, and not done.
		soon, cancel := context.WithTimeout(ctx, aliveWithin)
		defer cancel()
		if err := d.Alive(soon); err != nil {
			return err
		}
	}
	switch o.Action {
	case UnlockOnce:
		return d.orderUnlock(ctx, o)
	case SetThreat:
		return d.orderThreat(ctx, o)
	case Disable, Enable:
		return d.orderDisabled(ctx, o)
	case Identify:
		_, err := d.recordOrder(ctx, o, visitorlog.Data{}, nil)
		if err == nil {
			d.postEvent(ctx, IdentifyOrdered{})
		}
		return err
	case ResetPassback:
		_, err := d.recordOrder(ctx, o, visitorlog.Data{}, func(tx *visitorlog.Tx) (string, error) { return d.resetPassback(tx, o) })
		return err
	case ResetOccupancy:
		_, err := d.recordOrder(ctx, o, visitorlog.Data{Area: o.Area}, func(tx *visitorlog.Tx) (string, error) {
			if o.Area == "" || o.Count < 0 || o.Count > maxOccupant {
				return fmt.Sprintf("it takes an area, and a number from 0 to %d", maxOccupant), nil
			}
			return "", setOccupancy(tx, o.Area, o.Count)
		})
		return err
	case GiveCode:
		return d.orderCode(ctx, o)
	}
	_, err := d.recordOrder(ctx, o, visitorlog.Data{}, func(*visitorlog.Tx) (string, error) {
		return fmt.Sprintf("%q is nothing that a door does", o.Action), nil
	})
	return err
}

// recordOrder records an order, and within its transaction what it changes. Enact
// says why it is refused; "": it is done. A nil enact changes nothing.
func (d *Door) recordOrder(ctx context.Context, o Order, data visitorlog.Data, enact func(*visitorlog.Tx) (refusal string, err error)) (seq uint64, err error) {
	var refusal string
	e, err := d.cfg.Log.Append(ctx, func(tx *visitorlog.Tx) (visitorlog.Draft, error) {
		draft := visitorlog.Draft{Type: visitorlog.OperatorAction, Data: data}
		if enact != nil {
			var err error
			if refusal, err = enact(tx); err != nil {
				return visitorlog.Draft{}, err
			}
		}
		result := done
		if refusal != "" {
			result = "refused: " + refusal
			draft.Data = visitorlog.Data{}
		} else if typ, ok := orderTypes[o.Action]; ok {
			draft.Type = typ
		}
		if o.Action != SetThreat {
			draft.Data.Door = d.cfg.Name
		}
		draft.Subject = o.Person
		draft.Data.Command = &visitorlog.Command{
			ID: o.ID, Action: string(o.Action), Operator: o.Operator, Why: o.Why, Result: result,
		}
		return draft, nil
	})
	if err != nil {
		return 0, fmt.Errorf("door %q: order %q was not recorded: %w", d.cfg.Name, o.Action, err)
	}
	d.log.Info("order", "action", string(o.Action), "id", o.ID, "operator", o.Operator, "seq", e.Seq, "refused", refusal)
	if refusal != "" {
		return e.Seq, fmt.Errorf("door %q: %w: %s", d.cfg.Name, ErrRefused, refusal)
	}
	return e.Seq, nil
}

// orderTypes are the records of orders that have one of their own.
var orderTypes = map[Action]visitorlog.Type{
	SetThreat: visitorlog.Lockdown, Disable: visitorlog.DoorDisabled, Enable: visitorlog.DoorDisabled,
}

// orderUnlock records first, and then moves the strike.
func (d *Door) orderUnlock(ctx context.Context, o Order) error {
	at := time.Now()
	heard := func() {}
	seq, err := d.recordOrder(ctx, o, visitorlog.Data{}, func(*visitorlog.Tx) (string, error) {
		heard() // of what was written before, and did not last
		site := d.site()
		switch {
		case d.lockdown.Load() || d.cfg.Neighbours.level() == access.MaxThreat:
			return maxThreats, nil
		case d.whyDisabled() != "":
			return "the door is disabled", nil
		case site != nil && d.cfg.Neighbours.inTheWay(site.Interlock) != "":
			return fmt.Sprintf("door %q must be closed first", d.cfg.Neighbours.inTheWay(site.Interlock)), nil
		}
		heard = d.cfg.Neighbours.open(d.cfg.Name)
		return "", nil
	})
	if err != nil {
		heard()
		return err
	}
	// Whoever gave the order may see what stands in the way; the threat below the
	// highest does not.
	g := &Grant{Sequence: seq, Durable: true, Direction: access.In, Clearance: access.MaxThreat - 1, At: at}
	err = d.ask(ctx, func(l *loop) {
		l.step(UnlockOrdered{Grant: g, TooLate: time.Since(at) > Patience})
		heard()
	})
	if err != nil { // the record says that it was done
		heard()
		wall, _ := d.cfg.Clock.Now()
		d.records.add(&pending{at: time.Now(), wall: wall, cause: g, draft: visitorlog.Draft{
			Type: visitorlog.OperatorAction,
			Data: visitorlog.Data{Door: d.cfg.Name, Detail: "the door stayed locked: it did not answer in time"},
		}})
	}
	return err
}

// orderThreat raises the level at once, and lowers it when that is recorded.
func (d *Door) orderThreat(ctx context.Context, o Order) error {
	n := d.cfg.Neighbours
	n.orders.Lock()
	defer n.orders.Unlock()
	before := n.level()
	if o.Threat > before && o.Threat <= access.MaxThreat {
		n.set(o.Threat)
	}
	active := o.Threat > 0
	_, err := d.recordOrder(ctx, o, visitorlog.Data{Active: &active, Threat: &o.Threat}, func(tx *visitorlog.Tx) (string, error) {
		if o.Threat > access.MaxThreat {
			return fmt.Sprintf("a level of threat is 0 to %d", access.MaxThreat), nil
		}
		return "", tx.Set(threatState, threatBytes(o.Threat))
	})
	if err == nil {
		n.set(o.Threat)
	}
	return err
}

// orderDisabled disables the door at once, and enables it when that is recorded.
func (d *Door) orderDisabled(ctx context.Context, o Order) error {
	n := d.cfg.Neighbours
	n.orders.Lock()
	defer n.orders.Unlock()
	why, active := "", o.Action == Disable
	if active {
		if why = o.Why; why == "" {
			why = "by order"
		}
		d.disabled.Store(&why)
		d.poke()
	}
	_, err := d.recordOrder(ctx, o, visitorlog.Data{Active: &active, Detail: why}, func(tx *visitorlog.Tx) (string, error) {
		return "", tx.Set(disabledStates+d.cfg.Name, []byte(why))
	})
	if err == nil && !active {
		d.disabled.Store(&why)
		d.poke()
	}
	return err
}

// resetPassback forgets where somebody is.
func (d *Door) resetPassback(tx *visitorlog.Tx, o Order) (refusal string, err error) {
	switch {
	case o.Person == "":
		return "it takes a person", nil
	case d.cfg.Secrets == nil:
		return errNoSecrets.Error(), nil
	}
	key := whereKey(d.cfg.Secrets, o.Person)
	sealed, err := tx.Get(key)
	if err != nil {
		return "", err
	}
	if w, err := openWhere(d.cfg.Secrets, key, sealed); err == nil {
		if err := countIn(tx, w.Area, -1); err != nil {
			return "", err
		}
	}
	return "", tx.Set(key, nil)
}
