package fingerprint

import (
	"context"
	"errors"

	"github.com/gatehouse-acs/gatehouse/drivers/serial"
)

// Keep keeps a connection to one module: it opens it, looks whether it is the
// right one, and opens it anew, with pauses that grow, whenever it is lost.
type Keep struct {
	// Open opens the line and the module on it, and leaves nothing open when it
	// fails.
	Open func(context.Context) (Module, error)
	// Serial is the serial number that the module must have. "" takes the first
	// one that answers, and from then on no other.
	Serial string
	// Prepare, if there is one, readies the module when it was connected and is the
	// right one. With an error the module counts as not connected.
	Prepare func(context.Context, Module) error
	// Use uses the module until its context ends or the connection fails.
	Use func(context.Context, Module) error
	// State, if there is one, is told nil when the module is ready, and the error
	// whenever it is not.
	State   func(error)
	Backoff serial.Backoff
}

// Run keeps the connection until its context ends, whose error it returns, or
// Use returns nil.
func (k Keep) Run(ctx context.Context) error {
	want := k.Serial
	for {
		err := k.once(ctx, &want)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if k.State != nil {
			k.State(err)
		}
		if err := k.Backoff.Wait(ctx); err != nil {
			return err
		}
	}
}

func (k *Keep) once(ctx context.Context, want *string) error {
	m, err := Connect(ctx, k.Open, *want)
	if err != nil {
		return err
	}
	if k.Prepare != nil {
		if err := k.Prepare(ctx, m); err != nil {
			return errors.Join(err, m.Close())
		}
	}
	*want = m.Info().Serial
	k.Backoff.Reset()
	if k.State != nil {
		k.State(nil)
	}
	err = k.Use(ctx, m)
	closed := m.Close()
	if err == nil {
		return nil
	}
	return errors.Join(err, closed)
}

// Connect opens a module and makes sure that it is the one that was set up.
func Connect(ctx context.Context, open func(context.Context) (Module, error), serial string) (Module, error) {
	m, err := open(ctx)
	if err != nil {
		return nil, err
	}
	if err := CheckSerial(serial, m.Info()); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}
