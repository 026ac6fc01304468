package panel

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp/keyring"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp/pd"
)

// bubble runs f with a site in a synctest bubble: its time is not real.
func bubble(t *testing.T, far pd.Config, f func(t *testing.T, s *site)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newMemory(t), far)
		defer func() {
			if err := s.bus.Close(); err != nil {
				t.Error(err)
			}
		}()
		f(t, s)
	})
}

// read reads for as long as d.
func (s *site) read(d time.Duration) (badge.Read, error) {
	ctx, cancel := context.WithTimeout(s.Context(), d)
	defer cancel()
	return s.reader.Read(ctx)
}

// works waits until the reader does.
func (s *site) works() {
	s.Helper()
	for range 100 {
		if read, err := s.read(time.Second); err == nil {
			s.Fatalf("it reads a %v", read.Frame)
		} else if errors.Is(err, context.DeadlineExceeded) && s.reader.p.condition().up {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	s.Fatal("the reader does not work")
}

// fails waits until every part is faulty, for the reason.
func (s *site) fails(why error) {
	s.Helper()
	for name, part := range map[string]func(context.Context) error{
		"reader": func(ctx context.Context) error { _, err := s.reader.Read(ctx); return err },
		"input":  func(ctx context.Context) error { return s.input.Watch(ctx, func(bool) {}) },
		"tamper": func(ctx context.Context) error { return s.tamper.Watch(ctx, func(bool) {}) },
		"indicator": func(context.Context) error {
			s.indicator.Show("idle") // it does not wait
			time.Sleep(10 * time.Second)
			return s.indicator.Show("idle")
		},
		"scanner": func(ctx context.Context) error { _, err := s.scanner.Scan(ctx, known()); return err },
		"watch": func(ctx context.Context) (fault error) {
			ctx, cancel := context.WithCancel(ctx)
			s.scanner.Watch(ctx, func(err error) {
				if err != nil {
					fault = err
					cancel()
				}
			})
			return fault
		},
	} {
		ctx, cancel := context.WithTimeout(s.Context(), 20*time.Second)
		if err := part(ctx); !errors.Is(err, why) || !strings.Contains(err.Error(), `the reader at address 0 on line "a"`) {
			s.Errorf("%s: %v, not %v", name, err, why)
		}
		cancel()
	}
}

const cardA, cardB = "10111101100010001110101110", "01000010011101110001010001"

func TestAReaderThatLosesItsChannelGrantsNothing(t *testing.T) {
	for _, fault := range []pd.Fault{pd.WrongMAC, pd.Clear, pd.Replay} {
		t.Run(fault.String(), func(t *testing.T) {
			bubble(t, pd.Config{Key: key}, func(t *testing.T, s *site) {
				s.works()
				s.far.Inject(fault, -1)
				failed := 0
				for range 200 {
					s.far.Present(cardA)
					read, err := s.read(100 * time.Millisecond)
					switch {
					case err == nil:
						t.Fatalf("a %v was read", read.Frame)
					case !errors.Is(err, context.DeadlineExceeded):
						failed++
						time.Sleep(100 * time.Millisecond)
					}
				}
				if failed == 0 {
					t.Error("nobody was told")
				}
				if h := s.reader.Health(); h.Frames != 0 {
					t.Errorf("%d cards were delivered", h.Frames)
				}
				s.far.Inject(fault, 0)
				s.far.Power(false) // and what it had to tell is gone
				s.far.Power(true)
				s.works()
				s.far.Present(cardB)
				if read, err := s.read(time.Second); err != nil || read.Frame.Bits() != cardB {
					t.Errorf("then it reads %v, %v", read.Frame, err)
				}
			})
		})
	}
}

func TestWhatWaitedToBeReadIsDroppedWithItsChannel(t *testing.T) {
	bubble(t, pd.Config{Key: key}, func(t *testing.T, s *site) {
		s.works()
		s.far.Present(cardA)
		time.Sleep(time.Second)
		s.far.Power(false)
		s.far.Power(true)
		time.Sleep(time.Minute)
		s.far.Present(cardB)
		if read, err := s.read(time.Second); err != nil || read.Frame.Bits() != cardB {
			t.Errorf("it reads %v, %v, not the card that came over the present channel", read.Frame, err)
		}
	})
}

func TestAReaderThatIsSilentIsFaultyInAllItsParts(t *testing.T) {
	bubble(t, pd.Config{Key: key}, func(t *testing.T, s *site) {
		s.works()
		s.far.Power(false)
		time.Sleep(10 * time.Second)
		s.fails(osdp.ErrOffline)
		s.far.Power(true)
		time.Sleep(5 * time.Second)
		s.works()
	})
}

func TestAReaderWithoutAKeyOfItsOwnIsFaultyInAllItsParts(t *testing.T) {
	for name, far := range map[string]pd.Config{
		"another key": {Key: osdp.Key{7}}, "none": {}, "no security": {NoSecurity: true, ClearText: true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, pd.Config{Key: key}, func(t *testing.T, s *site) {
				other := newFar(far)
				s.cable.plug(other)
				stop := presenting(other)
				defer stop()
				why := map[string]error{"another key": osdp.ErrKey, "none": osdp.NAKSecurity, "no security": osdp.NAKNoSecurity}[name]
				s.fails(why)
			})
		})
	}
}

// presenting has cards presented until it is stopped.
func presenting(far *pd.Peripheral) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			far.Present(cardA)
			select {
			case <-time.After(200 * time.Millisecond):
			case <-done:
				return
			}
		}
	}()
	return func() { close(done); <-ended }
}

func TestAControllerWithoutTheReadersKeyNamesTheCommand(t *testing.T) {
	for name, keys := range map[string]osdp.KeyStore{"none": new(osdp.MemoryKeys), "the default one": osdp.NewMemoryKeys(osdp.DefaultKey())} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newMemory(t)
				far := newFar(pd.Config{}) // on the default key
				c.plug(far)
				settings := c.settings()
				settings.keys = func(string, byte) osdp.KeyStore { return keys }
				b := must[*Bus](t)(Open(settings, silent))
				defer b.Close()
				r := must[*Reader](t)(b.Reader(device(nil), nil))
				stop := presenting(far)
				defer stop()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				_, err := r.Read(ctx)
				if err == nil || !strings.Contains(err.Error(), "gatehouse osdp keyset --install") || !strings.Contains(err.Error(), `address 0 on line "a"`) {
					t.Errorf("Read: %v", err)
				}
			})
		})
	}
}

func TestClearTextIsWhatWasSaidAndNoMore(t *testing.T) {
	bubble(t, pd.Config{ClearText: true}, func(t *testing.T, s *site) {
		s.works()
		s.far.Present(cardA)
		if read, err := s.read(time.Second); err != nil || read.Frame.Bits() != cardA {
			t.Errorf("it reads %v, %v", read.Frame, err)
		}
		if s.reader.Authenticated() {
			t.Error("a reader in clear text calls itself authenticated")
		}
	})
	bubble(t, pd.Config{Key: key}, func(t *testing.T, s *site) {
		if !s.reader.Authenticated() {
			t.Error("a reader on the Secure Channel does not call itself authenticated")
		}
	})
}

func TestNoTemplateGoesOverClearText(t *testing.T) {
	d := eyeDevice()
	d.ClearText = true
	if err := d.ValidateAs(asScanner); err == nil || !strings.Contains(err.Error(), "clear_text") {
		t.Errorf("a scanner in clear text: %v", err)
	}
	b := must[*Bus](t)(Open(newMemory(t).settings(), silent))
	defer b.Close()
	if _, err := b.Scanner(d); err == nil {
		t.Error("a scanner in clear text was given out")
	}
}

func TestAnOutcomeThatNobodyAskedForIsNothing(t *testing.T) {
	bubble(t, pd.Config{Key: key}, func(t *testing.T, s *site) {
		s.works()
		template := osdp.Secret("an eye")
		s.far.Tell(osdp.BioScore{Score: 0xFF})
		s.far.Tell(osdp.BioTemplate{Type: osdp.RightIris, Quality: 255, Template: template})
		time.Sleep(time.Second)
		s.works()
		if m, err := s.scanner.Scan(t.Context(), known()); err != nil || m.Outcome != biometric.Nobody {
			t.Errorf("a scan with nobody there: %+v, %v", m, err)
		}
	})
}

func TestACardOfAnyLengthComesWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bits := string(rapid.SliceOfN(rapid.SampledFrom([]byte("01")), 1, badge.MaxBits).Draw(t, "bits"))
		m := osdp.Card{Bits: uint16(len(bits)), Data: make(osdp.Secret, (len(bits)+7)/8)}
		for i, b := range []byte(bits) {
			m.Data[i/8] |= (b - '0') << (7 - i%8)
		}
		if f, refused := bitsOf(m); f.Bits() != bits || refused != "" {
			t.Fatalf("%d bits came as %d, %q", len(bits), f.Len(), refused)
		}
	})
	bubble(t, pd.Config{Key: key}, func(t *testing.T, s *site) {
		s.works()
		for _, bits := range []string{"1", "0", cardA, strings.Repeat("100", 11), strings.Repeat("0110", badge.MaxBits/4)} {
			s.far.Present(bits)
			if read, err := s.read(time.Second); err != nil || read.Frame.Bits() != bits || read.Keypad || read.Refused != "" {
				t.Errorf("%d bits came as %d, %q, %v", len(bits), read.Frame.Len(), read.Refused, err)
			}
		}
	})
}

func TestWhatIsNoCardIsRefusedWithTheReason(t *testing.T) {
	bubble(t, pd.Config{Key: key}, func(t *testing.T, s *site) {
		s.works()
		long := osdp.Card{Bits: badge.MaxBits + 1, Data: make(osdp.Secret, badge.MaxBits/8+1)}
		for _, c := range []struct {
			tell osdp.Reply
			want string
		}{
			{osdp.Card{}, RefusedEmpty}, {long, RefusedLong}, {osdp.FormattedCard{Digits: osdp.Secret("1234")}, RefusedDigits},
		} {
			s.far.Tell(c.tell)
			if read, err := s.read(time.Second); err != nil || read.Refused != c.want || read.Frame.Len() != 0 {
				t.Errorf("%v came as %+v, %v", c.tell.Reply(), read, err)
			}
		}
		s.far.Tell(osdp.Card{Reader: 1, Bits: 1, Data: osdp.Secret{0x80}}) // another reader's
		if _, err := s.read(time.Second); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("another reader's card: %v", err)
		}
		h := s.reader.Health()
		if h.Frames != 3 || h.Refused[RefusedEmpty] != 1 || h.Refused[RefusedLong] != 1 || h.Refused[RefusedDigits] != 1 || !h.Last.IsZero() {
			t.Errorf("health: %+v", h)
		}
	})
}

func TestKeysMakeAPIN(t *testing.T) {
	for typed, want := range map[string]string{"4711#": "4711", "12*0815#": "0815", "12A34#": "34"} {
		bubble(t, pd.Config{Key: key}, func(t *testing.T, s *site) {
			s.works()
			pad := must[*badge.Keypad](t)(badge.NewKeypad(badge.Keypad4Bit, 0, 5*time.Second))
			s.far.Press(typed[:2]) // keys come one by one, or several at once
			s.far.Press(typed[2:])
			for range typed {
				read, err := s.read(time.Second)
				if err != nil || !read.Keypad {
					t.Fatalf("a key came as %+v, %v", read, err)
				}
				if pin, _ := pad.Press(read); pin != nil {
					if got := string(pin.Digits()); got != want {
						t.Errorf("%q was taken for %q", typed, got)
					}
					return
				}
			}
			t.Errorf("%q is no PIN", typed)
		})
	}
}

func TestAPINThatComesInOneGoComesWhole(t *testing.T) {
	bubble(t, pd.Config{Key: key}, func(t *testing.T, s *site) {
		s.works()
		longest := strings.Repeat("7", badge.MaxPIN) + "#"
		s.far.Press(longest)
		time.Sleep(time.Second) // and nobody reads meanwhile
		for range longest {
			if read, err := s.read(time.Second); err != nil || !read.Keypad {
				t.Fatalf("a key came as %+v, %v", read, err)
			}
		}
	})
}

func TestKeysOfAReaderThatIsToHaveNoneAreNothing(t *testing.T) {
	bubble(t, pd.Config{Key: key}, func(t *testing.T, s *site) {
		s.reader.keypad = false
		s.far.Press("1")
		s.works()
	})
}

func TestCardsThatNobodyReadsAreAFaultNotSilence(t *testing.T) {
	bubble(t, pd.Config{Key: key}, func(t *testing.T, s *site) {
		s.works()
		for range waiting + 1 {
			s.far.Present(cardA)
			time.Sleep(time.Second)
		}
		if _, err := s.read(time.Second); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Read: %v", err)
		}
		for range waiting {
			if read, err := s.read(time.Second); err != nil || read.Frame.Bits() != cardA {
				t.Fatalf("it reads %v, %v", read.Frame, err)
			}
		}
		s.works()
	})
}

// told watches an input for as long as d.
func told(t *testing.T, in *Input, d time.Duration) (states []bool, err error) {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	err = in.Watch(ctx, func(active bool) { states = append(states, active) })
	return states, err
}

func TestAnInputIsActiveWhenItsContactIsNotAsItNormallyIs(t *testing.T) {
	for normally, rest := range map[string]osdp.InputState{normallyOpen: osdp.InputInactive, normallyClosed: osdp.InputActive} {
		bubble(t, pd.Config{Key: key}, func(t *testing.T, s *site) {
			s.input.closed = normally == normallyClosed
			for _, state := range []osdp.InputState{osdp.InputInactive, osdp.InputActive} {
				s.far.SetInput(0, state)
				s.works()
				if states, _ := told(t, s.input, time.Second); !slices.Equal(states, []bool{state != rest}) {
					t.Errorf("normally %s: state %v is told as %v", normally, state, states)
				}
			}
		})
	}
}

func TestALoopThatIsNotInOrderIsAFault(t *testing.T) {
	bubble(t, pd.Config{Key: key}, func(t *testing.T, s *site) {
		for state, want := range map[osdp.InputState]error{
			osdp.InputShort: ErrShort, osdp.InputOpen: ErrOpen, osdp.InputFault: ErrFaulty, osdp.InputUnknown: ErrUnknown,
		} {
			s.far.SetInput(0, state)
			time.Sleep(time.Second)
			if states, err := told(t, s.input, 10*time.Second); !errors.Is(err, want) {
				t.Errorf("state %v: told %v, %v", state, states, err)
			}
			if _, err := s.input.Look(); !errors.Is(err, want) {
				t.Errorf("state %v: Look: %v", state, err)
			}
			s.far.SetInput(0, osdp.InputInactive)
			time.Sleep(time.Second)
			if states, err := told(t, s.input, time.Second); len(states) != 1 || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("mended: told %v, %v", states, err)
			}
		}
	})
}

func TestNoChangeOfAnInputIsLost(t *testing.T) {
	bubble(t, pd.Config{Key: key}, func(t *testing.T, s *site) {
		s.works()
		go func() {
			for i := range 40 {
				state := osdp.InputActive
				if i%2 == 1 {
					state = osdp.InputInactive
				}
				time.Sleep(60 * time.Millisecond)
				s.far.SetInput(0, state)
			}
		}()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		n := 0
		s.input.Watch(ctx, func(active bool) {
			if active != (n%2 == 1) {
				t.Errorf("change %d is told as %v", n, active)
			}
			n++
			time.Sleep(100 * time.Millisecond) // slower than they come
		})
		if n != 41 {
			t.Errorf("%d states were told, not 41", n)
		}
	})
}

func TestTheTamperSwitchIsActiveWhenTheReaderIsOpenedOrLosesItsPower(t *testing.T) {
	for _, c := range []struct {
		local osdp.LocalStatus
		want  bool
	}{{osdp.LocalStatus{}, false}, {osdp.LocalStatus{Tamper: true}, true}, {osdp.LocalStatus{PowerFail: true}, true}} {
		bubble(t, pd.Config{Key: key}, func(t *testing.T, s *site) {
			s.far.SetLocal(c.local) // before anybody asks
			if states, _ := told(t, s.tamper, 5*time.Second); !slices.Equal(states, []bool{c.want}) {
				t.Errorf("%+v is told as %v", c.local, states)
			}
			s.far.SetLocal(osdp.LocalStatus{})
			time.Sleep(time.Second)
			if states, _ := told(t, s.tamper, 5*time.Second); !slices.Equal(states, []bool{false}) {
				t.Errorf("afterwards, %v is told", states)
			}
		})
	}
}

func TestAnInputThatIsNotThereIsAFault(t *testing.T) {
	bubble(t, pd.Config{Key: key}, func(t *testing.T, s *site) {
		s.input.number = 7
		if _, err := told(t, s.input, time.Minute); err == nil || !strings.Contains(err.Error(), "no such input") {
			t.Errorf("Watch: %v", err)
		}
	})
	bubble(t, pd.Config{Key: key, Capabilities: []osdp.Capability{}}, func(t *testing.T, s *site) {
		if _, err := told(t, s.input, time.Minute); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Watch of a reader that has no inputs: %v", err)
		}
	})
}

func TestAReaderThatFailsCostsTheOthersOfItsLineNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemory(t)
		far := []*pd.Peripheral{newFar(pd.Config{Key: key}), newFar(pd.Config{Address: 1, Key: osdp.Key{1}}), newFar(pd.Config{Address: 2, Key: key})}
		c.plug(far...)
		settings := c.settings()
		settings.keys = func(string, byte) osdp.KeyStore { return osdp.NewMemoryKeys(key) }
		b := must[*Bus](t)(Open(settings, silent))
		defer b.Close()
		var all sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		var readers []*Reader
		for a := range len(far) {
			readers = append(readers, must[*Reader](t)(b.Reader(device(func(d *Device) { d.Address = a }), nil)))
		}
		for a, r := range readers {
			all.Go(func() {
				n := 0
				for ctx.Err() == nil {
					read, err := r.Read(ctx)
					switch {
					case err == nil && read.Frame.Bits() == cardA:
						n++
					case err == nil:
						t.Errorf("reader %d reads a %v", a, read.Frame)
					case ctx.Err() == nil && a != 1:
						t.Errorf("reader %d: %v", a, err)
					default:
						time.Sleep(time.Second)
					}
				}
				if want := map[int]int{0: 10, 2: 10}[a]; n != want {
					t.Errorf("reader %d read %d cards, not %d", a, n, want)
				}
			})
		}
		for range 10 {
			time.Sleep(10 * time.Second)
			for _, p := range far {
				p.Present(cardA)
			}
		}
		time.Sleep(time.Second)
		cancel()
		all.Wait()
	})
}

func TestPartsAreGivenOutOnceAndBeforeTheirLineRuns(t *testing.T) {
	bubble(t, pd.Config{Key: key}, func(t *testing.T, s *site) {
		if _, err := s.bus.Reader(device(nil), nil); err == nil {
			t.Error("a reader was given out twice")
		}
		if _, err := s.bus.Input(device(func(d *Device) { d.Tamper = true })); err == nil {
			t.Error("a tamper switch was given out twice")
		}
		if _, err := s.bus.Reader(device(func(d *Device) { d.Line = "b" }), nil); err == nil || !strings.Contains(err.Error(), `"b"`) {
			t.Errorf("a part of a line that does not exist: %v", err)
		}
		if _, err := s.bus.Input(device(func(d *Device) { d.Input, d.Normally, d.Checksum = new(int), normallyOpen, true; *d.Input = 1 })); err == nil {
			t.Error("two parts of one reader say different things of it")
		}
		if _, err := s.bus.Strike(device(nil)); err == nil || !strings.Contains(err.Error(), "off the wall") {
			t.Errorf("a strike: %v", err)
		}
		if _, err := s.bus.Scanner(device(func(d *Device) { d.Parts, d.Threshold = []biometric.Part{biometric.LeftIndex}, 1 })); err != nil {
			t.Errorf("a scanner of eyes that scans fingers too: %v", err)
		}
		s.works()
		if _, err := s.bus.Reader(device(func(d *Device) { d.Address = 1 }), nil); err == nil || !strings.Contains(err.Error(), "runs") {
			t.Errorf("a reader of a line that runs: %v", err)
		}
		s.bus.Close()
		if _, err := s.bus.Reader(device(func(d *Device) { d.Address = 1 }), nil); !errors.Is(err, ErrClosed) {
			t.Errorf("a reader of a driver that is closed: %v", err)
		}
	})
}

// plain seals nothing; that it is used is what matters.
func plain(t *testing.T, whose *[]string) (seal func(a, b []byte) []byte, open func(a, b []byte) ([]byte, error)) {
	return func(p, additional []byte) []byte { return slices.Concat([]byte("sealed"), p) }, func(s, additional []byte) ([]byte, error) {
		*whose = append(*whose, string(additional))
		return slices.Clone(s[len("sealed"):]), nil
	}
}

func TestTheKeysComeFromTheRing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, keyring.FileName)
	var whose []string
	seal, open := plain(t, &whose)
	ring := must[*keyring.Ring](t)(keyring.Open(path, &sealer{seal, open}))
	store := ring.For("a", 0)
	if err := errors.Join(store.Begin(key), store.Commit(key)); err != nil {
		t.Fatal(err)
	}
	c := newMemory(t)
	far := newFar(pd.Config{Key: key})
	c.plug(far)
	settings := c.settings()
	settings.Resolve(dir)
	b := must[*Bus](t)(Open(settings, silent))
	if _, err := b.Reader(device(nil), nil); err == nil || !strings.Contains(err.Error(), "unseal") {
		t.Errorf("without anything to unseal keys with: %v", err)
	}
	b.Close()

	settings.SealWith(seal, open)
	b = must[*Bus](t)(Open(settings, silent))
	if _, err := b.Reader(device(nil), nil); err == nil {
		t.Error("the ring was opened while another has it")
	}
	if err := errors.Join(b.Close(), ring.Close()); err != nil {
		t.Fatal(err)
	}

	b = must[*Bus](t)(Open(settings, silent))
	r := must[*Reader](t)(b.Reader(device(nil), nil))
	whose = nil
	far.Present(cardA)
	if read, err := r.Read(t.Context()); err != nil || read.Frame.Bits() != cardA {
		t.Errorf("it reads %v, %v", read.Frame, err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if len(whose) == 0 {
		t.Error("no key was unsealed")
	}
	again := must[*keyring.Ring](t)(keyring.Open(path, &sealer{seal, open})) // it was given back
	again.Close()
}

func TestAReaderThatAnswersLateAtTheStartIsNotFaulty(t *testing.T) {
	bubble(t, pd.Config{Key: key}, func(t *testing.T, s *site) {
		s.far.Inject(pd.Drop, 3)
		s.far.Present(cardA)
		if read, err := s.read(settle); err != nil || read.Frame.Bits() != cardA {
			t.Errorf("it reads %v, %v", read.Frame, err)
		}
	})
	bubble(t, pd.Config{Key: key}, func(t *testing.T, s *site) {
		s.far.Power(false)
		start := time.Now()
		if _, err := s.read(time.Hour); !errors.Is(err, osdp.ErrOffline) || time.Since(start) != settle {
			t.Errorf("a reader that is not there: after %v, %v", time.Since(start), err)
		}
	})
}

func TestAPortThatIsNotThereIsNamedAtOnce(t *testing.T) {
	settings := newTerminal(t).settings() // with nothing plugged in
	settings.keys = func(string, byte) osdp.KeyStore { return osdp.NewMemoryKeys(key) }
	b := must[*Bus](t)(Open(settings, silent))
	defer b.Close()
	r := must[*Reader](t)(b.Reader(device(nil), nil))
	start := time.Now()
	_, err := r.Read(t.Context())
	if !errors.Is(err, fs.ErrNotExist) || strings.Count(err.Error(), "open") != 1 || time.Since(start) >= settle {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
}

// The converter may be there later than the controller.
func TestAReaderThatIsSilentOnAPortThatCameLateIsNamed(t *testing.T) {
	bubble(t, pd.Config{Key: key}, func(t *testing.T, s *site) {
		open := s.bus.settings.open
		s.bus.settings.open = func(port string, baud int) (osdp.Line, error) {
			s.bus.settings.open = open
			return nil, &fs.PathError{Op: "open", Path: port, Err: fs.ErrNotExist}
		}
		s.far.Power(false)
		if _, err := s.read(time.Second / 4); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("before it is there: %v", err)
		}
		time.Sleep(2 * settle)
		if _, err := s.read(time.Second); !errors.Is(err, osdp.ErrOffline) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("when it is there: %v", err)
		}
	})
}

func TestAReaderThatRestartsIsReportedAndComesBack(t *testing.T) {
	bubble(t, pd.Config{Key: key}, func(t *testing.T, s *site) {
		s.works()
		for range 5 {
			s.far.Power(false)
			s.far.Power(true)
			if _, err := s.read(time.Minute); err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a reader that restarts: %v", err)
			}
			s.works()
			time.Sleep(5 * time.Second)
		}
		if h := s.reader.Health(); h.Likely != "" {
			t.Errorf("before anybody has looked: %q", h.Likely)
		}
		for range 3 {
			s.far.Power(false)
			s.far.Power(true)
			time.Sleep(5 * time.Second)
		}
		if h := s.reader.Health(); !strings.Contains(h.Likely, "restarts") {
			t.Errorf("a reader that restarts again and again: %q", h.Likely)
		}
	})
}

// tapped remembers what the panel sends.
type tapped struct {
	osdp.Line
	sent []byte
}

func (l *tapped) Write(b []byte) (int, error) {
	l.sent = append(l.sent, b...)
	return l.Line.Write(b)
}

func TestALineIsAsItWasConfigured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		far := pd.New(pd.Config{Key: key, Baud: 38400})
		line := &tapped{}
		settings := DefaultSettings()
		settings.Lines = []Line{{Name: "a", Port: "/dev/a", Baud: 38400, Mark: true}, {Name: "b", Port: "/dev/b"}}
		settings.keys = func(line string, address byte) osdp.KeyStore {
			if line != "a" || address != 0 {
				t.Errorf("a key is asked for line %q, address %d", line, address)
			}
			return osdp.NewMemoryKeys(key)
		}
		settings.open = func(port string, baud int) (osdp.Line, error) {
			if port != "/dev/a" || baud != 38400 {
				t.Errorf("%s is opened at %d", port, baud)
			}
			line.Line = pd.NewLine(pd.Wire{}, baud, far)
			return line, nil
		}
		b := must[*Bus](t)(Open(settings, silent))
		r := must[*Reader](t)(b.Reader(device(nil), nil))
		far.Present(cardA)
		if read, err := r.Read(t.Context()); err != nil || read.Frame.Bits() != cardA {
			t.Errorf("it reads %v, %v", read.Frame, err)
		}
		b.Close()
		if line.sent[0] != 0xFF || line.sent[1] != 0x53 {
			t.Errorf("a command begins with % x, not with a mark byte", line.sent[:2])
		}
	})
}

func TestAnInputTellsNothingOfBefore(t *testing.T) {
	bubble(t, pd.Config{Key: key}, func(t *testing.T, s *site) {
		if states, _ := told(t, s.input, time.Second); !slices.Equal(states, []bool{false}) {
			t.Fatalf("told %v", states)
		}
		s.far.Power(false)
		time.Sleep(20 * time.Second)
		s.far.SetInput(0, osdp.InputActive)
		s.far.Power(true)
		var states []bool
		for states == nil {
			states, _ = told(t, s.input, time.Minute)
			time.Sleep(time.Millisecond)
		}
		if !slices.Equal(states, []bool{true}) {
			t.Errorf("when it is back, %v is told", states)
		}
	})
}

func TestAScannerTellsNothingOfWhatHappensToOtherParts(t *testing.T) {
	bubble(t, pd.Config{Key: key}, func(t *testing.T, s *site) {
		ctx, cancel := context.WithCancel(t.Context())
		var told []error
		ended := make(chan struct{})
		go func() {
			s.scanner.Watch(ctx, func(fault error) { told = append(told, fault) })
			close(ended)
		}()
		s.works()
		for range 5 {
			s.far.SetInput(0, osdp.InputActive)
			time.Sleep(time.Second)
			s.far.SetInput(0, osdp.InputInactive)
			time.Sleep(time.Second)
		}
		cancel()
		<-ended
		if len(told) != 1 || told[0] != nil {
			t.Errorf("told %v", told)
		}
	})
}
