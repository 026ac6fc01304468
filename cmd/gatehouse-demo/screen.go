package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// event is a line of the controller's own log.
type event struct {
	Time      time.Time
	Msg       string
	Door      string
	Reader    string
	Decision  string
	Reason    string
	Person    string
	With      string // whom a person passes together with
	Passage   string
	Factors   string
	Event     string
	Part      string
	Fault     string
	State     string
	Seq       *uint64
	Cause     *uint64
	Active    *bool
	LatencyMS float64 `json:"latency_ms"`
	Size      uint64
	Address   string
	HTTP      string
}

func parseEvent(line []byte) (event, bool) {
	var e event
	err := json.Unmarshal(line, &e)
	return e, err == nil && e.Msg != ""
}

// swipe is a card or a code at a reader, and what became of it.
type swipe struct {
	at     time.Time
	door   string
	reader string
	who    person

	decided   *event
	late      bool // its record came too late for the door
	unlocked  *event
	passage   *event
	receipted time.Duration // from the record to the CRM's receipt; 0: none yet
	done      chan struct{} // closed when the line is on the screen
}

// seq is the last record that the swipe made so far.
func (w *swipe) seq() uint64 {
	if w.passage != nil && w.passage.Seq != nil {
		return *w.passage.Seq
	}
	return *w.decided.Seq
}

// complete says that nothing more is to come but the receipt.
func (w *swipe) complete() bool {
	return w.decided != nil && w.decided.Seq != nil && (w.decided.Decision != "granted" || w.passage != nil)
}

// screen turns the controller's log into one readable line for each swipe and
// each event of a door.
type screen struct {
	w       io.Writer
	colours bool

	mu      sync.Mutex
	swipes  []*swipe // whose line is not on the screen
	events  []event  // of doors, awaiting their receipt
	stored  uint64   // records that the CRM has countersigned
	last    uint64   // the newest record
	cut     bool     // the network is cut
	waited  int      // records that were not countersigned when it came back
	backAt  time.Time
	count   map[string]int
	faulty  map[string]bool // readers and scanners
	settled bool            // everything was connected
	changed chan struct{}   // closed and made anew at each event
}

func newScreen(w io.Writer) *screen {
	f, ok := w.(*os.File)
	return &screen{
		w:       w,
		colours: ok && term.IsTerminal(int(f.Fd())),
		count:   make(map[string]int),
		faulty:  make(map[string]bool),
		changed: make(chan struct{}),
	}
}

// expect tells that a card is about to be presented at a reader.
func (s *screen) expect(door, reader string, who person) *swipe {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &swipe{at: time.Now(), door: door, reader: reader, who: who, done: make(chan struct{})}
	s.swipes = append(s.swipes, w)
	return w
}

// unread tells that the door has decided nothing on a swipe.
func (s *screen) unread(w *swipe) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.swipes, w); i >= 0 && w.decided == nil {
		s.swipes = slices.Delete(s.swipes, i, i+1)
		s.say(fmt.Sprintf("%-13s %-5s  %-28s  the same card was still there: not read again", w.door, w.reader, w.who))
	}
}

// setCut tells that the network is cut, or is whole again.
func (s *screen) setCut(cut bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut = cut
	if cut {
		s.say(s.paint(yellow, "the network is cut: the doors work on, the records wait"))
		return
	}
	s.backAt, s.waited = time.Now(), int(s.last+1-s.stored)
	s.say(s.paint(yellow, fmt.Sprintf("the network is whole again: %d records wait", s.waited)))
}

// feed takes a line of the controller's log.
func (s *screen) feed(e event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.Seq != nil && *e.Seq > s.last {
		s.last = *e.Seq
	}
	switch e.Msg {
	case "decision":
		s.count[e.Decision]++
		for _, w := range s.swipes {
			if w.reader == e.Reader && (w.decided == nil || w.decided.Seq == nil) {
				w.late = w.decided != nil // said without its record before
				w.decided = &e
				break
			}
		}
	case "strike":
		if e.State == "unlocked" && e.Seq != nil {
			s.count["unlocked"]++
			if w := s.bySeq(*e.Seq); w != nil {
				w.unlocked = &e
			}
		}
	case "passage":
		s.count[e.Passage]++
		if e.Cause != nil {
			if w := s.bySeq(*e.Cause); w != nil {
				w.passage = &e
			}
		}
	case "door":
		s.doorEvent(e)
	case "receipt":
		s.stored = max(s.stored, e.Size)
		s.receipt(e)
	}
	s.flush()
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *screen) bySeq(seq uint64) *swipe {
	for _, w := range s.swipes {
		if w.decided != nil && w.decided.Seq != nil && *w.decided.Seq == seq {
			return w
		}
	}
	return nil
}

func (s *screen) doorEvent(e event) {
	if e.Event == "fault" || e.Event == "repaired" {
		s.part(e)
		return
	}
	if e.Seq == nil {
		return
	}
	s.count[e.Event]++
	s.events = append(s.events, e)
}

// part tells that a reader or a scanner is broken, or works again. While the
// wires are being connected all are.
func (s *screen) part(e event) {
	kind, name, _ := strings.Cut(e.Part, " ")
	if kind != "reader" && kind != "scanner" {
		return
	}
	s.faulty[name] = e.Event == "fault"
	if !s.settled {
		return
	}
	if s.faulty[name] {
		s.say(fmt.Sprintf("%-13s %-5s  %-28s  %s", e.Door, name, "", s.paint(red, "broken: "+e.Fault)))
	} else {
		s.say(fmt.Sprintf("%-13s %-5s  %-28s  %s", e.Door, name, "", s.paint(green, "works again")))
	}
}

// settle tells that everything is connected.
func (s *screen) settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settled = true
}

func (s *screen) receipt(e event) {
	for _, w := range s.swipes {
		if w.complete() && w.receipted == 0 && w.seq() < e.Size {
			w.receipted = max(e.Time.Sub(w.last().Time), time.Microsecond)
		}
	}
	if s.waited > 0 && s.stored > s.last {
		s.say(s.paint(yellow, fmt.Sprintf("nothing was lost: %d records countersigned %v after the network came back",
			s.waited, time.Since(s.backAt).Round(10*time.Millisecond))))
		s.waited = 0
	}
}

// last is the newest event of a complete swipe.
func (w *swipe) last() *event {
	if w.passage != nil {
		return w.passage
	}
	return w.decided
}

// flush prints what is complete.
func (s *screen) flush() {
	keep := s.swipes[:0]
	for _, w := range s.swipes {
		if !w.complete() || w.receipted == 0 && !s.cut {
			keep = append(keep, w)
			continue
		}
		s.say(s.line(w))
		close(w.done)
	}
	s.swipes = keep
	left := s.events[:0]
	for _, e := range s.events {
		if *e.Seq >= s.stored && !s.cut {
			left = append(left, e)
			continue
		}
		s.say(s.eventLine(e))
	}
	s.events = left
}

func (s *screen) line(w *swipe) string {
	d := w.decided
	verdict := s.paint(red, fmt.Sprintf("%-30s", "denied: "+words(d.Reason)))
	if d.Decision == "granted" {
		how := "granted"
		if d.Factors != "" {
			how += ", " + strings.ReplaceAll(d.Factors, "+", " and ")
		}
		if with, ok := byID(d.With); ok {
			how += ", with " + with.name
		}
		verdict = s.paint(green, fmt.Sprintf("%-30s", how))
	}
	parts := []string{fmt.Sprintf("record %d after %.1f ms", *d.Seq, d.LatencyMS)}
	if w.unlocked != nil {
		parts = append(parts, fmt.Sprintf("strike after %.1f ms", w.unlocked.LatencyMS))
	}
	if w.passage != nil {
		parts = append(parts, words(w.passage.Passage))
	}
	parts = append(parts, s.receiptWords(w.receipted))
	return fmt.Sprintf("%-13s %-5s  %-28s  %s  %s", w.door, w.reader, w.who, verdict, strings.Join(parts, ", "))
}

func (s *screen) eventLine(e event) string {
	what := words(e.Event)
	if e.Active != nil && !*e.Active {
		what += " over"
	}
	colour := plain
	switch e.Event {
	case "forced", "held", "lockdown", "tamper", "break_glass", "duress":
		colour = red
	}
	who := ""
	if p, ok := byID(e.Person); ok {
		who = p.String()
	}
	waiting := "countersigned"
	if *e.Seq >= s.stored {
		waiting = "waits for the network"
	}
	return fmt.Sprintf("%-13s %-5s  %-28s  %s  record %d, %s", e.Door, "", who, s.paint(colour, fmt.Sprintf("%-30s", what)), *e.Seq, waiting)
}

func (s *screen) receiptWords(after time.Duration) string {
	if after == 0 {
		return "waits for the network"
	}
	return fmt.Sprintf("receipt after %d ms", max(after.Milliseconds(), 1))
}

// note prints a line of the demo's own.
func (s *screen) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.say(s.paint(yellow, fmt.Sprintf(format, args...)))
}

func (s *screen) say(line string) {
	fmt.Fprintf(s.w, "%s  %s\n", time.Now().Format("15:04:05"), line)
}

// until waits until what has come in so far makes ok true.
func (s *screen) until(ctx context.Context, ok func() bool) error {
	for {
		s.mu.Lock()
		good, changed := ok(), s.changed
		s.mu.Unlock()
		if good {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// synced says that all that has happened is countersigned and on the screen.
// s.mu is held.
func (s *screen) synced() bool {
	return s.stored > s.last && len(s.swipes) == 0 && len(s.events) == 0
}

// newest is the newest record.
func (s *screen) newest() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// counted is how often something has happened.
func (s *screen) counted(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count[what]
}

// readers are all readers of the site.
var readers = []string{"a-in", "a-out", "b-in", "b-out"}

// words makes a code readable.
func words(code string) string { return strings.ReplaceAll(code, "_", " ") }

type colour string

const (
	plain  colour = ""
	red    colour = "\x1b[31m"
	green  colour = "\x1b[32m"
	yellow colour = "\x1b[33m"
)

func (s *screen) paint(c colour, text string) string {
	if !s.colours || c == plain {
		return text
	}
	return string(c) + text + "\x1b[0m"
}
