package serial_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/gatehouse-acs/gatehouse/drivers/serial"
)

// terminal is a pseudo-terminal whose near end is opened as a serial port.
func terminal(t *testing.T) (far *os.File, name string) {
	t.Helper()
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close(); slave.Close() })
	return master, slave.Name()
}

func open(t *testing.T, name string) *serial.Port {
	t.Helper()
	p, err := serial.Open(name, 57600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// baud is what the near end was set to.
func baud(t *testing.T, far *os.File) (code uint32) {
	t.Helper()
	raw, err := far.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		termios, err := unix.IoctlGetTermios(int(fd), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		code = termios.Cflag & unix.CBAUD
	})
	return code
}

func TestAllBytesGoBothWays(t *testing.T) {
	far, name := terminal(t)
	p := open(t, name)
	all := make([]byte, 256) // XON, XOFF, ^C and all others
	for i := range all {
		all[i] = byte(i)
	}
	if n, err := p.Write(all); n != 256 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	got := make([]byte, 0, 256)
	for b := make([]byte, 256); len(got) < 256; {
		n, err := far.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, b[:n]...)
	}
	if !bytes.Equal(got, all) {
		t.Errorf("out: % X", got)
	}
	if _, err := far.Write(all); err != nil {
		t.Fatal(err)
	}
	got = got[:0]
	for b := make([]byte, 100); len(got) < 256; {
		n, err := p.Read(b, 5*time.Second)
		if n == 0 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
		got = append(got, b[:n]...)
	}
	if !bytes.Equal(got, all) {
		t.Errorf("in: % X", got)
	}
}

func TestAPortIsOnesOwnUntilItIsClosed(t *testing.T) {
	_, name := terminal(t)
	p := open(t, name)
	refused := func(when string) {
		t.Helper()
		if q, err := serial.Open(name, 9600); !errors.Is(err, serial.ErrHeld) {
			t.Errorf("%s: a second one has %v, %v", when, q, err)
		}
	}
	refused("while it is open")
	if err := p.SetBaud(9600); err != nil {
		t.Fatal(err)
	}
	refused("at another rate")
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, name)
}

func TestSilenceIsNoError(t *testing.T) {
	_, name := terminal(t)
	p := open(t, name)
	for _, timeout := range []time.Duration{0, time.Millisecond, 350 * time.Millisecond} {
		start := time.Now()
		if n, err := p.Read(make([]byte, 8), timeout); n != 0 || err != nil {
			t.Errorf("within %v: %d, %v", timeout, n, err)
		}
		if took := time.Since(start); took < timeout {
			t.Errorf("it waited %v of %v", took, timeout)
		}
	}
}

func TestALineThatIsGoneIsAnError(t *testing.T) {
	far, name := terminal(t)
	p := open(t, name)
	if _, err := far.Write([]byte("last")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 8)
	if n, err := p.Read(b, 5*time.Second); err != nil || string(b[:n]) != "last" {
		t.Errorf("%q, %v", b[:n], err)
	}
	far.Close()
	if _, err := p.Read(b, 10*time.Second); !errors.Is(err, serial.ErrGone) {
		t.Errorf("Read: %v", err)
	}
	if _, err := p.Write(b); !errors.Is(err, serial.ErrGone) {
		t.Errorf("Write: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if _, err := serial.Open(name, 57600); err == nil {
		t.Error("what is gone was opened again")
	}
}

func TestTheRateIsChanged(t *testing.T) {
	far, name := terminal(t)
	p := open(t, name)
	if got := baud(t, far); got != unix.B57600 {
		t.Errorf("opened with %#x", got)
	}
	if _, err := far.Write([]byte("old")); err != nil {
		t.Fatal(err)
	}
	if err := p.SetBaud(115200); err != nil {
		t.Fatal(err)
	}
	if got := baud(t, far); got != unix.B115200 {
		t.Errorf("changed to %#x", got)
	}
	if _, err := far.Write([]byte("new")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 8)
	// What had come at the old rate may be lost or not; what comes now is not.
	for got := []byte(nil); !bytes.HasSuffix(got, []byte("new")); {
		n, err := p.Read(b, 5*time.Second)
		if n == 0 || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
		got = append(got, b[:n]...)
	}
	if err := p.SetBaud(12345); err == nil {
		t.Error("there is a rate of 12345")
	}
	if _, err := p.Read(b, time.Second); !errors.Is(err, serial.ErrClosed) {
		t.Errorf("after a rate that there is not: %v", err)
	}
}

func TestCloseEndsARead(t *testing.T) {
	_, name := terminal(t)
	p := open(t, name)
	got := make(chan error, 1)
	go func() {
		_, err := p.Read(make([]byte, 8), time.Minute)
		got <- err
	}()
	time.Sleep(20 * time.Millisecond) // until it waits
	for range 2 {
		if err := p.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	select {
	case err := <-got:
		if !errors.Is(err, serial.ErrClosed) {
			t.Errorf("Read: %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it still reads")
	}
	if _, err := p.Write([]byte("x")); !errors.Is(err, serial.ErrClosed) {
		t.Errorf("Write: %v", err)
	}
	if err := p.SetBaud(9600); !errors.Is(err, serial.ErrClosed) {
		t.Errorf("SetBaud: %v", err)
	}
}

// Nobody reads at the other end, and there is no flow control that would say
// so. Neither Write nor Close may wait for ever.
func TestALineThatTakesNothingIsAnErrorAndIsClosed(t *testing.T) {
	far, name := terminal(t)
	p := open(t, name)
	goroutines := runtime.NumGoroutine()
	var err error
	for range 64 {
		if _, err = p.Write(make([]byte, 4096)); err != nil {
			break
		}
	}
	if !errors.Is(err, serial.ErrStuck) {
		t.Fatalf("Write: %v", err)
	}
	if _, err := p.Write([]byte("x")); !errors.Is(err, serial.ErrStuck) {
		t.Errorf("the next Write: %v", err)
	}
	closed := make(chan error, 1)
	go func() { closed <- p.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Errorf("Close: %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("Close hangs")
	}
	far.Close() // and what was stuck ends when the device is gone
	for end := time.Now().Add(time.Minute); runtime.NumGoroutine() >= goroutines; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines are left of %d", runtime.NumGoroutine(), goroutines)
		}
	}
}

func TestWhatCannotBeOpenedIsNamed(t *testing.T) {
	_, name := terminal(t)
	for _, tt := range []struct {
		name string
		baud int
	}{{"/dev/no such port", 9600}, {name, 0}, {name, 12345}, {"/dev/null", 9600}} {
		if p, err := serial.Open(tt.name, tt.baud); err == nil {
			p.Close()
			t.Errorf("%s at %d was opened", tt.name, tt.baud)
		} else if !bytes.Contains([]byte(err.Error()), []byte(tt.name)) {
			t.Errorf("the error does not name %s: %v", tt.name, err)
		}
	}
}

func TestPausesGrowAndAreReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := serial.Backoff{First: time.Second, Most: 5 * time.Second}
		pause := func(want time.Duration) {
			t.Helper()
			start := time.Now()
			if err := b.Wait(t.Context()); err != nil || time.Since(start) != want {
				t.Errorf("paused %v, not %v: %v", time.Since(start), want, err)
			}
		}
		for _, want := range []time.Duration{1, 2, 4, 5, 5} {
			pause(want * time.Second)
		}
		b.Reset()
		pause(time.Second)
		b = serial.Backoff{}
		pause(250 * time.Millisecond)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := b.Wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("the context's end: %v", err)
		}
	})
}
