package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	hostKey      = '1' // who may escort
	codeReader   = "b-in"
	codeLight    = "b.indicator"
	visitPurpose = "look at the cooling"

	wordWidth = 14 // of the first column that gatehouse log show prints
)

// escorted is a visitor who comes in by a one-time code, only together with the
// host, and only once.
func (s *site) escorted(ctx context.Context) error {
	code, err := s.expectGuest(ctx)
	if err != nil {
		return err
	}
	host, _ := byKey(hostKey)
	// Whoever follows an escort closely enough passes by them.
	if err := pause(ctx, companyWithin+walkThrough-s.away(codeReader, host)); err != nil {
		return err
	}

	w, err := s.typeCode(code)
	if err != nil {
		return err
	}
	if s.clockUnset {
		_, err := s.outcome(ctx, w, s.ofVisitor(entered))
		return err
	}
	if err := s.asksForCompany(ctx, w); err != nil {
		return err
	}
	if err := s.lights.until(ctx, codeLight, "denied"); err != nil {
		return err
	}
	if _, err := s.outcome(ctx, w, denied("escort_missing")); err != nil {
		return err
	}

	for late := true; late; {
		if w, err = s.typeCode(code); err != nil {
			return err
		}
		if err := s.asksForCompany(ctx, w); err != nil {
			return err
		}
		if err := s.hold(host, codeReader); err != nil {
			return err
		}
		if late, err = s.outcome(ctx, w, entered); err != nil {
			return err
		}
	}
	if err := s.showVisit(ctx, *w.decided.Seq); err != nil {
		return err
	}

	if w, err = s.typeCode(code); err != nil {
		return err
	}
	// Once the CRM has taken a used code back, the door knows it no more.
	if _, err = s.outcome(ctx, w, denied("code_used")); err != nil && (w.decided == nil || w.decided.Reason != "unknown") {
		return err
	}
	s.screen.note("a code opens once")
	return nil
}

// asksForCompany waits until the door asks for somebody to come along.
func (s *site) asksForCompany(ctx context.Context, w *swipe) error {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watching.Go(func() {
		if s.screen.until(ctx, func() bool { return w.decided != nil }) == nil { // it asks nobody any more
			cancel()
		}
	})
	return s.lights.until(ctx, codeLight, "ask_company")
}

// expectGuest plans a visit at the CRM, and returns the code that the visitor is
// given, once the door knows it.
func (s *site) expectGuest(ctx context.Context) (code string, err error) {
	host, _ := byKey(hostKey)
	authoriser, _ := byKey(operatorKey)
	now := time.Now().UTC()
	visit := fmt.Sprintf("visit-%d", now.Unix())
	guest.id = fmt.Sprintf("p-v%d", now.Unix())
	path := filepath.Join(s.dir, "code.txt")
	defer os.Remove(path)
	for _, c := range [][]string{
		{"people", "add", guest.id, "--name", guest.name, "--kind", guest.kind},
		{"visits", "add", visit, "--visitor", guest.id, "--organisation", "Langley Computing", "--host", host.id, "--authoriser", authoriser.id,
			"--purpose", visitPurpose, "--escort-needed", "--door", roomB,
			"--from", now.Add(-time.Minute).Format(minute), "--until", now.Add(time.Hour).Format(minute)},
		{"visits", "code", visit, "--out", path},
	} {
		if _, err := s.change(ctx, "", c...); err != nil {
			return "", err
		}
	}
	digits, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if err := s.known(ctx); err != nil {
		return "", err
	}
	s.screen.note("a visit was planned at the CRM: %s, of %s, who has to be there; the visitor was given a code for %s", guest, host, roomB)
	return strings.TrimSpace(string(digits)), nil
}

// typeCode types a code at the keypad, as the guest.
func (s *site) typeCode(code string) (*swipe, error) {
	w := s.screen.expect(roomB, codeReader, guest)
	return w, s.wires.Type(codeReader, code+"#")
}

// showVisit shows what the record of a passage says of the visit.
func (s *site) showVisit(ctx context.Context, seq uint64) error {
	said, err := tool(ctx, "gatehouse", "log", "show", strconv.FormatUint(seq, 10), "--data", s.doorDir())
	if err != nil {
		return err
	}
	host, _ := byKey(hostKey)
	says := make(map[string]string)
	var lines []string
	for line := range strings.Lines(said) {
		word := strings.TrimSpace(line[:min(len(line), wordWidth)])
		if slices.Contains([]string{"what", "person", "factors", "together with", "host", "purpose", "authoriser"}, word) {
			says[word] = strings.TrimSpace(line[wordWidth:])
			lines = append(lines, "          "+strings.TrimSpace(line))
		}
	}
	if says["host"] != host.id || says["purpose"] != visitPurpose || !strings.HasPrefix(says["together with"], host.id) {
		return fmt.Errorf("the record of a visitor does not say who was visited, what for, and who was there:\n%s", said)
	}
	s.screen.note("what the record says (gatehouse log show %d):\n%s", seq, strings.Join(lines, "\n"))
	return nil
}
