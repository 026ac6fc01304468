package enroll

import (
	"context"
	"errors"
	"testing"

	"github.com/gatehouse-acs/gatehouse/biometric"
)

// patient is a sensor at which one scan follows the other, each of which holds
// it until somebody comes.
type patient struct {
	*sensor
	turn     chan struct{}
	scanning chan struct{} // one for each scan that waits
}

func (p *patient) alone(ctx context.Context, f func() error) error {
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
		return f()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *patient) Scan(ctx context.Context, _ []biometric.Reference) (biometric.Match, error) {
	return biometric.Match{}, p.alone(ctx, func() error {
		p.scanning <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	})
}

func (p *patient) About(ctx context.Context) (about biometric.About, err error) {
	err = p.alone(ctx, func() error {
		about, err = p.sensor.About(ctx)
		return err
	})
	return about, err
}

func (p *patient) Delete(ctx context.Context, slot uint32) error {
	return p.alone(ctx, func() error { return p.sensor.Delete(ctx, slot) })
}

func TestADoorThatWaitsForAnybodyKeepsNobodyFromRevoking(t *testing.T) {
	s, own := enrolledSite(t)
	at := &patient{own, make(chan struct{}, 1), make(chan struct{}, 100)}
	door := s.desk.Use("a-finger", at)
	ctx, stop := context.WithCancel(t.Context())
	outcomes, ended := make(chan biometric.Outcome, 100), make(chan error)
	go func() {
		for {
			m, err := door.Scan(ctx, nil)
			if err != nil {
				ended <- err
				return
			}
			outcomes <- m.Outcome
		}
	}()
	<-at.scanning
	must(t, s.desk.Revoke(t.Context(), "ada", "olga", silent{}))
	if len(own.kept()) > 0 || len(s.rows()) > 0 {
		t.Errorf("kept %q, rows %q", own.kept(), s.rows())
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the door's scan ended with %v", err)
	}
	close(outcomes)
	for o := range outcomes {
		if o != biometric.Nobody {
			t.Errorf("the door was told %q", o)
		}
	}
}
