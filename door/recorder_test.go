package door

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

func passageOf(seq uint64) *pending {
	now := time.Now()
	return &pending{at: now, wall: now, cause: &Grant{Sequence: seq, Durable: true},
		draft: visitorlog.Draft{Type: visitorlog.PassageEntered, Subject: "ada"}}
}

func TestRecordsWaitInOrderAndThoseThatFindNoRoomAreCounted(t *testing.T) {
	onBench(t, func(t *testing.T) {
		log := newPaper(&journal{})
		log.set(errDisk, 0)
		r := newRecorder("vault", log, slog.New(slog.DiscardHandler))
		var reports []string
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			r.run(ctx, func(err error) { reports = append(reports, fmt.Sprint(err)) })
		}()
		for i := range maxPending + 7 {
			r.add(passageOf(uint64(i)))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n, lost := r.waiting(); n != maxPending || lost != 7 {
			t.Errorf("%d wait, %d are lost", n, lost)
		}
		log.set(nil, 0)
		time.Sleep(maxBackoff)
		synctest.Wait()
		cancel()
		<-ended
		all := log.all()
		if len(all) != maxPending+1 {
			t.Fatalf("%d records", len(all))
		}
		for i, e := range all[:maxPending] {
			if d := e.Record.Data; d.Cause == nil || *d.Cause != uint64(i) || !d.Late {
				t.Fatalf("record %d: %s", i, recordLine(e))
			}
		}
		if last := all[maxPending].Record; last.Type != visitorlog.Gap || !strings.HasPrefix(last.Data.Detail, "7 records could not be written") {
			t.Errorf("the gap is recorded as %+v", last)
		}
		if want := []string{errDisk.Error(), "<nil>"}; !slices.Equal(reports[:2], want) {
			t.Errorf("reported %q first", reports[:2])
		}
	})
}

func TestARecordThatTheLogRefusesDoesNotBlockThoseBehindIt(t *testing.T) {
	onBench(t, func(t *testing.T) {
		log := newPaper(&journal{})
		log.set(fmt.Errorf("%w: too long", visitorlog.ErrDraft), 0)
		var printed bytes.Buffer
		r := newRecorder("vault", log, slog.New(slog.NewTextHandler(&printed, nil)))
		r.add(passageOf(1))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			r.run(ctx, func(error) {})
		}()
		synctest.Wait()
		log.set(nil, 0)
		r.add(passageOf(2))
		synctest.Wait()
		cancel()
		<-ended
		if all := log.all(); len(all) != 1 || *all[0].Record.Data.Cause != 2 {
			t.Errorf("records %v", all)
		}
		if !strings.Contains(printed.String(), "record lost") {
			t.Errorf("the loss is not said: %s", &printed)
		}
	})
}

func TestWhatCannotBeWrittenAtTheEndIsSaid(t *testing.T) {
	onBench(t, func(t *testing.T) {
		log := newPaper(&journal{})
		log.set(errDisk, 0)
		var printed bytes.Buffer
		r := newRecorder("vault", log, slog.New(slog.NewTextHandler(&printed, nil)))
		r.add(passageOf(1))
		r.add(passageOf(2))
		r.flush(flushFor)
		if n := strings.Count(printed.String(), "record lost"); n != 2 {
			t.Errorf("%d losses are said: %s", n, &printed)
		}
	})
}

func TestTheNewestOfWhatIsCoalescedIsWritten(t *testing.T) {
	var c coalescer
	at := func(s int, active bool) *pending {
		p := &pending{at: seconds(float64(s)), key: "tamper"}
		p.draft.Data.Active = &active
		return p
	}
	for i := range burst {
		if _, ok := c.offer(at(0, i%2 == 0)); !ok {
			t.Fatalf("record %d is held back", i)
		}
	}
	for i := range 5 {
		if _, ok := c.offer(at(i, i == 4)); ok {
			t.Fatal("more than the burst is written")
		}
	}
	if due := c.due(seconds(9)); len(due) != 0 {
		t.Errorf("%d are written before their turn", len(due))
	}
	if next := c.next(); !next.Equal(seconds(10)) {
		t.Errorf("the turn comes at %v", next)
	}
	due := c.due(seconds(10))
	if len(due) != 1 || !*due[0].draft.Data.Active || !strings.HasPrefix(due[0].draft.Data.Detail, "4 more") {
		t.Fatalf("due: %+v", due)
	}
	if next := c.next(); !next.IsZero() {
		t.Errorf("nothing waits, but the next turn is at %v", next)
	}
	if more, ok := c.offer(at(1000, false)); !ok || more != "" {
		t.Errorf("after a quiet time: %q, %v", more, ok)
	}
}
