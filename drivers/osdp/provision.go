package osdp

import (
	"context"
	"fmt"
	"time"
)

// SetKey gives a peripheral another key over the Secure Channel that there is
// (KEYSET), and returns once it has proved to have it. The key store keeps the new key before it is
// sent: should anything fail in between, the bus tries both.
func (p *Peripheral) SetKey(ctx context.Context, key Key) error {
	if err := p.checkKey(key); err != nil {
		return err
	}
	return p.sendKey(ctx, key, false)
}

// Install gives a peripheral its first key, over a Secure Channel made with the
// default key. Everybody knows that one: whoever listens on the wires meanwhile
// learns the new key. So it is done once, by a person, with nothing else on the
// line; ctx limits its time. Nothing that the peripheral tells meanwhile is
// passed on.
func (p *Peripheral) Install(ctx context.Context, key Key) error {
	if err := p.checkKey(key); err != nil {
		return err
	}
	set := func(on bool) error {
		return p.bus.call(context.WithoutCancel(ctx), func() {
			if p.install != on {
				p.install = on
				p.restart(time.Now(), nil)
			}
		})
	}
	if err := set(true); err != nil {
		return err
	}
	err := p.sendKey(ctx, key, true)
	if e := set(false); err == nil {
		err = e
	}
	return err
}

func (p *Peripheral) checkKey(key Key) error {
	switch {
	case p.config.Keys == nil:
		return fmt.Errorf("the peripheral with address %d is configured for clear text and has no key", p.Address())
	case key.Equal(DefaultKey()) || key.Equal(Key{}):
		return ErrDefaultKey
	}
	return nil
}

// sendKey sends the key and waits for the channel that it makes.
func (p *Peripheral) sendKey(ctx context.Context, key Key, install bool) error {
	reply, err := p.do(ctx, &job{command: SetKey{key}, install: install})
	if err != nil {
		return err
	}
	if _, ok := reply.(ACK); !ok {
		return unexpected(CodeKEYSET, reply)
	}
	for {
		s, changed := p.snapshot()
		switch s.State {
		case Secure:
			p.mu.Lock()
			proved := p.proved.Equal(key)
			p.mu.Unlock()
			if proved {
				return nil
			}
		case Unsecured:
			return because(ErrUnsecured, s.Err)
		case Offline:
			return because(ErrOffline, s.Err)
		}
		select {
		case <-changed:
		case <-p.bus.stopped:
			return ErrStopped
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// SetAddress gives the peripheral another address (COMSET), and follows it
// there. The caller keeps the address for the next start.
func (p *Peripheral) SetAddress(ctx context.Context, address byte) error {
	if address > MaxAddress {
		return fmt.Errorf("address %#02x is above %#02x", address, MaxAddress)
	}
	if other := p.bus.Peripheral(address); other != nil && other != p {
		return fmt.Errorf("another peripheral has address %d", address)
	}
	baud := uint32(p.bus.config.Baud)
	if err := p.bus.call(ctx, func() { baud = uint32(p.bus.link.baud) }); err != nil {
		return err
	}
	reply, err := p.do(ctx, &job{command: SetComm{address, baud}})
	if err != nil {
		return err
	}
	switch comm, ok := reply.(Comm); {
	case !ok:
		return unexpected(CodeCOMSET, reply)
	case comm.Address != address || comm.Baud != baud:
		return fmt.Errorf("the peripheral goes to address %d at %d baud, not to %d at %d", comm.Address, comm.Baud, address, baud)
	}
	return nil
}
