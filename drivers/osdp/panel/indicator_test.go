package panel

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp/pd"
)

// able are the capabilities of a reader with lights, buzzer and display of
// these levels; 0: it has none.
func able(light, buzzer, display byte) osdp.Capabilities {
	return osdp.Capabilities{
		{Function: osdp.FunctionLED, Level: light, Count: 1}, {Function: osdp.FunctionBuzzer, Level: buzzer, Count: 1},
		{Function: osdp.FunctionText, Level: display, Count: 1},
	}
}

func TestNoTwoPatternsLookAlikeOnALight(t *testing.T) {
	i := newIndicator(nil, 0)
	for a, pa := range patterns {
		for b, pb := range patterns {
			if a < b && reflect.DeepEqual(i.commands(pa, able(4, 0, 0)), i.commands(pb, able(4, 0, 0))) {
				t.Errorf("%s and %s look the same", a, b)
			}
			if a < b && pa.text == pb.text {
				t.Errorf("%s and %s say the same", a, b)
			}
		}
	}
}

func TestAPatternFitsEveryReader(t *testing.T) {
	i := newIndicator(nil, 1)
	for name, p := range patterns {
		if p.text == "" || len(p.text) > rowOf {
			t.Errorf("%s: %q does not fit a display's row", name, p.text)
		}
		for _, c := range []struct {
			can  osdp.Capabilities
			want []osdp.CommandCode
		}{
			{nil, nil},
			{able(1, 0, 0), []osdp.CommandCode{osdp.CodeLED}},
			{able(0, 1, 0), []osdp.CommandCode{osdp.CodeBUZ}},
			{able(0, 0, 1), []osdp.CommandCode{osdp.CodeTEXT}},
			{able(4, 2, 3), []osdp.CommandCode{osdp.CodeLED, osdp.CodeBUZ, osdp.CodeTEXT}},
		} {
			var got []osdp.CommandCode
			for _, command := range i.commands(p, c.can) {
				got = append(got, command.Command())
				if b, err := command.AppendBinary(nil); err != nil || b[0] != 1 {
					t.Errorf("%s: %v to reader %d, %v", name, command.Command(), b[0], err)
				}
				leds, _ := command.(osdp.SetLEDs)
				for _, led := range leds {
					if led.Steady.On == 0 {
						t.Errorf("%s: a light that is never on", name)
					}
					if level := c.can.Get(osdp.FunctionLED).Level; level < timedLight && (led.Steady.Off != 0 || led.Temporary == osdp.LEDSet) {
						t.Errorf("%s: a reader of level %d is asked to flash", name, level)
					}
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%s: a reader that has %v is told %v", name, c.can, got)
			}
		}
	}
}

func TestWhatIsShownIsShownAgainWhenTheReaderIsBack(t *testing.T) {
	bubble(t, pd.Config{Key: key, Capabilities: able(4, 2, 1)}, func(t *testing.T, s *site) {
		if err := s.indicator.Show("granted"); err != nil { // before it has answered
			t.Error(err)
		}
		time.Sleep(time.Second)
		words := func() []string {
			s.mu.Lock()
			defer s.mu.Unlock()
			var all []string
			for _, c := range s.heard {
				if text, ok := c.(osdp.ShowText); ok {
					all = append(all, strings.TrimSpace(text.Text))
				}
			}
			s.heard = nil
			return all
		}
		if got := words(); !slices.Equal(got, []string{"Come in"}) {
			t.Errorf("it shows %q", got)
		}
		for range 3 {
			if err := s.indicator.Show("granted"); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
		}
		if got := words(); got != nil {
			t.Errorf("what was shown already is shown again: %q", got)
		}
		s.far.Power(false)
		time.Sleep(20 * time.Second)
		if err := s.indicator.Show("denied"); !errors.Is(err, osdp.ErrOffline) {
			t.Errorf("Show at a reader that is not there: %v", err)
		}
		s.far.Power(true)
		time.Sleep(20 * time.Second)
		if got := words(); !slices.Equal(got, []string{"No entry"}) {
			t.Errorf("when it is back it shows %q", got)
		}
		if err := s.indicator.Show("denied"); err != nil {
			t.Errorf("an old fault is told: %v", err)
		}
	})
}

func TestWhatIsShownIsShownAgainOverANewChannel(t *testing.T) {
	bubble(t, pd.Config{Key: key}, func(t *testing.T, s *site) {
		count := func() int {
			s.mu.Lock()
			defer s.mu.Unlock()
			return len(s.heard)
		}
		s.indicator.Show("granted")
		time.Sleep(time.Second)
		shown := count()
		if err := s.indicator.p.own.SetKey(t.Context(), osdp.Key{9}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if again := count() - shown; shown == 0 || again != shown || s.shown() != "granted" {
			t.Errorf("%d commands first, then %d more: it shows %q", shown, again, s.shown())
		}
	})
}

func TestShowWaitsForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settings := newMemory(t).settings()
		settings.open = func(string, int) (osdp.Line, error) { return stuck{make(chan struct{})}, nil }
		settings.keys = func(string, byte) osdp.KeyStore { return osdp.NewMemoryKeys(key) }
		b := must[*Bus](t)(Open(settings, silent))
		i := must[*Indicator](t)(b.Indicator(device(nil)))
		start := time.Now()
		for name := range patterns {
			i.Show(name)
			time.Sleep(time.Second)
		}
		if took := time.Since(start); took != time.Duration(len(patterns))*time.Second {
			t.Errorf("it waited %v", took)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
}

// stuck is a line on which nothing ever comes.
type stuck struct{ closed chan struct{} }

func (s stuck) Read(_ []byte, d time.Duration) (int, error) { time.Sleep(d); return 0, nil }
func (s stuck) Write(b []byte) (int, error)                 { return len(b), nil }
func (s stuck) SetBaud(int) error                           { return nil }
func (s stuck) Close() error                                { close(s.closed); return nil }

func TestAPatternThatCouldNotBeShownIsAFault(t *testing.T) {
	for name, far := range map[string]pd.Config{
		"nothing to show it with": {Key: key, Capabilities: able(0, 0, 0)},
		"refused": {Key: key, Answer: func(c osdp.Command) osdp.Reply {
			if c.Command() == osdp.CodeBUZ {
				return osdp.NAK{Code: osdp.NAKUnknownCommand}
			}
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, far, func(t *testing.T, s *site) {
				s.indicator.Show("idle")
				time.Sleep(time.Second)
				if err := s.indicator.Show("granted"); err == nil {
					t.Error("nobody is told")
				}
			})
		})
	}
	if err := newIndicator(nil, 0).Show("disco"); err == nil {
		t.Error("it shows a pattern that does not exist")
	}
}

func TestHealthNamesWhatIsLikelyWrong(t *testing.T) {
	start := time.Now()
	good := osdp.Counters{Replies: 1000, Silent: 3, Garbled: 3, Repeats: 6, Lost: 1}
	for words, now := range map[string]osdp.Counters{
		"":                     {Replies: 3000, Silent: 22, Garbled: 12, Lost: 3, Malformed: 2},
		"in its name":          {Replies: 1200, Lost: 2, Forged: 1},
		"Secure Channel again": {Replies: 1200, Lost: 4},
		"arrive broken":        {Replies: 1200, Silent: 90, Garbled: 13, Lost: 1},
		"does not answer":      {Replies: 1200, Silent: 23, Garbled: 3, Lost: 1},
		"makes no sense":       {Replies: 1200, Silent: 3, Garbled: 3, Lost: 1, Malformed: 3},
	} {
		var tr trend
		if got := tr.likely(start, good); got != "" {
			t.Errorf("a good line: %q", got)
		}
		got := tr.likely(start.Add(10*time.Minute), now)
		if !strings.Contains(got, words) || (got == "") != (words == "") {
			t.Errorf("%+v: %q, want %q", now, got, words)
		}
		// And what does not happen any more is forgotten.
		for minute := range 75 {
			got = tr.likely(start.Add(time.Duration(11+minute)*time.Minute), now)
		}
		if got != "" {
			t.Errorf("over an hour later: %q", got)
		}
	}
}

func TestAnAbsenceSaysNothingOfTheLine(t *testing.T) {
	start := time.Now()
	var tr trend
	tr.likely(start, osdp.Counters{Replies: 100})
	away := osdp.Counters{Replies: 100, Silent: 5000, Garbled: 100}
	tr.back(away)
	away.Replies += 100
	if got := tr.likely(start.Add(time.Minute), away); got != "" {
		t.Errorf("a reader that was switched off: %q", got)
	}
}

func TestHealthOfAForgedLineSaysSo(t *testing.T) {
	bubble(t, pd.Config{Key: key}, func(t *testing.T, s *site) {
		s.works()
		if h := s.reader.Health(); h.Likely != "" {
			t.Errorf("a good line: %q", h.Likely)
		}
		s.far.Inject(pd.WrongMAC, 1)
		time.Sleep(5 * time.Second)
		s.works()
		if h := s.reader.Health(); !strings.Contains(h.Likely, "in its name") {
			t.Errorf("a forged frame: %q", h.Likely)
		}
	})
}
