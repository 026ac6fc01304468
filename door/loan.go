package door

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/gatehouse-acs/gatehouse/access"
)

var (
	// ErrLent is what Lend returns for a side that is lent already.
	ErrLent = errors.New("this side of the door is lent already: wait until the other enrolment has ended")
	// ErrReturned is what a loan's methods return when it is over.
	ErrReturned = errors.New("the door has its readers back")
)

// Loan is one side of a door in the hands of whoever enrols people there. The
// door decides nothing at that side meanwhile, for nobody: a break-glass badge
// opens nothing there either. All else of the door goes on.
type Loan struct {
	door   *Door
	side   access.Direction
	badges chan *access.Entry
	once   sync.Once
	ended  chan struct{}
}

// Lend lends a side of the door until the loan is returned, ctx ends or Run
// ends. An attempt that goes on there is concluded first. It returns ErrLent
// where there is a loan already, and waits while the door does not run.
func (d *Door) Lend(ctx context.Context, side access.Direction) (*Loan, error) {
	s, ok := d.sides[side]
	if !ok {
		return nil, fmt.Errorf("door %q: %q is not a side of it", d.cfg.Name, side)
	}
	loan := &Loan{door: d, side: side, badges: make(chan *access.Entry), ended: make(chan struct{})}
	lent := make(chan bool, 1)
	err := d.ask(ctx, func(l *loop) {
		ok := s.loan.CompareAndSwap(nil, loan)
		lent <- ok
		if ok {
			l.step(Lent{side})
		}
	})
	if err != nil {
		return nil, err
	}
	if !<-lent {
		return nil, fmt.Errorf("door %q: %w", d.cfg.Name, ErrLent)
	}
	context.AfterFunc(ctx, loan.Return)
	return loan, nil
}

// Return gives the side back to the door. Only the first call does anything.
func (l *Loan) Return() {
	l.once.Do(func() {
		close(l.ended)
		// If the door has ended there is nobody to give it back to.
		_ = l.door.ask(context.Background(), func(loop *loop) {
			loop.sides[l.side].loan.Store(nil)
			loop.step(Returned{l.side})
		})
	})
}

// Badge waits for the next badge that is presented at the side, and says whose
// it is: nobody's, nil, if it is not on the allowlist or could not be read.
// Badges that are presented while nobody waits are passed over.
func (l *Loan) Badge(ctx context.Context) (*access.Entry, error) {
	select {
	case e := <-l.badges:
		return e, nil
	case <-l.ended:
		return nil, ErrReturned
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Show shows a pattern where the door has nothing more urgent to show; empty:
// none.
func (l *Loan) Show(p Pattern) {
	// If the door has ended it shows nothing.
	_ = l.door.ask(context.Background(), func(loop *loop) {
		if loop.sides[l.side].loan.Load() == l {
			loop.step(LentShows{l.side, p})
		}
	})
}

// endLoans ends the loans that nobody has returned.
func (d *Door) endLoans() {
	for _, s := range d.sides {
		if loan := s.loan.Load(); loan != nil {
			loan.Return()
		}
	}
}

// offer hands over a badge if somebody waits for one.
func (l *Loan) offer(e *access.Entry) {
	select {
	case l.badges <- e:
	default:
	}
}
