package osdp_test

import (
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/term"

	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp/pd"
)

// frames is how many bytes a poll over the Secure Channel and its answer have,
// when there is nothing to tell: each a head of 5, a security block of 2, a
// code, a MAC of 4 and a CRC.
const frames = 2 * (5 + 2 + 1 + 4 + 2)

// BenchmarkPoll is the time from one poll to the next over a pseudo-terminal
// whose far end is as slow as a real line, against the time that the bytes take
// on that line.
func BenchmarkPoll(b *testing.B) {
	for _, baud := range []int{9600, 115200} {
		for _, readers := range []int{1, 8} {
			name := fmt.Sprintf("%d_readers_at_%d", readers, baud)
			if readers == 1 {
				name = fmt.Sprintf("1_reader_at_%d", baud)
			}
			b.Run(name, func(b *testing.B) { benchmarkPoll(b, baud, readers) })
		}
	}
}

func benchmarkPoll(b *testing.B, baud, readers int) {
	var far []*pd.Peripheral
	var near []osdp.PeripheralConfig
	for a := range byte(readers) {
		far = append(far, pd.New(pd.Config{Address: a, Key: key, Baud: baud}))
		near = append(near, osdp.PeripheralConfig{Address: a, Keys: osdp.NewMemoryKeys(key)})
	}
	turns := &turns{next: make(chan struct{}, 1)}
	line := plugAs(b, pd.Wire{Baud: baud, Sleep: sleep}, turns, far...)
	r := run(b, osdp.Config{
		Open:        func(baud int) (osdp.Line, error) { return osdp.OpenSerial(line.slave.Name(), baud) },
		Baud:        baud,
		Peripherals: near,
		PollEvery:   -1,
	})
	r.secure(b)
	time.Sleep(time.Duration(readers) * 400 * time.Millisecond) // how things are has been asked
	turns.reset()
	for b.Loop() {
		<-turns.next
	}
	b.ReportMetric(float64(turns.median().Microseconds()), "got-µs")
	b.ReportMetric(frames*10*1e6/float64(baud), "limit-µs")
	b.ReportMetric(1.2, "max-ratio")
	r.stop()
	line.unplug()
}

// turns takes the time from one command to the next where they arrive. Half of
// them are shorter than the median, which a busy machine does not move as it
// moves the mean.
type turns struct {
	io.ReadWriter
	next chan struct{} // one more; nil: nobody waits for it
	mu   sync.Mutex
	last time.Time
	took []time.Duration
}

func (t *turns) Read(b []byte) (int, error) {
	n, err := t.ReadWriter.Read(b)
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	t.took = append(t.took, now.Sub(t.last))
	t.last = now
	select {
	case t.next <- struct{}{}:
	default:
	}
	return n, err
}

func (t *turns) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.took = nil
}

func (t *turns) median() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	slices.Sort(t.took)
	return t.took[len(t.took)/2]
}

// sleep is more precise than time.Sleep, which is off by a millisecond.
func sleep(d time.Duration) {
	left := syscall.NsecToTimespec(int64(d))
	for syscall.Nanosleep(&left, &left) == syscall.EINTR {
	}
}

// BenchmarkIdle is what eight readers that have nothing to tell cost in time of
// one processor, against what as many frames cost without a bus: sealing,
// writing, reading and opening them, on a terminal of the same kind and at the
// same pace. The readers' own work is in both.
func BenchmarkIdle(b *testing.B) {
	const readers, baud = 8, 115200
	var far []*pd.Peripheral
	var near []osdp.PeripheralConfig
	for a := range byte(readers) {
		far = append(far, pd.New(pd.Config{Address: a, Key: key, Baud: baud}))
		near = append(near, osdp.PeripheralConfig{Address: a, Keys: osdp.NewMemoryKeys(key)})
	}
	line := plug(b, pd.Wire{Baud: baud, Sleep: sleep}, far...)
	r := run(b, osdp.Config{
		Open:        func(baud int) (osdp.Line, error) { return osdp.OpenSerial(line.slave.Name(), baud) },
		Baud:        baud,
		Peripherals: near,
	})
	r.secure(b)
	polls := func() (n uint64) {
		for _, p := range r.bus.Peripherals() {
			n += p.Status().Counters.Replies
		}
		return n
	}
	ours, start, before := processor(b), time.Now(), polls()
	for b.Loop() {
		time.Sleep(time.Second)
	}
	ours, took, n := processor(b)-ours, time.Since(start), polls()-before
	r.stop()
	line.unplug()
	bare := bareFrames(b, int(n), took, frames*10*time.Second/baud)
	b.ReportMetric(100*float64(ours)/float64(took), "got-%CPU")
	b.ReportMetric(100*float64(bare)/float64(took), "limit-%CPU")
	b.ReportMetric(2, "max-ratio")
}

// bareFrames has n polls and their answers go over a terminal, evenly over a
// time, and gives what of a processor's time that took.
func bareFrames(b *testing.B, n int, over, wire time.Duration) time.Duration {
	master, slave, err := pty.Open()
	if err != nil {
		b.Fatal(err)
	}
	defer master.Close()
	defer slave.Close()
	if _, err := term.MakeRaw(int(slave.Fd())); err != nil {
		b.Fatal(err)
	}
	one, other := osdp.NewSecureChannel(key, [8]byte{1}, [8]byte{2}), osdp.NewSecureChannel(key, [8]byte{1}, [8]byte{2})
	send := func(f *os.File, c *osdp.SecureChannel, m osdp.Frame) error {
		m.Control |= osdp.ControlCRC
		raw, err := c.Seal(m)
		if err == nil {
			_, err = f.Write(raw)
		}
		return err
	}
	take := func(f *os.File, c *osdp.SecureChannel, buf []byte) error {
		raw := buf[:frames/2]
		_, err := io.ReadFull(f, raw)
		if err == nil {
			_, err = c.Open(raw)
		}
		return err
	}
	before, start := processor(b), time.Now()
	ended := make(chan error, 1)
	go func() {
		var buf [frames]byte
		for range n {
			if err := take(master, other, buf[:]); err != nil {
				ended <- err
				return
			}
			sleep(wire)
			if err := send(master, other, osdp.Frame{Reply: true, Code: byte(osdp.CodeACK)}); err != nil {
				ended <- err
				return
			}
		}
		ended <- nil
	}()
	var buf [frames]byte
	for i := range n {
		time.Sleep(time.Until(start.Add(over * time.Duration(i) / time.Duration(n))))
		if err := send(slave, one, osdp.Frame{Code: byte(osdp.CodePOLL)}); err != nil {
			b.Fatal(err)
		}
		if err := take(slave, one, buf[:]); err != nil {
			b.Fatal(err)
		}
	}
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
	return processor(b) - before
}

// processor is the time that this process has had of a processor.
func processor(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
