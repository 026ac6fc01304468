package osdp

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// FuzzFrame: what is read as a frame is written as the same bytes.
func FuzzFrame(f *testing.F) {
	for _, s := range []string{"537F0D00046E00802500006E38", "53000900046100C066", "537F0C00006E00802500000F", "53800700004005", ""} {
		f.Add(unhex(f, s))
	}
	s := annexE()
	for _, m := range []Frame{{Control: ControlCRC | 1, Code: byte(CodePOLL)}, {Control: ControlCRC | 2, Code: byte(CodeBUZ), Data: Secret{0, 2, 1, 1, 1}}} {
		b, err := s.Seal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseFrame(b)
		if err != nil {
			return
		}
		if again, err := m.Bytes(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("% X is written as % X, %v", b, again, err)
		}
	})
}

// FuzzDecoder: a line gives the same frames in whatever pieces its bytes come,
// and a good frame is found behind anything.
func FuzzDecoder(f *testing.F) {
	ack := frame(f, Frame{Reply: true, Control: ControlCRC | 1, Code: byte(CodeACK)})
	f.Add(ack, uint(3))
	f.Add(append([]byte{0xFF, 0x53, 0x80, 0x20, 0x00, 0x04}, ack...), uint(1))
	f.Add(append(append([]byte{0x53}, ack...), ack[:5]...), uint(7))
	f.Fuzz(func(t *testing.T, b []byte, piece uint) {
		all := append(bytes.Clone(b), make([]byte, MaxFrame)...) // ends what b has begun
		all = append(all, ack...)
		size := int(piece%64) + 1
		var whole, pieces Decoder
		whole.Write(all)
		want := drainDecoder(&whole)
		var got [][]byte
		for i := 0; i < len(all); i += size {
			pieces.Write(all[i:min(i+size, len(all))])
			for {
				_, raw, ok := pieces.Next(false)
				if !ok {
					break
				}
				got = append(got, raw)
			}
		}
		got = append(got, drainDecoder(&pieces)...)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("in pieces of %d bytes, -whole +pieces:\n%s", size, diff)
		}
		if len(want) == 0 || !bytes.Equal(want[len(want)-1], ack) {
			t.Error("the good frame at the end was not found")
		}
		if whole.Waiting() || whole.Skipped != pieces.Skipped || whole.Broken != pieces.Broken {
			t.Errorf("skipped %d and %d, broken %d and %d", whole.Skipped, pieces.Skipped, whole.Broken, pieces.Broken)
		}
	})
}

func drainDecoder(d *Decoder) (frames [][]byte) {
	for {
		_, raw, ok := d.Next(true)
		if !ok {
			return frames
		}
		frames = append(frames, raw)
	}
}

// FuzzSecureFrame: a frame of the Secure Channel with a right MAC, whatever is in
// it, is refused or gives what would be sealed as the same message; and nothing
// else is opened.
func FuzzSecureFrame(f *testing.F) {
	f.Add(byte(0x17), byte(0x60), []byte("0123456789abcdef"), true, []byte{})
	f.Add(byte(0x15), byte(0x60), []byte{}, false, []byte{})
	f.Add(byte(0x18), byte(0x50), bytes.Repeat([]byte{0x80}, 32), false, []byte{})
	f.Add(byte(0x16), byte(0x50), []byte("clear"), true, []byte{})
	f.Fuzz(func(t *testing.T, kind, code byte, data []byte, reply bool, garbage []byte) {
		if _, err := annexE().Open(garbage); err == nil {
			t.Error("garbage was opened")
		}
		m := Frame{Address: 1, Reply: reply, Control: ControlCRC | 1, Block: []byte{kind}, Code: code, Data: data}
		body, err := m.body()
		if err != nil || !hasMAC(m.Block) {
			return
		}
		s := annexE()
		iv, _ := s.chain(reply)
		mac := s.mac(body, *iv)
		opened, err := s.Open(m.appendCheck(append(body, mac[:macSize]...)))
		if err != nil {
			return
		}
		raw, err := annexE().Seal(opened)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := annexE().Open(raw); err != nil || !bytes.Equal(again.Data, opened.Data) || again.Code != opened.Code {
			t.Errorf("sealed again it is another message: %v", err)
		}
	})
}

// FuzzReply: any data of any reply are refused, or read as something that is
// written and read again the same.
func FuzzReply(f *testing.F) {
	for _, r := range replies {
		f.Add(byte(r.reply.Reply()), unhex(f, r.data))
	}
	f.Fuzz(func(t *testing.T, code byte, data []byte) {
		m, err := ParseReply(ReplyCode(code), data)
		if err != nil {
			if !errors.Is(err, ErrMessage) {
				t.Errorf("the error is %v", err)
			}
			return
		}
		if m.Reply() != ReplyCode(code) {
			t.Errorf("%#02x was read as %v", code, m.Reply())
		}
		b, err := m.AppendBinary(nil)
		if err != nil {
			if len(data) > MaxFrame {
				return
			}
			t.Fatalf("%T cannot be written: %v", m, err)
		}
		again, err := ParseReply(ReplyCode(code), b)
		if err != nil {
			t.Fatalf("%T is written as what is refused: %v", m, err)
		}
		if diff := cmp.Diff(m, again); diff != "" {
			t.Errorf("-read +read again:\n%s", diff)
		}
	})
}

// FuzzCommand is FuzzReply for what a peripheral reads.
func FuzzCommand(f *testing.F) {
	for _, c := range commands {
		f.Add(byte(c.command.Command()), unhex(f, c.data))
	}
	f.Fuzz(func(t *testing.T, code byte, data []byte) {
		m, err := ParseCommand(CommandCode(code), data)
		if err != nil {
			if !errors.Is(err, ErrMessage) {
				t.Errorf("the error is %v", err)
			}
			return
		}
		b, err := m.AppendBinary(nil)
		if err != nil {
			if len(data) > MaxFrame {
				return
			}
			t.Fatalf("%T cannot be written: %v", m, err)
		}
		if !bytes.Equal(b, data) {
			t.Errorf("% X is written as % X", data, b)
		}
	})
}

// FuzzParts: whatever parts come, what is put together is as long as was said,
// and made of them.
func FuzzParts(f *testing.F) {
	part := func(total, offset uint16, data string) []byte {
		b, err := Fragment{total, offset, Secret(data)}.AppendBinary(nil)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	f.Add(part(6, 0, "abc"), part(6, 3, "def"), part(2, 0, "gh"))
	f.Add(part(6, 3, "abc"), part(6, 6, ""), part(0, 0, ""))
	f.Fuzz(func(t *testing.T, one, two, three []byte) {
		var a Assembler
		var came []byte
		for _, data := range [][]byte{one, two, three} {
			part, err := ParseFragment(data)
			if err != nil {
				continue
			}
			came = append(came, part.Data...)
			message, done, err := a.Add(part)
			if err != nil && (done || !errors.Is(err, ErrFragment)) {
				t.Errorf("done %v, %v", done, err)
			}
			if done && (len(message) != int(part.Total) || !bytes.HasSuffix(came, message)) {
				t.Errorf("a message of %d bytes, of parts of %d", len(message), part.Total)
			}
		}
	})
}

// FuzzHostilePeripheral: whoever does not have the key never gets as far as a
// Secure Channel, whatever it answers, and nothing that it tells is passed on.
func FuzzHostilePeripheral(f *testing.F) {
	answer := func(r Reply, block ...byte) []byte {
		data, err := r.AppendBinary(nil)
		if err != nil {
			f.Fatal(err)
		}
		return append([]byte{byte(len(block)), byte(r.Reply()), byte(len(data))}, append(block, data...)...)
	}
	id, caps := answer(ID{}), answer(Capabilities{})
	card := answer(Card{Bits: 8, Data: Secret{1}})
	f.Add(bytes.Join([][]byte{id, caps, card}, nil))
	f.Add(bytes.Join([][]byte{id, caps, answer(ClientCryptogram{}, 0x12, 1), answer(InitialRMAC{}, 0x14, 1), card}, nil))
	f.Add(bytes.Join([][]byte{id, caps, answer(ClientCryptogram{}, 0x12, 0), answer(NAK{Code: NAKSecurity}), id, caps, card}, nil))
	f.Add(bytes.Join([][]byte{id, caps, answer(ACK{}, 0x16), answer(ACK{}), answer(Busy{}), card}, nil))
	f.Fuzz(func(t *testing.T, script []byte) {
		bus, err := New(Config{
			Open:        func(int) (Line, error) { return nil, ErrLineGone },
			Peripherals: []PeripheralConfig{{Keys: NewMemoryKeys(Key{1, 2, 3})}},
			Handle: func(e Event) {
				if e.Reply != nil || e.State == Secure || e.State == ClearText || e.State == Installing {
					t.Errorf("%v with the state %v was passed on", e.Reply, e.State)
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		p := bus.Peripherals()[0]
		for len(script) >= 3 {
			r := &reading{b: script[3:]}
			m := Frame{Reply: true, Code: script[1]}
			if n := int(script[0] & 7); n > 0 {
				m.Block = r.sized(n)
			}
			m.Data = r.sized(int(script[2]))
			script = r.b
			if p.out == nil {
				p.out = p.prepare(time.Now())
			}
			m.Control = ControlCRC | Control(p.out.number)
			raw, err := m.Bytes()
			if err != nil || r.short {
				return
			}
			p.answered(time.Now(), time.Now(), m, raw)
		}
	})
}

// Any message, sealed on one side and opened on the other, is itself again; and
// no bit of it can be changed.
func TestWhatIsSealedIsOpenedAndNothingElse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var key Key
		var a, b [8]byte
		copy(key[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "key"))
		copy(a[:], rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(t, "a"))
		copy(b[:], rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(t, "b"))
		panel, peripheral := NewSecureChannel(key, a, b), NewSecureChannel(key, a, b)
		for i := range rapid.IntRange(1, 8).Draw(t, "turns") {
			for _, reply := range []bool{false, true} {
				from, to := panel, peripheral
				if reply {
					from, to = peripheral, panel
				}
				f := Frame{Address: 3, Reply: reply, Control: ControlCRC | Control(i%3+1), Code: rapid.Byte().Draw(t, "code"),
					Data: rapid.SliceOfN(rapid.Byte(), 0, 80).Draw(t, "data")}
				raw, err := from.Seal(f)
				if err != nil {
					t.Fatal(err)
				}
				if len(raw) != sealedSize(f) {
					t.Fatalf("%d bytes, not the %d that were counted on", len(raw), sealedSize(f))
				}
				bent := bytes.Clone(raw)
				at := rapid.IntRange(headerSize+1, len(raw)-3).Draw(t, "at")
				bent[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
				if g, err := to.Open(fixCheck(bent)); err == nil {
					t.Fatalf("with byte %d changed it is opened as %v", at, g)
				}
				g, err := to.Open(raw)
				if err != nil {
					t.Fatal(err)
				}
				if g.Code != f.Code || !bytes.Equal(g.Data, f.Data) || g.Control&3 != f.Control&3 {
					t.Fatal("another message was opened")
				}
			}
		}
	})
}

// fixCheck makes a frame's CRC right again.
func fixCheck(raw []byte) []byte {
	b := raw[:len(raw)-2]
	return Frame{Control: ControlCRC}.appendCheck(b[:len(b):len(b)])
}
