package fingerprint

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

// script is a line that gives what it is told, piece by piece.
type script struct {
	pieces [][]byte
	sent   []byte
}

func (s *script) Read(b []byte, _ time.Duration) (int, error) {
	if len(s.pieces) == 0 {
		return 0, nil
	}
	n := copy(b, s.pieces[0])
	if s.pieces[0] = s.pieces[0][n:]; len(s.pieces[0]) == 0 {
		s.pieces = s.pieces[1:]
	}
	return n, nil
}

func (s *script) Write(b []byte) (int, error) {
	s.sent = append(s.sent, b...)
	return len(b), nil
}
func (s *script) SetBaud(int) error { return nil }
func (s *script) Close() error      { return nil }

// frames of three bytes that begin with '<'.
func frame(got *[]byte) func([]byte) (int, bool) {
	return func(b []byte) (int, bool) {
		switch {
		case b[0] != '<':
			return 1, false
		case len(b) < 3:
			return 0, false
		}
		*got = append([]byte(nil), b[:3]...)
		return 3, true
	}
}

func TestAFrameIsFoundInWhateverPiecesItComes(t *testing.T) {
	s := &script{pieces: [][]byte{[]byte("no"), []byte("ise<"), []byte("a"), []byte("><b>")}}
	w := NewWire(s, 8)
	for _, want := range []string{"<a>", "<b>"} {
		var got []byte
		if err := w.Receive(t.Context(), time.Second, frame(&got)); err != nil || string(got) != want {
			t.Errorf("%q, %v", got, err)
		}
	}
}

func TestNothingIsToldFromNoise(t *testing.T) {
	var got []byte
	if err := NewWire(&script{}, 8).Receive(t.Context(), time.Millisecond, frame(&got)); !errors.Is(err, ErrSilent) {
		t.Errorf("nothing: %v", err)
	}
	for _, noise := range []string{"noise", "<a", "noise that is longer than what is kept"} {
		w := NewWire(&script{pieces: [][]byte{[]byte(noise)}}, 8)
		if err := w.Receive(t.Context(), time.Millisecond, frame(&got)); !errors.Is(err, ErrGarbled) {
			t.Errorf("%q: %v", noise, err)
		}
	}
}

// There may be a template in what went over the wire.
func TestTheWireKeepsNoCopyOfWhatWentOverIt(t *testing.T) {
	s := &script{pieces: [][]byte{[]byte("x<a>"), []byte("yz<")}}
	w := NewWire(s, 16)
	var got []byte
	if err := w.Receive(t.Context(), time.Second, frame(&got)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(w.buf, make([]byte, 16)) {
		t.Errorf("after a frame: %q", w.buf)
	}
	w.Receive(t.Context(), time.Millisecond, frame(&got))
	w.Forget()
	if !bytes.Equal(w.buf, make([]byte, 16)) {
		t.Errorf("after Forget: %q", w.buf)
	}
	sent := []byte("secret")
	if err := w.Send(sent); err != nil || string(s.sent) != "secret" || !bytes.Equal(sent, make([]byte, 6)) {
		t.Errorf("%q was sent and %q is left, %v", s.sent, sent, err)
	}
}

func TestWhatCameBeforeACommandIsNoAnswerToIt(t *testing.T) {
	s := &script{pieces: [][]byte{[]byte("<a><b>"), []byte("<c>")}}
	w := NewWire(s, 8)
	var got []byte
	if err := w.Receive(t.Context(), time.Second, frame(&got)); err != nil {
		t.Fatal(err)
	}
	if err := w.Ask([]byte("?")); err != nil {
		t.Fatal(err)
	}
	if err := w.Receive(t.Context(), time.Millisecond, frame(&got)); !errors.Is(err, ErrSilent) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestALineIsSilentOnlyAfterAWhile(t *testing.T) {
	var got []byte
	w := NewWire(&script{pieces: [][]byte{[]byte("abc"), []byte("def")}}, 4)
	silent, err := w.Silence(t.Context(), 5*time.Millisecond, time.Second, func(b []byte) { got = append(got, b...) })
	if !silent || err != nil || string(got) != "abcdef" {
		t.Errorf("%v, %q, %v", silent, got, err)
	}
	chatter := make([][]byte, 1_000_000)
	for i := range chatter {
		chatter[i] = []byte("x")
	}
	w = NewWire(&script{pieces: chatter}, 4)
	if silent, err := w.Silence(t.Context(), 50*time.Millisecond, time.Millisecond, nil); silent || err != nil {
		t.Errorf("a line that never is silent: %v, %v", silent, err)
	}
}
