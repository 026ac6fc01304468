package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/gatehouse-acs/gatehouse/drivers"
	"github.com/gatehouse-acs/gatehouse/drivers/wiegand"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/config"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"github.com/spf13/cobra"
)

const (
	timingFile      = "timing.json"
	keepTimingEvery = time.Minute
)

// paced is a reader whose timing is learned.
type paced interface {
	Timing() (wiegand.Timing, bool)
	SetTiming(wiegand.Timing) error
}

// timings keeps what was learned of the readers' timing in the data folder: a
// restart must not be the moment at which something else is taken for a
// reader.
type timings struct {
	path    string
	readers map[string]paced
	kept    map[string]wiegand.Timing // by the reader's name
}

// openTimings reads what was learned before. An error is that nothing was.
func openTimings(dir string) (*timings, error) {
	t := &timings{path: filepath.Join(dir, timingFile), readers: map[string]paced{}, kept: map[string]wiegand.Timing{}}
	b, err := os.ReadFile(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	var kept map[string]wiegand.Timing
	if err == nil {
		err = json.Unmarshal(b, &kept)
	}
	if err != nil {
		return t, fmt.Errorf("what was learned of the readers' timing is lost: %w", err)
	}
	maps.Copy(t.kept, kept)
	return t, nil
}

// add gives a reader what was learned of it, and learns from it.
func (t *timings) add(name string, r drivers.Reader) error {
	p, ok := r.(paced)
	if !ok {
		return nil
	}
	t.readers[name] = p
	if known, ok := t.kept[name]; ok {
		if err := p.SetTiming(known); err != nil {
			return fmt.Errorf("reader %q: it is learned anew: %w", name, err)
		}
	}
	return nil
}

// keep writes down what the readers have learned since; how far their timing
// drifted since then only if that is asked for, as it changes with each card.
func (t *timings) keep(drift bool) error {
	now := maps.Clone(t.kept)
	for name, r := range t.readers {
		if learned, ok := r.Timing(); ok && (drift || learned.Learned != now[name].Learned) {
			now[name] = learned
		}
	}
	if maps.Equal(now, t.kept) {
		return nil
	}
	return t.write(now)
}

// forget has a reader learned anew, as one that was exchanged must be.
func (t *timings) forget(name string) error {
	now := maps.Clone(t.kept)
	delete(now, name)
	return t.write(now)
}

func (t *timings) write(now map[string]wiegand.Timing) error {
	b, err := json.Marshal(now)
	if err != nil {
		return err
	}
	if err := keys.Replace(t.path, b); err != nil {
		return fmt.Errorf("the readers' timing is not kept: %w", err)
	}
	t.kept = now
	return nil
}

// run keeps until ctx ends, and once more then.
func (t *timings) run(ctx context.Context, report func(error)) {
	ticker := time.NewTicker(keepTimingEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			report(t.keep(true))
			return
		case <-ticker.C:
			report(t.keep(false))
		}
	}
}

func newIORelearnCmd() *cobra.Command {
	var file, by string
	var demo bool
	cmd := &cobra.Command{
		Use:   "relearn READER",
		Short: "Have the timing of a reader that was exchanged learned anew",
		Long: `Have the timing of a reader learned anew, from the next cards on. The timing
tells the reader from a device that sends in its place, so that this is for a
reader that was exchanged, and is recorded with the name of who did it.`,
		Example: `  sudo -u gatehouse gatehouse io relearn hall-3-in --by "J. Smith, Acme Security"`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if err := checkBy(by); err != nil {
				return err
			}
			cfg, err := config.LoadController(file, config.Options{Demo: demo})
			if err != nil {
				return cli.ReportFaults(cmd.ErrOrStderr(), err)
			}
			c, err := openForRecords(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, c.Close()) }()
			return c.relearn(cmd.Context(), args[0], by, cmd.OutOrStdout())
		},
	}
	configFlag(cmd, &file)
	demoFlag(cmd, &demo)
	cmd.Flags().StringVar(&by, "by", "", "`name` of who does it")
	return cmd
}

func (c *controller) relearn(ctx context.Context, reader, by string, out io.Writer) error {
	door := ""
	for _, p := range ioParts(c.cfg) {
		if p.reader != nil && p.reader.Name == reader {
			door = p.door
		}
	}
	if door == "" {
		return fmt.Errorf("the configuration has no reader %q", reader)
	}
	t, err := openTimings(c.cfg.Data)
	if err != nil {
		fmt.Fprintln(out, err) // and what is lost is learned anew
	}
	if _, known := t.kept[reader]; !known {
		fmt.Fprintf(out, "the timing of reader %s is not learned yet: nothing to do\n", reader)
		return nil
	}
	if _, err := c.records.Append(ctx, func(*visitorlog.Tx) (visitorlog.Draft, error) {
		return visitorlog.Draft{Type: visitorlog.OperatorAction, Data: visitorlog.Data{
			Door: door, Reader: reader, Detail: "its timing is to be learned anew, by " + by,
		}}, nil
	}); err != nil {
		return fmt.Errorf("nothing is changed, because that cannot be recorded: %w", err)
	}
	if err := t.forget(reader); err != nil {
		return err
	}
	fmt.Fprintf(out, "the timing of reader %s will be learned from its next cards\n", reader)
	return nil
}
