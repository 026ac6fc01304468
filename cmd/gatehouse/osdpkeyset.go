package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/spf13/cobra"
)

const (
	changeWithin      = 30 * time.Second // of a reader that works
	installWithin     = 5 * time.Minute  // of one that has to be brought and wired
	installWithinMost = 30 * time.Minute
)

func newOSDPKeysetCmd() *cobra.Command {
	var t osdpTarget
	var address int
	var by string
	var install, yes bool
	var within time.Duration
	cmd := &cobra.Command{
		Use:   "keyset",
		Short: "Change the key of a reader, or install its first one",
		Long: `Give a reader a new key, which this controller makes, keeps sealed and never
shows. The reader gets it over the Secure Channel that its present key makes.
Both keys are kept until the reader has proved which of them it has, so that
power may fail at any moment.

A new reader has the default key, which everybody knows. With --install it gets
its first own key over a channel that the default key makes: whoever listens on
the wires at that moment learns the new key. So wire the reader to this
controller on a bench, with nothing else on the line, and mount it afterwards.
The reader has to come within the time that --within says, and you have to say
yes to what it tells of itself.

That it is done, by whom, and how it went stands in the visitor log.`,
		Example: `  sudo -u gatehouse gatehouse osdp keyset --address 0 --install --by "J. Smith, Acme Security"
  sudo -u gatehouse gatehouse osdp keyset --line rs485-1 --address 3 --by "J. Smith, Acme Security"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if within == 0 {
				if within = changeWithin; install {
					within = installWithin
				}
			}
			if within < 0 || within > installWithinMost {
				return fmt.Errorf("--within: %v is not above 0 and at most %v", within, installWithinMost)
			}
			if yes && !install {
				return errors.New("--yes answers a question that only --install asks")
			}
			if err := checkBy(by); err != nil {
				return err
			}
			cfg, line, err := t.find(cmd)
			if err != nil {
				return err
			}
			reader, err := line.one(address)
			if err != nil {
				return err
			}
			if reader.clearText {
				return fmt.Errorf("the configuration says clear_text = true of address %d: take that out first, or its key is of no use", reader.address)
			}
			p, err := openProvisioner(cmd.Context(), cfg, line, by, cmd.OutOrStdout())
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, p.Close()) }()
			ctx, stop := context.WithTimeout(cmd.Context(), within)
			defer stop()
			if !install {
				return p.changeKey(ctx, reader)
			}
			confirm := func(question string) error { return confirmed(ctx, cmd.InOrStdin(), cmd.OutOrStdout(), question) }
			if yes {
				confirm = func(string) error { return nil }
			}
			return p.installKey(ctx, reader, within, confirm)
		},
	}
	t.flags(cmd)
	addressFlag(cmd, &address)
	cmd.Flags().StringVar(&by, "by", "", "`name` of who does it")
	cmd.Flags().BoolVar(&install, "install", false, "the reader is new: use the default key, which everybody knows")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask whether it is the right reader")
	cmd.Flags().DurationVar(&within, "within", 0, fmt.Sprintf("`time` that it may take, at most %v (default %v, with --install %v)", installWithinMost, changeWithin, installWithin))
	return cmd
}

// confirmed asks a person, until ctx ends.
func confirmed(ctx context.Context, in io.Reader, out io.Writer, question string) error {
	type answer struct {
		yes, asked bool
		err        error
	}
	answers := make(chan answer, 1)
	go func() { // a read of a terminal cannot be ended: it lasts as long as the program
		yes, asked, err := cli.Confirm(in, out, question)
		answers <- answer{yes, asked, err}
	}()
	select {
	case <-ctx.Done():
		return errors.New("nobody said yes in time: nothing was sent to the reader")
	case a := <-answers:
		switch {
		case a.err != nil:
			return a.err
		case !a.asked:
			return errors.New("nobody sits at a terminal to say yes: nothing was sent to the reader; give --yes")
		case !a.yes:
			return errors.New("not done: nothing was sent to the reader")
		}
		return nil
	}
}

// newKey makes a key that nobody knows.
func newKey() (key osdp.Key) {
	rand.Read(key[:]) // never fails
	return key
}

// changeKey changes the key of a reader that works.
func (p *provisioner) changeKey(ctx context.Context, r osdpReader) error {
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
	key := newKey()
	defer clear(key[:])
	if err := p.recorded(ctx, r.address, "a new key over the Secure Channel for "+s.ID.String(), func() error {
		return p.explain(r, reader.SetKey(ctx, key))
	}); err != nil {
		return err
	}
	p.say("address %d has a new key, and has proved it: %v\n", r.address, s.ID)
	return nil
}

// explain says what is kept when a key may or may not have arrived.
func (p *provisioner) explain(r osdpReader, err error) error {
	if err == nil {
		return nil
	}
	err = advised(err)
	switch current, next, e := p.ring.For(p.line.name, r.address).Load(); {
	case e != nil:
		return errors.Join(err, e)
	case next == nil:
		return fmt.Errorf("%w; its key is the one that it was", err)
	case current == nil:
		return fmt.Errorf("%w; whether the reader has the new key is not known: it is kept, and tried first when this is done again", err)
	}
	return fmt.Errorf("%w; whether the reader has the new key is not known: both are kept, and the reader proves which it has when the daemon starts or this is done again", err)
}

// installKey gives a reader that is on the default key its first own one.
func (p *provisioner) installKey(ctx context.Context, r osdpReader, within time.Duration, confirm func(question string) error) error {
	current, _, err := p.ring.For(p.line.name, r.address).Load()
	if err != nil {
		// It would keep the new one from being used. To drop it is a person's word,
		// and a record of its own: it may only be the wrong sealing key.
		return fmt.Errorf("%w: see gatehouse keys show, and if it is lost for good: gatehouse osdp forget --address %d", err, r.address)
	}
	bus, err := startBus(ctx, p.line, p.line.peripherals(p.ring, r), nil)
	if err != nil {
		return err
	}
	defer bus.stop()
	reader := bus.Peripherals()[0]
	p.say("waiting up to %v for the reader with address %d on %s at %d baud: Ctrl-C ends\n", within, r.address, p.line.port, p.line.baud)
	s, err := bus.until(ctx, reader, func(s osdp.Status) (bool, error) {
		return s.State == osdp.Secure || s.State == osdp.Unsecured && s.ID != osdp.ID{}, nil
	})
	if err != nil {
		return err
	}
	if s.State == osdp.Secure {
		return fmt.Errorf("address %d has its own key already, and has proved it: there is nothing to install; without --install it gets another one", r.address)
	}
	if security := s.Capabilities.Get(osdp.FunctionSecurity); s.Capabilities != nil && security.Level&1 == 0 {
		return fmt.Errorf("address %d: %w", r.address, advised(osdp.NAKNoSecurity))
	}
	p.say(`
%v

It gets its key over the default key, which everybody knows: whoever listens on
the wires now learns the new one. Nothing else should be on this line.

`, s.ID)
	if current != nil {
		p.say("A reader at address %d has a key of this controller, and this one does not: it\nwas reset, or it is another one.\n\n", r.address)
	}
	if n := len(p.line.readers); n > 1 {
		p.say("The configuration has %d readers on this line: is this the bench?\n\n", n)
	}
	if err := confirm("Is that the reader in front of you, and shall it get its key?"); err != nil {
		return err
	}
	key := newKey()
	defer clear(key[:])
	if err := p.recorded(ctx, r.address, "a first key over the default key for "+s.ID.String(), func() error {
		return p.explain(r, reader.Install(ctx, key))
	}); err != nil {
		return err
	}
	p.say("address %d has a key of its own, and has proved it\n", r.address)
	return nil
}

func newOSDPForgetCmd() *cobra.Command {
	var t osdpTarget
	var address int
	var by string
	cmd := &cobra.Command{
		Use:   "forget",
		Short: "Forget the key of a reader that is gone",
		Long: `Forget the key of a reader that was taken away, broken or reset. A reader that
still has the key cannot be spoken to afterwards, until it is reset as its maker
says. That it is done, and by whom, stands in the visitor log.`,
		Example: `  sudo -u gatehouse gatehouse osdp forget --line rs485-1 --address 3 --by "J. Smith, Acme Security"`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if err := checkBy(by); err != nil {
				return err
			}
			if err := checkAddress("--address", address); err != nil {
				return err
			}
			cfg, line, err := t.find(cmd)
			if err != nil {
				return err
			}
			p, err := openProvisioner(cmd.Context(), cfg, line, by, cmd.OutOrStdout())
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, p.Close()) }()
			if err := p.recorded(cmd.Context(), byte(address), "its key is forgotten", func() error {
				return p.ring.Forget(line.name, byte(address))
			}); err != nil {
				return err
			}
			p.say("there is no key for address %d on line %q any more\n", address, line.name)
			return nil
		},
	}
	t.flags(cmd)
	cmd.Flags().IntVar(&address, "address", -1, "`address` of the reader, 0 to 126")
	cmd.Flags().StringVar(&by, "by", "", "`name` of who does it")
	return cmd
}
