package osdp_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp/pd"
)

var newKey = osdp.Key{0: 0xB2, 15: 0x60}

// keys is a store that can fail, and that says what was done to it.
type keys struct {
	osdp.MemoryKeys
	done  []string
	fails string
}

func (k *keys) do(what string, f func() error) error {
	k.done = append(k.done, what)
	if k.fails == what {
		return errors.New("the disk is full")
	}
	return f()
}

func (k *keys) Begin(next osdp.Key) error {
	return k.do("begin", func() error { return k.MemoryKeys.Begin(next) })
}

func (k *keys) Commit(key osdp.Key) error {
	return k.do("commit", func() error { return k.MemoryKeys.Commit(key) })
}

func storeWith(current osdp.Key) *keys {
	k := &keys{}
	k.MemoryKeys.Begin(current)
	k.MemoryKeys.Commit(current)
	return k
}

func (r *rig) expectKey(k osdp.KeyStore, want osdp.Key) {
	r.Helper()
	current, next, err := k.Load()
	if err != nil || current == nil || !current.Equal(want) || next != nil {
		r.Errorf("the store has not exactly the key that is wanted")
	}
	if !r.far[0].Key().Equal(want) {
		r.Error("the reader has another key than is wanted")
	}
}

func TestAKeyIsKeptBeforeItIsSent(t *testing.T) {
	store := storeWith(key)
	far := pd.Config{Key: key, Handle: func(c osdp.Command) {
		if c.Command() == osdp.CodeKEYSET {
			store.done = append(store.done, "sent")
		}
	}}
	bubbleOf(t, osdp.Config{Baud: 9600, Peripherals: []osdp.PeripheralConfig{{Keys: store}}}, []pd.Config{far}, func(r *rig) {
		r.secure()
		if err := r.p(0).SetKey(r.Context(), newKey); err != nil {
			r.Fatal(err)
		}
		if want := []string{"begin", "sent", "commit"}; !slices.Equal(store.done, want) {
			r.Errorf("done %v, want %v", store.done, want)
		}
		r.expectKey(store, newKey)
		if s := r.p(0).Status(); s.State != osdp.Secure {
			r.Errorf("afterwards it is %v", s.State)
		}
		r.far[0].Present(cardA)
		time.Sleep(time.Second)
		r.expectCards(0xA1)
	})
}

func TestAKeyThatCannotBeKeptIsNotSent(t *testing.T) {
	store := storeWith(key)
	store.fails = "begin"
	bubbleOf(t, osdp.Config{Baud: 9600, Peripherals: []osdp.PeripheralConfig{{Keys: store}}}, []pd.Config{{Key: key}}, func(r *rig) {
		r.secure()
		if err := r.p(0).SetKey(r.Context(), newKey); err == nil {
			r.Error("there is no error")
		}
		time.Sleep(time.Second)
		r.expectKey(store, key)
		if s := r.p(0).Status(); s.State != osdp.Secure || s.Counters.Lost != 0 {
			r.Errorf("status %+v", s)
		}
	})
}

// After a crash between Begin and Commit, the reader may have either key.
func TestAfterACrashEitherKeyWorks(t *testing.T) {
	for name, test := range map[string]struct {
		current *osdp.Key
		has     osdp.Key
	}{
		"before it was sent":               {&key, key},
		"after it was sent":                {&key, newKey},
		"after it was sent, the first one": {nil, newKey},
	} {
		t.Run(name, func(t *testing.T) {
			store := &osdp.MemoryKeys{}
			if test.current != nil {
				store = osdp.NewMemoryKeys(*test.current)
			}
			store.Begin(newKey)
			bubbleOf(t, osdp.Config{Baud: 9600, Peripherals: []osdp.PeripheralConfig{{Keys: store}}}, []pd.Config{{Key: test.has}}, func(r *rig) {
				r.state(0, osdp.Secure, 3*time.Second)
				current, next, _ := store.Load()
				if test.has == newKey && (next != nil || !current.Equal(newKey)) {
					r.Error("the reader's key is not the current one")
				}
				if test.has == key && (next == nil || !current.Equal(key)) {
					r.Error("the store was changed with nothing proved")
				}
				r.far[0].Power(false) // and it stays so
				r.state(0, osdp.Offline, 20*time.Second)
				r.far[0].Power(true)
				r.state(0, osdp.Secure, 10*time.Second)
			})
		})
	}
}

// Whatever of the change is lost on the line, the store and the reader agree in
// the end.
func TestAChangeOfKeysSurvivesFaults(t *testing.T) {
	for _, fault := range []pd.Fault{pd.Drop, pd.DropReply, pd.Flip, pd.Truncate, pd.Late, pd.Busy, pd.WrongMAC} {
		t.Run(fault.String(), func(t *testing.T) {
			store := storeWith(key)
			bubbleOf(t, osdp.Config{Baud: 9600, Peripherals: []osdp.PeripheralConfig{{Keys: store}}}, []pd.Config{{Key: key}}, func(r *rig) {
				r.secure()
				for _, k := range []osdp.Key{newKey, key, newKey} {
					r.far[0].Inject(fault, 1)
					if err := r.p(0).SetKey(r.Context(), k); err != nil {
						r.Logf("changing the key: %v", err)
					}
					time.Sleep(10 * time.Second)
					r.secure()
					current, _, _ := store.Load()
					if !current.Equal(r.far[0].Key()) {
						r.Fatal("the store and the reader disagree")
					}
				}
			})
		})
	}
}

func TestAKeyThatCannotBeCommittedIsAState(t *testing.T) {
	store := storeWith(key)
	store.fails = "commit"
	bubbleOf(t, osdp.Config{Baud: 9600, Peripherals: []osdp.PeripheralConfig{{Keys: store}}}, []pd.Config{{Key: key}}, func(r *rig) {
		r.secure()
		if err := r.p(0).SetKey(r.Context(), newKey); err == nil {
			r.Error("there is no error")
		}
		r.state(0, osdp.Unsecured, 3*time.Second)
		store.fails = ""
		r.state(0, osdp.Secure, 10*time.Second)
		r.expectKey(store, newKey)
	})
}

func TestANewReaderIsGivenItsKeyOnlyByInstall(t *testing.T) {
	store := &keys{}
	bubbleOf(t, osdp.Config{Baud: 9600, Peripherals: []osdp.PeripheralConfig{{Keys: store}}}, []pd.Config{{}}, func(r *rig) {
		time.Sleep(time.Minute)
		r.far[0].Present(cardA) // delivered under the default key, should it ever be
		if s := r.p(0).Status(); s.State != osdp.Unsecured || !errors.Is(s.Err, osdp.ErrNoKey) {
			r.Fatalf("it is %v: %v", s.State, s.Err)
		}
		if err := r.p(0).SetKey(r.Context(), newKey); !errors.Is(err, osdp.ErrUnsecured) {
			r.Errorf("SetKey: %v", err)
		}
		if err := r.p(0).Install(r.Context(), osdp.DefaultKey()); !errors.Is(err, osdp.ErrDefaultKey) {
			r.Errorf("installing the default key: %v", err)
		}
		r.forget()
		if err := r.p(0).Install(r.Context(), newKey); err != nil {
			r.Fatal(err)
		}
		_, states := r.told()
		if want := []osdp.State{osdp.Starting, osdp.Installing, osdp.Starting, osdp.Secure}; !slices.Equal(states, want) {
			r.Errorf("states %v, want %v", states, want)
		}
		if want := []string{"begin", "commit"}; !slices.Equal(store.done, want) {
			r.Errorf("done %v, want %v", store.done, want)
		}
		r.expectKey(store, newKey)
		r.far[0].Present(cardB)
		time.Sleep(time.Second)
		// The first card was told neither on the default key nor lost by the reader.
		if got := r.cards(); len(got) == 0 || got[len(got)-1] != 0xB2 {
			r.Errorf("cards %x", got)
		}
	})
}

func TestNothingToldOnTheDefaultKeyIsPassedOn(t *testing.T) {
	store := &keys{fails: "begin"}
	bubbleOf(t, osdp.Config{Baud: 9600, Peripherals: []osdp.PeripheralConfig{{Keys: store}}}, []pd.Config{{}}, func(r *rig) {
		r.state(0, osdp.Unsecured, time.Second)
		for range 5 {
			r.far[0].Present(cardA)
		}
		if err := r.p(0).Install(r.Context(), newKey); err == nil {
			r.Error("there is no error")
		}
		time.Sleep(time.Minute)
		r.expectCards()
		if s := r.p(0).Status(); s.State != osdp.Unsecured {
			r.Errorf("it is %v", s.State)
		}
	})
}

// Only the new key goes over the default one; what else there is to send waits.
func TestNothingElseIsSentOnTheDefaultKey(t *testing.T) {
	store := &keys{fails: "begin"}
	var beeps int
	far := pd.Config{Handle: func(c osdp.Command) {
		if c.Command() == osdp.CodeBUZ {
			beeps++
		}
	}}
	bubbleOf(t, osdp.Config{Baud: 9600, Peripherals: []osdp.PeripheralConfig{{Keys: store}}}, []pd.Config{far}, func(r *rig) {
		r.state(0, osdp.Unsecured, time.Second)
		done := make(chan error)
		go func() {
			for r.p(0).Status().State == osdp.Unsecured {
				time.Sleep(time.Millisecond)
			}
			_, err := r.p(0).Do(r.Context(), osdp.Buzz{})
			done <- err
		}()
		if err := r.p(0).Install(r.Context(), newKey); err == nil {
			r.Error("there is no error")
		}
		if err := <-done; !errors.Is(err, osdp.ErrUnsecured) || beeps != 0 {
			r.Errorf("a command meanwhile: %v, carried out %d times", err, beeps)
		}
	})
}

func TestInstallEndsWithItsContext(t *testing.T) {
	bubbleOf(t, osdp.Config{Baud: 9600, Peripherals: []osdp.PeripheralConfig{{Keys: &osdp.MemoryKeys{}}}}, []pd.Config{{}}, func(r *rig) {
		r.state(0, osdp.Unsecured, time.Second)
		r.far[0].Inject(pd.Busy, -1)
		ctx, cancel := context.WithTimeout(r.Context(), osdp.OfflineAfter/2)
		defer cancel()
		if err := r.p(0).Install(ctx, newKey); !errors.Is(err, context.DeadlineExceeded) {
			r.Errorf("Install: %v", err)
		}
		r.far[0].Inject(pd.Busy, 0)
		time.Sleep(time.Minute)
		if r.far[0].Key() != (osdp.Key{}) {
			r.Error("the key was installed after all")
		}
		if s := r.p(0).Status(); s.State != osdp.Unsecured {
			r.Errorf("it is %v", s.State)
		}
	})
}

// A reader that has a key of its own does not take the default key, whatever a
// panel wants.
func TestInstallDoesNotReplaceAKey(t *testing.T) {
	bubbleOf(t, osdp.Config{Baud: 9600, Peripherals: []osdp.PeripheralConfig{{Keys: &osdp.MemoryKeys{}}}}, []pd.Config{{Key: key}}, func(r *rig) {
		r.state(0, osdp.Unsecured, time.Second)
		if err := r.p(0).Install(r.Context(), newKey); !errors.Is(err, osdp.NAKSecurity) {
			r.Errorf("Install: %v", err)
		}
		if r.far[0].Key() != key {
			r.Error("the reader has another key")
		}
	})
}

func TestAnAddressIsFollowed(t *testing.T) {
	bubble(t, []pd.Config{{Key: key}, {Address: 1, Key: key}}, func(r *rig) {
		r.secure()
		if err := r.p(0).SetAddress(r.Context(), 1); err == nil {
			r.Error("an address was given twice")
		}
		if err := r.p(0).SetAddress(r.Context(), 0x7F); err == nil {
			r.Error("the address of all was given")
		}
		if err := r.p(0).SetAddress(r.Context(), 7); err != nil {
			r.Fatal(err)
		}
		r.secure()
		if a := r.p(0).Address(); a != 7 || r.bus.Peripheral(7) != r.p(0) || r.bus.Peripheral(0) != nil {
			r.Errorf("its address is %d", a)
		}
		r.far[0].Present(cardA)
		time.Sleep(time.Second)
		r.expectCards(0xA1)
	})
}

func TestARateIsFollowedByAll(t *testing.T) {
	bubbleOf(t, osdp.Config{Baud: 9600}, []pd.Config{{Key: key}, {Address: 1, ClearText: true}}, func(r *rig) {
		r.secure()
		if err := r.bus.SetBaud(r.Context(), 4800); err == nil {
			r.Error("4800 baud was taken")
		}
		if err := r.bus.SetBaud(r.Context(), 115200); err != nil {
			r.Fatal(err)
		}
		r.secure()
		for i := range r.far {
			if c := r.p(i).Status().Counters; c.Silent > 0 {
				r.Errorf("%d was asked %d times at the wrong rate", i, c.Silent)
			}
		}
		r.far[0].Present(cardA)
		r.far[1].Present(cardB)
		time.Sleep(time.Second)
		if got := r.cards(); len(got) != 2 {
			r.Errorf("cards %x", got)
		}
		r.mu.Lock()
		r.line.Close() // and when it is opened again
		r.mu.Unlock()
		time.Sleep(2 * time.Second)
		r.secure()

		r.far[1].Power(false)
		r.state(1, osdp.Offline, 20*time.Second)
		if err := r.bus.SetBaud(r.Context(), 9600); err == nil {
			r.Error("a reader was left behind")
		}
		r.state(0, osdp.Secure, time.Second)
	})
}

func TestAReaderThatStaysAtItsRateIsNamed(t *testing.T) {
	stubborn := pd.Config{Address: 1, Key: key, Answer: func(c osdp.Command) osdp.Reply {
		if c.Command() == osdp.CodeCOMSET {
			return osdp.NAK{Code: osdp.NAKUnknownCommand}
		}
		return nil
	}}
	bubbleOf(t, osdp.Config{Baud: 9600}, []pd.Config{{Key: key}, stubborn}, func(r *rig) {
		r.secure()
		if err := r.bus.SetBaud(r.Context(), 38400); !errors.Is(err, osdp.NAKUnknownCommand) {
			r.Errorf("SetBaud: %v", err)
		}
		r.state(0, osdp.Secure, 10*time.Second)
		r.state(1, osdp.Offline, 20*time.Second)
	})
}

func TestReadersAreDiscovered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := pd.NewLine(pd.Wire{}, 9600,
			pd.New(pd.Config{Address: 3, Key: key, Baud: 9600}),
			pd.New(pd.Config{Address: 0x7E, Baud: 115200, Checksum: true}))
		defer line.Close()
		var found []osdp.Found
		start := time.Now()
		for f, err := range osdp.Discover(t.Context(), line, osdp.Discovery{}) {
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, f)
		}
		if len(found) != 2 || found[0].Address != 3 || found[0].Baud != 9600 || found[1].Address != 0x7E || found[1].Baud != 115200 ||
			found[0].ID.Serial != 0x51000003 || found[1].Capabilities.Get(osdp.FunctionReaders).Count != 1 {
			t.Errorf("found %+v", found)
		}
		if d := time.Since(start); d > 4*time.Minute {
			t.Errorf("it took %v", d)
		}
		found = nil
		for f, err := range osdp.Discover(t.Context(), line, osdp.Discovery{Bauds: []int{38400, 115200}, Addresses: []byte{osdp.Broadcast}}) {
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, f)
			break
		}
		if len(found) != 1 || found[0].Address != 0x7E {
			t.Errorf("found by broadcast %+v", found)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for _, err := range osdp.Discover(ctx, line, osdp.Discovery{}) {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("without a context: %v", err)
			}
		}
	})
}

func TestOnlyAKeyThatWasBegunIsCommitted(t *testing.T) {
	m := osdp.NewMemoryKeys(key)
	if err := m.Commit(newKey); err == nil {
		t.Error("a key that was not begun was committed")
	}
	m.Begin(newKey)
	if err := m.Commit(key); err == nil {
		t.Error("another key than was begun was committed")
	}
	if err := m.Commit(newKey); err != nil {
		t.Error(err)
	}
	if current, next, _ := m.Load(); !current.Equal(newKey) || next != nil {
		t.Error("the key that was committed is not the current one")
	}
}
