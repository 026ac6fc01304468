// Package drivertest holds every driver to what a door expects of its parts.
package drivertest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/badge"
)

// soon is within what a part of a door must have done what it was told, on
// however busy a machine; only a test that fails waits so long.
const soon = 30 * time.Second

// Rig is one opened driver with one of each part that it has, and the world
// at the other end of the wires. A nil function means that the driver has no
// such part, or that its world cannot do so.
type Rig struct {
	// The driver's side: the methods of the parts.
	Read   func(ctx context.Context) (badge.Read, error)
	Unlock func() error
	Lock   func() error
	Watch  func(ctx context.Context, changed func(active bool)) error
	Show   func(pattern string) error
	Close  func() error

	Scanner *Scanner

	// The world's side.
	Swipe    func(badge.Frame)
	Set      func(active bool) // of the input
	Unlocked func() bool       // whether the strike lets people through
	Shown    func() string     // what the indicator shows
	Break    func()            // makes every part faulty
	Mend     func()            // undoes Break
	TearDown func()            // of the world, after Close
	Frames   []badge.Frame     // that the reader can deliver, two or more that differ
}

// Test runs the suite. Open makes a new rig for each test: the strike locked
// by nobody, the input inactive, everything whole.
func Test(t *testing.T, open func(t *testing.T) *Rig) {
	poller(t)
	parts := open(t)
	if err := parts.end(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	run := func(name string, has func(*Rig) bool, f func(t *testing.T, r *Rig)) {
		if !has(parts) {
			return
		}
		t.Run(name, func(t *testing.T) {
			before, opened := stacks(), descriptors(t)
			r := open(t)
			f(t, r)
			within(t, "Close", func() {
				if err := r.end(); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
			if left := leftover(before); left != "" {
				t.Errorf("goroutines are left:\n%s", left)
			}
			if left := leftOpen(t, opened); len(left) > 0 {
				t.Errorf("descriptors are left open: %q", left)
			}
		})
	}
	reader := func(r *Rig) bool { return r.Read != nil }
	strike := func(r *Rig) bool { return r.Unlock != nil }
	input := func(r *Rig) bool { return r.Watch != nil }
	indicator := func(r *Rig) bool { return r.Show != nil }
	both := func(a, b func(*Rig) bool) func(*Rig) bool { return func(r *Rig) bool { return a(r) && b(r) } }
	breaks := func(r *Rig) bool { return r.Break != nil }

	run("a reader delivers every frame, in order, with its time", reader, func(t *testing.T, r *Rig) {
		for _, f := range slices.Concat(r.Frames, r.Frames) {
			start := time.Now()
			r.Swipe(f)
			got := read(t, r)
			if got.Frame.Bits() != f.Bits() {
				t.Errorf("a frame of %d bits came as another of %d", f.Len(), got.Frame.Len())
			}
			if got.At.Before(start) || got.At.After(time.Now()) {
				t.Errorf("read at %v, which is not between %v and now", got.At, start)
			}
		}
	})
	run("a reader blocks until there is something to read", reader, func(t *testing.T, r *Rig) {
		got := make(chan error, 1)
		go func() {
			_, err := r.Read(t.Context())
			got <- err
		}()
		select {
		case err := <-got:
			t.Fatalf("Read returned (%v) with nothing to read", err)
		case <-time.After(100 * time.Millisecond):
		}
		r.Swipe(r.Frames[0])
		if err := await(t, "Read", got); err != nil {
			t.Errorf("Read: %v", err)
		}
	})
	run("a reader stops when its context ends", reader, func(t *testing.T, r *Rig) {
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan error, 1)
		go func() {
			_, err := r.Read(ctx)
			got <- err
		}()
		cancel()
		if err := await(t, "Read", got); !errors.Is(err, context.Canceled) {
			t.Errorf("Read returned %v, not the context's error", err)
		}
		within(t, "Read", func() {
			if _, err := r.Read(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("Read returned %v, not the context's error", err)
			}
		})
		r.Swipe(r.Frames[0]) // and can be used again
		read(t, r)
	})
	run("closing ends a read with an error", reader, func(t *testing.T, r *Rig) {
		got := make(chan error, 1)
		go func() {
			_, err := r.Read(t.Context())
			got <- err
		}()
		time.Sleep(20 * time.Millisecond) // until it waits
		if err := r.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := await(t, "Read", got); err == nil {
			t.Error("Read gave something when it was closed")
		}
		if _, err := r.Read(t.Context()); err == nil {
			t.Error("Read gave something after it was closed")
		}
	})
	run("a broken reader is an error, and works when it is mended", both(reader, breaks), func(t *testing.T, r *Rig) {
		got := make(chan error, 1)
		go func() {
			_, err := r.Read(t.Context())
			got <- err
		}()
		time.Sleep(20 * time.Millisecond)
		r.Break()
		if err := await(t, "Read", got); err == nil {
			t.Error("Read gave something when it was broken")
		}
		within(t, "Read", func() {
			if _, err := r.Read(t.Context()); err == nil {
				t.Error("Read gave something while it was broken")
			}
		})
		r.Mend()
		eventually(t, "the reader works again", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			_, err := r.Read(ctx)
			return errors.Is(err, context.DeadlineExceeded)
		})
		r.Swipe(r.Frames[0])
		read(t, r)
	})

	run("a strike moves, and commands may be repeated", strike, func(t *testing.T, r *Rig) {
		for _, unlock := range []bool{false, true, true, false, false, true, false} {
			f, name := r.Lock, "Lock"
			if unlock {
				f, name = r.Unlock, "Unlock"
			}
			if err := f(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			eventually(t, name, func() bool { return r.Unlocked() == unlock })
		}
	})
	run("a strike is locked until it is told otherwise", strike, func(t *testing.T, r *Rig) {
		time.Sleep(20 * time.Millisecond)
		if r.Unlocked() {
			t.Error("it is unlocked")
		}
	})
	run("closing locks the strike, which then is an error", strike, func(t *testing.T, r *Rig) {
		if err := r.Unlock(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "Unlock", r.Unlocked)
		if err := r.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		eventually(t, "Close", func() bool { return !r.Unlocked() })
		if err := r.Unlock(); err == nil {
			t.Error("Unlock worked after it was closed")
		}
		if r.Unlocked() {
			t.Error("it is unlocked after it was closed")
		}
	})
	run("a strike may be commanded by several at once", strike, func(t *testing.T, r *Rig) {
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				for range 20 {
					f := r.Lock
					if i%2 == 0 {
						f = r.Unlock
					}
					if err := f(); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if err := r.Lock(); err != nil {
			t.Error(err)
		}
		eventually(t, "Lock", func() bool { return !r.Unlocked() })
	})

	run("an input tells its state at once, and each change", input, func(t *testing.T, r *Rig) {
		for _, first := range []bool{false, true} {
			r.Set(first)
			w := watch(t, r)
			eventually(t, "the present state", func() bool { v, n := w.last(); return n > 0 && v == first })
			for _, active := range []bool{!first, first, !first, first} {
				r.Set(active)
				eventually(t, "a change", func() bool { v, _ := w.last(); return v == active })
			}
			if err := w.end(); !errors.Is(err, context.Canceled) {
				t.Errorf("Watch returned %v, not the context's error", err)
			}
		}
	})
	run("an input does not repeat itself", input, func(t *testing.T, r *Rig) {
		w := watch(t, r)
		eventually(t, "the present state", func() bool { _, n := w.last(); return n == 1 })
		r.Set(true)
		r.Set(true)
		r.Set(true)
		eventually(t, "a change", func() bool { v, _ := w.last(); return v })
		r.Set(false)
		eventually(t, "a change", func() bool { v, _ := w.last(); return !v })
		if _, n := w.last(); n != 3 {
			t.Errorf("%d states were told, not 3", n)
		}
		w.end()
	})
	run("closing ends a watch with an error", input, func(t *testing.T, r *Rig) {
		w := watch(t, r)
		eventually(t, "the present state", func() bool { _, n := w.last(); return n > 0 })
		if err := r.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := await(t, "Watch", w.ended); err == nil {
			t.Error("Watch returned nil when it was closed")
		}
	})
	run("a broken input is an error, and works when it is mended", both(input, breaks), func(t *testing.T, r *Rig) {
		w := watch(t, r)
		eventually(t, "the present state", func() bool { _, n := w.last(); return n > 0 })
		r.Break()
		if err := await(t, "Watch", w.ended); err == nil {
			t.Error("Watch returned nil when it was broken")
		}
		r.Mend()
		r.Set(true)
		eventually(t, "the input works again", func() bool {
			w := watch(t, r)
			defer w.end()
			time.Sleep(10 * time.Millisecond)
			v, n := w.last()
			return n > 0 && v
		})
	})

	run("an indicator shows each pattern, and refuses what is none", indicator, func(t *testing.T, r *Rig) {
		for _, p := range []string{
			"idle", "waiting", "granted", "denied", "fault", "held_warning", "held_warning",
			"ask_badge", "ask_fingerprint", "ask_iris", "ask_pin", "ask_company", "try_again", "identify", "idle",
		} {
			if err := r.Show(p); err != nil {
				t.Fatalf("Show %s: %v", p, err)
			}
			eventually(t, "showing "+p, func() bool { return r.Shown() == p })
		}
		if err := r.Show("disco"); err == nil {
			t.Error("it shows a pattern that does not exist")
		}
	})

	scanner(run)

	run("closing twice is harmless", func(*Rig) bool { return true }, func(t *testing.T, r *Rig) {
		if err := r.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
}

// end closes the driver and ends the world.
func (r *Rig) end() error {
	err := r.Close()
	if r.TearDown != nil {
		r.TearDown()
	}
	return err
}

func read(t *testing.T, r *Rig) badge.Read {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	got, err := r.Read(ctx)
	if err != nil {
		t.Fatalf("Read: %v", err)
	}
	return got
}

// watcher is a Watch in the background.
type watcher struct {
	cancel context.CancelFunc
	ended  chan error

	mu     sync.Mutex
	states []bool
}

func watch(t *testing.T, r *Rig) *watcher {
	ctx, cancel := context.WithCancel(t.Context())
	w := &watcher{cancel: cancel, ended: make(chan error, 1)}
	go func() {
		w.ended <- r.Watch(ctx, func(active bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.states = append(w.states, active)
		})
	}()
	return w
}

func (w *watcher) last() (active bool, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.states) == 0 {
		return false, 0
	}
	return w.states[len(w.states)-1], len(w.states)
}

func (w *watcher) end() error {
	w.cancel()
	return <-w.ended
}

func await(t *testing.T, what string, c <-chan error) error {
	t.Helper()
	select {
	case err := <-c:
		return err
	case <-time.After(soon):
		t.Fatalf("%s did not return within %v", what, soon)
		return nil
	}
}

func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		f()
		done <- nil
	}()
	await(t, what, done)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(soon); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, soon)
		}
	}
}

// stacks are the goroutines that run, each with its stack.
func stacks() [][]byte {
	buf := make([]byte, 1<<20)
	return bytes.Split(buf[:runtime.Stack(buf, true)], []byte("\n\n"))
}

// leftover waits for the goroutines that were not there before to end, and
// gives the stacks of those that do not.
func leftover(before [][]byte) string {
	id := func(stack []byte) string {
		head, _, _ := bytes.Cut(stack, []byte(" ["))
		return string(head) // "goroutine 7"
	}
	known := make(map[string]bool)
	for _, s := range before {
		known[id(s)] = true
	}
	var left [][]byte
	for end := time.Now().Add(soon); ; time.Sleep(time.Millisecond) {
		left = nil
		for _, s := range stacks() {
			if !known[id(s)] && !bytes.Contains(s, []byte("testing.(*T).Run")) && !bytes.Contains(s, []byte("drivertest.stacks")) {
				left = append(left, s)
			}
		}
		if len(left) == 0 || time.Now().After(end) {
			return string(bytes.Join(left, []byte("\n\n")))
		}
	}
}

// poller opens what Go's runtime opens for itself with the first file that it
// can wait for, and keeps.
func poller(t *testing.T) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	w.Close()
}

// descriptors are what the process has open: what stands behind each number.
func descriptors(t *testing.T) map[string]string {
	t.Helper()
	const dir = "/proc/self/fd/"
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	open := make(map[string]string)
	for _, e := range all {
		if behind, err := os.Readlink(dir + e.Name()); err == nil { // the one of dir itself is closed by now
			open[e.Name()] = behind
		}
	}
	return open
}

// leftOpen waits for the descriptors that were not there before to be closed,
// and gives those that are not.
func leftOpen(t *testing.T, before map[string]string) []string {
	t.Helper()
	for end := time.Now().Add(soon); ; time.Sleep(time.Millisecond) {
		var left []string
		for number, behind := range descriptors(t) {
			if before[number] != behind {
				left = append(left, number+": "+behind)
			}
		}
		if len(left) == 0 || time.Now().After(end) {
			return left
		}
	}
}
