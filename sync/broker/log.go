package broker

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	// quietFor is how long the same message about the same client is held back.
	quietFor = 10 * time.Second
	// remembered bounds the memory of what was said.
	remembered = 1024
)

// terse is a slog handler that says the same thing about the same client not
// more often than every quietFor, so that no client can fill the log, and then
// adds how often it was held back.
type terse struct {
	slog.Handler
	client string
	seen   *seen
}

type seen struct {
	mu   sync.Mutex
	said map[saying]*said
}

type saying struct{ message, client string }

type said struct {
	at   time.Time
	held int
}

func newTerse(h slog.Handler) terse {
	return terse{Handler: h, seen: &seen{said: make(map[saying]*said)}}
}

func (t terse) Handle(ctx context.Context, r slog.Record) error {
	key := saying{r.Message, t.client}
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "client" {
			key.client = a.Value.String()
		}
		return true
	})
	held, ok := t.seen.say(key, r.Time)
	if !ok {
		return nil
	}
	if held > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("held_back", held))
	}
	return t.Handler.Handle(ctx, r)
}

func (s *seen) say(key saying, now time.Time) (held int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if before := s.said[key]; before != nil {
		if now.Sub(before.at) < quietFor {
			before.held++
			return 0, false
		}
		held = before.held
	}
	if len(s.said) >= remembered {
		clear(s.said)
	}
	s.said[key] = &said{at: now}
	return held, true
}

func (t terse) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		if a.Key == "client" {
			t.client = a.Value.String()
		}
	}
	t.Handler = t.Handler.WithAttrs(attrs)
	return t
}

func (t terse) WithGroup(name string) slog.Handler {
	t.Handler = t.Handler.WithGroup(name)
	return t
}

// mochiHandler takes what the server logs. What it calls information is of use
// only to its developers; its warnings about single packets are, too, and hold
// the whole packet, payload included, which must not get into a log.
type mochiHandler struct{ slog.Handler }

func (h mochiHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.Handler.Enabled(ctx, demoted(level))
}

func (h mochiHandler) Handle(ctx context.Context, r slog.Record) error {
	out := slog.NewRecord(r.Time, demoted(r.Level), "broker: "+r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		if harmless(a) {
			out.AddAttrs(a)
		}
		return true
	})
	return h.Handler.Handle(ctx, out)
}

func (h mochiHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	kept := make([]slog.Attr, 0, len(attrs))
	for _, a := range attrs {
		if harmless(a) {
			kept = append(kept, a)
		}
	}
	return mochiHandler{h.Handler.WithAttrs(kept)}
}

func (h mochiHandler) WithGroup(name string) slog.Handler {
	return mochiHandler{h.Handler.WithGroup(name)}
}

func demoted(level slog.Level) slog.Level {
	if level >= slog.LevelError {
		return level
	}
	return slog.LevelDebug
}

// harmless lists what may pass: a list of what may not would miss the next
// version's additions.
func harmless(a slog.Attr) bool {
	switch a.Key {
	case "error", "client", "remote", "listener", "hook", "version":
		return true
	}
	return false
}
