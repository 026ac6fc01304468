package fingerprint_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint"
	"github.com/gatehouse-acs/gatehouse/drivers/serial"
)

// told is a module that only tells what it is.
type told struct {
	fingerprint.Module
	serial string
	closed *int
}

func (m told) Info() fingerprint.Info { return fingerprint.Info{Serial: m.serial} }
func (m told) Close() error {
	*m.closed++
	return nil
}

func TestAConnectionIsKeptWithPausesThatGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		failed := errors.New("failed")
		var at []time.Duration
		closed, uses := 0, 0
		found := []string{"", "", "A", "B", "A", "A"} // "": none; B is another one
		ready := []error{nil, failed, nil}            // of the right one
		keep := fingerprint.Keep{
			Open: func(context.Context) (fingerprint.Module, error) {
				at = append(at, time.Since(start))
				serial := found[0]
				if found = found[1:]; serial == "" {
					return nil, failed
				}
				return told{serial: serial, closed: &closed}, nil
			},
			Prepare: func(_ context.Context, m fingerprint.Module) error {
				if m.Info().Serial != "A" {
					t.Errorf("module %q was prepared", m.Info().Serial)
				}
				err := ready[0]
				ready = ready[1:]
				return err
			},
			Use: func(_ context.Context, m fingerprint.Module) error {
				if m.Info().Serial != "A" {
					t.Errorf("module %q was used", m.Info().Serial)
				}
				if uses++; uses == 2 {
					return nil
				}
				return failed
			},
			Backoff: serial.Backoff{First: time.Second, Most: 10 * time.Second},
		}
		if err := keep.Run(t.Context()); err != nil {
			t.Error(err)
		}
		want := []time.Duration{0, time.Second, 3 * time.Second, 4 * time.Second, 6 * time.Second, 10 * time.Second}
		if !slices.Equal(at, want) {
			t.Errorf("opened after %v, not after %v", at, want)
		}
		if uses != 2 || closed != 4 {
			t.Errorf("used %d and closed %d times", uses, closed)
		}
	})
}
