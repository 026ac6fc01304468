package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/config"
	"github.com/gatehouse-acs/gatehouse/internal/spelling"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"github.com/spf13/cobra"
)

const (
	tryUnlocked = 3 * time.Second // the strike, before it is locked again
	maxBy       = 64              // characters of a person's name
)

func newIOTestCmd() *cobra.Command {
	var file, by string
	var demo bool
	cmd := &cobra.Command{
		Use:   "test",
		Short: "Try every part of every door, and record the results",
		Long: `Walk through contacts, buttons, readers, scanners, lights, beepers and strikes
of every door. Where a person has to say what happened the answers are y and n; s skips a
part, q ends. The results, and the name of who tried, become a signed record in
the visitor log: the proof that the controller was commissioned. Before a strike
is unlocked that is recorded too, since no door opens without a record.

The exit status is 1 when a part failed.`,
		Example: `  sudo -u gatehouse gatehouse io test --by "J. Smith, Acme Security"`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkBy(by); err != nil {
				return err
			}
			cfg, err := config.LoadController(file, config.Options{Demo: demo})
			if err != nil {
				return cli.ReportFaults(cmd.ErrOrStderr(), err)
			}
			// Neither a connection that breaks nor Ctrl-Z may leave a strike unlocked.
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGHUP, syscall.SIGTSTP, syscall.SIGQUIT)
			defer stop()
			return commission(ctx, cfg, by, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	configFlag(cmd, &file)
	demoFlag(cmd, &demo)
	cmd.Flags().StringVar(&by, "by", "", "`name` of who tries the parts")
	return cmd
}

// commission lets a person try every part, and records it.
func commission(ctx context.Context, cfg *config.Controller, by string, in io.Reader, out io.Writer) (err error) {
	c, err := openForRecords(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	t := &tester{c: c, by: by, out: out, answers: answers(ctx, in)}
	t.all(ctx)
	return t.record(context.WithoutCancel(ctx)) // also of what was tried before Ctrl-C
}

// openForRecords opens what it takes to write records, and no door. The daemon
// must not run meanwhile.
func openForRecords(ctx context.Context, cfg *config.Controller) (*controller, error) {
	held, err := holdLines(cfg.Data)
	if err != nil {
		return nil, err
	}
	// The log has a hold of its own; this one was only to say it well.
	if err := held.Close(); err != nil {
		return nil, err
	}
	c := &controller{cfg: cfg, log: quiet(), buses: newBuses(cfg, quiet())}
	for _, open := range []func(context.Context) error{c.openKeys, c.openTrust, c.openClock, c.openRecords} {
		if err := open(ctx); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

// checkBy checks the name of a person who does something.
func checkBy(by string) error {
	if n := utf8.RuneCountInString(by); n == 0 || n > maxBy || spelling.Printable(by) != by {
		return fmt.Errorf("--by: give the name of who does it, of 1 to %d printable characters: it stands in the record", maxBy)
	}
	return nil
}

// answers are the lines that a person types, until there are no more.
func answers(ctx context.Context, in io.Reader) <-chan string {
	lines := make(chan string)
	go func() { // a read of a terminal cannot be ended: it lasts as long as the program
		defer close(lines)
		for s := bufio.NewScanner(in); s.Scan(); {
			select {
			case lines <- strings.ToLower(strings.TrimSpace(s.Text())):
			case <-ctx.Done():
				return
			}
		}
	}()
	return lines
}

// tester walks through the parts.
type tester struct {
	c       *controller
	by      string
	out     io.Writer
	answers <-chan string
	trials  []visitorlog.Trial
}

// errEnded ends the walk: the person said so, or is gone.
var errEnded = errors.New("ended")

// all tries every part. What is left when the person ends is skipped.
func (t *tester) all(ctx context.Context) {
	// All are opened before the first is tried: what hangs on one line of readers
	// has to be known before that is spoken on.
	var parts []opened
	for _, p := range ioParts(t.c.cfg) {
		parts = append(parts, t.c.buses.opened(p))
	}
	ended := false
	for _, p := range parts {
		result := visitorlog.TrialSkipped
		if !ended {
			t.say("\n== %s, %s\n", p.door, p.name)
			r, err := t.try(ctx, p)
			switch {
			case errors.Is(err, errEnded):
				ended = true
			case err != nil:
				t.say("   %s\n", spelling.Printable(err.Error()))
				result = visitorlog.TrialFailed
			default:
				result = r
			}
			t.say("   %s\n", result)
		}
		t.trials = append(t.trials, visitorlog.Trial{Door: p.door, Part: p.name, Result: result})
	}
}

// try tries one part. An error other than errEnded is that it does not work.
func (t *tester) try(ctx context.Context, p opened) (result string, err error) {
	switch {
	case p.err != nil:
		return "", p.err
	case p.indicator != nil:
		return t.indicator(ctx, p)
	case p.reader != nil:
		return t.reader(ctx, p)
	case p.scanner != nil:
		return t.scanner(ctx, p)
	case p.input != nil:
		return t.input(ctx, p)
	}
	return t.strike(ctx, p.ioPart)
}

func (t *tester) say(format string, args ...any) { fmt.Fprintf(t.out, format, args...) }

// ask asks for one of the answers; s and q are answers to everything.
func (t *tester) ask(ctx context.Context, question, allowed string) (string, error) {
	for {
		t.say("   %s [%s] ", question, strings.Join(strings.Split(allowed+"sq", ""), "/"))
		select {
		case <-ctx.Done():
			t.say("\n")
			return "", errEnded
		case a, ok := <-t.answers:
			switch {
			case !ok || a == "q":
				return "", errEnded
			case a != "" && len(a) == 1 && strings.Contains(allowed+"s", a):
				return a, nil
			}
		}
	}
}

// judged is the result that an answer of y, n or s stands for.
func judged(answer string) string {
	switch answer {
	case "y":
		return visitorlog.TrialPassed
	case "n":
		return visitorlog.TrialFailed
	}
	return visitorlog.TrialSkipped
}

// strike is unlocked for a while, after that was recorded.
func (t *tester) strike(ctx context.Context, p ioPart) (result string, err error) {
	strike, err := t.c.buses.strike(p.device)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, strike.Lock()) }() // whatever happens
	answer, err := t.ask(ctx, fmt.Sprintf("It will be unlocked for %v, so watch the door. Go?", tryUnlocked), "y")
	if err != nil || answer == "s" {
		return visitorlog.TrialSkipped, err
	}
	if _, err := t.c.records.Append(ctx, func(*visitorlog.Tx) (visitorlog.Draft, error) {
		return visitorlog.Draft{Type: visitorlog.OperatorAction, Data: visitorlog.Data{
			Door: p.door, Detail: fmt.Sprintf("the strike is tried: unlocked for %v, by %s", tryUnlocked, t.by),
		}}, nil
	}); err != nil {
		return "", fmt.Errorf("it stays locked, because that cannot be recorded: %w", err)
	}
	// Nothing is printed until it is locked: a terminal that stands still
	// (Ctrl-S) would keep it unlocked.
	if err := strike.Unlock(); err != nil {
		return "", err
	}
	select {
	case <-time.After(tryUnlocked):
	case <-ctx.Done():
		return "", errEnded
	}
	if err := strike.Lock(); err != nil {
		return "", err
	}
	t.say("   it was unlocked, and is locked again\n")
	answer, err = t.ask(ctx, "Could the door be opened for that time, and not any more?", "yn")
	return judged(answer), err
}

// indicator shows what people see at the door.
func (t *tester) indicator(ctx context.Context, p opened) (result string, err error) {
	defer func() { err = errors.Join(err, p.indicator.Show("idle")) }()
	for _, show := range []struct{ pattern, question string }{
		{"waiting", "It asks somebody to wait. Is that to be seen and heard?"},
		{"granted", "It shows that somebody is let in. Is that to be seen and heard?"},
		{"denied", "It shows that somebody is denied. Is that to be seen and heard?"},
		{"fault", "It shows that something is broken. Is that to be seen and heard?"},
		{"held_warning", "It warns of a door that is held open. Is that to be seen and heard?"},
	} {
		if err := p.indicator.Show(show.pattern); err != nil {
			return "", err
		}
		answer, err := t.ask(ctx, show.question, "yn")
		if err != nil || answer != "y" {
			return judged(answer), err
		}
	}
	return visitorlog.TrialPassed, nil
}

// doing says what a person does to an input.
var doing = map[string]struct{ rest, act string }{
	"contact":  {"Close the door.", "Open the door."},
	"rex":      {"Let go of the exit button.", "Press the exit button, and hold it for a moment."},
	"tamper":   {"Close the cover, as it is to be.", "Open the cover."},
	"lockdown": {"Turn the lockdown switch off.", "Turn the lockdown switch on."},
}

// input has to become inactive, active, and inactive again.
func (t *tester) input(ctx context.Context, p opened) (string, error) {
	happened, stop := follow(ctx, func(ctx context.Context, tell teller) { watchInput(ctx, p.input, tell) })
	defer stop()
	do := doing[p.name]
	// Its state is told at once; what a person is to do follows from it.
	for i, active := 0, ""; ; {
		wants := []struct{ state, words string }{{"inactive", do.rest}, {"active", do.act}, {"inactive", do.rest}}
		for active == wants[i].state {
			if i++; i == len(wants) {
				return visitorlog.TrialPassed, nil
			}
		}
		if active != "" {
			t.say("   %s (n: it makes no difference) [n/s/q] ", wants[i].words)
		}
		e, answer, err := t.next(ctx, happened)
		if err != nil || answer != "" {
			return answer, err
		}
		t.say("%s\n", spelling.Printable(strings.TrimSpace(e.Event+" "+e.Detail)))
		if active = e.Event; active == "fault" {
			active = ""
		}
	}
}

// reader has to read a card that the person knows.
func (t *tester) reader(ctx context.Context, p opened) (string, error) {
	happened, stop := follow(ctx, func(ctx context.Context, tell teller) {
		watchReader(ctx, p.reader, t.c.cfg.Table, p.formats, false, tell)
	})
	defer stop()
	for {
		if words := likelyWrong(p.reader); words != "" {
			t.say("   likely wrong: %s\n", spelling.Printable(words))
		}
		t.say("   Present a card. (n: nothing happens, or it gets no better) [n/s/q] ")
		e, answer, err := t.next(ctx, happened)
		if err != nil || answer != "" {
			return answer, err
		}
		t.say("%s\n", spelling.Printable(e.Event+" "+e.Detail))
		if e.Event != "card" {
			continue
		}
		card, ok := decodeFirst(p.formats, e.read.Frame)
		if e.read.Refused != "" || !ok {
			continue
		}
		last, err := t.ask(ctx, fmt.Sprintf("Does the card's number end in %02d?", card.Number%100), "yn")
		return judged(last), err
	}
}

// follow tells what happens at a part until stop is called, which waits for
// its end.
func follow(ctx context.Context, watch func(context.Context, teller)) (happened <-chan ioEvent, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	events, ended := make(chan ioEvent), make(chan struct{})
	go func() {
		defer close(ended)
		watch(ctx, func(e ioEvent) {
			select {
			case events <- e:
			case <-ctx.Done():
			}
		})
	}()
	return events, func() {
		cancel()
		<-ended
	}
}

// next waits for what happens, or for the person's answer n or s, whose result
// it gives.
func (t *tester) next(ctx context.Context, happened <-chan ioEvent) (e ioEvent, result string, err error) {
	for {
		select {
		case e := <-happened:
			return e, "", nil
		case <-ctx.Done():
			t.say("\n")
			return e, "", errEnded
		case a, ok := <-t.answers:
			switch {
			case !ok || a == "q":
				return e, "", errEnded
			case a == "n" || a == "s":
				return e, judged(a), nil
			}
		}
	}
}

// record writes down what was tried, and says how it went.
func (t *tester) record(ctx context.Context) error {
	count := map[string]int{}
	for _, trial := range t.trials {
		count[trial.Result]++
	}
	passed, failed, skipped := count[visitorlog.TrialPassed], count[visitorlog.TrialFailed], count[visitorlog.TrialSkipped]
	if passed+failed == 0 {
		t.say("\nnothing was tried, and nothing is recorded\n")
		return nil
	}
	entry, err := t.c.records.Append(ctx, func(*visitorlog.Tx) (visitorlog.Draft, error) {
		return visitorlog.Draft{Type: visitorlog.Commissioned, Data: visitorlog.Data{
			Detail: fmt.Sprintf("by %s: %d passed, %d failed, %d not tried", t.by, passed, failed, skipped),
			Trials: t.trials,
		}}, nil
	})
	if err != nil {
		return fmt.Errorf("the results could not be recorded: %w", err)
	}
	t.say("\n%d passed, %d failed, %d not tried: record %d, see gatehouse log show %d\n", passed, failed, skipped, entry.Seq, entry.Seq)
	if failed > 0 {
		return cli.ErrReported
	}
	return nil
}
