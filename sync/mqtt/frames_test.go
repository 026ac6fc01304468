package mqtt

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

func TestBrokerSendsOnlyWhatTheLibraryCanBear(t *testing.T) {
	packet := func(header byte, body ...byte) []byte {
		return append([]byte{header, byte(len(body))}, body...)
	}
	for name, c := range map[string]struct {
		stream []byte
		ok     bool
	}{
		"nothing":              {nil, true},
		"CONNACK":              {packet(0x20, 0, 0), true},
		"SUBACK for two":       {packet(0x90, 0, 1, 1, 1), true},
		"PUBACK":               {packet(0x40, 0, 1), true},
		"PINGRESP":             {packet(0xd0), true},
		"DISCONNECT":           {packet(0xe0), true},
		"PUBLISH with QoS 0":   {packet(0x30, 0, 1, 'a', 'x'), true},
		"PUBLISH with QoS 1":   {packet(0x32, 0, 1, 'a', 0, 1), true},
		"PUBLISH, retained":    {packet(0x31, 0, 1, 'a'), true},
		"several":              {append(packet(0x20, 0, 0), packet(0xd0)...), true},
		"unfinished":           {[]byte{0x30, 0x7f, 0}, true},
		"largest PUBLISH":      {[]byte{0x30, 0xe8, 0x07}, true}, // 1000
		"too large a PUBLISH":  {[]byte{0x30, 0xe9, 0x07}, false},
		"PUBLISH of 256 MB":    {[]byte{0x30, 0xff, 0xff, 0xff, 0x7f}, false},
		"length of five bytes": {[]byte{0x30, 0x80, 0x80, 0x80, 0x80, 0x01}, false},
		"PUBLISH with QoS 2":   {packet(0x34, 0, 1, 'a', 0, 1), false},
		"PUBLISH with QoS 3":   {packet(0x36, 0, 1, 'a', 0, 1), false},
		"SUBACK for three":     {packet(0x90, 0, 1, 1, 1, 1), false},
		"SUBACK for one":       {packet(0x90, 0, 1, 1), false},
		"CONNACK too long":     {packet(0x20, 0, 0, 0), false},
		"CONNACK with flags":   {packet(0x21, 0, 0), false},
		"PUBREC":               {packet(0x50, 0, 1), false},
		"PUBREL":               {packet(0x62, 0, 1), false},
		"PUBCOMP":              {packet(0x70, 0, 1), false},
		"UNSUBACK":             {packet(0xb0, 0, 1), false},
		"CONNECT":              {packet(0x10, 0, 0), false},
		"HTTP":                 {[]byte("HTTP/1.1 400 Bad Request\r\n"), false},
		"type 0":               {packet(0x00), false},
		"type 15":              {packet(0xf0), false},
	} {
		t.Run(name, func(t *testing.T) {
			f := frames{max: 1000, subscriptions: 2}
			if err := f.check(c.stream); (err == nil) != c.ok {
				t.Errorf("at once: %v", err)
			}
			f = frames{max: 1000, subscriptions: 2}
			var err error
			for _, b := range c.stream {
				if err = f.check([]byte{b}); err != nil {
					break
				}
			}
			if (err == nil) != c.ok {
				t.Errorf("byte by byte: %v", err)
			}
		})
	}
}

// FuzzFrames: what is let in, the library reads without panic, without
// disagreement on where a packet ends, and without more memory than allowed.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{0x20, 2, 0, 0, 0x90, 4, 0, 1, 1, 1, 0xd0, 0}, uint8(3))
	f.Add([]byte{0x32, 6, 0, 1, 'a', 0, 1, 'x', 0x40, 2, 0, 1}, uint8(1))
	f.Add([]byte{0x30, 0xff, 0xff, 0xff, 0x7f}, uint8(2))
	f.Add([]byte{0x30, 1, 0, 0x30, 0}, uint8(0))
	f.Fuzz(func(t *testing.T, stream []byte, cut uint8) {
		const limit, subscriptions = 4096, 2
		whole := frames{max: limit, subscriptions: subscriptions}
		err := whole.check(stream)

		split := frames{max: limit, subscriptions: subscriptions}
		n := min(int(cut), len(stream))
		splitErr := split.check(stream[:n])
		if splitErr == nil {
			splitErr = split.check(stream[n:])
		}
		if (err == nil) != (splitErr == nil) {
			t.Fatalf("whole: %v; split at %d: %v", err, n, splitErr)
		}
		if err != nil {
			return
		}
		if whole != split {
			t.Fatalf("whole: %+v; split: %+v", whole, split)
		}
		r := bytes.NewReader(stream)
		for {
			before := r.Len()
			p, err := packets.ReadPacket(r)
			if errors.Is(err, io.EOF) && before == 0 {
				break
			}
			if err != nil {
				return // the library refuses it for a reason of its own
			}
			if ack, ok := p.(*packets.SubackPacket); ok && len(ack.ReturnCodes) != subscriptions {
				t.Fatalf("let in %s with %d codes", ack, len(ack.ReturnCodes))
			}
			if before-r.Len() > limit+5 {
				t.Fatalf("let in %s of %d bytes", p, before-r.Len())
			}
		}
		if whole.state != atHeader {
			t.Fatalf("the library is at the end of a packet, the check in state %d", whole.state)
		}
	})
}
