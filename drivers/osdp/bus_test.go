package osdp_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp/pd"
)

var key = osdp.Key{0: 0xA1, 15: 0x5F}

// rig is a bus with simulated peripherals on a line in memory, in a synctest
// bubble: its time is not real.
type rig struct {
	*testing.T
	bus  *osdp.Bus
	far  []*pd.Peripheral
	keys []*osdp.MemoryKeys
	stop func()

	mu     sync.Mutex
	events []osdp.Event
	opened int
	broken bool // the line cannot be opened
	line   osdp.Line
}

// bubble runs f with a bus of these peripherals, each with the key.
func bubble(t *testing.T, far []pd.Config, f func(r *rig)) {
	bubbleOf(t, osdp.Config{Baud: 115200}, far, f)
}

func bubbleOf(t *testing.T, c osdp.Config, far []pd.Config, f func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{T: t}
		for i, fc := range far {
			if fc.Baud == 0 {
				fc.Baud = c.Baud
			}
			r.far = append(r.far, pd.New(fc))
			near := osdp.PeripheralConfig{Address: fc.Address, Checksum: fc.Checksum}
			if len(c.Peripherals) > i {
				near = c.Peripherals[i]
			} else if fc.ClearText {
				near.ClearText = true
				r.keys = append(r.keys, nil)
			} else {
				r.keys = append(r.keys, osdp.NewMemoryKeys(key))
				near.Keys = r.keys[i]
			}
			if len(c.Peripherals) <= i {
				c.Peripherals = append(c.Peripherals, near)
			}
		}
		c.Handle = func(e osdp.Event) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.events = append(r.events, e)
		}
		c.Open = func(baud int) (osdp.Line, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.opened++
			if r.broken {
				return nil, errors.New("no such device")
			}
			r.line = pd.NewLine(pd.Wire{Baud: baud}, baud, r.far...)
			return r.line, nil
		}
		bus, err := osdp.New(c)
		if err != nil {
			t.Fatal(err)
		}
		r.bus = bus
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- bus.Run(ctx) }()
		r.stop = sync.OnceFunc(func() {
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("Run: %v", err)
			}
		})
		defer r.stop()
		f(r)
	})
}

// secure waits until every peripheral works.
func (r *rig) secure() {
	r.Helper()
	for i, p := range r.bus.Peripherals() {
		ctx, cancel := context.WithTimeout(r.Context(), time.Minute)
		if err := p.Wait(ctx); err != nil {
			r.Fatalf("peripheral %d does not work: %v, %+v", i, err, p.Status())
		}
		cancel()
	}
	r.forget()
}

func (r *rig) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = nil
}

// told are the replies that were passed on, and the states.
func (r *rig) told() (replies []osdp.Reply, states []osdp.State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.Reply != nil {
			replies = append(replies, e.Reply)
		} else {
			states = append(states, e.State)
		}
	}
	return replies, states
}

// cards are those that were passed on, by their first byte.
func (r *rig) cards() (first []byte) {
	replies, _ := r.told()
	for _, m := range replies {
		if c, ok := m.(osdp.Card); ok {
			first = append(first, c.Data[0])
		}
	}
	return first
}

func (r *rig) expectCards(want ...byte) {
	r.Helper()
	if got := r.cards(); !slices.Equal(got, want) {
		r.Errorf("cards %x, want %x", got, want)
	}
}

func (r *rig) p(i int) *osdp.Peripheral { return r.bus.Peripherals()[i] }

// state waits until a peripheral is in a state.
func (r *rig) state(i int, want osdp.State, within time.Duration) osdp.Status {
	r.Helper()
	for end := time.Now().Add(within); ; time.Sleep(10 * time.Millisecond) {
		s := r.p(i).Status()
		if s.State == want {
			return s
		}
		if time.Now().After(end) {
			r.Fatalf("peripheral %d is %v (%v), not %v within %v", i, s.State, s.Err, want, within)
		}
	}
}

const (
	cardA = "10100001" // A1
	cardB = "10110010" // B2
)

func TestAReaderTellsItsCardsKeysAndTamperOverTheSecureChannel(t *testing.T) {
	bubble(t, []pd.Config{{Key: key}}, func(r *rig) {
		r.secure()
		time.Sleep(time.Second)
		r.forget() // how things were at the start
		r.far[0].Present(cardA)
		r.far[0].Press("12#")
		r.far[0].SetLocal(osdp.LocalStatus{Tamper: true})
		r.far[0].SetInput(1, osdp.InputActive)
		r.far[0].Present(cardB)
		time.Sleep(time.Second)
		r.expectCards(0xA1, 0xB2)
		replies, states := r.told()
		if len(replies) != 5 || len(states) != 0 {
			t.Fatalf("told %v and the states %v", replies, states)
		}
		if k := replies[1].(osdp.Keypad); string(k.Keys) != "12#" {
			t.Errorf("other keys came than were pressed")
		}
		if s := replies[2].(osdp.LocalStatus); !s.Tamper || s.PowerFail {
			t.Errorf("local status %+v", s)
		}
		if s := replies[3].(osdp.Inputs); !slices.Equal(s, osdp.Inputs{osdp.InputInactive, osdp.InputActive}) {
			t.Errorf("inputs %v", s)
		}
		s := r.p(0).Status()
		if s.State != osdp.Secure || s.Counters.Repeats != 0 || s.Counters.Lost != 0 || s.ID.Model != 1 || s.Capabilities.Get(osdp.FunctionBiometrics).Level != 3 {
			t.Errorf("status %+v", s)
		}
	})
}

func TestTheStateAtTheStartIsAskedFor(t *testing.T) {
	var size atomic.Int32
	far := pd.Config{Key: key, Handle: func(c osdp.Command) {
		if c, ok := c.(osdp.SetReceiveSize); ok {
			size.Store(int32(c.Bytes))
		}
	}}
	bubble(t, []pd.Config{far}, func(r *rig) {
		time.Sleep(time.Second)
		if n := size.Load(); n != osdp.MaxFrame {
			t.Errorf("a reader with a scanner was told that %d bytes are taken, not %d", n, osdp.MaxFrame)
		}
		replies, states := r.told()
		if !slices.Equal(states, []osdp.State{osdp.Starting, osdp.Secure}) {
			t.Errorf("states %v", states)
		}
		if len(replies) != 2 || replies[0] != (osdp.LocalStatus{}) || len(replies[1].(osdp.Inputs)) != 2 {
			t.Errorf("told %v", replies)
		}
	})
}

func TestCommandsAreCarriedOut(t *testing.T) {
	for _, far := range []pd.Config{{Key: key}, {ClearText: true}, {Checksum: true, ClearText: true}, {Checksum: true, Key: key}} {
		var done []osdp.Command
		far.Handle = func(c osdp.Command) { done = append(done, c) }
		bubble(t, []pd.Config{far}, func(r *rig) {
			r.secure()
			for _, c := range []osdp.Command{
				osdp.SetLEDs{{Permanent: true, Steady: osdp.Flash{On: 1, OnColor: osdp.Green}}}, osdp.Buzz{Tone: osdp.ToneDefault, On: 1, Count: 2},
				osdp.ShowText{Mode: osdp.TextPermanent, Row: 1, Column: 1, Text: "Welcome"}, osdp.KeepActive{Milliseconds: 500}, osdp.SetReceiveSize{Bytes: 512},
			} {
				reply, err := r.p(0).Do(r.Context(), c)
				if _, ok := reply.(osdp.ACK); !ok || err != nil {
					t.Errorf("%v: %v, %v", c.Command(), reply, err)
				}
				if last := done[len(done)-1]; last.Command() != c.Command() {
					t.Errorf("%v was carried out, not %v", last, c)
				}
			}
			reply, err := r.p(0).Do(r.Context(), osdp.SetOutputs{{Output: 0, Action: osdp.OutputOnAbort}})
			if o, ok := reply.(osdp.Outputs); err != nil || !ok || !o[0] || !r.far[0].Outputs()[0] {
				t.Errorf("the output is %v, %v", reply, err)
			}
			if reply, err = r.p(0).Do(r.Context(), osdp.GetReaders{}); err != nil || reply.(osdp.Readers)[0] != osdp.ReaderOK {
				t.Errorf("readers: %v, %v", reply, err)
			}
			m := osdp.Manufacturer{OUI: [3]byte{1, 2, 3}, Data: osdp.Secret("payload")}
			if reply, err = r.p(0).Do(r.Context(), m); err != nil || string(reply.(osdp.ManufacturerReply).Data) != "payload" {
				t.Errorf("maker's own: %v, %v", reply, err)
			}
		})
	}
}

func TestARefusalIsAnError(t *testing.T) {
	bubble(t, []pd.Config{{Key: key}}, func(r *rig) {
		r.secure()
		if _, err := r.p(0).Do(r.Context(), osdp.OtherCommand{Code: 0xEE}); !errors.Is(err, osdp.NAKUnknownCommand) {
			t.Errorf("an unknown command: %v", err)
		}
		if _, err := r.p(0).Do(r.Context(), osdp.Manufacturer{Data: make(osdp.Secret, 300)}); !errors.Is(err, osdp.ErrTooLong) {
			t.Errorf("a command too long for the reader: %v", err)
		}
		for _, c := range []osdp.Command{osdp.SetKey{Key: key}, osdp.SetComm{}, osdp.Challenge{}, osdp.Poll{}, osdp.BioRead{}} {
			if _, err := r.p(0).Do(r.Context(), c); err == nil {
				t.Errorf("%v was sent past its own method", c.Command())
			}
		}
		if s := r.p(0).Status(); s.State != osdp.Secure || s.Counters.Lost != 0 {
			t.Errorf("the channel did not live through it: %+v", s)
		}
	})
}

// Each fault that a line or a peripheral may have, hit a few times among good
// frames: every card arrives, once and in order, and every command is carried
// out once.
func TestWithEveryFaultWhatHappensHappensOnce(t *testing.T) {
	for _, fault := range []pd.Fault{pd.Drop, pd.DropReply, pd.Flip, pd.Truncate, pd.Noise, pd.Echo, pd.Late, pd.Busy} {
		t.Run(fault.String(), func(t *testing.T) {
			done := 0
			far := pd.Config{Key: key, Handle: func(c osdp.Command) {
				if c.Command() == osdp.CodeBUZ {
					done++
				}
			}}
			bubble(t, []pd.Config{far}, func(r *rig) {
				r.secure()
				var want []byte
				for i, card := range []string{cardA, cardB, cardA, cardA, cardB} {
					r.far[0].Present(card)
					r.far[0].Inject(fault, 1+i%2)
					if _, err := r.p(0).Do(r.Context(), osdp.Buzz{Tone: osdp.ToneDefault}); err != nil {
						t.Errorf("command %d: %v", i, err)
					}
					time.Sleep(2 * time.Second)
					want = append(want, map[string]byte{cardA: 0xA1, cardB: 0xB2}[card])
				}
				r.expectCards(want...)
				if done != 5 {
					t.Errorf("5 commands were carried out %d times", done)
				}
				if s := r.p(0).Status(); s.State != osdp.Secure || s.Counters.Lost != 0 {
					t.Errorf("the channel did not live through it: %+v", s)
				}
			})
		})
	}
}

// A frame that was forged, repeated or sent in clear text ends the channel; what
// it says is not passed on, and a new channel is made.
func TestAForgedFrameEndsTheChannelAndSaysNothing(t *testing.T) {
	for _, fault := range []pd.Fault{pd.WrongMAC, pd.Replay, pd.Clear} {
		t.Run(fault.String(), func(t *testing.T) {
			bubble(t, []pd.Config{{Key: key}}, func(r *rig) {
				r.secure()
				time.Sleep(5 * time.Second)
				r.forget()
				r.far[0].Present(cardA)
				r.far[0].Inject(fault, 1)
				s := r.state(0, osdp.Starting, time.Second)
				if s.Counters.Forged != 1 || s.Counters.Lost != 1 || s.Err == nil {
					t.Errorf("status %+v", s)
				}
				r.secure()
				r.expectCards() // it was in the forged frame
				r.far[0].Present(cardB)
				time.Sleep(time.Second)
				r.expectCards(0xB2)
			})
		})
	}
}

// While every frame is forged, nothing gets through, the state says why, and the
// line is not flooded with handshakes.
func TestWhileEveryFrameIsForgedNothingIsPassedOn(t *testing.T) {
	bubble(t, []pd.Config{{Key: key}}, func(r *rig) {
		r.secure()
		time.Sleep(5 * time.Second)
		r.forget()
		r.far[0].Inject(pd.WrongMAC, -1)
		for range 20 {
			r.far[0].Present(cardA)
			time.Sleep(time.Second)
		}
		r.expectCards()
		if n := r.p(0).Status().Counters.Lost; n < 5 || n > 25 {
			t.Errorf("%d channels were lost in 20 s", n)
		}
		r.far[0].Inject(pd.WrongMAC, 0)
		time.Sleep(2 * time.Second)
		r.secure()
	})
}

func TestAReaderThatLostItsPowerComesBackByItself(t *testing.T) {
	bubble(t, []pd.Config{{Key: key}}, func(r *rig) {
		r.secure()
		r.far[0].Power(false)
		r.far[0].Power(true) // too short a time for anybody to notice
		time.Sleep(3 * time.Second)
		_, states := r.told()
		if !slices.Contains(states, osdp.Starting) || states[len(states)-1] != osdp.Secure {
			t.Errorf("states %v", states)
		}
		r.far[0].Present(cardA)
		time.Sleep(time.Second)
		r.expectCards(0xA1)

		r.far[0].Power(false)
		start := time.Now()
		s := r.state(0, osdp.Offline, 20*time.Second)
		if d := time.Since(start); d < osdp.OfflineAfter || d > 2*osdp.OfflineAfter {
			t.Errorf("offline after %v", d)
		}
		if !errors.Is(s.Err, osdp.ErrOffline) {
			t.Errorf("offline: %v", s.Err)
		}
		start = time.Now()
		if _, err := r.p(0).Do(r.Context(), osdp.Buzz{}); !errors.Is(err, osdp.ErrOffline) || time.Since(start) > time.Second {
			t.Errorf("a command to it: %v after %v", err, time.Since(start))
		}
		time.Sleep(10 * time.Minute)
		r.far[0].Power(true)
		r.state(0, osdp.Secure, 2*time.Second)
		r.far[0].Present(cardB)
		time.Sleep(time.Second)
		r.expectCards(0xA1, 0xB2)
	})
}

func TestACommandInFlightFailsWhenItsReaderIsGone(t *testing.T) {
	bubble(t, []pd.Config{{Key: key}}, func(r *rig) {
		r.secure()
		r.far[0].Power(false)
		if _, err := r.p(0).Do(r.Context(), osdp.Buzz{}); !errors.Is(err, osdp.ErrOffline) {
			t.Errorf("got %v", err)
		}
	})
}

func TestAPatientReaderIsAskedAgain(t *testing.T) {
	bubble(t, []pd.Config{{Key: key}}, func(r *rig) {
		r.secure()
		r.far[0].Inject(pd.Busy, -1)
		ctx, cancel := context.WithTimeout(r.Context(), osdp.OfflineAfter-time.Second)
		defer cancel()
		if _, err := r.p(0).Do(ctx, osdp.Buzz{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a reader that is busy: %v", err)
		}
		if s := r.p(0).Status(); s.State != osdp.Secure {
			t.Errorf("busy is %v", s.State)
		}
		r.far[0].Inject(pd.Busy, 0)
		if _, err := r.p(0).Do(r.Context(), osdp.Buzz{}); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// A Busy has no MAC: whoever has the wires can send it in the name of a reader
// that is no longer there.
func TestAReaderThatIsAlwaysBusyIsOffline(t *testing.T) {
	bubble(t, []pd.Config{{Key: key}}, func(r *rig) {
		r.secure()
		r.forget()
		r.far[0].Inject(pd.Busy, -1)
		time.Sleep(time.Minute)
		_, states := r.told()
		if len(states) != 1 || states[0] != osdp.Offline {
			r.Errorf("states %v", states)
		}
		r.far[0].Inject(pd.Busy, 0)
		r.secure()
		if _, err := r.p(0).Do(r.Context(), osdp.Buzz{}); err != nil {
			r.Errorf("afterwards: %v", err)
		}
	})
}

func TestALineThatIsLostIsOpenedAgain(t *testing.T) {
	bubble(t, []pd.Config{{Key: key}, {Address: 1, Key: key}}, func(r *rig) {
		r.secure()
		r.mu.Lock()
		line := r.line
		r.broken = true
		r.mu.Unlock()
		line.Close()
		for i := range 2 {
			if s := r.state(i, osdp.Offline, time.Second); s.Err == nil {
				t.Error("there is no reason")
			}
		}
		time.Sleep(time.Hour)
		r.mu.Lock()
		if r.opened > 300 {
			t.Errorf("opened %d times in an hour", r.opened)
		}
		r.broken = false
		r.mu.Unlock()
		r.secure()
		r.far[1].Present(cardA)
		time.Sleep(time.Second)
		r.expectCards(0xA1)
	})
}

// A dead reader must not cost the others 200 ms a turn.
func TestDeadReadersDoNotSlowDownTheOthers(t *testing.T) {
	var far []pd.Config
	for a := range byte(8) {
		far = append(far, pd.Config{Address: a, Key: key})
	}
	polls := func(dead int) (n uint64) {
		bubbleOf(t, osdp.Config{Baud: 9600, PollEvery: -1}, far, func(r *rig) {
			r.secure()
			for i := range dead {
				r.far[7-i].Power(false)
			}
			time.Sleep(time.Minute)
			before := r.p(0).Status().Counters.Replies
			time.Sleep(time.Minute)
			n = r.p(0).Status().Counters.Replies - before
			for i := range dead {
				r.state(7-i, osdp.Offline, 0)
			}
		})
		return n
	}
	all, fewer := polls(0), polls(3)
	if fewer < all*8/5*9/10 {
		t.Errorf("%d polls a minute with all eight alive, %d with three of them dead", all, fewer)
	}
	t.Logf("%d polls a minute with all eight alive, %d with three of them dead", all, fewer)
}

func TestDeadReadersComeBackOneAfterTheOther(t *testing.T) {
	bubble(t, []pd.Config{{Key: key}, {Address: 1, Key: key}, {Address: 2, Key: key}, {Address: 3, Key: key}}, func(r *rig) {
		r.secure()
		for _, f := range r.far[1:] {
			f.Power(false)
		}
		time.Sleep(time.Minute)
		for _, f := range r.far[1:] {
			f.Power(true)
		}
		for i := range r.far {
			r.state(i, osdp.Secure, 15*time.Second)
		}
	})
}

func TestTwoReadersWithOneAddressAreNoReader(t *testing.T) {
	bubble(t, []pd.Config{{Key: key}, {Address: 1, Key: key}}, func(r *rig) {
		intruder := pd.New(pd.Config{Key: osdp.Key{1, 2, 3}, Baud: 115200, ID: osdp.ID{Serial: 99}})
		r.mu.Lock()
		r.far = append(r.far, intruder)
		if r.line != nil {
			r.line.Close()
		}
		r.mu.Unlock()
		r.state(1, osdp.Secure, 10*time.Second)
		r.far[0].Present(cardA)
		intruder.Present(cardA)
		time.Sleep(time.Minute)
		if s := r.p(0).Status(); s.State == osdp.Secure || s.Err == nil {
			t.Errorf("status %+v", s)
		}
		r.far[1].Present(cardB)
		time.Sleep(time.Second)
		r.expectCards(0xB2)
	})
}

func TestWithoutItsKeyAReaderIsNotSpokenTo(t *testing.T) {
	none := &osdp.MemoryKeys{}
	for name, test := range map[string]struct {
		far  pd.Config
		keys osdp.KeyStore
		want error
	}{
		"another key":              {pd.Config{Key: osdp.Key{1}}, osdp.NewMemoryKeys(key), osdp.ErrKey},
		"the default key":          {pd.Config{}, osdp.NewMemoryKeys(key), osdp.NAKSecurity},
		"no Secure Channel":        {pd.Config{NoSecurity: true, ClearText: true}, osdp.NewMemoryKeys(key), osdp.NAKNoSecurity},
		"no key here":              {pd.Config{Key: key}, none, osdp.ErrNoKey},
		"no key here or there":     {pd.Config{ClearText: true}, none, osdp.ErrNoKey},
		"the default key as ours":  {pd.Config{}, osdp.NewMemoryKeys(osdp.DefaultKey()), osdp.ErrDefaultKey},
		"clear text, and it wants": {pd.Config{Key: key}, nil, osdp.NAKSecurity},
	} {
		t.Run(name, func(t *testing.T) {
			c := osdp.Config{Baud: 9600, Peripherals: []osdp.PeripheralConfig{{Keys: test.keys, ClearText: test.keys == nil}}}
			bubbleOf(t, c, []pd.Config{test.far}, func(r *rig) {
				s := r.state(0, osdp.Unsecured, 5*time.Second)
				if !errors.Is(s.Err, test.want) {
					t.Errorf("it is unsecured for %v, want %v", s.Err, test.want)
				}
				for range 10 {
					r.far[0].Present(cardA)
					time.Sleep(3 * time.Second)
				}
				r.expectCards()
				if r.far[0].Online() && !test.far.ClearText {
					t.Error("the reader takes the panel for its own")
				}
				if _, err := r.p(0).Do(r.Context(), osdp.Buzz{}); !errors.Is(err, osdp.ErrUnsecured) || !errors.Is(err, test.want) {
					t.Errorf("a command to it: %v", err)
				}
				if _, states := r.told(); slices.Contains(states, osdp.Secure) || len(states) > 4 {
					t.Errorf("states %v", states)
				}
			})
		})
	}
}

func TestAConfigurationsFaultsAreAllTold(t *testing.T) {
	_, err := osdp.New(osdp.Config{Baud: 1234, ReplyTimeout: time.Millisecond, Peripherals: []osdp.PeripheralConfig{
		{Address: 0x7F, ClearText: true}, {Address: 1}, {Address: 1, ClearText: true, Keys: osdp.NewMemoryKeys(key)},
	}})
	if err == nil {
		t.Fatal("it was taken")
	}
	if joined, ok := err.(interface{ Unwrap() []error }); !ok || len(joined.Unwrap()) != 7 {
		t.Errorf("want 7 faults, got:\n%v", err)
	}
}

func TestAStoppedBusTakesNoCommands(t *testing.T) {
	bubble(t, []pd.Config{{Key: key}}, func(r *rig) {
		r.secure()
		waiting := make(chan error)
		go func() {
			_, err := r.p(0).BioRead(r.Context(), osdp.BioRead{})
			waiting <- err
		}()
		time.Sleep(time.Second)
		r.stop()
		if err := <-waiting; !errors.Is(err, osdp.ErrStopped) {
			t.Errorf("a scan that was under way: %v", err)
		}
		if _, err := r.p(0).Do(r.Context(), osdp.Buzz{}); !errors.Is(err, osdp.ErrStopped) {
			t.Errorf("Do: %v", err)
		}
	})
}

// With every turn taking its time, commands go out and polls do too.
func TestCommandsAndPollsShareASlowLine(t *testing.T) {
	var far []pd.Config
	for a := range byte(12) {
		far = append(far, pd.Config{Address: a, Key: key})
	}
	bubbleOf(t, osdp.Config{Baud: 9600}, far, func(r *rig) {
		r.secure()
		ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
		defer cancel()
		go func() {
			time.Sleep(time.Second)
			r.far[3].Present(cardA)
		}()
		n := 0
		for ctx.Err() == nil {
			if _, err := r.p(3).Do(ctx, osdp.Buzz{}); err == nil {
				n++
			}
		}
		if n < 10 {
			r.Errorf("%d commands in 10 s", n)
		}
		r.expectCards(0xA1)
	})
}

// A reader that lost its power expects the number 1, which happens to be the
// next one now and then: nothing is to be noticed then.
func TestAClearTextReaderThatLostItsPowerIsStartedAnew(t *testing.T) {
	bubble(t, []pd.Config{{ClearText: true}}, func(r *rig) {
		r.secure()
		time.Sleep(time.Second)
		const tries = 9
		for i := range tries {
			r.far[0].Power(false)
			r.far[0].Power(true)
			time.Sleep(2*time.Second + time.Duration(i)*osdp.DefaultPollEvery)
		}
		_, states := r.told()
		if len(states) < 2 || states[0] != osdp.Starting || states[len(states)-1] != osdp.ClearText {
			r.Errorf("states %v", states)
		}
		r.far[0].Present(cardA)
		time.Sleep(time.Second)
		r.expectCards(0xA1)
	})
}

func TestOnlySoManyCommandsWait(t *testing.T) {
	bubble(t, []pd.Config{{Key: key}}, func(r *rig) {
		r.secure()
		r.far[0].Inject(pd.Busy, -1)
		ctx, cancel := context.WithCancel(r.Context())
		full := make(chan error, 100)
		for range 100 {
			go func() {
				_, err := r.p(0).Do(ctx, osdp.Buzz{})
				full <- err
			}()
		}
		time.Sleep(osdp.OfflineAfter / 2)
		if n := len(full); n < 30 || n > 40 {
			r.Errorf("%d of 100 were turned away", n)
		}
		cancel()
		for range 100 {
			if err := <-full; !errors.Is(err, osdp.ErrQueueFull) && !errors.Is(err, context.Canceled) {
				r.Error(err)
			}
		}
	})
}

func TestAReplyThatMakesNoSenseIsTold(t *testing.T) {
	bubble(t, []pd.Config{{Key: key}}, func(r *rig) {
		r.secure()
		time.Sleep(time.Second)
		r.forget()
		r.far[0].Tell(osdp.OtherReply{Code: osdp.CodeRAW, Data: osdp.Secret{0, 1, 26, 0, 0xA1}})
		time.Sleep(time.Second)
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.events) != 1 || r.events[0].Reply != nil || !errors.Is(r.events[0].Err, osdp.ErrMessage) || r.events[0].State != osdp.Secure {
			r.Errorf("told %+v", r.events)
		}
		if c := r.p(0).Status().Counters; c.Malformed != 1 || c.Lost != 0 {
			r.Errorf("counters %+v", c)
		}
	})
}
