package iris_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/drivers/iris"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp/pd"
)

var key = osdp.Key{0: 0xA1, 15: 0x5F}

const threshold = 180

var eyes = iris.Config{Parts: []biometric.Part{biometric.RightIris, biometric.LeftIris}, Threshold: threshold, Quality: 100}

// reader is a simulated reader with a scanner, in a synctest bubble.
type reader struct {
	*testing.T
	far     *pd.Peripheral
	own     *osdp.Peripheral
	scanner *iris.Scanner
	told    []osdp.CommandCode // of biometrics, to the reader
}

// bubble runs f with a reader that is ready.
func bubble(t *testing.T, far pd.Config, c iris.Config, f func(r *reader)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &reader{T: t}
		far.Baud = 115200
		answer := far.Answer
		far.Answer = func(c osdp.Command) osdp.Reply {
			switch c.Command() {
			case osdp.CodeBIOREAD, osdp.CodeBIOMATCH:
				r.told = append(r.told, c.Command())
			}
			if answer != nil {
				return answer(c)
			}
			return nil
		}
		r.far = pd.New(far)
		near := osdp.PeripheralConfig{ClearText: far.ClearText}
		if !far.ClearText {
			near.Keys = osdp.NewMemoryKeys(key)
		}
		bus, err := osdp.New(osdp.Config{
			Open: func(baud int) (osdp.Line, error) { return pd.NewLine(pd.Wire{}, baud, r.far), nil },
			Baud: far.Baud, Peripherals: []osdp.PeripheralConfig{near},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { bus.Run(ctx); close(ended) }()
		defer func() { cancel(); <-ended }()
		r.own = bus.Peripherals()[0]
		if err := r.own.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if r.scanner, err = iris.New(r.own, c); err != nil {
			t.Fatal(err)
		}
		f(r)
	})
}

// reference is an eye or a finger that is known.
func reference(p biometric.Part, template string) biometric.Reference {
	return biometric.Reference{Part: p, Template: biometric.NewTemplate([]byte(template))}
}

var both = []biometric.Reference{reference(biometric.RightIris, "right"), reference(biometric.LeftIris, "left")}

// is holds a scan to what it is to give.
func (r *reader) is(with []biometric.Reference, want biometric.Match) {
	r.Helper()
	if got, err := r.scanner.Scan(r.Context(), with); err != nil || got != want {
		r.Errorf("Scan gave %+v, %v; want %+v", got, err, want)
	}
}

func TestAScoreBelowTheThresholdIsNoMatch(t *testing.T) {
	bubble(t, pd.Config{Key: key}, eyes, func(r *reader) {
		for score, want := range map[byte]biometric.Outcome{1: biometric.NoMatch, threshold - 1: biometric.NoMatch, threshold: biometric.Matched, 255: biometric.Matched} {
			r.far.Hold(&pd.Trait{Type: osdp.RightIris, Template: osdp.Secret("right"), Score: score})
			m := biometric.Match{Outcome: want}
			if want == biometric.Matched {
				m.Part = biometric.RightIris
			}
			r.is(both[:1], m)
		}
		r.far.Hold(&pd.Trait{Type: osdp.RightIris, Template: osdp.Secret("another's")})
		r.is(both, biometric.Match{Outcome: biometric.NoMatch})
	})
}

// fake is a device that says what it is told to say.
type fake struct {
	score         osdp.BioScore
	template      osdp.BioTemplate
	before, after osdp.Status
	scanned       bool
}

func (f *fake) BioMatch(context.Context, osdp.BioMatch) (osdp.BioScore, error) {
	f.scanned = true
	return f.score, nil
}

func (f *fake) BioRead(context.Context, osdp.BioRead) (osdp.BioTemplate, error) {
	f.scanned = true
	return f.template, nil
}

func (f *fake) Changed() <-chan struct{} { return nil }

func (f *fake) Status() osdp.Status {
	if f.scanned {
		return f.after
	}
	return f.before
}

func TestAMatchWithoutALiveChannelIsNone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		since := time.Unix(1, 0)
		states := []osdp.State{osdp.Offline, osdp.Starting, osdp.Unsecured, osdp.Installing, osdp.ClearText, osdp.Secure}
		status := func(label string) osdp.Status {
			s := osdp.Status{State: rapid.SampledFrom(states).Draw(t, label), Since: since}
			if s.State != osdp.Secure {
				s.Err = osdp.ErrUnsecured
			}
			return s
		}
		f := &fake{
			score: osdp.BioScore{
				Status: rapid.SampledFrom([]osdp.BioStatus{osdp.BioOK, osdp.BioTimeout, osdp.BioUnknown, 7}).Draw(t, "status"),
				Score:  rapid.Byte().Draw(t, "score"),
			},
			before: status("before"), after: status("after"),
		}
		if rapid.Bool().Draw(t, "another channel") {
			f.after.Since = since.Add(time.Second)
		}
		c := eyes
		c.Threshold = rapid.ByteMin(1).Draw(t, "threshold")
		s, err := iris.New(f, c)
		if err != nil {
			t.Fatal(err)
		}
		m, err := s.Scan(context.Background(), both[:1])
		live := f.before.State == osdp.Secure && f.after.State == osdp.Secure && f.after.Since.Equal(since)
		want := live && f.score.Status == osdp.BioOK && f.score.Score >= c.Threshold
		if got := err == nil && m.Outcome == biometric.Matched; got != want {
			t.Fatalf("%+v: %+v, %v", *f, m, err)
		}
		if (err == nil) != live {
			t.Fatalf("%+v: %v", *f, err)
		}
		if f.before.State != osdp.Secure && f.scanned {
			t.Fatal("a template was sent before there was a Secure Channel")
		}
	})
}

func TestAChannelThatIsLostDuringAScanIsAFault(t *testing.T) {
	bubble(t, pd.Config{Key: key}, eyes, func(r *reader) {
		go func() {
			time.Sleep(time.Second)
			r.far.Power(false)
			r.far.Power(true)
			r.far.Hold(&pd.Trait{Type: osdp.RightIris, Template: osdp.Secret("right")})
		}()
		if m, err := r.scanner.Scan(r.Context(), both); err == nil {
			r.Errorf("Scan gave %+v", m)
		}
		time.Sleep(5 * time.Second)
		r.is(both, biometric.Match{Outcome: biometric.Matched, Part: biometric.RightIris}) // and the next one counts again
	})
}

func TestNoTemplateGoesOverClearText(t *testing.T) {
	bubble(t, pd.Config{ClearText: true}, eyes, func(r *reader) {
		r.far.Hold(&pd.Trait{Type: osdp.RightIris, Quality: 255, Template: osdp.Secret("right")})
		if m, err := r.scanner.Scan(r.Context(), both); !errors.Is(err, osdp.ErrUnsecured) {
			r.Errorf("Scan gave %+v, %v", m, err)
		}
		if c, err := r.scanner.Enroll(r.Context(), biometric.Capture{Part: biometric.RightIris}); !errors.Is(err, osdp.ErrUnsecured) {
			r.Errorf("Enroll gave %v, %v", c, err)
		}
		if _, err := r.scanner.About(r.Context()); err == nil {
			r.Error("a scanner that nobody has proved to be there says what it is")
		}
		if len(r.told) > 0 {
			r.Errorf("the reader was told %v", r.told)
		}
	})
}

func TestEitherEyeSuffices(t *testing.T) {
	bubble(t, pd.Config{Key: key, ScanTimeout: 4 * time.Second}, eyes, func(r *reader) {
		duress := slices.Clone(both)
		duress[1].Duress = true
		for _, c := range []struct {
			eye  osdp.BioType
			with string
			want biometric.Match
		}{
			{osdp.RightIris, "right", biometric.Match{Outcome: biometric.Matched, Part: biometric.RightIris}},
			{osdp.LeftIris, "left", biometric.Match{Outcome: biometric.Matched, Part: biometric.LeftIris, Duress: true}},
			{osdp.LeftIris, "right", biometric.Match{Outcome: biometric.NoMatch}}, // it is the other eye's
		} {
			r.far.Hold(&pd.Trait{Type: c.eye, Template: osdp.Secret(c.with)})
			r.is(duress, c.want)
		}
		// Who was seen and is another stays another, whoever does not come afterwards.
		r.far.Hold(&pd.Trait{Type: osdp.RightIris, Template: osdp.Secret("right"), Score: 1, Brief: true})
		r.is(both, biometric.Match{Outcome: biometric.NoMatch})
		// Who comes late, when the first eye was given up, is seen by the second.
		r.far.Hold(nil)
		go func() {
			time.Sleep(6 * time.Second)
			r.far.Hold(&pd.Trait{Type: osdp.LeftIris, Template: osdp.Secret("left")})
		}()
		r.is(both, biometric.Match{Outcome: biometric.Matched, Part: biometric.LeftIris})
	})
}

// oneEyed waits for an eye that does not come, and matches the other.
type oneEyed struct{ fake }

func (d *oneEyed) BioMatch(ctx context.Context, c osdp.BioMatch) (osdp.BioScore, error) {
	if c.Type == osdp.RightIris {
		<-ctx.Done()
		return osdp.BioScore{}, ctx.Err()
	}
	return osdp.BioScore{Score: 255}, ctx.Err()
}

func TestAPersonWithOneEyeGetsAShareOfTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := iris.New(&oneEyed{fake{before: osdp.Status{State: osdp.Secure}}}, eyes)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		m, err := s.Scan(t.Context(), both)
		if want := (biometric.Match{Outcome: biometric.Matched, Part: biometric.LeftIris}); err != nil || m != want || time.Since(start) != iris.DefaultWait/2 {
			t.Errorf("after %v: %+v, %v", time.Since(start), m, err)
		}
	})
}

func TestAScanEndsWhenNobodyComes(t *testing.T) {
	for name, far := range map[string]pd.Config{
		"the reader gives up":      {Key: key, ScanTimeout: 2 * time.Second},
		"the reader waits forever": {Key: key, ScanTimeout: time.Hour},
		"at once":                  {Key: key, DirectScan: true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, far, eyes, func(r *reader) {
				start := time.Now()
				r.is(both, biometric.Match{Outcome: biometric.Nobody})
				if took := time.Since(start); took > iris.DefaultWait+time.Second {
					t.Errorf("it waited %v", took)
				}
				ctx, cancel := context.WithCancel(r.Context())
				go func() { time.Sleep(time.Second); cancel() }()
				if m, err := r.scanner.Scan(ctx, both); err == nil && !far.DirectScan || err != nil && !errors.Is(err, context.Canceled) {
					t.Errorf("a scan that was called off: %+v, %v", m, err)
				}
				time.Sleep(time.Second)
				r.far.Hold(&pd.Trait{Type: osdp.RightIris, Template: osdp.Secret("right")})
				r.is(both, biometric.Match{Outcome: biometric.Matched, Part: biometric.RightIris})
			})
		})
	}
}

// Not every reader knows ABORT.
func TestAReaderThatCannotAbortAScanIsWaitedForAndIsNotFaulty(t *testing.T) {
	deaf := func(c osdp.Command) osdp.Reply {
		if c.Command() == osdp.CodeABORT {
			return osdp.NAK{Code: osdp.NAKUnknownCommand}
		}
		return nil
	}
	bubble(t, pd.Config{Key: key, Answer: deaf, ScanTimeout: 20 * time.Second}, eyes, func(r *reader) {
		start := time.Now()
		r.is(both, biometric.Match{Outcome: biometric.Nobody}) // the first eye's scan goes on in the second's time
		if took := time.Since(start); took > iris.DefaultWait+time.Second {
			t.Errorf("it waited %v", took)
		}
		// What comes of the scan that was given up is nobody's, and then it scans again.
		r.far.Hold(&pd.Trait{Type: osdp.RightIris, Template: osdp.Secret("right")})
		r.is([]biometric.Reference{reference(biometric.RightIris, "another's")}, biometric.Match{Outcome: biometric.NoMatch})
		r.is(both, biometric.Match{Outcome: biometric.Matched, Part: biometric.RightIris})
	})
}

func TestAScanThatSawTooLittleMayBeTriedAgain(t *testing.T) {
	answer := func(c osdp.Command) osdp.Reply {
		if c.Command() == osdp.CodeBIOMATCH {
			return osdp.BioScore{Status: osdp.BioUnknown, Score: 255}
		}
		return nil
	}
	bubble(t, pd.Config{Key: key, Answer: answer}, eyes, func(r *reader) {
		r.is(both, biometric.Match{Outcome: biometric.TryAgain})
	})
}

func TestARefusalNamesWhatTheReaderDoesNotTake(t *testing.T) {
	fingers := iris.Config{Parts: []biometric.Part{biometric.RightIndex}, Threshold: threshold, Format: osdp.BioFormatANSI378}
	refuse := func(code osdp.NAKCode) func(osdp.Command) osdp.Reply {
		return func(c osdp.Command) osdp.Reply {
			if c.Command() == osdp.CodeBIOMATCH || c.Command() == osdp.CodeBIOREAD {
				return osdp.NAK{Code: code}
			}
			return nil
		}
	}
	for _, c := range []struct {
		code osdp.NAKCode
		want string
	}{{osdp.NAKBioType, "right index finger"}, {osdp.NAKBioFormat, "format"}} {
		bubble(t, pd.Config{Key: key, Answer: refuse(c.code)}, fingers, func(r *reader) {
			_, err := r.scanner.Scan(r.Context(), []biometric.Reference{reference(biometric.RightIndex, "x")})
			_, other := r.scanner.Enroll(r.Context(), biometric.Capture{Part: biometric.RightIndex})
			for _, err := range []error{err, other} {
				if !errors.Is(err, c.code) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("NAK %d: %v", c.code, err)
				}
			}
		})
	}
}

func TestAPartThatIsNoLongerTakenIsPassedOver(t *testing.T) {
	right := eyes
	right.Parts = []biometric.Part{biometric.RightIris}
	bubble(t, pd.Config{Key: key}, right, func(r *reader) {
		r.far.Hold(&pd.Trait{Type: osdp.RightIris, Template: osdp.Secret("right")})
		r.is([]biometric.Reference{both[1], both[0]}, biometric.Match{Outcome: biometric.Matched, Part: biometric.RightIris})
	})
}

func TestWhatTheScannerIsNotMadeForIsRefused(t *testing.T) {
	bubble(t, pd.Config{Key: key}, eyes, func(r *reader) {
		_, nobody := r.scanner.Scan(r.Context(), nil)
		_, finger := r.scanner.Scan(r.Context(), []biometric.Reference{reference(biometric.RightIndex, "x")})
		_, slot := r.scanner.Scan(r.Context(), []biometric.Reference{{Part: biometric.RightIris, Slot: 7}})
		_, enrolled := r.scanner.Enroll(r.Context(), biometric.Capture{Part: biometric.RightIndex})
		for name, err := range map[string]error{"without references": nobody, "a finger": finger, "a slot": slot, "enrolling a finger": enrolled} {
			if !errors.Is(err, biometric.ErrUnsupported) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if len(r.told) > 0 {
			t.Errorf("the reader was told %v", r.told)
		}
	})
}

func TestAnEyeIsEnrolledAndThenMatches(t *testing.T) {
	bubble(t, pd.Config{Key: key}, eyes, func(r *reader) {
		var steps []biometric.Step
		go func() {
			time.Sleep(3 * time.Second)
			r.far.Hold(&pd.Trait{Type: osdp.LeftIris, Quality: 128, Template: osdp.Secret(strings.Repeat("eye", 300))})
		}()
		got, err := r.scanner.Enroll(r.Context(), biometric.Capture{Part: biometric.LeftIris, Tell: func(s biometric.Step) { steps = append(steps, s) }})
		if err != nil {
			t.Fatal(err)
		}
		if got.Quality != 50 || len(got.Template.Bytes()) != 900 {
			t.Errorf("quality %d, a %v", got.Quality, got.Template)
		}
		if want := []biometric.Step{{Action: biometric.Look, Capture: 1, Captures: 1}}; !slices.Equal(steps, want) {
			t.Errorf("steps %v", steps)
		}
		// It is longer than what the reader takes in one piece.
		r.is([]biometric.Reference{{Part: biometric.LeftIris, Template: got.Template}}, biometric.Match{Outcome: biometric.Matched, Part: biometric.LeftIris})
		got.Template.Clear()
		if used, err := r.scanner.Slots(r.Context()); err != nil || len(used) > 0 || r.scanner.Delete(t.Context(), 1) != nil {
			t.Errorf("slots %v, %v", used, err)
		}
		about, err := r.scanner.About(r.Context())
		if err != nil || about.Capacity != 0 || about.Modality != biometric.Iris || about.Serial != "0205D9-51000000" || about.Family == "" {
			t.Errorf("About: %+v, %v", about, err)
		}
	})
}

func TestWhatIsNotGoodEnoughIsTriedAgainAndThenRefused(t *testing.T) {
	fingers := iris.Config{Parts: []biometric.Part{biometric.RightIndex}, Threshold: threshold, Quality: 100}
	bubble(t, pd.Config{Key: key}, fingers, func(r *reader) {
		trait := &pd.Trait{Type: osdp.RightIndex, Quality: 99, Template: osdp.Secret("x")}
		r.far.Hold(trait)
		var actions []biometric.Action
		capture := biometric.Capture{Part: biometric.RightIndex, Tell: func(s biometric.Step) {
			if actions = append(actions, s.Action); len(actions) == 5 {
				r.far.Hold(&pd.Trait{Type: osdp.RightIndex, Quality: 100, Template: osdp.Secret("x")})
			}
		}}
		if _, err := r.scanner.Enroll(r.Context(), capture); err == nil || !strings.Contains(err.Error(), "quality is 99") {
			t.Errorf("Enroll: %v", err)
		}
		got, err := r.scanner.Enroll(r.Context(), capture)
		if err != nil || got.Quality != 39 {
			t.Errorf("Enroll: quality %d, %v", got.Quality, err)
		}
		if want := []biometric.Action{biometric.Place, biometric.Again, biometric.Again, biometric.Place, biometric.Again}; !slices.Equal(actions, want) {
			t.Errorf("actions %v, want %v", actions, want)
		}
	})
}

func TestATemplateThatIsRefusedIsCleared(t *testing.T) {
	live := osdp.Status{State: osdp.Secure}
	for name, f := range map[string]*fake{
		"poor":             {template: osdp.BioTemplate{Type: osdp.RightIris, Quality: 99}, before: live, after: live},
		"another eye":      {template: osdp.BioTemplate{Type: osdp.LeftIris, Quality: 255}, before: live, after: live},
		"failed":           {template: osdp.BioTemplate{Type: osdp.RightIris, Quality: 255, Status: osdp.BioUnknown}, before: live, after: live},
		"nobody":           {template: osdp.BioTemplate{Type: osdp.RightIris, Quality: 255, Status: osdp.BioTimeout}, before: live, after: live},
		"channel lost":     {template: osdp.BioTemplate{Type: osdp.RightIris, Quality: 255}, before: live, after: osdp.Status{State: osdp.Offline, Err: osdp.ErrOffline}},
		"channel replaced": {template: osdp.BioTemplate{Type: osdp.RightIris, Quality: 255}, before: live, after: osdp.Status{State: osdp.Secure, Since: time.Unix(9, 0)}},
	} {
		secret := osdp.Secret("an eye's template")
		f.template.Template = secret
		s, err := iris.New(f, eyes)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Enroll(t.Context(), biometric.Capture{Part: biometric.RightIris})
		if err == nil || !got.Template.Empty() {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		if slices.ContainsFunc(secret, func(b byte) bool { return b != 0 }) {
			t.Errorf("%s: the template is still in memory", name)
		}
		if strings.Contains(fmt.Sprint(err), "eye's template") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnEmptyTemplateIsAFault(t *testing.T) {
	live := osdp.Status{State: osdp.Secure}
	s, err := iris.New(&fake{template: osdp.BioTemplate{Type: osdp.RightIris, Quality: 255}, before: live, after: live}, eyes)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Enroll(t.Context(), biometric.Capture{Part: biometric.RightIris}); err == nil {
		t.Errorf("Enroll gave %v", got)
	}
}

func TestAWatchTellsEachChangeOnce(t *testing.T) {
	bubble(t, pd.Config{Key: key}, eyes, func(r *reader) {
		ctx, cancel := context.WithCancel(r.Context())
		ended := make(chan error, 1)
		var told []error
		go func() { ended <- r.scanner.Watch(ctx, func(fault error) { told = append(told, fault) }) }()
		time.Sleep(10 * time.Second)
		r.far.Power(false)
		time.Sleep(time.Minute)
		r.far.Power(true)
		time.Sleep(time.Minute)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch: %v", err)
		}
		if len(told) != 3 || told[0] != nil || !errors.Is(told[1], osdp.ErrOffline) || told[2] != nil {
			t.Errorf("told %q", told)
		}
	})
}

func TestEveryFaultOfAConfigurationIsNamed(t *testing.T) {
	_, err := iris.New(&fake{}, iris.Config{Parts: []biometric.Part{biometric.RightIris, biometric.RightIris, biometric.LeftThumb, "nose"}, Format: 9, Wait: -1})
	for _, want := range []string{`"right-iris" is there twice`, "two kinds", `"nose"`, "threshold", "format", "wait"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not named in %v", want, err)
		}
	}
	if _, err := iris.New(&fake{}, iris.Config{Threshold: 1}); err == nil || !strings.Contains(err.Error(), "parts") {
		t.Errorf("no parts: %v", err)
	}
}
