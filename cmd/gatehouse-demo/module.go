package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint"
	fingers "github.com/gatehouse-acs/gatehouse/drivers/fingerprint/sim"
	"github.com/spf13/cobra"
)

const moduleHelp = `touch NAME [poor|fake]   hold somebody's finger to the sensor; a fake one only sfm tells from a live one
lift                     take it away again
stored                   which IDs are in use
power on | power off     what is stored stays
fault NAME[:N]           misbehave for all commands, or for the next N; N 0: no more of it
                         drop, drop-reply, flip, truncate, garbage, late, echo, power-loss[:SECONDS]
help, quit`

func newModuleCmd() *cobra.Command {
	var family, link string
	var faults []string
	cmd := &cobra.Command{
		Use:   "module --family zfm|sfm|gt521",
		Short: "Simulate a serial fingerprint module, to try a controller without one",
		Long: `Simulate a serial fingerprint module of one of three families at a pseudo-terminal,
whose name is printed. Fingers are held to it by commands, typed a line each; a
name stands for a finger. What is stored is forgotten at the end, which is Ctrl-C,
the end of input, or quit.

Commands:
` + indented(moduleHelp),
		Example: `  gatehouse-demo module --family zfm --link /tmp/finger
  # in the configuration of a controller, in another terminal:
  #   device = { driver = "fingerprint", family = "zfm", port = "/tmp/finger" }`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runModule(cmd.Context(), cmd.InOrStdin(), &journal{w: cmd.OutOrStdout()}, family, link, faults)
		},
	}
	cmd.Flags().StringVar(&family, "family", "", "`family` of the module: zfm (R503 and others), sfm (Suprema) or gt521 (GT-511C3, GT-521F52)")
	cmd.Flags().StringArrayVar(&faults, "fault", nil, "misbehave from the start, as the command fault; `NAME[:N]`, may be repeated")
	linkFlag(cmd, &link)
	return cmd
}

func newModule(family string) (*fingers.Module, error) {
	switch family {
	case "zfm":
		return fingers.ZFM{Serial: "demo"}.New(), nil
	case "sfm":
		return fingers.SFM{Serial: 1}.New(), nil
	case "gt521":
		return fingers.GT521{Serial: "demo"}.New(), nil
	case "":
		return nil, errors.New("give --family zfm, sfm or gt521")
	}
	return nil, fmt.Errorf("--family: there is no %q: give zfm, sfm or gt521", family)
}

func runModule(ctx context.Context, in io.Reader, say *journal, family, link string, faults []string) error {
	m, err := newModule(family)
	if err != nil {
		return err
	}
	t := &trouble[fingers.Fault]{device: m, parse: fingers.ParseFault, note: say.note}
	defer t.end()
	for _, f := range faults {
		if err := t.begin(f); err != nil {
			return fmt.Errorf("--fault: %w", err)
		}
	}
	s := &sensor{Module: m, trouble: t, note: say.note}
	var lamp fingerprint.Light
	return device{
		serve: func(end io.ReadWriter, rate func() int) { m.Serve(end, rate) },
		ready: func(port string) {
			say.print("a module of family %s at %s", family, port)
			say.print("device = { driver = \"fingerprint\", family = %q, port = %q }", family, port)
			say.print("help shows what can be done to it")
		},
		look: func() {
			if l := m.Lamp(); l != lamp {
				lamp = l
				say.note("lamp %s", lampWords(l))
			}
		},
		do:   s.do,
		help: moduleHelp,
	}.run(ctx, in, say, link)
}

// lampWords says what a lamp with colours shows.
func lampWords(l fingerprint.Light) string {
	colours := []string{"dark", "red", "blue", "purple", "green", "yellow", "cyan", "white"}
	effects := []string{"", ", breathing", ", flashing"}
	if l.Colour == fingerprint.Dark || int(l.Colour) >= len(colours) || int(l.Effect) >= len(effects) {
		return colours[fingerprint.Dark]
	}
	return colours[l.Colour] + effects[l.Effect]
}

// sensor is that of a module, and what is on it.
type sensor struct {
	*fingers.Module
	trouble *trouble[fingers.Fault]
	note    func(format string, args ...any)
	touched bool
	left    time.Time // when the last finger was taken away
}

// do does what was typed.
func (s *sensor) do(words []string) error {
	if known, err := s.trouble.do(words); known {
		return err
	}
	switch words[0] {
	case "touch":
		f := fingers.Finger{}
		switch {
		case len(words) == 2:
		case len(words) == 3 && words[2] == "poor":
			f.Poor = true
		case len(words) == 3 && words[2] == "fake":
			f.Fake = true
		default:
			return errors.New("write: touch NAME, touch NAME poor, or touch NAME fake")
		}
		f.Name = words[1]
		// The one before was away for a while, however soon this was typed.
		s.lift()
		time.Sleep(lifted - time.Since(s.left))
		s.Touch(f)
		s.touched = true
		s.note("%s is on the sensor", strings.Join(words[1:], ", "))
	case "lift":
		s.lift()
		s.note("nothing is on the sensor")
	case "stored":
		s.note("stored: %v", s.Stored())
	default:
		return unknown(words)
	}
	return nil
}

func (s *sensor) lift() {
	s.Lift()
	if s.touched {
		s.touched, s.left = false, time.Now()
	}
}

// indented sets a text off from the one around it.
func indented(text string) string { return "  " + strings.ReplaceAll(text, "\n", "\n  ") }
