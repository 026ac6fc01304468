package sfm

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint"
)

// Command is a command, which its answers repeat.
type Command byte

// Commands, by the maker's names.
const (
	SW Command = 0x01 // write a parameter
	SF Command = 0x02 // save the parameters
	SR Command = 0x03 // read a parameter
	ES Command = 0x05 // enrol by scan
	ET Command = 0x07 // enrol by template
	VS Command = 0x08 // verify by scan
	IS Command = 0x11 // identify by scan
	RT Command = 0x14 // read templates
	DT Command = 0x16 // delete a user
	DA Command = 0x17 // delete all
	LT Command = 0x18 // list users
	CT Command = 0x19 // check a user
	CA Command = 0x60 // cancel
	ID Command = 0x85 // get the module's ID
	RS Command = 0xD0 // reset
)

// Options of ES and ET, in the flag.
const (
	addNew      = 0x71
	checkFinger = 0x84 // refuses a finger that is enrolled already
	addDuress   = 0x92 // adds the finger for a threat to a user
)

// Parameter is one of the module's.
type Parameter byte

// Parameters, by the maker's names.
const (
	Timeout         Parameter = 0x62 // 0x30: none, 0x31 to 0x44: 1 to 20 s
	TemplateSize    Parameter = 0x64
	EnrollMode      Parameter = 0x65
	Security        Parameter = 0x66
	ModuleID        Parameter = 0x6D
	FirmwareVersion Parameter = 0x6E // four characters
	SerialNumber    Parameter = 0x6F
	Baudrate        Parameter = 0x71 // 0x31 to 0x38: 9600 to 921600
	EnrolledFinger  Parameter = 0x73
	AvailableFinger Parameter = 0x74
	SendScanSuccess Parameter = 0x75 // 0x30: one answer, 0x31: two
	FreeScan        Parameter = 0x84 // 0x30: off; Open turns it off
	MatchingTimeout Parameter = 0x88 // as Timeout
	FakeDetection   Parameter = 0x98 // 0x30: off, 0x31 to 0x33
)

const (
	single      = 0x40
	network     = 0x41
	end         = 0x0A
	singleSize  = 13
	networkSize = 15
)

// ErrPacket means that bytes are no packet, ErrShort that they may be the
// beginning of one.
var (
	ErrPacket = errors.New("sfm: no packet")
	ErrShort  = errors.New("sfm: not yet a packet")
)

// Packet is a command or an answer.
type Packet struct {
	Terminal uint16 // of RS-485; 0: not on RS-485
	Command  Command
	Param    uint32 // mostly a user's ID
	Size     uint32 // of the data that follow, or a value
	Flag     byte   // of a command: an option; of an answer: an Error
}

// AppendBinary appends the packet's bytes to b.
func (p Packet) AppendBinary(b []byte) ([]byte, error) {
	from := len(b)
	if p.Terminal == 0 {
		b = append(b, single)
	} else {
		b = binary.LittleEndian.AppendUint16(append(b, network), p.Terminal)
	}
	b = append(b, byte(p.Command))
	b = binary.LittleEndian.AppendUint32(b, p.Param)
	b = binary.LittleEndian.AppendUint32(b, p.Size)
	b = append(b, p.Flag)
	return append(b, sum(b[from:]), end), nil
}

func sum(b []byte) (s byte) {
	for _, v := range b {
		s += v
	}
	return s
}

// ParsePacket reads the packet that b begins with, and how many bytes of b it
// takes.
func ParsePacket(b []byte) (Packet, int, error) {
	if len(b) == 0 {
		return Packet{}, 0, ErrShort
	}
	var p Packet
	n := singleSize
	switch b[0] {
	case single:
	case network:
		n = networkSize
	default:
		return Packet{}, 0, ErrPacket
	}
	if len(b) < n {
		return Packet{}, 0, ErrShort
	}
	if b[n-1] != end || b[n-2] != sum(b[:n-2]) {
		return Packet{}, 0, ErrPacket
	}
	if n == networkSize {
		if p.Terminal = binary.LittleEndian.Uint16(b[1:]); p.Terminal == 0 {
			return Packet{}, 0, ErrPacket // a broadcast, which nobody answers
		}
	}
	rest := b[n-singleSize+1:]
	p.Command = Command(rest[0])
	p.Param = binary.LittleEndian.Uint32(rest[1:])
	p.Size = binary.LittleEndian.Uint32(rest[5:])
	p.Flag = rest[9]
	return p, n, nil
}

// Next finds the first packet in b that satisfies want, for
// fingerprint.Wire.Receive.
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

// Error is what an answer's flag says. It is an error, so that errors.Is(err,
// sfm.Busy) finds the answer that caused one.
type Error byte

// Errors, by the maker's names.
const (
	Success             Error = 0x61
	ScanSuccess         Error = 0x62
	ScanFail            Error = 0x63
	NotFound            Error = 0x69
	NotMatch            Error = 0x6A
	TryAgain            Error = 0x6B
	TimeOut             Error = 0x6C
	MemFull             Error = 0x6D
	ExistID             Error = 0x6E
	FingerLimit         Error = 0x72
	Continue            Error = 0x74
	Unsupported         Error = 0x75
	InvalidID           Error = 0x76
	TimeoutMatch        Error = 0x7A
	InvalidFirmware     Error = 0x7C
	Busy                Error = 0x80
	Canceled            Error = 0x81
	DataError           Error = 0x82
	DataOK              Error = 0x83
	ExistFinger         Error = 0x86
	RejectedID          Error = 0x90
	DuressFinger        Error = 0x91
	AccessNotGranted    Error = 0x93
	ExceedEntranceLimit Error = 0x94
	CardError           Error = 0xA0
	Locked              Error = 0xA1
	FakeDetected        Error = 0xB0
)

var errorNames = map[Error]struct {
	name string
	is   error // what the families have in common
}{
	Success:             {"success", nil},
	ScanSuccess:         {"scanned", nil},
	ScanFail:            {"the scan failed", fingerprint.ErrPoorFinger},
	NotFound:            {"not found", fingerprint.ErrEmpty},
	NotMatch:            {"no match", nil},
	TryAgain:            {"try again", fingerprint.ErrPoorFinger},
	TimeOut:             {"no finger in time", fingerprint.ErrNoFinger},
	MemFull:             {"its memory is full", fingerprint.ErrFull},
	ExistID:             {"the ID is in use", fingerprint.ErrInUse},
	FingerLimit:         {"the ID has as many fingers as it may", fingerprint.ErrFull},
	Continue:            {"more follows", nil},
	Unsupported:         {"unsupported", fingerprint.ErrUnsupported},
	InvalidID:           {"invalid ID", fingerprint.ErrNoSuchID},
	TimeoutMatch:        {"matching took too long", nil},
	InvalidFirmware:     {"invalid firmware", fingerprint.ErrFailed},
	Busy:                {"busy", nil},
	Canceled:            {"cancelled", nil},
	DataError:           {"the data were damaged", nil},
	DataOK:              {"the data are well", nil},
	ExistFinger:         {"the finger is enrolled already", fingerprint.ErrDuplicate},
	RejectedID:          {"the ID is on its black list", nil},
	DuressFinger:        {"the finger for a threat", nil},
	AccessNotGranted:    {"access not granted", nil},
	ExceedEntranceLimit: {"entered too often", nil},
	CardError:           {"card error", fingerprint.ErrFailed},
	Locked:              {"it is locked", fingerprint.ErrLocked},
	FakeDetected:        {"not a live finger", fingerprint.ErrFake},
}

func (e Error) Error() string {
	name := "an unknown error"
	if known, ok := errorNames[e]; ok {
		name = known.name
	}
	return fmt.Sprintf("sfm: the module says: %s (%#02x)", name, byte(e))
}

// Is tells what the families have in common.
func (e Error) Is(target error) bool {
	is := errorNames[e].is
	return is != nil && target == is
}

// Refused makes an Error a fingerprint.Refusal.
func (Error) Refused() {}
