package gpio

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

// board is a machine whose lines a test has in its hands.
type board struct {
	mu     sync.Mutex
	others []Chip // chips besides the board's own
	label  string // of the board's own
	lines  map[string]*wire
	broken error // of every call, while it is set
}

// wire is one line of a board.
type wire struct {
	board    *board
	high     bool
	output   bool
	consumer string // empty: nobody holds it
	bias     string
	levels   []bool        // that it had as an output, in order
	edges    chan struct{} // that nobody waited for yet
	released int
}

const boardLines = 8 // GPIO0 to GPIO7

func newBoard() *board {
	b := &board{label: "pinctrl-sim", lines: make(map[string]*wire)}
	for i := range boardLines {
		b.lines[fmt.Sprintf("GPIO%d", i)] = &wire{board: b, edges: make(chan struct{}, 32)}
	}
	return b
}

// set is somebody at the other end of a line.
func (b *board) set(line string, high bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.lines[line]
	if w.high == high {
		return
	}
	w.high = high
	select {
	case w.edges <- struct{}{}:
	default: // the kernel's queue is full too, some time
	}
}

func (b *board) isHigh(line string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lines[line].high
}

// breaks makes every call fail until it is given nil.
func (b *board) breaks(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.broken = err
}

func (b *board) chips() ([]Chip, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broken != nil {
		return nil, b.broken
	}
	own := Chip{Name: "gpiochip0", Label: b.label}
	for i := range boardLines {
		name := fmt.Sprintf("GPIO%d", i)
		w := b.lines[name]
		own.Lines = append(own.Lines, Line{Name: name, Output: w.output, Used: w.consumer != "", Consumer: w.consumer})
	}
	return append([]Chip{own}, b.others...), nil
}

func (b *board) take(c Chip, line int, output bool) (*wire, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.lines[c.Lines[line].Name]
	switch {
	case b.broken != nil:
		return nil, b.broken
	case w.consumer != "":
		return nil, errors.New("device or resource busy")
	}
	w.consumer, w.output = consumer(), output
	return w, nil
}

func (b *board) output(c Chip, line int, first bool) (output, error) {
	w, err := b.take(c, line, true)
	if err != nil {
		return nil, err
	}
	return w, w.Set(first)
}

func (b *board) input(c Chip, line int, bias string) (input, error) {
	w, err := b.take(c, line, false)
	if err != nil {
		return nil, err
	}
	w.bias = bias
	return w, nil
}

func (w *wire) Level() (bool, error) {
	w.board.mu.Lock()
	defer w.board.mu.Unlock()
	return w.high, w.board.broken
}

func (w *wire) Set(high bool) error {
	w.board.mu.Lock()
	defer w.board.mu.Unlock()
	if w.board.broken != nil {
		return w.board.broken
	}
	w.high = high
	w.levels = append(w.levels, high)
	return nil
}

func (w *wire) Wait(d time.Duration) (bool, error) {
	over := time.NewTimer(d)
	defer over.Stop()
	select {
	case <-w.edges:
		return true, nil
	case <-over.C:
		return false, nil
	}
}

func (w *wire) Close() error {
	w.board.mu.Lock()
	defer w.board.mu.Unlock()
	w.released++
	w.consumer, w.output = "", false
	return nil
}

// open opens a driver on the board.
func (b *board) open(t testing.TB) *Bus {
	t.Helper()
	return must[*Bus](t)(openOn(b, t.TempDir(), DefaultSettings(), silent))
}
