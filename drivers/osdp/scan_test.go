package osdp_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp/pd"
)

func TestAScanIsWaitedFor(t *testing.T) {
	for _, direct := range []bool{false, true} {
		bubble(t, []pd.Config{{Key: key, DirectScan: direct}}, func(r *rig) {
			r.secure()
			iris := &pd.Trait{Type: osdp.LeftIris, Quality: 77, Template: osdp.Secret("left eye")}
			finger := &pd.Trait{Type: osdp.RightIndex, Quality: 50, Template: osdp.Secret("right index")}
			if direct {
				r.far[0].Hold(iris)
			} else {
				go func() {
					time.Sleep(3 * time.Second)
					r.far[0].Hold(iris)
				}()
			}
			m, err := r.p(0).BioRead(r.Context(), osdp.BioRead{Type: osdp.LeftIris})
			if err != nil || m.Status != osdp.BioOK || m.Type != osdp.LeftIris || m.Quality != 77 || string(m.Template) != "left eye" {
				r.Errorf("read %+v, %v", m, err)
			}
			for _, test := range []struct {
				held     *pd.Trait
				template string
				want     bool
			}{{iris, "left eye", true}, {iris, "another eye", false}, {finger, "left eye", false}} {
				r.far[0].Hold(test.held)
				m, err := r.p(0).BioMatch(r.Context(), osdp.BioMatch{Type: osdp.LeftIris, Threshold: 0x80, Template: osdp.Secret(test.template)})
				if err != nil || m.Status != osdp.BioOK || m.Matches(0x80) != test.want {
					r.Errorf("%s: %+v, %v", test.template, m, err)
				}
			}
			r.far[0].Hold(nil)
			if m, err := r.p(0).BioMatch(r.Context(), osdp.BioMatch{Template: osdp.Secret("left eye")}); err != nil || m.Status != osdp.BioTimeout || m.Matches(0) {
				r.Errorf("with nobody there: %+v, %v", m, err)
			}
			time.Sleep(time.Second)
			if replies, _ := r.told(); len(replies) > 2 { // how things were at the start
				r.Errorf("told besides: %v", replies)
			}
		})
	}
}

func TestAScanThatTheReaderCannotDoIsRefused(t *testing.T) {
	bubble(t, []pd.Config{{Key: key}}, func(r *rig) {
		r.secure()
		if _, err := r.p(0).BioRead(r.Context(), osdp.BioRead{Type: osdp.Face}); !errors.Is(err, osdp.NAKBioType) {
			r.Errorf("a face: %v", err)
		}
		if _, err := r.p(0).BioRead(r.Context(), osdp.BioRead{Type: osdp.RightIris, Format: osdp.BioFormatANSI378}); !errors.Is(err, osdp.NAKBioFormat) {
			r.Errorf("an iris as a fingerprint: %v", err)
		}
	})
}

func TestTemplatesAndScoresDoNotGoInClearText(t *testing.T) {
	scans := 0
	far := pd.Config{ClearText: true, Handle: func(c osdp.Command) {
		if c.Command() == osdp.CodeBIOREAD || c.Command() == osdp.CodeBIOMATCH {
			scans++
		}
	}}
	bubble(t, []pd.Config{far}, func(r *rig) {
		r.secure()
		if _, err := r.p(0).BioRead(r.Context(), osdp.BioRead{}); !errors.Is(err, osdp.ErrUnsecured) {
			r.Errorf("read: %v", err)
		}
		if _, err := r.p(0).BioMatch(r.Context(), osdp.BioMatch{Template: osdp.Secret("x")}); !errors.Is(err, osdp.ErrUnsecured) {
			r.Errorf("match: %v", err)
		}
		if scans > 0 {
			r.Error("the reader was asked")
		}
	})
}

func TestAScanByAnotherReaderIsRefused(t *testing.T) {
	far := pd.Config{Key: key, Answer: func(c osdp.Command) osdp.Reply {
		switch c.(type) {
		case osdp.BioRead:
			return osdp.BioTemplate{Reader: 1}
		case osdp.BioMatch:
			return osdp.BioScore{Reader: 1, Score: 0xFF}
		}
		return nil
	}}
	bubble(t, []pd.Config{far}, func(r *rig) {
		r.secure()
		if _, err := r.p(0).BioRead(r.Context(), osdp.BioRead{}); !errors.Is(err, osdp.ErrUnexpected) {
			r.Errorf("read: %v", err)
		}
		if _, err := r.p(0).BioMatch(r.Context(), osdp.BioMatch{}); !errors.Is(err, osdp.ErrUnexpected) {
			r.Errorf("match: %v", err)
		}
	})
}

// Parts of one reply cannot be told from those of another, so only one is waited
// for.
func TestAReplyInPartsDoesNotDisplaceAScan(t *testing.T) {
	part, err := osdp.Fragment{Total: 10, Data: osdp.Secret("half")}.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	far := pd.Config{Key: key, Answer: func(c osdp.Command) osdp.Reply {
		if c.Command() == osdp.CodePIVDATA {
			return osdp.OtherReply{Code: osdp.CodePIVDATAR, Data: part}
		}
		return nil
	}}
	bubble(t, []pd.Config{far}, func(r *rig) {
		r.secure()
		done := make(chan error)
		go func() {
			m, err := r.p(0).BioRead(r.Context(), osdp.BioRead{})
			if err == nil && string(m.Template) != "finger" {
				err = errors.New("another template came")
			}
			done <- err
		}()
		time.Sleep(time.Second)
		if _, err := r.p(0).Do(r.Context(), osdp.OtherCommand{Code: osdp.CodePIVDATA}); !errors.Is(err, osdp.ErrScanPending) {
			r.Errorf("a reply in parts: %v", err)
		}
		r.far[0].Hold(&pd.Trait{Type: osdp.RightIndex, Template: osdp.Secret("finger")})
		if err := <-done; err != nil {
			r.Errorf("the scan: %v", err)
		}
	})
}

func TestALongTemplateGoesAsAFile(t *testing.T) {
	bubble(t, []pd.Config{{Key: key}}, func(r *rig) {
		r.secure()
		template := osdp.Secret(bytes.Repeat([]byte("a template that is longer than the buffer "), 20))
		r.far[0].Hold(&pd.Trait{Type: osdp.RightIndex, Template: template})
		m, err := r.p(0).BioMatch(r.Context(), osdp.BioMatch{Type: osdp.RightIndex, Threshold: 0x80, Template: template})
		if err != nil || !m.Matches(0x80) {
			r.Errorf("got %+v, %v", m, err)
		}
		if got := r.far[0].File(osdp.FileTemplate); !bytes.Equal(got, template) {
			r.Errorf("the reader received %d bytes of %d", len(got), len(template))
		}
	})
}

// The outcome of a scan that was given up may come while the next one runs. It
// must not be taken for the other person's.
func TestTheOutcomeOfAScanIsNeverAnotherOnes(t *testing.T) {
	deaf := func(c osdp.Command) osdp.Reply { // does not know ABORT
		if c.Command() == osdp.CodeABORT {
			return osdp.NAK{Code: osdp.NAKUnknownCommand}
		}
		return nil
	}
	match := osdp.BioMatch{Type: osdp.RightIndex, Threshold: 0x80, Template: osdp.Secret("first person")}
	other := osdp.BioMatch{Type: osdp.RightIndex, Threshold: 0x80, Template: osdp.Secret("second person")}
	giveUp := func(r *rig) {
		r.Helper()
		ctx, cancel := context.WithTimeout(r.Context(), time.Second)
		defer cancel()
		if _, err := r.p(0).BioMatch(ctx, match); !errors.Is(err, context.DeadlineExceeded) {
			r.Errorf("with nobody there: %v", err)
		}
	}
	t.Run("the reader aborts it", func(t *testing.T) {
		bubble(t, []pd.Config{{Key: key}}, func(r *rig) {
			r.secure()
			giveUp(r)
			time.Sleep(time.Second)
			r.far[0].Hold(&pd.Trait{Type: osdp.RightIndex, Template: match.Template})
			m, err := r.p(0).BioMatch(r.Context(), other)
			if err != nil || m.Matches(0x80) {
				r.Errorf("the second person: %+v, %v", m, err)
			}
		})
	})
	t.Run("the reader aborts it too late", func(t *testing.T) {
		var reader *pd.Peripheral
		far := pd.Config{Key: key, Handle: func(c osdp.Command) {
			if c.Command() == osdp.CodeABORT {
				reader.Tell(osdp.BioScore{Score: 0xFF}) // it had that already
			}
		}}
		bubble(t, []pd.Config{far}, func(r *rig) {
			reader = r.far[0]
			r.secure()
			giveUp(r)
			reader.Hold(&pd.Trait{Type: osdp.RightIndex, Template: match.Template})
			m, err := r.p(0).BioMatch(r.Context(), other)
			if err != nil || m.Matches(0x80) {
				r.Errorf("the second person: %+v, %v", m, err)
			}
		})
	})
	t.Run("the reader goes on", func(t *testing.T) {
		bubble(t, []pd.Config{{Key: key, Answer: deaf, ScanTimeout: time.Minute}}, func(r *rig) {
			r.secure()
			giveUp(r)
			time.Sleep(time.Second)
			if _, err := r.p(0).BioMatch(r.Context(), other); !errors.Is(err, osdp.ErrScanPending) {
				r.Errorf("while it goes on: %v", err)
			}
			r.far[0].Hold(&pd.Trait{Type: osdp.RightIndex, Template: match.Template})
			time.Sleep(time.Second)
			replies, _ := r.told()
			for _, m := range replies {
				if _, ok := m.(osdp.BioScore); ok {
					r.Error("the score was passed on")
				}
			}
			m, err := r.p(0).BioMatch(r.Context(), other)
			if err != nil || m.Matches(0x80) {
				r.Errorf("the second person: %+v, %v", m, err)
			}
		})
	})
	t.Run("the reader says nothing more", func(t *testing.T) {
		bubble(t, []pd.Config{{Key: key, Answer: deaf, ScanTimeout: time.Hour}}, func(r *rig) {
			r.secure()
			giveUp(r)
			time.Sleep(31 * time.Second)
			ctx, cancel := context.WithTimeout(r.Context(), time.Second)
			defer cancel()
			if _, err := r.p(0).BioMatch(ctx, other); !errors.Is(err, context.DeadlineExceeded) {
				r.Errorf("after a while: %v", err)
			}
		})
	})
}

func TestAScanEndsWithTheChannel(t *testing.T) {
	bubble(t, []pd.Config{{Key: key}}, func(r *rig) {
		r.secure()
		time.Sleep(2 * time.Second)
		go func() {
			time.Sleep(time.Second)
			r.far[0].Power(false)
			r.far[0].Power(true)
		}()
		if _, err := r.p(0).BioMatch(r.Context(), osdp.BioMatch{Template: osdp.Secret("x")}); !errors.Is(err, osdp.ErrChannelLost) {
			r.Errorf("got %v", err)
		}
		r.secure()
		time.Sleep(time.Second)
		if m, err := r.p(0).BioMatch(r.Context(), osdp.BioMatch{Template: osdp.Secret("x")}); err != nil || m.Status != osdp.BioTimeout {
			r.Errorf("afterwards: %+v, %v", m, err)
		}
	})
}

func TestAFileIsSentInPartsAndItsRefusalIsAnError(t *testing.T) {
	bubble(t, []pd.Config{{Key: key}, {Address: 1, Key: key, Capabilities: []osdp.Capability{}}}, func(r *rig) {
		r.secure()
		for i, size := range []int{0, 1, 211, 5000} {
			file := bytes.Repeat([]byte{byte(size)}, size)
			for p := range 2 {
				if err := r.p(p).SendFile(r.Context(), osdp.FileDisplay, file); err != nil || !bytes.Equal(r.far[p].File(osdp.FileDisplay), file) {
					r.Errorf("file %d to %d: %v", i, p, err)
				}
			}
		}
		if err := r.p(0).SendFile(r.Context(), osdp.FileOpaque, make(osdp.Secret, osdp.MaxMessage+1)); err == nil {
			r.Error("a file longer than the reader takes was sent")
		}
	})
}

func TestCardsAreHeardWhileAFileIsSent(t *testing.T) {
	bubbleOf(t, osdp.Config{Baud: 9600}, []pd.Config{{Key: key}}, func(r *rig) {
		r.secure()
		done := make(chan error)
		go func() { done <- r.p(0).SendFile(r.Context(), osdp.FileDisplay, make(osdp.Secret, 10_000)) }()
		time.Sleep(time.Second)
		r.far[0].Present(cardA)
		time.Sleep(time.Second)
		r.expectCards(0xA1)
		if err := <-done; err != nil {
			r.Error(err)
		}
	})
}

func TestAReplyInPartsIsPutTogether(t *testing.T) {
	message := bytes.Repeat([]byte("certificate "), 60)
	var parts []osdp.Reply
	for offset := 0; offset < len(message); offset += 200 {
		end := min(offset+200, len(message))
		data, err := osdp.Fragment{Total: uint16(len(message)), Offset: uint16(offset), Data: message[offset:end]}.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, osdp.OtherReply{Code: osdp.CodePIVDATAR, Data: data})
	}
	far := pd.Config{Key: key, Answer: func(c osdp.Command) osdp.Reply {
		if c.Command() == osdp.CodePIVDATA {
			return parts[0]
		}
		return nil
	}}
	rest := parts[1:]
	var reader *pd.Peripheral
	far.Handle = func(c osdp.Command) {
		if c.Command() == osdp.CodePIVDATA {
			for _, m := range rest {
				reader.Tell(m)
			}
		}
	}
	bubble(t, []pd.Config{far}, func(r *rig) {
		reader = r.far[0]
		r.secure()
		reply, err := r.p(0).Do(r.Context(), osdp.OtherCommand{Code: osdp.CodePIVDATA})
		if m, ok := reply.(osdp.OtherReply); err != nil || !ok || !bytes.Equal(m.Data, message) {
			r.Errorf("asked for: %v, %v", reply, err)
		}
		r.forget()
		for _, m := range parts {
			r.far[0].Tell(m)
		}
		time.Sleep(time.Second)
		replies, _ := r.told()
		if len(replies) != 1 || !bytes.Equal(replies[0].(osdp.OtherReply).Data, message) {
			r.Errorf("unasked: %v", replies)
		}
		rest = parts[2:]
		if _, err := r.p(0).Do(r.Context(), osdp.OtherCommand{Code: osdp.CodePIVDATA}); !errors.Is(err, osdp.ErrFragment) {
			r.Errorf("with a part missing: %v", err)
		}
	})
}
