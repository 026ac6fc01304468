package osdp_test

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

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
// one processor, the simulated readers' own work included.
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
	before, start := processor(b), time.Now()
	for b.Loop() {
		time.Sleep(time.Second)
	}
	share := 100 * float64(processor(b)-before) / float64(time.Since(start))
	b.ReportMetric(share, "got-%CPU")
	b.ReportMetric(25, "max-%CPU")
	r.stop()
	line.unplug()
}

// processor is the time that this process has had of a processor.
func processor(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
