package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/drivers"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/config"
	"github.com/gatehouse-acs/gatehouse/internal/spelling"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

const (
	redrawEvery = 250 * time.Millisecond
	askAgain    = time.Second // after a part that failed
)

func newIOWatchCmd() *cobra.Command {
	var file string
	var demo, asJSON, numbers bool
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Show every input, card and finger of the configuration as it happens",
		Long: `Show every input of the configuration with its level, every card that its
readers deliver, and what its scanners see, until Ctrl-C: on a terminal as a table that is drawn in place,
elsewhere as one line for each event. Nothing is decided and nothing recorded.
Outputs are left as they are.

Of a card number only the last two digits are shown. --show-numbers shows all of
it to everybody who sees the screen or reads what the output was written to.`,
		Example: "  gatehouse io watch --config /etc/gatehouse/gatehouse.toml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.LoadController(file, config.Options{Demo: demo})
			if err != nil {
				return cli.ReportFaults(cmd.ErrOrStderr(), err)
			}
			held, err := holdLines(cfg.Data)
			if err != nil {
				return err
			}
			defer held.Close()
			if numbers {
				fmt.Fprintln(cmd.ErrOrStderr(), "card numbers are shown in clear, because --show-numbers was given")
			}
			w := watcher{cfg: cfg, numbers: numbers}
			out := cmd.OutOrStdout()
			if f, ok := out.(*os.File); ok && !asJSON && term.IsTerminal(int(f.Fd())) {
				return w.run(cmd.Context(), newTable(f, cfg))
			}
			return w.run(cmd.Context(), &eventLines{w: out, json: asJSON})
		},
	}
	configFlag(cmd, &file)
	demoFlag(cmd, &demo)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print each event as a line of JSON")
	cmd.Flags().BoolVar(&numbers, "show-numbers", false, "show card numbers in clear")
	return cmd
}

// ioEvent is what happened at a part.
type ioEvent struct {
	Time   time.Time `json:"time"`
	Door   string    `json:"door"`
	Part   string    `json:"part"`
	Event  string    `json:"event"` // active, inactive, card, key, scan, ready or fault
	Detail string    `json:"detail,omitempty"`

	// Of a card whose format is known, and only where a person asked for it.
	Card *badge.Credential `json:"card,omitempty"`

	read badge.Read // of a card
}

// teller takes what happens at one part; whose it is and when it was is filled
// in by whoever takes it.
type teller func(ioEvent)

// ioView shows what happens. Its methods are called by one goroutine.
type ioView interface {
	begin(rows []*ioRow) error
	event(e ioEvent) error
	tick() error
	end() error
}

// ioRow is one part with its ways to look at its wires; nil: it has none.
type ioRow struct {
	ioPart
	look   func() (string, error)
	likely func() string // what is probably wrong; empty: nothing
}

// watcher watches the parts of a configuration.
type watcher struct {
	cfg     *config.Controller
	numbers bool
}

func (w *watcher) run(ctx context.Context, view ioView) (err error) {
	b := newBuses(w.cfg, quiet())
	defer func() { err = errors.Join(err, b.Close()) }()
	ctx, stop := context.WithCancel(ctx)
	events := make(chan ioEvent)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer stop()

	var rows []*ioRow
	var start []func()
	for _, p := range ioParts(w.cfg) {
		row := &ioRow{ioPart: p}
		rows = append(rows, row)
		tell := func(e ioEvent) {
			e.Time, e.Door, e.Part = time.Now(), p.door, p.name
			select {
			case events <- e:
			case <-ctx.Done():
			}
		}
		if p.output() {
			continue
		}
		o := b.opened(p)
		if o.err != nil {
			return fmt.Errorf("door %q: %s: %w", p.door, p.name, o.err)
		}
		switch {
		case o.reader != nil:
			row.likely = func() string { return likelyWrong(o.reader) }
			start = append(start, func() { watchReader(ctx, o.reader, w.cfg.Table, o.formats, w.numbers, tell) })
		case o.scanner != nil:
			start = append(start, func() { watchScanner(ctx, o.scanner, identifying(o.scanner), tell) })
		default:
			if l, ok := o.input.(interface{ Look() (string, error) }); ok {
				row.look = l.Look
			}
			start = append(start, func() { watchInput(ctx, o.input, tell) })
		}
	}
	if err := view.begin(rows); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, view.end()) }()
	for _, f := range start {
		watching.Go(f)
	}
	for ticker := time.NewTicker(redrawEvery); ; {
		select {
		case <-ctx.Done():
			ticker.Stop()
			return nil
		case e := <-events:
			err = view.event(e)
		case <-ticker.C:
			err = view.tick()
		}
		if err != nil {
			return err
		}
	}
}

// once tells a fault that lasts only as it begins.
func once(tell teller) teller {
	fault := ""
	return func(e ioEvent) {
		if e.Event == "fault" && e.Detail == fault {
			return
		}
		fault = ""
		if e.Event == "fault" {
			fault = e.Detail
		}
		tell(e)
	}
}

func watchInput(ctx context.Context, in drivers.Input, tell teller) {
	tell = once(tell)
	for ctx.Err() == nil {
		err := in.Watch(ctx, func(active bool) {
			if active {
				tell(ioEvent{Event: "active"})
			} else {
				tell(ioEvent{Event: "inactive"})
			}
		})
		if ctx.Err() == nil {
			tell(ioEvent{Event: "fault", Detail: fmt.Sprint(err)})
			rest(ctx)
		}
	}
}

func watchReader(ctx context.Context, r drivers.Reader, table *badge.Table, formats []*badge.Format, numbers bool, tell teller) {
	tell = once(tell)
	for ctx.Err() == nil {
		read, err := r.Read(ctx)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			tell(ioEvent{Event: "fault", Detail: err.Error()})
			rest(ctx)
		case read.Keypad:
			tell(ioEvent{Event: "key", Detail: fmt.Sprintf("%d bits", read.Frame.Len())})
		default:
			detail, card := cardWords(table, formats, read, numbers)
			tell(ioEvent{Event: "card", Detail: detail, Card: card, read: read})
		}
	}
}

// rest waits before a part that failed is asked again.
func rest(ctx context.Context) {
	select {
	case <-time.After(askAgain):
	case <-ctx.Done():
	}
}

// cardWords says what a reader delivered; the card itself only if its numbers
// may be shown and its format is known.
func cardWords(table *badge.Table, formats []*badge.Format, read badge.Read, numbers bool) (string, *badge.Credential) {
	words := []string{fmt.Sprintf("%d bits", read.Frame.Len())}
	var card *badge.Credential
	if read.Refused != "" {
		words = append(words, "REFUSED: "+read.Refused)
	} else if c, ok := decodeFirst(formats, read.Frame); ok {
		words = append(words, c.String())
		if numbers {
			card = &c
			words[1] = fmt.Sprintf("%s facility %d number %d", c.Format, c.Facility, c.Number)
		}
	} else {
		names := make([]string, len(formats))
		for i, f := range formats {
			names[i] = f.Name()
		}
		words = append(words, "which do not fit "+strings.Join(names, ", "))
		report := table.Identify(read.Frame)
		words = append(words, report.Hints...)
		for _, c := range report.Fits {
			words = append(words, "it would fit "+c.Format)
		}
	}
	if read.Foreign {
		words = append(words, "NOT THE READER'S TIMING")
	}
	return strings.Join(words, "; "), card
}

// likelyWrong is what a reader's wires make probable; empty: nothing, or it
// does not know.
func likelyWrong(r drivers.Reader) string {
	if h, ok := r.(interface{ Health() badge.Health }); ok {
		return h.Health().Likely
	}
	return ""
}

func decodeFirst(formats []*badge.Format, f badge.Frame) (badge.Credential, bool) {
	for _, format := range formats {
		if c, err := format.Decode(f); err == nil {
			return c, true
		}
	}
	return badge.Credential{}, false
}

// eventLines is a view of one line for each event.
type eventLines struct {
	w    io.Writer
	json bool
}

func (*eventLines) begin([]*ioRow) error { return nil }
func (*eventLines) tick() error          { return nil }
func (*eventLines) end() error           { return nil }

func (v *eventLines) event(e ioEvent) error {
	if v.json {
		return cli.PrintJSON(v.w, e)
	}
	text := strings.TrimSpace(e.Event + " " + e.Detail)
	_, err := fmt.Fprintf(v.w, "%s %s, %s: %s\n", e.Time.Format("15:04:05.000"), e.Door, e.Part, spelling.Printable(text))
	return err
}

// table is a view that is drawn in place, on a terminal's other screen.
type table struct {
	f    *os.File
	cfg  *config.Controller
	rows []*ioRow
	last map[string]ioEvent // of each part
	n    map[string]int     // events of each part
}

func newTable(f *os.File, cfg *config.Controller) *table {
	return &table{f: f, cfg: cfg, last: map[string]ioEvent{}, n: map[string]int{}}
}

const (
	otherScreen = "\x1b[?1049h\x1b[?25l"
	ownScreen   = "\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	clearLine   = "\x1b[K"
	clearBelow  = "\x1b[J"
)

func (t *table) begin(rows []*ioRow) error {
	t.rows = rows
	if _, err := fmt.Fprint(t.f, otherScreen); err != nil {
		return err
	}
	return t.tick()
}

func (t *table) event(e ioEvent) error {
	key := e.Door + "\n" + e.Part
	t.last[key] = e
	t.n[key]++
	return t.tick()
}

// tick draws what fits on the terminal.
func (t *table) tick() error {
	width, height, err := term.GetSize(int(t.f.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		width, height = 80, 24
	}
	var b strings.Builder
	b.WriteString(home)
	lines := t.lines(time.Now())
	if len(lines) > height-1 {
		lines = append(lines[:height-2], "(the terminal is too small for the rest)")
	}
	for _, l := range lines {
		b.WriteString(cut(l, width) + clearLine + "\r\n")
	}
	b.WriteString(clearBelow)
	_, err = io.WriteString(t.f, b.String())
	return err
}

// end leaves what was last seen on the screen that the terminal had before.
func (t *table) end() error {
	_, err := fmt.Fprint(t.f, ownScreen, strings.Join(t.lines(time.Now()), "\r\n"), "\r\n")
	return err
}

func (t *table) lines(now time.Time) []string {
	var b strings.Builder
	fmt.Fprintf(&b, "controller %s: Ctrl-C ends\n\n", t.cfg.Name)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "DOOR\tPART\tLINES\tEVENTS\tAGO\tNOW")
	for _, r := range t.rows {
		key := r.door + "\n" + r.name
		e, seen := t.last[key]
		ago, state := "", "nothing yet"
		if seen {
			ago = now.Sub(e.Time).Truncate(time.Second).String()
			state = strings.TrimSpace(e.Event + " " + e.Detail)
		}
		if r.output() {
			state = "left as it is"
		}
		if r.look != nil {
			if wires, err := r.look(); err == nil {
				state += " · " + wires
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", r.door, r.name, strings.Join(r.device.Lines(), " "), t.n[key], ago, spelling.Printable(state))
		if r.likely != nil {
			if words := r.likely(); words != "" {
				fmt.Fprintf(w, "\t\t\t\t\tlikely wrong: %s\n", spelling.Printable(words))
			}
		}
	}
	w.Flush() // into b, which takes everything
	return strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
}

// cut keeps what fits in a width.
func cut(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:max(width-1, 0)]) + "…"
}
