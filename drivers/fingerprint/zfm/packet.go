package zfm

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// PID says what a packet is.
type PID byte

const (
	Command  PID = 0x01
	Data     PID = 0x02 // more follow
	Ack      PID = 0x07
	LastData PID = 0x08
)

// AnyAddress is the address of a module that was given no other.
const AnyAddress = 0xFFFFFFFF

const (
	headerSize = 9 // EF 01, address, identifier, length
	sumSize    = 2
	// MaxPayload is the largest packet's payload: SetSysPara knows 32, 64, 128 and
	// 256.
	MaxPayload = 256
	// MaxPacket is a whole packet with that.
	MaxPacket = headerSize + MaxPayload + sumSize
)

// Packet is one packet. There may be a template in its payload: it is not to
// be printed.
type Packet struct {
	Address uint32
	PID     PID
	Payload []byte // 1 to MaxPayload bytes
}

// ErrPacket means that bytes are no packet, ErrShort that they may be the
// beginning of one.
var (
	ErrPacket = errors.New("zfm: no packet")
	ErrShort  = errors.New("zfm: not yet a packet")
)

// AppendBinary appends the packet's bytes to b.
func (p Packet) AppendBinary(b []byte) ([]byte, error) {
	if len(p.Payload) < 1 || len(p.Payload) > MaxPayload {
		return nil, fmt.Errorf("zfm: a packet holds 1 to %d bytes, not %d", MaxPayload, len(p.Payload))
	}
	b = append(b, 0xEF, 0x01)
	b = binary.BigEndian.AppendUint32(b, p.Address)
	from := len(b)
	b = append(b, byte(p.PID))
	b = binary.BigEndian.AppendUint16(b, uint16(len(p.Payload)+sumSize))
	b = append(b, p.Payload...)
	return binary.BigEndian.AppendUint16(b, sum(b[from:])), nil
}

// sum adds bytes, both bytes of the length among them: in a packet of 256 the
// length is 0x0102, which counts as 3 and not as 0x0102.
func sum(b []byte) (s uint16) {
	for _, v := range b {
		s += uint16(v)
	}
	return s
}

// ParsePacket reads the packet that b begins with, and how many bytes of b it
// takes. Its payload is a part of b.
func ParsePacket(b []byte) (Packet, int, error) {
	for i, want := range []byte{0xEF, 0x01} {
		if len(b) <= i {
			return Packet{}, 0, ErrShort
		}
		if b[i] != want {
			return Packet{}, 0, ErrPacket
		}
	}
	if len(b) < headerSize {
		return Packet{}, 0, ErrShort
	}
	p := Packet{Address: binary.BigEndian.Uint32(b[2:]), PID: PID(b[6])}
	size := int(binary.BigEndian.Uint16(b[7:]))
	switch p.PID {
	case Command, Data, Ack, LastData:
	default:
		return Packet{}, 0, ErrPacket
	}
	if size < 1+sumSize || size > MaxPayload+sumSize {
		return Packet{}, 0, ErrPacket
	}
	n := headerSize + size
	if len(b) < n {
		return Packet{}, 0, ErrShort
	}
	if binary.BigEndian.Uint16(b[n-sumSize:]) != sum(b[6:n-sumSize]) {
		return Packet{}, 0, ErrPacket
	}
	p.Payload = b[headerSize : n-sumSize]
	return p, n, nil
}

// Next finds the first packet in b that satisfies want, for
// fingerprint.Wire.Receive. What is no such packet is stepped over: the byte
// 0x55 that an R503 sends when it starts, and what is left of broken packets.
func Next(b []byte, want func(Packet) bool) (n int, ok bool) {
	for n < len(b) {
		p, size, err := ParsePacket(b[n:])
		switch {
		case errors.Is(err, ErrShort):
			return n, false
		case err != nil:
			n++
		case want(p):
			return n + size, true
		default:
			n += size
		}
	}
	return n, false
}
