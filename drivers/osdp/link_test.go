package osdp

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// scripted is a line whose other end says what the script has, once it is
// spoken to.
type scripted struct {
	script []said
	now    []said
	sent   []byte
}

// said is bytes after a silence; nil bytes: the line is gone.
type said struct {
	after time.Duration
	bytes []byte
}

func (s *scripted) Write(b []byte) (int, error) {
	s.sent = append(s.sent, b...)
	s.now = append(s.now, slices.Clone(s.script)...)
	return len(b), nil
}

func (s *scripted) Read(b []byte, timeout time.Duration) (int, error) {
	if len(s.now) == 0 || s.now[0].after > timeout {
		time.Sleep(timeout)
		if len(s.now) > 0 {
			s.now[0].after -= timeout
		}
		return 0, nil
	}
	time.Sleep(s.now[0].after)
	if s.now[0].bytes == nil {
		return 0, ErrLineGone
	}
	s.now[0].after = 0
	n := copy(b, s.now[0].bytes)
	if s.now[0].bytes = s.now[0].bytes[n:]; len(s.now[0].bytes) == 0 {
		s.now = s.now[1:]
	}
	return n, nil
}

func (s *scripted) SetBaud(int) error { return nil }
func (s *scripted) Close() error      { return nil }

func frame(t testing.TB, f Frame) []byte {
	t.Helper()
	b, err := f.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTheReplyIsFoundAmongAllThatIsOnTheLine(t *testing.T) {
	const address, number = 5, 2
	command := frame(t, Frame{Address: address, Control: ControlCRC | number, Code: byte(CodePOLL)})
	ack := func(address, number byte, c Control) []byte {
		return frame(t, Frame{Address: address, Reply: true, Control: c | Control(number), Code: byte(CodeACK)})
	}
	reply := ack(address, number, ControlCRC)
	broken := bytes.Clone(reply)
	broken[5] ^= 1
	inner := slices.Concat([]byte{startOfMessage, replyBit | address, 40, 0, 4}, reply) // a false start in front of it
	each := func(b []byte, gap time.Duration) (s []said) {
		for i := range b {
			s = append(s, said{gap, b[i : i+1]})
		}
		return s
	}
	const ms = time.Millisecond
	for _, test := range []struct {
		name   string
		script []said
		want   error
		took   time.Duration // on a line of 115200 baud
	}{
		{"at once", []said{{0, reply}}, nil, 0},
		{"with a mark byte", []said{{3 * ms, append([]byte{markByte}, reply...)}}, nil, 3 * ms},
		{"with a checksum, unasked", []said{{3 * ms, ack(address, number, 0)}}, nil, 3 * ms},
		{"at the last moment", []said{{200 * ms, reply}}, nil, 200 * ms},
		{"byte by byte", each(reply, 19*ms), nil, 8 * 19 * ms},
		{"behind an echo", []said{{1 * ms, command}, {50 * ms, reply}}, nil, 51 * ms},
		{"behind another panel's command", []said{{1 * ms, frame(t, Frame{Address: address, Control: ControlCRC | number, Code: byte(CodeID), Data: Secret{0}})}, {1 * ms, reply}}, nil, 2 * ms},
		{"behind another peripheral's", []said{{1 * ms, ack(6, number, ControlCRC)}, {1 * ms, reply}}, nil, 2 * ms},
		{"behind a late one", []said{{1 * ms, ack(address, 1, ControlCRC)}, {1 * ms, reply}}, nil, 2 * ms},
		{"behind noise", []said{{1 * ms, []byte{0, 0x53, 0x11, 0x80}}, {19 * ms, reply}}, nil, 20 * ms},
		{"inside a broken frame", []said{{1 * ms, inner}}, nil, 21 * ms},
		{"busy", []said{{1 * ms, frame(t, Frame{Address: address, Reply: true, Control: ControlCRC, Code: byte(CodeBUSY)})}}, nil, 1 * ms},
		{"none", nil, errSilent, 200 * ms},
		{"too late", []said{{202 * ms, reply}}, errSilent, 200 * ms},
		{"only others'", []said{{100 * ms, ack(6, number, ControlCRC)}}, errSilent, 200 * ms},
		{"broken", []said{{1 * ms, broken}}, errGarbled, 21 * ms},
		{"cut short", []said{{1 * ms, reply[:6]}}, errGarbled, 21 * ms},
		{"a gap inside", []said{{1 * ms, reply[:6]}, {21 * ms, reply[6:]}}, errGarbled, 21 * ms},
		{"the line goes", []said{{1 * ms, nil}}, ErrLineGone, 1 * ms},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &link{line: &scripted{script: test.script}, baud: 115200, reply: DefaultReplyTimeout, gap: DefaultGap}
				start := time.Now()
				_, _, err := l.exchange(command, address, number)
				if !errors.Is(err, test.want) || test.want == nil && err != nil {
					t.Errorf("got %v, want %v", err, test.want)
				}
				if took := time.Since(start); took < test.took || took > test.took+ms {
					t.Errorf("it took %v, not %v", took, test.took)
				}
			})
		})
	}
}

// A reply that comes before its command is an earlier one's: the numbers repeat
// after three.
func TestWhatCameBeforeTheCommandIsNoReply(t *testing.T) {
	reply := frame(t, Frame{Reply: true, Control: ControlCRC | 1, Code: byte(CodeACK)})
	synctest.Test(t, func(t *testing.T) {
		l := &link{line: &scripted{now: []said{{0, reply}}}, baud: 9600, reply: DefaultReplyTimeout, gap: DefaultGap}
		if _, _, err := l.exchange([]byte{0x53}, 0, 1); !errors.Is(err, errSilent) {
			t.Errorf("got %v, want %v", err, errSilent)
		}
	})
}

// A line that never falls silent cannot hold a bus up.
func TestBabbleEnds(t *testing.T) {
	for name, b := range map[string][]byte{"nonsense": {0x11}, "false starts": {startOfMessage, replyBit}, "marks": {markByte}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				script := slices.Repeat([]said{{5 * time.Millisecond, b}}, 2000)
				l := &link{line: &scripted{script: script}, baud: 9600, reply: DefaultReplyTimeout, gap: DefaultGap}
				start := time.Now()
				if _, _, err := l.exchange([]byte{0x53}, 0, 1); !errors.Is(err, errSilent) && !errors.Is(err, errGarbled) {
					t.Errorf("got %v", err)
				}
				if took := time.Since(start); took > 2*time.Second {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

func TestTheMarkByteGoesAheadOfACommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{}
		l := &link{line: s, baud: 9600, reply: DefaultReplyTimeout, gap: DefaultGap, mark: true}
		l.exchange([]byte{startOfMessage, 1, 2}, 0, 1)
		if want := []byte{markByte, startOfMessage, 1, 2}; !bytes.Equal(s.sent, want) {
			t.Errorf("sent % X, want % X", s.sent, want)
		}
	})
}

func TestASearchSendsTheMarkByteToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, mark := range []bool{true, false} {
			s := &scripted{}
			for f, err := range Discover(t.Context(), s, Discovery{Bauds: []int{9600}, Addresses: []byte{3}, Mark: mark}) {
				t.Errorf("found %+v, %v", f, err)
			}
			if len(s.sent) == 0 || (s.sent[0] == markByte) != mark {
				t.Errorf("mark is %v: sent % X", mark, s.sent)
			}
		}
	})
}

// port is a serial port as tarm/serial gives one: its reads time out as EOF.
type port struct {
	timeout time.Duration
	in      chan []byte // closed: unplugged
	closed  bool
}

func (p *port) Read(b []byte) (int, error) {
	select {
	case data, ok := <-p.in:
		if !ok {
			return 0, io.EOF
		}
		return copy(b, data), nil
	case <-time.After(p.timeout):
		return 0, io.EOF
	}
}

func (p *port) Write(b []byte) (int, error) { return len(b), nil }
func (p *port) Close() error                { p.closed = true; return nil }

func TestAPortThatTimesOutIsNotOneThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &port{timeout: serialTimeout, in: make(chan []byte)}
		s := newStream(p, serialTimeout)
		b := make([]byte, 8)
		start := time.Now()
		if n, err := s.Read(b, 250*time.Millisecond); n != 0 || err != nil || time.Since(start) != 250*time.Millisecond {
			t.Errorf("silence: %d bytes, %v after %v", n, err, time.Since(start))
		}
		go func() {
			time.Sleep(30 * time.Millisecond)
			p.in <- []byte("abc")
		}()
		start = time.Now()
		if n, err := s.Read(b[:2], time.Second); n != 2 || err != nil || time.Since(start) != 30*time.Millisecond {
			t.Errorf("bytes: %d, %v after %v", n, err, time.Since(start))
		}
		if n, err := s.Read(b, 0); n != 1 || b[0] != 'c' || err != nil {
			t.Errorf("the rest: %d, %v", n, err)
		}
		for range 6 { // odd, but not gone: it is only so now and then
			p.in <- nil
			time.Sleep(250 * time.Millisecond)
		}
		if n, err := s.Read(b, 0); n != 0 || err != nil {
			t.Errorf("now and then nothing: %d, %v", n, err)
		}
		for range 100 {
			p.in <- make([]byte, 1024)
		}
		synctest.Wait()
		if n := len(s.buf); n > maxUnread {
			t.Errorf("%d bytes are kept that nobody reads", n)
		}
		s.buf = nil
		close(p.in)
		if n, err := s.Read(b, time.Second); n != 0 || !errors.Is(err, ErrLineGone) {
			t.Errorf("unplugged: %d, %v", n, err)
		}
		if err := s.Close(); err != nil || !p.closed {
			t.Errorf("Close: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("Close again: %v", err)
		}
	})
}

func TestASerialPortIsRefusedARateThatIsNotTheProtocols(t *testing.T) {
	if _, err := OpenSerial("/dev/null", 4800); err == nil {
		t.Error("4800 baud was taken")
	}
	if _, err := OpenSerial(t.TempDir()+"/ttyNone", 9600); err == nil {
		t.Error("a port that does not exist was opened")
	}
}
