package gt521

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint"
)

// Code says what a packet is: a command, or one of ACK and NACK.
type Code uint16

// Codes, by the maker's names.
const (
	Open           Code = 0x01 // with the parameter 1, an info packet follows
	ChangeBaudrate Code = 0x04
	CmosLED        Code = 0x12
	GetEnrollCount Code = 0x20
	CheckEnrolled  Code = 0x21
	EnrollStart    Code = 0x22
	Enroll1        Code = 0x23
	Enroll2        Code = 0x24
	Enroll3        Code = 0x25
	IsPressFinger  Code = 0x26 // answers 0 when one is there
	ACK            Code = 0x30
	NACK           Code = 0x31
	DeleteID       Code = 0x40
	DeleteAll      Code = 0x41
	Verify         Code = 0x50
	Identify       Code = 0x51
	CaptureFinger  Code = 0x60 // 0: fast, 1: best
	GetTemplate    Code = 0x70
	SetTemplate    Code = 0x71
	packetSize          = 12
	device              = 1
	dataHeaderSize      = 4
	sumSize             = 2
	infoSize            = 24
)

// ErrPacket means that bytes are no packet, ErrShort that they may be the
// beginning of one.
var (
	ErrPacket = errors.New("gt521: no packet")
	ErrShort  = errors.New("gt521: not yet a packet")
)

// Packet is a command or an answer.
type Packet struct {
	Param uint32
	Code  Code
}

// AppendBinary appends the packet's bytes to b.
func (p Packet) AppendBinary(b []byte) ([]byte, error) {
	from := len(b)
	b = append(b, 0x55, 0xAA, device, 0)
	b = binary.LittleEndian.AppendUint32(b, p.Param)
	b = binary.LittleEndian.AppendUint16(b, uint16(p.Code))
	return binary.LittleEndian.AppendUint16(b, sum(b[from:])), nil
}

func sum(b []byte) (s uint16) {
	for _, v := range b {
		s += uint16(v)
	}
	return s
}

// ParsePacket reads the command or answer that b begins with.
func ParsePacket(b []byte) (Packet, error) {
	if err := begins(b, [...]byte{0x55, 0xAA, device, 0}); err != nil {
		return Packet{}, err
	}
	if len(b) < packetSize {
		return Packet{}, ErrShort
	}
	if binary.LittleEndian.Uint16(b[10:]) != sum(b[:10]) {
		return Packet{}, ErrPacket
	}
	return Packet{binary.LittleEndian.Uint32(b[4:]), Code(binary.LittleEndian.Uint16(b[8:]))}, nil
}

func begins(b []byte, with [4]byte) error {
	for i, want := range with {
		if len(b) <= i {
			return ErrShort
		}
		if b[i] != want {
			return ErrPacket
		}
	}
	return nil
}

// AppendData appends a data packet to b.
func AppendData(b, data []byte) []byte {
	from := len(b)
	b = append(append(b, 0x5A, 0xA5, device, 0), data...)
	return binary.LittleEndian.AppendUint16(b, sum(b[from:]))
}

// ParseData reads the data packet that b is, to its end. The data are a part
// of b.
func ParseData(b []byte) ([]byte, error) {
	if err := begins(b, [...]byte{0x5A, 0xA5, device, 0}); err != nil {
		return nil, err
	}
	n := len(b) - sumSize
	if n <= dataHeaderSize {
		return nil, ErrShort
	}
	if binary.LittleEndian.Uint16(b[n:]) != sum(b[:n]) {
		return nil, ErrPacket
	}
	return b[dataHeaderSize:n], nil
}

// Next finds the first packet in b that satisfies want, for
// fingerprint.Wire.Receive.
func Next(b []byte, want func(Packet) bool) (n int, ok bool) {
	for n < len(b) {
		p, err := ParsePacket(b[n:])
		switch {
		case errors.Is(err, ErrShort):
			return n, false
		case err != nil:
			n++
		case want(p):
			return n + packetSize, true
		default:
			n += packetSize
		}
	}
	return n, false
}

// NextData finds the first data packet with size bytes of data in b.
func NextData(b []byte, size int, got func([]byte)) (n int, ok bool) {
	whole := dataHeaderSize + size + sumSize
	for ; n < len(b); n++ {
		data, err := ParseData(b[n:min(n+whole, len(b))])
		switch {
		case err == nil && len(data) == size:
			got(data)
			return n + whole, true
		case len(b)-n < whole && begins(b[n:], [...]byte{0x5A, 0xA5, device, 0}) != ErrPacket:
			return n, false
		}
	}
	return n, false
}

// Reason is the parameter of a NACK. It is an error. One below the capacity is
// the ID under which the finger is stored already.
type Reason uint32

// Reasons, by the maker's names.
const (
	Timeout        Reason = 0x1001
	InvalidBaud    Reason = 0x1002
	InvalidID      Reason = 0x1003
	NotUsed        Reason = 0x1004
	AlreadyUsed    Reason = 0x1005
	CommError      Reason = 0x1006
	VerifyFailed   Reason = 0x1007
	IdentifyFailed Reason = 0x1008
	Full           Reason = 0x1009
	Empty          Reason = 0x100A
	TurnError      Reason = 0x100B
	BadFinger      Reason = 0x100C
	EnrollFailed   Reason = 0x100D
	NotSupported   Reason = 0x100E
	DeviceError    Reason = 0x100F
	Cancelled      Reason = 0x1010
	InvalidParam   Reason = 0x1011
	NotPressed     Reason = 0x1012

	firstReason = Timeout
)

var reasons = map[Reason]struct {
	name string
	is   error // what the families have in common
}{
	Timeout:        {"timed out", fingerprint.ErrNoFinger},
	InvalidBaud:    {"no such rate", fingerprint.ErrUnsupported},
	InvalidID:      {"no such ID", fingerprint.ErrNoSuchID},
	NotUsed:        {"the ID is not in use", fingerprint.ErrEmpty},
	AlreadyUsed:    {"the ID is in use", fingerprint.ErrInUse},
	CommError:      {"it did not understand the packet", nil},
	VerifyFailed:   {"another finger", nil},
	IdentifyFailed: {"nobody's finger", nil},
	Full:           {"it is full", fingerprint.ErrFull},
	Empty:          {"it is empty", fingerprint.ErrEmpty},
	TurnError:      {"out of turn", fingerprint.ErrRestarted},
	BadFinger:      {"too little was seen of the finger", fingerprint.ErrPoorFinger},
	EnrollFailed:   {"the captures are not of one finger", fingerprint.ErrPoorFinger},
	NotSupported:   {"unsupported", fingerprint.ErrUnsupported},
	DeviceError:    {"the device failed", fingerprint.ErrFailed},
	Cancelled:      {"cancelled", nil},
	InvalidParam:   {"no such parameter", fingerprint.ErrUnsupported},
	NotPressed:     {"no finger", fingerprint.ErrNoFinger},
}

func (r Reason) Error() string {
	if r < firstReason {
		return fmt.Sprintf("gt521: the module says: this finger is stored under ID %d", uint32(r))
	}
	name := "an unknown reason"
	if known, ok := reasons[r]; ok {
		name = known.name
	}
	return fmt.Sprintf("gt521: the module says: %s (%#x)", name, uint32(r))
}

// Is tells what the families have in common.
func (r Reason) Is(target error) bool {
	if r < firstReason {
		return target == fingerprint.ErrDuplicate
	}
	is := reasons[r].is
	return is != nil && target == is
}

// Refused makes a Reason a fingerprint.Refusal.
func (Reason) Refused() {}
