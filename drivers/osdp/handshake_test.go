package osdp

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

// shaking is a peripheral's side of a handshake that goes wrong in one place.
type shaking struct {
	*testing.T
	p *Peripheral
}

func shake(t *testing.T) *shaking {
	bus, err := New(Config{
		Open:        func(int) (Line, error) { return nil, ErrLineGone },
		Peripherals: []PeripheralConfig{{Keys: NewMemoryKeys(Key{1, 2, 3})}},
		Handle: func(e Event) {
			if e.Reply != nil {
				t.Errorf("%v was passed on", e.Reply.Reply())
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &shaking{t, bus.Peripherals()[0]}
}

// answer gives the reply to the next command.
func (s *shaking) answer(r Reply, block ...byte) {
	s.Helper()
	now := time.Now()
	if s.p.out == nil {
		s.p.out = s.p.prepare(now)
	}
	data, err := r.AppendBinary(nil)
	if err != nil {
		s.Fatal(err)
	}
	f := Frame{Reply: true, Control: ControlCRC | Control(s.p.out.number), Block: block, Code: byte(r.Reply()), Data: data}
	s.p.answered(now, now, f, frame(s, f))
}

func (s *shaking) challenge() (Challenge, *SecureChannel) {
	s.Helper()
	s.answer(ID{})
	s.answer(Capabilities{})
	s.p.out = s.p.prepare(time.Now())
	c := s.p.out.command.(Challenge)
	return c, NewSecureChannel(Key{1, 2, 3}, c.Random, [8]byte{5})
}

func TestAHandshakeThatIsNotToTheLetterFails(t *testing.T) {
	good := func(s *shaking, channel *SecureChannel) {
		s.answer(ClientCryptogram{Random: [8]byte{5}, Cryptogram: channel.ClientCryptogram()}, blockClientCryptogram, 1)
	}
	wrong := [16]byte{1}
	for name, test := range map[string]struct {
		answer func(s *shaking)
		want   error
	}{
		"its ID within a channel": {func(s *shaking) { s.answer(ID{}, blockReplyData) }, ErrUnexpected},
		"no ID":                   {func(s *shaking) { s.answer(ACK{}) }, ErrUnexpected},
		"no capabilities":         {func(s *shaking) { s.answer(ID{}); s.answer(ACK{}) }, ErrUnexpected},
		"the challenge is taken as read": {func(s *shaking) {
			s.challenge()
			s.answer(ACK{})
		}, ErrUnexpected},
		"the client's proof is wrong": {func(s *shaking) {
			s.challenge()
			s.answer(ClientCryptogram{Random: [8]byte{5}, Cryptogram: wrong}, blockClientCryptogram, 1)
		}, ErrKey},
		"the client's proof is in clear text": {func(s *shaking) {
			_, channel := s.challenge()
			s.answer(ClientCryptogram{Random: [8]byte{5}, Cryptogram: channel.ClientCryptogram()})
		}, ErrUnexpected},
		"the client's proof is with the default key": {func(s *shaking) {
			c, _ := s.challenge()
			channel := NewSecureChannel(DefaultKey(), c.Random, [8]byte{5})
			s.answer(ClientCryptogram{Random: [8]byte{5}, Cryptogram: channel.ClientCryptogram()}, blockClientCryptogram, 0)
		}, ErrKey},
		"the client's proof is said to be with the default key": {func(s *shaking) {
			_, channel := s.challenge()
			s.answer(ClientCryptogram{Random: [8]byte{5}, Cryptogram: channel.ClientCryptogram()}, blockClientCryptogram, 0)
		}, ErrKey},
		"the client's proof is of another step": {func(s *shaking) {
			_, channel := s.challenge()
			s.answer(ClientCryptogram{Random: [8]byte{5}, Cryptogram: channel.ClientCryptogram()}, blockInitialRMAC, 1)
		}, ErrUnexpected},
		"the first MAC is wrong": {func(s *shaking) {
			_, channel := s.challenge()
			good(s, channel)
			s.answer(InitialRMAC{wrong}, blockInitialRMAC, 1)
		}, ErrKey},
		"our proof is refused": {func(s *shaking) {
			_, channel := s.challenge()
			good(s, channel)
			s.answer(InitialRMAC{channel.InitialRMAC()}, blockInitialRMAC, 0xFF)
		}, ErrKey},
		"the first MAC is of another step": {func(s *shaking) {
			_, channel := s.challenge()
			good(s, channel)
			s.answer(InitialRMAC{channel.InitialRMAC()}, blockClientCryptogram, 1)
		}, ErrUnexpected},
		"our proof is answered with something else": {func(s *shaking) {
			_, channel := s.challenge()
			good(s, channel)
			s.answer(ACK{})
		}, ErrUnexpected},
	} {
		t.Run(name, func(t *testing.T) {
			s := shake(t)
			test.answer(s)
			if st := s.p.Status(); st.State != Unsecured || !errors.Is(st.Err, test.want) {
				t.Errorf("it is %v (%v), want unsecured (%v)", st.State, st.Err, test.want)
			}
		})
	}
	t.Run("to the letter", func(t *testing.T) {
		s := shake(t)
		_, channel := s.challenge()
		good(s, channel)
		s.answer(InitialRMAC{channel.InitialRMAC()}, blockInitialRMAC, 1)
		if st := s.p.Status(); st.State != Secure {
			t.Errorf("it is %v (%v)", st.State, st.Err)
		}
	})
}

// A frame with a right MAC is refused all the same when it is not of its
// direction, or has data in clear text.
func TestAFrameOfTheChannelIsOfItsDirectionAndEncrypted(t *testing.T) {
	for name, f := range map[string]Frame{
		"a reply's type in a command": {Block: []byte{blockReplyMAC}},
		"a command's type in a reply": {Reply: true, Block: []byte{blockCommandMAC}},
		"data in clear text":          {Reply: true, Block: []byte{blockReplyMAC}, Data: Secret("card")},
		"a long block":                {Reply: true, Block: []byte{blockReplyMAC, 1}},
		"half a block of data":        {Reply: true, Block: []byte{blockReplyData}, Data: make(Secret, 8)},
		"data with no padding":        {Reply: true, Block: []byte{blockReplyData}, Data: make(Secret, 16)},
	} {
		t.Run(name, func(t *testing.T) {
			f.Control = ControlCRC | 1
			s := annexE()
			body, err := f.body()
			if err != nil {
				t.Fatal(err)
			}
			iv, _ := s.chain(f.Reply)
			mac := s.mac(body, *iv)
			if got, err := s.Open(f.appendCheck(append(body, mac[:macSize]...))); err == nil {
				t.Errorf("it was opened as %v", got)
			} else if clear := name == "data in clear text"; clear != errors.Is(err, ErrClear) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

// The MAC's rules, against one that is made step by step from the standard's
// keys: padding only where it is needed, the last block with the second key, and
// what goes before it.
func TestTheMACIsThatOfAnnexE(t *testing.T) {
	s := annexE()
	one := newAES([16]byte(unhex(t, "5E86C676603BDEE2D8BEAFE178637332")))
	two := newAES([16]byte(unhex(t, "6FDA86E857777E81132035758239172E")))
	iv := [16]byte(unhex(t, "B2A30057EB98BA2229EC1F875662B524"))
	for _, n := range []int{1, 8, 15, 16, 17, 24, 31, 32, 33} {
		body := bytes.Repeat([]byte{0x5A}, n)
		padded := bytes.Clone(body)
		if n%16 != 0 {
			padded = append(padded, 0x80)
			padded = append(padded, make([]byte, (16-len(padded)%16)%16)...)
		}
		chain := iv
		for i := 0; i < len(padded); i += 16 {
			for j := range chain {
				chain[j] ^= padded[i+j]
			}
			if i+16 == len(padded) {
				chain = encryptBlock(two, chain)
			} else {
				chain = encryptBlock(one, chain)
			}
		}
		if got := s.mac(body, iv); got != chain {
			t.Errorf("of %d bytes: %X, want %X", n, got, chain)
		}
	}
}

func TestADecoderKeepsNothingOfWhatItGave(t *testing.T) {
	var d Decoder
	raw := frame(t, Frame{Reply: true, Control: ControlCRC, Code: byte(CodeRAW), Data: Secret("\x00\x00\x10\x00card")})
	d.Write(raw)
	if _, _, ok := d.Next(false); !ok {
		t.Fatal("there is no frame")
	}
	if left := d.buf[:cap(d.buf)]; bytes.Contains(left, []byte("card")) {
		t.Error("the card is still in the buffer")
	}
}
