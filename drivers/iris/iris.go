package iris

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
)

// Device scans fingers or eyes. *osdp.Peripheral is one.
type Device interface {
	// BioRead and BioMatch scan once and wait for the person until ctx ends. They
	// fail when the way to the scanner was not secure all the time. BioMatch keeps
	// nothing of the template when it has returned.
	BioRead(ctx context.Context, c osdp.BioRead) (osdp.BioTemplate, error)
	BioMatch(ctx context.Context, c osdp.BioMatch) (osdp.BioScore, error)
	// Status is how things are: the way to the scanner is secure in the state
	// osdp.Secure and in no other, and the same one as long as Since is the same.
	// osdp.Offline and osdp.Starting without an error mean that nothing is known to
	// be wrong yet, and osdp.ErrStopped that the device will not be there again.
	Status() osdp.Status
	// Changed is closed when Status has another state or error. Taken before
	// Status, it misses no change.
	Changed() <-chan struct{}
}

// DefaultWait is how long a scan waits for a person.
const DefaultWait = 15 * time.Second

// captures is how often somebody may try while something is enrolled.
const captures = 3

// pending is the pause before a device that may still answer an earlier scan is
// asked again.
const pending = time.Second

// Config says what a scanner does.
type Config struct {
	// Parts are what the scanner takes: fingers or eyes.
	Parts []biometric.Part
	// Threshold is the least score that is a match, 1 to 255. What a score means
	// is in the reader's papers.
	Threshold byte
	// Quality is the least quality of what is enrolled, 1 to 255, as the reader
	// counts; 0: any.
	Quality byte
	// Format is how templates of fingers are written. Those of eyes have no format
	// but the maker's own, osdp.BioFormatDefault.
	Format osdp.BioFormat
	Reader byte          // which of the device's readers; the first is 0
	Wait   time.Duration // for a person; 0: DefaultWait
}

// types are the parts as OSDP has them.
var types = map[biometric.Part]osdp.BioType{
	biometric.RightThumb: osdp.RightThumb, biometric.RightIndex: osdp.RightIndex, biometric.RightMiddle: osdp.RightMiddle,
	biometric.RightRing: osdp.RightRing, biometric.RightLittle: osdp.RightLittle,
	biometric.LeftThumb: osdp.LeftThumb, biometric.LeftIndex: osdp.LeftIndex, biometric.LeftMiddle: osdp.LeftMiddle,
	biometric.LeftRing: osdp.LeftRing, biometric.LeftLittle: osdp.LeftLittle,
	biometric.RightIris: osdp.RightIris, biometric.LeftIris: osdp.LeftIris,
}

// Validate names every fault.
func (c *Config) Validate() error {
	var faults []error
	add := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if len(c.Parts) == 0 {
		add("parts: it must name what the reader scans, such as [%q, %q]", biometric.RightIris, biometric.LeftIris)
	}
	for i, p := range c.Parts {
		switch {
		case !p.Valid():
			add("parts: there is no %q: use the likes of %q or %q", p, biometric.RightIris, biometric.RightIndex)
		case slices.Contains(c.Parts[:i], p):
			add("parts: %q is there twice", p)
		case p.Modality() != c.Parts[0].Modality():
			add("parts: %q and %q are of two kinds: a reader that takes both is two scanners", c.Parts[0], p)
		}
	}
	if c.Threshold == 0 {
		add("threshold: it must be the least score that is a match, 1 to 255: the reader's papers say what a score means")
	}
	switch {
	case c.Format != osdp.BioFormatDefault && c.Format != osdp.BioFormatANSI378:
		add("format: %d is not a template's", c.Format)
	case c.Format != osdp.BioFormatDefault && c.modality() != biometric.Fingerprint:
		add("format: eyes have none but the maker's own: leave it out")
	}
	if c.Wait < 0 || c.Wait > time.Minute {
		add("wait: %v is outside 0 to 1m", c.Wait)
	}
	return errors.Join(faults...)
}

func (c *Config) modality() biometric.Modality {
	if len(c.Parts) == 0 {
		return ""
	}
	return c.Parts[0].Modality()
}

// Scanner compares with templates that its caller holds. It is a
// [biometric.Enroller] that keeps nothing.
type Scanner struct {
	device Device
	config Config
	turn   chan struct{} // held by the scan that is under way
}

// New makes a scanner of a device. Every fault of the configuration is told.
func New(d Device, c Config) (*Scanner, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Wait == 0 {
		c.Wait = DefaultWait
	}
	c.Parts = slices.Clone(c.Parts)
	return &Scanner{device: d, config: c, turn: make(chan struct{}, 1)}, nil
}

// Authenticated is true: nothing that comes over a way that is not secure
// counts.
func (s *Scanner) Authenticated() bool { return true }

// Scan compares with one reference after the other, in their order, until one
// matches: either eye suffices. The time that it waits is shared out among
// them. References of parts that the configuration does not name are passed
// over. Without others it is ErrUnsupported.
func (s *Scanner) Scan(ctx context.Context, with []biometric.Reference) (biometric.Match, error) {
	if len(with) == 0 {
		return biometric.Match{}, fmt.Errorf("%w: the reader keeps nothing, and does not know who somebody is", biometric.ErrUnsupported)
	}
	var takes []biometric.Reference
	var fault error
	for _, r := range with {
		switch err := s.takes(r.Part); {
		case err != nil: // such as an eye that was enrolled before the configuration left it out
			fault = err
		case r.Template.Empty():
			return biometric.Match{}, fmt.Errorf("%w: it compares with templates, and a reference has none", biometric.ErrUnsupported)
		default:
			takes = append(takes, r)
		}
	}
	if len(takes) == 0 {
		return biometric.Match{}, fault
	}
	release, err := s.hold(ctx)
	if err != nil {
		return biometric.Match{}, err
	}
	defer release()
	end := time.Now().Add(s.config.Wait)
	outcome := biometric.Nobody
	for i, r := range takes {
		got, err := s.compare(ctx, r, time.Until(end)/time.Duration(len(takes)-i))
		switch {
		case err != nil:
			return biometric.Match{}, err
		case got == biometric.Matched:
			return biometric.Match{Outcome: got, Part: r.Part, Duress: r.Duress}, nil
		case got == biometric.NoMatch, outcome == biometric.Nobody:
			outcome = got
		}
	}
	return biometric.Match{Outcome: outcome}, nil
}

// compare compares with one reference.
func (s *Scanner) compare(ctx context.Context, with biometric.Reference, wait time.Duration) (biometric.Outcome, error) {
	var score osdp.BioScore
	came, err := s.scan(ctx, wait, func(ctx context.Context) (err error) {
		score, err = s.device.BioMatch(ctx, osdp.BioMatch{
			Reader: s.config.Reader, Type: types[with.Part], Format: s.config.Format, Threshold: s.config.Threshold,
			Template: osdp.Secret(with.Template.Bytes()),
		})
		return err
	})
	switch {
	case err != nil:
		return "", s.explain(err, with.Part)
	case !came, score.Status == osdp.BioTimeout:
		return biometric.Nobody, nil
	case score.Matches(s.config.Threshold):
		return biometric.Matched, nil
	case score.Status == osdp.BioOK:
		return biometric.NoMatch, nil
	}
	return biometric.TryAgain, nil
}

// Enroll takes a finger or an eye. The caller gets the template, and clears it.
// What is not good enough may be tried again a few times.
func (s *Scanner) Enroll(ctx context.Context, c biometric.Capture) (biometric.Captured, error) {
	if err := s.takes(c.Part); err != nil {
		return biometric.Captured{}, err
	}
	release, err := s.hold(ctx)
	if err != nil {
		return biometric.Captured{}, err
	}
	defer release()
	step := biometric.Step{Action: biometric.Place, Capture: 1, Captures: 1}
	if c.Part.Modality() == biometric.Iris {
		step.Action = biometric.Look
	}
	for try := 1; ; try++ {
		if c.Tell != nil {
			c.Tell(step)
		}
		got, err := s.capture(ctx, c.Part)
		if !errors.Is(err, errPoor) || try == captures {
			return got, err
		}
		step.Action = biometric.Again
	}
}

// errPoor is the error of a scan that may be tried again.
var errPoor = errors.New("too little was seen")

// capture takes a template.
func (s *Scanner) capture(ctx context.Context, part biometric.Part) (biometric.Captured, error) {
	var m osdp.BioTemplate
	came, err := s.scan(ctx, s.config.Wait, func(ctx context.Context) (err error) {
		m, err = s.device.BioRead(ctx, osdp.BioRead{Reader: s.config.Reader, Type: types[part], Format: s.config.Format, Quality: s.config.Quality})
		return err
	})
	template := biometric.NewTemplate(m.Template)
	switch {
	case err != nil:
		err = s.explain(err, part)
	case !came, m.Status == osdp.BioTimeout:
		err = fmt.Errorf("nobody came within %v", s.config.Wait)
	case m.Status != osdp.BioOK:
		err = fmt.Errorf("%w of the %s: %v", errPoor, part.Words(), m.Status)
	case m.Type != types[part] && m.Type != osdp.BioDefault:
		err = fmt.Errorf("the reader was asked for the %s and scanned the %v", part.Words(), m.Type)
	case template.Empty():
		err = errors.New("the reader says that all went well, and gives no template")
	case m.Quality < s.config.Quality:
		err = fmt.Errorf("%w of the %s: its quality is %d, and is to be at least %d", errPoor, part.Words(), m.Quality, s.config.Quality)
	}
	if err != nil {
		template.Clear()
		return biometric.Captured{}, err
	}
	quality := int(m.Quality) * 100 / 255
	if m.Quality > 0 {
		quality = max(quality, 1)
	}
	return biometric.Captured{Template: template, Quality: quality}, nil
}

// scan has the device scan once, and holds it to one Secure Channel from
// before the scan until after it. Nobody came if the wait ended first.
func (s *Scanner) scan(ctx context.Context, wait time.Duration, f func(context.Context) error) (came bool, err error) {
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	before, err := s.ready(waiting)
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case err != nil:
		return false, err
	}
	err = f(waiting)
	for errors.Is(err, osdp.ErrScanPending) && waiting.Err() == nil {
		// The device cannot abort a scan that was given up. That passes.
		select {
		case <-time.After(pending):
		case <-waiting.Done():
		}
		err = f(waiting)
	}
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return false, ctx.Err()
	case waiting.Err() != nil && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, osdp.ErrScanPending)):
		return false, nil
	default:
		return false, err
	}
	after := s.device.Status()
	if err := insecure(after); err != nil {
		return false, err
	}
	if !after.Since.Equal(before.Since) {
		return false, fmt.Errorf("the scan does not count: %w", osdp.ErrChannelLost)
	}
	return true, nil
}

// ready waits for the Secure Channel as long as nothing is known to be wrong.
func (s *Scanner) ready(ctx context.Context) (osdp.Status, error) {
	for {
		next := s.device.Changed()
		status := s.device.Status()
		err := insecure(status)
		if err == nil || !begins(status) {
			return status, err
		}
		select {
		case <-next:
		case <-ctx.Done():
			return status, err
		}
	}
}

// begins reports whether it is not known yet if a device can be used.
func begins(s osdp.Status) bool {
	return s.Err == nil && (s.State == osdp.Offline || s.State == osdp.Starting)
}

// insecure is why nothing that comes from a device counts; nil: it does.
func insecure(s osdp.Status) error {
	switch {
	case s.State == osdp.Secure:
		return nil
	case s.Err != nil:
		return s.Err
	}
	return fmt.Errorf("%w: its state is %v", osdp.ErrUnsecured, s.State)
}

// explain says what a refusal means.
func (s *Scanner) explain(err error, part biometric.Part) error {
	switch {
	case errors.Is(err, osdp.NAKBioType):
		return fmt.Errorf("the reader does not scan the %s: leave %q out of its parts: %w", part.Words(), part, err)
	case errors.Is(err, osdp.NAKBioFormat):
		return fmt.Errorf("the reader does not know the format of the templates: choose another one for it: %w", err)
	}
	return err
}

// takes is an error for what the scanner does not take.
func (s *Scanner) takes(p biometric.Part) error {
	if slices.Contains(s.config.Parts, p) {
		return nil
	}
	return fmt.Errorf("%w: it takes %v, and not %q", biometric.ErrUnsupported, s.config.Parts, p)
}

// hold waits for the scanner's turn.
func (s *Scanner) hold(ctx context.Context) (release func(), err error) {
	select {
	case s.turn <- struct{}{}:
		return func() { <-s.turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Watch tells whether the way to the scanner is secure. It waits as long as
// nothing is known to be wrong, and ends when the device has stopped
// (osdp.ErrStopped).
func (s *Scanner) Watch(ctx context.Context, changed func(fault error)) error {
	told, last := false, ""
	for {
		next := s.device.Changed()
		status := s.device.Status()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(status.Err, osdp.ErrStopped):
			return status.Err
		}
		if !begins(status) {
			fault, words := insecure(status), ""
			if fault != nil {
				words = fault.Error()
			}
			if !told || words != last {
				told, last = true, words
				changed(fault)
			}
		}
		select {
		case <-next:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// About is what the reader says of itself.
func (s *Scanner) About(ctx context.Context) (biometric.About, error) {
	waiting, cancel := context.WithTimeout(ctx, s.config.Wait)
	defer cancel()
	status, err := s.ready(waiting)
	if err != nil {
		return biometric.About{}, errors.Join(ctx.Err(), err)
	}
	id := status.ID
	model := fmt.Sprintf("OSDP maker %X model %d", id.OUI, id.Model)
	family := model
	if s.config.Format == osdp.BioFormatANSI378 {
		family = "ANSI 378"
	}
	return biometric.About{
		Model: fmt.Sprintf("%s version %d", model, id.Version), Serial: fmt.Sprintf("%X-%08X", id.OUI, id.Serial),
		Modality: s.config.modality(), Family: family,
	}, nil
}

// Slots are none: the reader keeps nothing.
func (s *Scanner) Slots(context.Context) ([]uint32, error) { return nil, nil }

// Delete has nothing to do: the reader keeps nothing.
func (s *Scanner) Delete(context.Context, uint32) error { return nil }
