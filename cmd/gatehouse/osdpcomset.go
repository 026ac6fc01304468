package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
	"github.com/spf13/cobra"
)

func newOSDPComsetCmd() *cobra.Command {
	var t osdpTarget
	var address, toAddress, toBaud int
	var by string
	var within time.Duration
	cmd := &cobra.Command{
		Use:   "comset",
		Short: "Give a reader another address, or a line another rate",
		Long: `Give a reader another address (--to-address), or change the baud rate
(--to-baud): of the reader that --address names, or of every reader that the
configuration has on the line. The readers are spoken to as the configuration
says; one that has no key yet gets it first, by "gatehouse osdp keyset --install".
Afterwards this says what to change in the configuration.

That it is done, by whom, and how it went stands in the visitor log.`,
		Example: `  sudo -u gatehouse gatehouse osdp comset --address 0 --to-address 3 --by "J. Smith, Acme Security"
  sudo -u gatehouse gatehouse osdp comset --line rs485-1 --to-baud 115200 --by "J. Smith, Acme Security"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if (toAddress >= 0) == (toBaud != 0) {
				return errors.New("give either --to-address or --to-baud")
			}
			if toBaud != 0 && !slices.Contains(osdp.Bauds, toBaud) {
				return fmt.Errorf("--to-baud: %d is not one of %v", toBaud, osdp.Bauds)
			}
			if toAddress >= 0 {
				if err := checkAddress("--to-address", toAddress); err != nil {
					return err
				}
			}
			if within <= 0 || within > installWithinMost {
				return fmt.Errorf("--within: %v is not above 0 and at most %v", within, installWithinMost)
			}
			if err := checkBy(by); err != nil {
				return err
			}
			cfg, line, err := t.find(cmd)
			if err != nil {
				return err
			}
			readers := line.readers
			if toAddress >= 0 || address >= 0 {
				one, err := line.one(address)
				if err != nil {
					return err
				}
				readers = []osdpReader{one}
			}
			p, err := openProvisioner(cmd.Context(), cfg, line, by, cmd.OutOrStdout())
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, p.Close()) }()
			ctx, stop := context.WithTimeout(cmd.Context(), within)
			defer stop()
			if toAddress >= 0 {
				return p.changeAddress(ctx, readers[0], byte(toAddress))
			}
			return p.changeBaud(ctx, readers, toBaud)
		},
	}
	t.flags(cmd)
	addressFlag(cmd, &address)
	cmd.Flags().IntVar(&toAddress, "to-address", -1, "the reader's new `address`, 0 to 126")
	cmd.Flags().IntVar(&toBaud, "to-baud", 0, "the new `rate`")
	cmd.Flags().StringVar(&by, "by", "", "`name` of who does it")
	cmd.Flags().DurationVar(&within, "within", changeWithin, "`time` that it may take")
	return cmd
}

// changeAddress gives a reader another address. Its keys are kept for both
// until it has proved them at the new one.
func (p *provisioner) changeAddress(ctx context.Context, r osdpReader, to byte) error {
	if to == r.address {
		return fmt.Errorf("--to-address: the reader has address %d already", to)
	}
	if err := p.free(ctx, r, to); err != nil {
		return err
	}
	bus, err := startBus(ctx, p.line, p.line.peripherals(p.ring, r), nil)
	if err != nil {
		return err
	}
	defer bus.stop()
	reader := bus.Peripherals()[0]
	s, err := bus.working(ctx, reader, time.Time{})
	if err != nil {
		return err
	}
	if err := p.recorded(ctx, r.address, fmt.Sprintf("address %d becomes %d for %v", r.address, to, s.ID), func() error {
		if !r.clearText {
			if err := p.ring.Copy(p.line.name, r.address, to); err != nil {
				return fmt.Errorf("%w: gatehouse osdp forget --address %d", err, to)
			}
		}
		began := time.Now()
		if err := reader.SetAddress(ctx, to); err != nil {
			var refused osdp.NAK
			switch {
			case !errors.As(err, &refused):
				return fmt.Errorf("%w; whether the reader went is not known: what keys it has are kept for both addresses, and gatehouse osdp scan tells where it is", advised(err))
			case !r.clearText: // it is where it was
				err = errors.Join(err, p.ring.Forget(p.line.name, to))
			}
			return advised(err)
		}
		if _, err := bus.working(ctx, reader, began); err != nil {
			return fmt.Errorf("it went, and its keys are kept for both addresses: %w", err)
		}
		if r.clearText {
			return nil
		}
		return p.ring.Forget(p.line.name, r.address)
	}); err != nil {
		return err
	}
	p.say("the reader has address %d now\n\nBefore the daemon starts, all of its parts in the configuration have to say\nline = %q, address = %d.\n", to, p.line.name, to)
	return nil
}

// free asks whether an address is free: two readers with one address disturb
// each other, and neither can be told to leave it.
func (p *provisioner) free(ctx context.Context, r osdpReader, address byte) (err error) {
	port, err := openPort(p.line.port, p.line.baud)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, port.Close()) }()
	d := osdp.Discovery{Bauds: []int{p.line.baud}, Addresses: []byte{address}, Checksum: r.checksum, Mark: p.line.mark}
	for f, err := range osdp.Discover(ctx, port, d) {
		if err != nil {
			return fmt.Errorf("%s: %w", p.line.port, err)
		}
		return fmt.Errorf("--to-address: a reader answers at address %d already, %v: if it is not the one that was to go there, choose another address", address, f.ID)
	}
	return nil
}

// changeBaud takes readers and the line to another rate.
func (p *provisioner) changeBaud(ctx context.Context, readers []osdpReader, baud int) error {
	bus, err := startBus(ctx, p.line, p.line.peripherals(p.ring, readers...), nil)
	if err != nil {
		return err
	}
	defer bus.stop()
	for _, reader := range bus.Peripherals() {
		if _, err := bus.working(ctx, reader, time.Time{}); err != nil {
			return fmt.Errorf("no rate was changed, for all have to answer: %w", err)
		}
	}
	what := fmt.Sprintf("the rate becomes %d baud, from %d", baud, p.line.baud)
	change := func() error {
		began := time.Now()
		if err := bus.SetBaud(ctx, baud); err != nil {
			return fmt.Errorf("%w; gatehouse osdp scan tells which rate each reader has now", advised(err))
		}
		for _, reader := range bus.Peripherals() {
			if _, err := bus.working(ctx, reader, began); err != nil {
				return fmt.Errorf("it was told the new rate and does not answer at it: %w", err)
			}
		}
		return nil
	}
	// Each reader has its records around the one change.
	for _, r := range slices.Backward(readers) {
		next := change
		change = func() error { return p.recorded(ctx, r.address, what, next) }
	}
	if err := change(); err != nil {
		return err
	}
	for _, r := range readers {
		p.say("address %d speaks %d baud now\n", r.address, baud)
	}
	p.say("\nBefore the daemon starts, the [[drivers.osdp.line]] of the configuration with\nname = %q has to say baud = %d, and every reader on it has to speak that.\n", p.line.name, baud)
	return nil
}
