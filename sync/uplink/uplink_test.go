package uplink_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-acs/gatehouse/sync/uplink"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
	"github.com/gatehouse-acs/gatehouse/visitorlog/central"
)

// The rule of the whole folder: what was recorded arrives, once, whatever the
// network does.
func TestWhatWasRecordedArrivesOnceWhateverThePipeDoes(t *testing.T) {
	for _, tt := range []struct {
		name string
		fate fate
	}{
		{"good", fate{}},
		{"slow", fate{delay: 3 * time.Second}},
		{"reordering", fate{delay: 300 * time.Millisecond}},
		{"doubling and reordering", fate{double: 50, delay: 500 * time.Millisecond}},
		{"dropping", fate{drop: 30}},
		{"failing", fate{fail: 30}},
		{"all of it", fate{drop: 20, double: 30, fail: 10, delay: 2 * time.Second}},
	} {
		for seed := range uint64(2) {
			t.Run(fmt.Sprintf("%s/%d", tt.name, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := newCRM(t, newPipe(t, seed, tt.fate))
					d := newController(t, "north-1", c, nil)
					for i := range 6 {
						d.write(1 + 15*i)
						time.Sleep(time.Second)
						switch i {
						case 2:
							c.restart()
						case 4: // the daemon starts again
							d.close()
							d.open()
							d.start()
						}
					}
					d.settle(24 * time.Hour)
					d.same()
					c.wantAlarms()
				})
			})
		}
	}
}

func TestAReceiptLostAfterTheCommitChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe(t, 1, fate{})
		c := newCRM(t, p)
		d := newController(t, "north-1", c, nil)
		d.settle(time.Minute)
		p.connect("north-1", nil) // receipts go nowhere
		d.write(300)
		time.Sleep(time.Second)
		if list, err := c.store.Epochs(context.Background(), ""); err != nil || list[0].Size < 9 {
			t.Fatalf("the CRM has committed nothing, %v: nothing is proven", err)
		}
		c.restart()
		p.connect("north-1", func(m wire.Message) { d.uplink.Handle(m.Payload) })
		d.settle(time.Hour)
		d.same()
		c.wantAlarms()
	})
}

// orderly delivers at once and in order, but for the messages that lose says.
type orderly struct {
	crm  *crm
	lose func(m wire.Message) bool
}

func (o orderly) Publish(_ context.Context, topic string, payload []byte, retained bool) error {
	if m := (wire.Message{Topic: topic, Payload: payload, Retained: retained}); !o.lose(m) {
		o.crm.ingester.Handle(context.Background(), m)
	}
	return nil
}

// Batches behind a lost one show that it is lost, also where they share a
// receipt with one before it: nobody waits for a deadline.
func TestALostBatchIsSentAgainAtOnce(t *testing.T) {
	for _, lost := range []int{0, 3} {
		synctest.Test(t, func(t *testing.T) {
			c := newCRM(t, newPipe(t, 1, fate{}))
			batches := -1 // those of the backlog
			d := newController(t, "north-1", c, func(o *uplink.Options) {
				o.Deadline = time.Hour
				o.Publisher = orderly{c, func(m wire.Message) bool {
					if b, err := wire.ParseBatch(m.Payload); err != nil || b.Early || len(b.Records) < 10 {
						return false
					}
					batches++
					return batches == lost
				}}
			})
			d.stop()
			d.write(1200)
			d.start()
			d.settle(time.Minute)
			d.same()
			if batches < lost {
				t.Fatalf("%d batches: none was lost", batches+1)
			}
		})
	}
}

// A CRM that was restored from an older backup gets what it lost again, and
// both sides say so.
func TestARestoredCRMGetsTheRecordsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCRM(t, newPipe(t, 1, fate{}))
		var said bytes.Buffer
		d := newController(t, "north-1", c, func(o *uplink.Options) { o.Logger = slog.New(slog.NewTextHandler(&said, nil)) })
		d.write(50)
		d.settle(time.Minute)
		c.stop()
		backup, err := os.ReadFile(c.path)
		if err != nil {
			t.Fatal(err)
		}
		c.start()
		d.write(700)
		d.settle(time.Hour)
		c.stop()
		if err := os.WriteFile(c.path, backup, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, suffix := range []string{"-wal", "-shm"} {
			os.Remove(c.path + suffix)
		}
		c.start()
		d.write(1)
		time.Sleep(10 * time.Minute)
		d.settle(time.Hour)
		d.same()
		c.wantAlarms(central.AlarmRestored)
		if a := c.alarms()[0]; *a.Sequence >= 700 || !strings.Contains(a.Detail, "751 records") {
			t.Errorf("alarm %+v, want it with both sizes", a)
		}
		d.stop()
		if !strings.Contains(said.String(), "holds fewer records than it had countersigned") {
			t.Errorf("the controller does not say so:\n%s", said.String())
		}
	})
}

// An SD card that was put back to an older image writes another log: the CRM
// raises the alarm, the controller begins a new epoch, and records go on.
func TestARolledBackCardBeginsANewEpochAndGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCRM(t, newPipe(t, 1, fate{}))
		d := newController(t, "north-1", c, nil)
		other := newController(t, "south-1", c, nil)
		d.write(40)
		d.settle(time.Minute)
		before := d.head()
		d.close()
		image := t.TempDir()
		copyDir(t, filepath.Join(d.dir, "data"), image)
		d.open()
		d.start()
		d.write(30)
		d.settle(time.Minute)
		full := d.head()
		d.close()

		if err := os.RemoveAll(filepath.Join(d.dir, "data")); err != nil {
			t.Fatal(err)
		}
		copyDir(t, image, filepath.Join(d.dir, "data"))
		d.open()
		if got := d.head(); got != before {
			t.Fatalf("the restored log is %+v, want %+v", got, before)
		}
		d.write(5) // offline: it cannot know yet
		d.start()
		time.Sleep(time.Minute)
		d.write(10)
		d.settle(time.Hour)
		d.same()
		if got := d.head(); got.Epoch == full.Epoch {
			t.Error("the controller goes on in the old epoch")
		}
		first, err := d.log.Entries(context.Background(), 0, 1)
		if err != nil || first[0].Record.Data.Former == nil || first[0].Record.Data.Former.Size != full.Size {
			t.Errorf("the new epoch's first record names %+v, %v; want the CRM's head %+v", first[0].Record.Data.Former, err, full)
		}
		kinds := map[central.AlarmKind]bool{}
		for _, a := range c.alarms() {
			kinds[a.Kind] = true
		}
		if !kinds[central.AlarmFork] || !kinds[central.AlarmEpoch] {
			t.Errorf("alarms %+v, want a fork and a new epoch", c.alarms())
		}
		other.write(3)
		other.settle(time.Minute)
		other.same()
	})
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.MkdirAll(to, 0o700); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(from, f.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, f.Name()), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// While thousands of records drain slowly, the newest are seen at once.
func TestNewRecordsDoNotStarveBehindABacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe(t, 1, fate{delay: 2 * time.Second})
		c := newCRM(t, p)
		d := newController(t, "north-1", c, func(o *uplink.Options) { o.Window = 1 })
		d.stop()
		d.write(2400)
		var early atomic.Int64
		p.onSeen(func(m wire.Message) {
			if b, err := wire.ParseBatch(m.Payload); err == nil && b.Early {
				early.Add(1)
				if len(b.Records) > 32 || b.Checkpoint != "" {
					t.Errorf("an early batch of %d records, checkpoint %q", len(b.Records), b.Checkpoint)
				}
			}
		})
		began := time.Now()
		d.start()
		time.Sleep(8 * time.Second) // the first receipts are under way
		d.write(1)
		newest := d.head().Size - 1
		written := time.Now()
		for {
			if seen(t, c, newest) {
				break
			}
			if time.Since(written) > 3*time.Second {
				t.Fatalf("record %d is not seen after %v: %+v", newest, time.Since(written), d.uplink.Status())
			}
			time.Sleep(10 * time.Millisecond)
		}
		if s := d.uplink.Status(); s.Backlog() < 1000 {
			t.Fatalf("the backlog has drained to %d in %v: nothing is proven", s.Backlog(), time.Since(began))
		}
		d.settle(time.Hour)
		d.same()
		if n, most := early.Load(), int64(time.Since(began)/(200*time.Millisecond))+1; n == 0 || n > most {
			t.Errorf("%d early batches, want 1 to %d", n, most)
		}
		if list, err := c.store.EarlyRecords(context.Background(), ""); err != nil || len(list) != 0 {
			t.Errorf("%d early records are left, %v: the log has reached them", len(list), err)
		}
	})
}

func seen(t *testing.T, c *crm, seq uint64) bool {
	t.Helper()
	list, err := c.store.EarlyRecords(context.Background(), "north-1")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range list {
		if r.Sequence == seq {
			return true
		}
	}
	return false
}

func TestAControllerThatGetsNoReceiptAsksMoreAndMoreSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe(t, 1, fate{})
		c := newCRM(t, p)
		var silent atomic.Int64
		d := newController(t, "north-1", c, func(o *uplink.Options) { o.Silent = func() { silent.Add(1) } })
		d.settle(time.Minute)
		p.connect("north-1", nil)
		var mu sync.Mutex
		var asked []time.Time
		p.onSeen(func(m wire.Message) {
			if _, kind, _ := wire.ParseTopic(m.Topic); kind == wire.KindState {
				mu.Lock()
				defer mu.Unlock()
				asked = append(asked, time.Now())
			}
		})
		d.write(5)
		time.Sleep(time.Hour)
		mu.Lock()
		defer mu.Unlock()
		if n := len(asked); n < 20 || n > 40 {
			t.Errorf("asked %d times in an hour, want every two minutes or so", n)
		}
		for i := 1; i < len(asked); i++ {
			if gap := asked[i].Sub(asked[i-1]); gap < 5*time.Second || gap > 151*time.Second {
				t.Errorf("asked after %v, want 5 s to 2 min and a little", gap)
			}
		}
		if silent.Load() == 0 {
			t.Error("nobody was told of the silence")
		}
	})
}

// A broker whose rules deny records acknowledges and drops them, while states
// go through and are answered: that must neither hide that receipts stay out,
// nor make the controller send everything again every few seconds.
func TestRecordsThatABrokerDropsAreNoticedThoughStatesAreAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe(t, 1, fate{})
		c := newCRM(t, p)
		d := newController(t, "north-1", c, nil)
		d.settle(time.Minute)
		if at := d.uplink.Status().Overdue; !at.IsZero() {
			t.Errorf("overdue since %v in good order", at)
		}
		in := c.ingester
		handle := func(m wire.Message) { in.Handle(t.Context(), m) }
		p.connect("up", func(m wire.Message) {
			if _, kind, _ := wire.ParseTopic(m.Topic); kind != wire.KindRecords {
				handle(m)
			}
		})
		d.write(5)
		before := d.uplink.Status()
		time.Sleep(time.Hour)
		s := d.uplink.Status()
		if since := time.Since(s.Overdue); since < 59*time.Minute || since > time.Hour {
			t.Errorf("overdue since %v, want almost an hour", since)
		}
		if n := s.Receipts - before.Receipts; n < 20 {
			t.Errorf("%d states were answered, want all", n)
		}
		if n := s.Batches - before.Batches; n < 20 || n > 40 {
			t.Errorf("sent %d times in an hour, want every two minutes or so", n)
		}
		p.connect("up", handle)
		d.settle(3 * time.Minute)
		if at := d.uplink.Status().Overdue; !at.IsZero() {
			t.Errorf("overdue since %v, but all was receipted", at)
		}
	})
}

// On a connection in good order with nothing to send, the state is published
// now and then: the CRM knows that the controller lives, and the controller
// that receipts arrive and what time it is.
func TestAnIdleControllerShowsItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCRM(t, newPipe(t, 1, fate{}))
		var mu sync.Mutex
		var floors []time.Time
		d := newController(t, "north-1", c, func(o *uplink.Options) {
			o.Received = func(at time.Time, _ uint64) { mu.Lock(); floors = append(floors, at); mu.Unlock() }
		})
		d.settle(time.Minute)
		before := d.uplink.Status()
		time.Sleep(10*time.Minute + 30*time.Second)
		after := d.uplink.Status()
		if n := after.States - before.States; n < 9 || n > 11 {
			t.Errorf("%d states in ten minutes, want 10", n)
		}
		if !after.Synced || time.Since(after.LastReceipt) > 2*time.Minute {
			t.Errorf("status %+v: not in good order", after)
		}
		mu.Lock()
		defer mu.Unlock()
		if last := floors[len(floors)-1]; time.Since(last) > 2*time.Minute {
			t.Errorf("the last receipt's time is %v ago", time.Since(last))
		}
	})
}

func TestForgedReceiptsAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe(t, 1, fate{})
		c := newCRM(t, p)
		d := newController(t, "north-1", c, nil)
		d.settle(time.Minute)
		stranger := newCRM(t, newPipe(t, 2, fate{}))
		h := d.head()
		note, err := d.log.Checkpoint(t.Context(), h.Size)
		if err != nil {
			t.Fatal(err)
		}
		good := wire.Receipt{V: 1, Controller: "north-1", Epoch: h.Epoch, Size: h.Size, Checkpoint: note, Used: []string{}, Time: time.Now().UTC()}
		before := d.uplink.Status()
		refused := 0
		for name, forge := range map[string]func() (string, error){
			"another key":          func() (string, error) { return good.Sign(stranger.cosigner.Receipts()) },
			"another sort of JWS":  func() (string, error) { return good.Sign(c.cosigner.Bundles()) },
			"without cosignature":  func() (string, error) { return good.Sign(c.cosigner.Receipts()) },
			"another controller's": func() (string, error) { r := good; r.Controller = "south-1"; return r.Sign(c.cosigner.Receipts()) },
			"of another epoch's":   func() (string, error) { r := good; r.Epoch = random(); return r.Sign(c.cosigner.Receipts()) },
			"of another size":      func() (string, error) { r := good; r.Size++; return r.Sign(c.cosigner.Receipts()) },
			"without our signature": func() (string, error) {
				r := good
				r.Checkpoint = "x\n\n— y AAAAAAAA\n"
				return r.Sign(c.cosigner.Receipts())
			},
			"nothing": func() (string, error) { return "", nil },
		} {
			jws, err := forge()
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			d.uplink.Handle([]byte(jws))
			refused++
			time.Sleep(time.Millisecond)
			if got := d.uplink.Status(); got.Bad != before.Bad+uint64(refused) || got.Receipts != before.Receipts {
				t.Errorf("%s: %+v", name, got)
			}
		}
	})
}

func TestTheLastWillIsAStateThatSaysOffline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe(t, 1, fate{})
		c := newCRM(t, p)
		d := newController(t, "north-1", c, nil)
		d.settle(time.Minute)
		online := func() bool {
			list, err := c.store.Controllers(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			return list[0].Online
		}
		if !online() {
			t.Error("a connected controller is not shown as online")
		}
		will, err := d.uplink.Will()
		if err != nil || !will.Retained {
			t.Fatalf("will %+v, %v; want a retained message", will, err)
		}
		p.arrive(will)
		time.Sleep(time.Second)
		if online() {
			t.Error("a controller whose will was published is shown as online")
		}
	})
}

// From the commit of one record to its receipt in the log's hands, over the
// in-memory pipe: no delay is added while there is no backlog.
func TestALiveRecordIsSentAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCRM(t, newPipe(t, 1, fate{}))
		d := newController(t, "north-1", c, nil)
		d.settle(time.Minute)
		for range 20 {
			time.Sleep(3 * time.Second)
			at := time.Now()
			d.write(1)
			for d.uplink.Status().Acknowledged != d.head().Size {
				time.Sleep(time.Millisecond)
			}
			// Time stands still in here but where something waits for it.
			if waited := time.Since(at); waited > 2*time.Millisecond {
				t.Errorf("a live record waited %v", waited)
			}
		}
	})
}
