package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

const (
	redrawEvery  = 100 * time.Millisecond
	sayLineEvery = 10 * time.Second // where there is no terminal to draw on
	barWidth     = 30
)

// Progress tells how far long work has come: a bar on a terminal, a line now
// and then elsewhere. It may be used from several goroutines.
type Progress struct {
	mu       sync.Mutex
	w        io.Writer
	what     string
	total    int64
	n        int64
	started  time.Time
	last     time.Time
	every    time.Duration
	terminal bool
	drawn    bool
}

// NewProgress starts a progress report on w. A total of 0 means that it is
// not known.
func NewProgress(w io.Writer, what string, total int64) *Progress {
	p := &Progress{w: w, what: what, total: total, started: time.Now(), every: sayLineEvery}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.terminal, p.every = true, redrawEvery
	}
	p.last = p.started
	return p
}

// Report is a progress report for work that tells how far it has come, and
// of how much, when it knows. End it with end.
func Report(w io.Writer, what string) (progress func(done, total int64), end func()) {
	var p *Progress
	var shown int64
	return func(done, total int64) {
			if p == nil {
				p = NewProgress(w, what, total)
			}
			p.Add(done - shown)
			shown = done
		}, func() {
			if p != nil {
				p.Done()
			}
		}
}

// Add says that n more are done.
func (p *Progress) Add(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n += n
	if now := time.Now(); now.Sub(p.last) >= p.every {
		p.last = now
		p.draw(now)
	}
}

// Done ends the report. Work that was over before anything was drawn leaves
// no trace.
func (p *Progress) Done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drawn && p.terminal {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

func (p *Progress) draw(now time.Time) {
	p.drawn = true
	rate := float64(p.n) / now.Sub(p.started).Seconds()
	line := fmt.Sprintf("%s: %d, %.0f/s", p.what, p.n, rate)
	if p.total > 0 {
		done := min(float64(p.n)/float64(p.total), 1)
		left := "?"
		if rate > 0 {
			left = time.Duration(float64(p.total-min(p.n, p.total)) / rate * float64(time.Second)).Round(time.Second).String()
		}
		full := int(done * barWidth)
		line = fmt.Sprintf("%s [%s%s] %3.0f %% %d of %d, %s left", p.what,
			strings.Repeat("#", full), strings.Repeat(".", barWidth-full), done*100, p.n, p.total, left)
	}
	if p.terminal {
		fmt.Fprintf(p.w, "\r\x1b[K%s", line)
		return
	}
	fmt.Fprintln(p.w, line)
}
