package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/drivers/wiegand"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// learner is a reader whose timing a test teaches.
type learner struct{ learned wiegand.Timing }

func (*learner) Read(ctx context.Context) (badge.Read, error) {
	<-ctx.Done()
	return badge.Read{}, ctx.Err()
}

func (l *learner) Timing() (wiegand.Timing, bool) {
	return l.learned, l.learned != wiegand.Timing{}
}

func (l *learner) SetTiming(t wiegand.Timing) error {
	if err := t.Validate(); err != nil {
		return err
	}
	l.learned = t
	return nil
}

var aPace = wiegand.Timing{Learned: 2 * time.Millisecond, Spacing: 2 * time.Millisecond, Slack: 60 * time.Microsecond, Spread: 40 * time.Microsecond}

func TestAReadersTimingOutlivesARestart(t *testing.T) {
	dir := t.TempDir()
	first, err := openTimings(dir)
	must(t, err)
	a, b := &learner{}, &learner{}
	must(t, first.add("a-in", a))
	must(t, first.add("b-in", b))
	must(t, first.keep(true))
	if _, err := os.Stat(filepath.Join(dir, timingFile)); err == nil {
		t.Error("nothing was learned, and it was written down")
	}
	a.learned = aPace
	ctx, stop := context.WithCancel(t.Context())
	stop()
	first.run(ctx, func(err error) { must(t, err) }) // the end of the daemon

	again, err := openTimings(dir)
	must(t, err)
	a, b = &learner{}, &learner{}
	must(t, again.add("a-in", a))
	must(t, again.add("b-in", b))
	if a.learned != aPace || b.learned != (wiegand.Timing{}) {
		t.Errorf("after the restart: %+v, %+v", a.learned, b.learned)
	}
}

func TestADriftIsNotWrittenWithEachCard(t *testing.T) {
	timings, err := openTimings(t.TempDir())
	must(t, err)
	a := &learner{aPace}
	must(t, timings.add("a-in", a))
	must(t, timings.keep(false))
	a.learned.Spacing += 10 * time.Microsecond
	must(t, timings.keep(false))
	if timings.kept["a-in"] != aPace {
		t.Errorf("kept %+v", timings.kept["a-in"])
	}
	must(t, timings.keep(true))
	if timings.kept["a-in"] != a.learned {
		t.Errorf("at the end: kept %+v", timings.kept["a-in"])
	}
}

func TestATimingThatCannotBeReadIsLearnedAnewAndSaid(t *testing.T) {
	for content, want := range map[string]string{
		`{"a-in":`: "is lost",
		`{"a-in":{"learned":2000000,"spacing":2000000,"slack":-1,"spread":40000}}`: `reader "a-in"`,
	} {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, timingFile), []byte(content), 0o600))
		timings, err := openTimings(dir)
		a := &learner{}
		if e := timings.add("a-in", a); err == nil {
			err = e
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", content, err, want)
		}
		if a.learned != (wiegand.Timing{}) {
			t.Errorf("%s: taken as %+v", content, a.learned)
		}
	}
}

func TestATimingFileWithNothingInItIsNothingLearned(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, timingFile), []byte("null"), 0o600))
	timings, err := openTimings(dir)
	must(t, err)
	must(t, timings.add("a-in", &learner{aPace}))
	must(t, timings.keep(false))
	if timings.kept["a-in"] != aPace {
		t.Errorf("kept %+v", timings.kept)
	}
}

func TestAReaderThatIsExchangedIsLearnedAnewAndThatIsRecorded(t *testing.T) {
	w := newWired(t)
	relearn := func(reader string) (status int, said string) {
		var out bytes.Buffer
		args := []string{"io", "relearn", reader, "--by", "J. Smith", "--demo", "--config", w.file}
		status = cli.Run(t.Context(), newRoot(), args, &out, &out)
		return status, out.String()
	}
	if status, said := relearn("a-in"); status != 0 || !strings.Contains(said, "nothing to do") {
		t.Errorf("with nothing learned: %d, %s", status, said)
	}
	timings, err := openTimings(w.data)
	must(t, err)
	must(t, timings.write(map[string]wiegand.Timing{"a-in": aPace, "b-in": aPace}))
	if status, said := relearn("hall"); status == 0 || !strings.Contains(said, `no reader "hall"`) {
		t.Errorf("another reader: %d, %s", status, said)
	}
	if n := w.count(visitorlog.OperatorAction); n != 0 {
		t.Errorf("%d records of nothing", n)
	}
	if status, said := relearn("a-in"); status != 0 {
		t.Errorf("%d, %s", status, said)
	}
	timings, err = openTimings(w.data)
	must(t, err)
	if _, kept := timings.kept["a-in"]; kept || len(timings.kept) != 1 {
		t.Errorf("kept: %v", timings.kept)
	}
	if n := w.count(visitorlog.OperatorAction); n != 1 {
		t.Errorf("%d records of it", n)
	}
}
