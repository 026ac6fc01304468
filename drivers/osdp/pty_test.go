package osdp_test

import (
	"context"
	"errors"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp/pd"
)

// cable is a pseudo-terminal with simulated peripherals at its far end.
type cable struct {
	master, slave *os.File
	served        chan struct{}
}

func plug(t testing.TB, w pd.Wire, far ...*pd.Peripheral) *cable {
	t.Helper()
	return plugAs(t, w, &turns{}, far...)
}

// plugAs has something watch what goes over the cable.
func plugAs(t testing.TB, w pd.Wire, watch *turns, far ...*pd.Peripheral) *cable {
	t.Helper()
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	watch.ReadWriter = master
	c := &cable{master, slave, make(chan struct{})}
	go func() {
		defer close(c.served)
		pd.Serve(watch, w, far...)
	}()
	return c
}

// unplug ends the far end. Its read returns when nobody has the near end open.
func (c *cable) unplug() {
	c.slave.Close()
	<-c.served
	c.master.Close()
}

// running is a bus that runs.
type running struct {
	bus  *osdp.Bus
	stop func()
}

func run(t testing.TB, c osdp.Config) running {
	t.Helper()
	bus, err := osdp.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		bus.Run(ctx)
	}()
	return running{bus, sync.OnceFunc(func() {
		cancel()
		<-ended
	})}
}

func (r running) secure(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, p := range r.bus.Peripherals() {
		if err := p.Wait(ctx); err != nil {
			t.Fatalf("the peripheral with address %d does not work: %v", p.Address(), err)
		}
	}
}

// noLeaks waits until no goroutine and no descriptor is left that was not there
// before.
func noLeaks(t *testing.T) func() {
	t.Helper()
	files := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	goroutines, open := runtime.NumGoroutine(), files()
	return func() {
		t.Helper()
		for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
			g, f := runtime.NumGoroutine(), files()
			if g <= goroutines && f <= open {
				return
			}
			if time.Now().After(end) {
				stacks := make([]byte, 1<<20)
				t.Fatalf("%d goroutines and %d descriptors are left of %d and %d:\n%s", g, f, goroutines, open, stacks[:runtime.Stack(stacks, true)])
			}
		}
	}
}

func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// Over a real terminal and with each fault in turn: every card that the reader
// tells over the Secure Channel arrives once and in order, every command is
// carried out once, and nothing is left behind at the end.
func TestOverATerminalEachFaultIsOvercome(t *testing.T) {
	check := noLeaks(t)
	var mu sync.Mutex
	var cards []byte
	done := 0
	far := pd.New(pd.Config{Key: key, Baud: 115200, Handle: func(c osdp.Command) {
		if c.Command() == osdp.CodeBUZ {
			mu.Lock()
			done++
			mu.Unlock()
		}
	}})
	line := plug(t, pd.Wire{Baud: 115200}, far)
	r := run(t, osdp.Config{
		Open:        func(baud int) (osdp.Line, error) { return osdp.OpenSerial(line.slave.Name(), baud) },
		Baud:        115200,
		Peripherals: []osdp.PeripheralConfig{{Keys: osdp.NewMemoryKeys(key)}},
		PollEvery:   5 * time.Millisecond,
		Handle: func(e osdp.Event) {
			if c, ok := e.Reply.(osdp.Card); ok {
				mu.Lock()
				cards = append(cards, c.Data[0])
				mu.Unlock()
			}
		},
	})
	r.secure(t)
	n := 0
	for fault := pd.Drop; fault <= pd.Clear; fault++ {
		far.Inject(fault, 1)
		p := r.bus.Peripherals()[0]
		forged := fault >= pd.WrongMAC
		if forged {
			// Nothing is asked meanwhile: the channel may be lost.
			before := p.Status().Counters.Forged
			await(t, fault.String(), func() bool { return p.Status().Counters.Forged > before })
			r.secure(t)
		}
		far.Present([]string{cardA, cardB}[int(fault)%2])
		if _, err := p.Do(t.Context(), osdp.Buzz{Tone: osdp.ToneDefault}); err != nil {
			t.Fatalf("%v: %v", fault, err)
		}
		n++
		await(t, fault.String(), func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(cards) == n
		})
	}
	mu.Lock()
	for i, c := range cards {
		if want := []byte{0xA1, 0xB2}[i%2]; c != want {
			t.Errorf("card %d is %x, want %x", i, c, want)
		}
	}
	if done != n {
		t.Errorf("%d commands were carried out %d times", n, done)
	}
	mu.Unlock()
	r.stop()
	line.unplug()
	check()
}

func TestATerminalThatIsUnpluggedAndPluggedInAgain(t *testing.T) {
	check := noLeaks(t)
	far := []*pd.Peripheral{pd.New(pd.Config{Key: key, Baud: 38400}), pd.New(pd.Config{Address: 1, ClearText: true, Baud: 38400})}
	var mu sync.Mutex
	line := plug(t, pd.Wire{}, far...)
	r := run(t, osdp.Config{
		Open: func(baud int) (osdp.Line, error) {
			mu.Lock()
			defer mu.Unlock()
			if line == nil {
				return nil, os.ErrNotExist
			}
			return osdp.OpenSerial(line.slave.Name(), baud)
		},
		Baud:        38400,
		Peripherals: []osdp.PeripheralConfig{{Keys: osdp.NewMemoryKeys(key)}, {Address: 1, ClearText: true}},
	})
	r.secure(t)
	for range 2 {
		mu.Lock()
		old := line
		line = nil
		mu.Unlock()
		old.master.Close() // hangs up: the reader of the near end is told
		old.slave.Close()
		await(t, "both are offline", func() bool {
			for _, p := range r.bus.Peripherals() {
				if s := p.Status(); s.State != osdp.Offline || !errors.Is(s.Err, osdp.ErrOffline) {
					return false
				}
			}
			return true
		})
		<-old.served
		mu.Lock()
		line = plug(t, pd.Wire{}, far...)
		mu.Unlock()
		r.secure(t)
	}
	r.stop()
	line.unplug()
	check()
}

func TestARateIsChangedOnATerminal(t *testing.T) {
	check := noLeaks(t)
	far := pd.New(pd.Config{Key: key})
	line := plug(t, pd.Wire{}, far)
	r := run(t, osdp.Config{
		Open:        func(baud int) (osdp.Line, error) { return osdp.OpenSerial(line.slave.Name(), baud) },
		Peripherals: []osdp.PeripheralConfig{{Keys: osdp.NewMemoryKeys(key)}},
	})
	r.secure(t)
	for _, baud := range osdp.Bauds {
		if err := r.bus.SetBaud(t.Context(), baud); err != nil {
			t.Fatal(err)
		}
		r.secure(t)
	}
	r.stop()
	line.unplug()
	check()
}

// A converter that hangs takes no bytes. All its readers are to be offline then,
// and the program is to end when it is told to.
func TestALineThatTakesNoBytesIsAnErrorAndCanBeClosed(t *testing.T) {
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	defer master.Close() // which nobody reads
	line, err := osdp.OpenSerial(slave.Name(), 115200)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := line.Write(make([]byte, 1024)); err != nil {
				_, again := line.Write([]byte{0})
				if !errors.Is(again, err) {
					err = again
				}
				ended <- errors.Join(err, line.Close())
				return
			}
		}
	}()
	select {
	case err := <-ended:
		if !errors.Is(err, osdp.ErrLineStuck) {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("Write or Close hangs")
	}
}
