package broker

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestNobodyFillsTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var buf bytes.Buffer
		log := slog.New(newTerse(slog.NewTextHandler(&buf, nil)))
		for range 1000 {
			log.Warn("forbidden", "client", "north-1")
			log.Warn("forbidden", "client", "south-1")
			log.With("client", "west-1").Warn("forbidden")
			log.Warn("something else", "client", "north-1")
		}
		if n := strings.Count(buf.String(), "\n"); n != 4 {
			t.Errorf("%d lines:\n%s", n, buf.String())
		}
		buf.Reset()
		time.Sleep(quietFor)
		log.Warn("forbidden", "client", "north-1")
		if !strings.Contains(buf.String(), "held_back=999") {
			t.Errorf("got %s", buf.String())
		}
	})
}

func TestMemoryOfTheLogIsBounded(t *testing.T) {
	h := newTerse(slog.DiscardHandler)
	for i := range 10 * remembered {
		h.seen.say(saying{"m", fmt.Sprint(i)}, time.Now())
		if n := len(h.seen.said); n > remembered {
			t.Fatalf("%d remembered", n)
		}
	}
}
