package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/internal/spelling"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// scanWords say what a scanner saw. They do not say of whom.
var scanWords = map[biometric.Outcome]string{
	biometric.Matched:  "somebody it keeps",
	biometric.NoMatch:  "nobody it keeps",
	biometric.Fake:     "not alive",
	biometric.TryAgain: "too little was seen",
}

// watchScanner tells whether a scanner can be used, and what it sees as far as
// it can tell by itself.
func watchScanner(ctx context.Context, s biometric.Scanner, see func(context.Context) (string, error), tell teller) {
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() {
		tell := once(tell)
		for ctx.Err() == nil {
			err := s.Watch(ctx, func(fault error) {
				if fault != nil {
					tell(ioEvent{Event: "fault", Detail: fault.Error()})
				} else {
					tell(ioEvent{Event: "ready"})
				}
			})
			if ctx.Err() == nil {
				tell(ioEvent{Event: "fault", Detail: fmt.Sprint(err)})
				rest(ctx)
			}
		}
	})
	for ctx.Err() == nil {
		words, err := see(ctx)
		switch {
		case errors.Is(err, biometric.ErrUnsupported):
			return // there is nothing to see without somebody to compare with
		case err != nil:
			rest(ctx) // Watch tells of it
		case words != "":
			tell(ioEvent{Event: "scan", Detail: words})
		}
	}
}

// identifying sees by comparing with everybody that the scanner keeps; "" is
// nobody.
func identifying(s biometric.Scanner) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		m, err := s.Scan(ctx, nil)
		return scanWords[m.Outcome], err
	}
}

// capturing sees also where a scanner keeps nobody: it takes a finger or an eye
// as for enrolling, and forgets it.
func capturing(s biometric.Scanner, m biometric.Modality) func(context.Context) (string, error) {
	identify := identifying(s)
	return func(ctx context.Context) (string, error) {
		words, err := identify(ctx)
		e, ok := s.(biometric.Enroller)
		if !ok || !errors.Is(err, biometric.ErrUnsupported) {
			return words, err
		}
		c, err := e.Enroll(ctx, biometric.Capture{Part: biometric.Parts(m)[0]})
		if err != nil {
			return "", err
		}
		c.Template.Clear()
		if c.Quality == 0 {
			return "seen", nil
		}
		return fmt.Sprintf("seen, quality %d of 100", c.Quality), nil
	}
}

// scanner has to see a finger or an eye.
func (t *tester) scanner(ctx context.Context, p opened) (string, error) {
	modality := biometric.Modality(p.ioPart.scanner.Factor.String())
	happened, stop := follow(ctx, func(ctx context.Context, tell teller) {
		watchScanner(ctx, p.scanner, capturing(p.scanner, modality), tell)
	})
	defer stop()
	do := "Put a finger on it."
	if modality == biometric.Iris {
		do = "Look into it with your right eye."
	}
	for {
		t.say("   %s (n: nothing happens) [n/s/q] ", do)
		e, answer, err := t.next(ctx, happened)
		if err != nil || answer != "" {
			return answer, err
		}
		t.say("%s\n", spelling.Printable(e.Event+" "+e.Detail))
		if e.Event == "scan" && e.Detail != scanWords[biometric.TryAgain] {
			return visitorlog.TrialPassed, nil
		}
	}
}
