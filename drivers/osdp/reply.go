package osdp

import (
	"encoding/binary"
	"fmt"
	"time"
)

// ACK means: done, nothing to tell.
type ACK struct{}

// Busy means: ask the same again (BUSY). Peripheral.Do does.
type Busy struct{}

func (ACK) Reply() ReplyCode                       { return CodeACK }
func (Busy) Reply() ReplyCode                      { return CodeBUSY }
func (ACK) AppendBinary(b []byte) ([]byte, error)  { return b, nil }
func (Busy) AppendBinary(b []byte) ([]byte, error) { return b, nil }

// NAK is a refusal. It is an error too, which is its NAKCode.
type NAK struct {
	Code   NAKCode
	Detail Secret // of some codes
}

func (NAK) Reply() ReplyCode { return CodeNAK }
func (m NAK) AppendBinary(b []byte) ([]byte, error) {
	return append(append(b, byte(m.Code)), m.Detail...), nil
}
func (m NAK) Error() string { return m.Code.Error() }
func (m NAK) Unwrap() error { return m.Code }

// ID says what a peripheral is (PDID).
type ID struct {
	OUI      [3]byte // of the maker, by IEEE
	Model    byte
	Version  byte
	Serial   uint32
	Firmware [3]byte // major, minor, build
}

func (ID) Reply() ReplyCode { return CodePDID }

func (m ID) AppendBinary(b []byte) ([]byte, error) {
	b = append(append(b, m.OUI[:]...), m.Model, m.Version)
	b = binary.LittleEndian.AppendUint32(b, m.Serial)
	return append(b, m.Firmware[:]...), nil
}

func (m ID) String() string {
	return fmt.Sprintf("maker %02X-%02X-%02X, model %d version %d, serial %08X, firmware %d.%d.%d",
		m.OUI[0], m.OUI[1], m.OUI[2], m.Model, m.Version, m.Serial, m.Firmware[0], m.Firmware[1], m.Firmware[2])
}

// Function is something that a peripheral may be able to do.
type Function byte

const (
	FunctionInputs      Function = 1
	FunctionOutputs     Function = 2
	FunctionCardFormat  Function = 3
	FunctionLED         Function = 4
	FunctionBuzzer      Function = 5
	FunctionText        Function = 6
	FunctionTime        Function = 7
	FunctionCheck       Function = 8 // level 1: it knows the CRC
	FunctionSecurity    Function = 9 // bit 0 of both bytes: AES-128
	FunctionReceiveSize Function = 10
	FunctionMessageSize Function = 11 // the largest message in several parts
	FunctionSmartCard   Function = 12
	FunctionReaders     Function = 13
	FunctionBiometrics  Function = 14 // level 1, 2: fingerprint template 1, 2; 3: iris template 1
	FunctionSecurePIN   Function = 15
	FunctionVersion     Function = 16 // level 1: IEC, 2: SIA 2.2
)

var functionNames = [...]string{
	1: "inputs", "outputs", "card format", "LED", "buzzer", "text", "time", "check", "security", "receive size", "message size",
	"smart card", "readers", "biometrics", "secure PIN", "OSDP version",
}

func (f Function) String() string {
	if f > 0 && int(f) < len(functionNames) {
		return functionNames[f]
	}
	return fmt.Sprintf("function %d", byte(f))
}

// Capability is how well a peripheral can do something.
type Capability struct {
	Function Function
	Level    byte
	Count    byte
}

// Capabilities is what a peripheral can do (PDCAP).
type Capabilities []Capability

func (Capabilities) Reply() ReplyCode { return CodePDCAP }

func (m Capabilities) AppendBinary(b []byte) ([]byte, error) {
	for _, c := range m {
		b = append(b, byte(c.Function), c.Level, c.Count)
	}
	return b, nil
}

// Get finds a function; the zero Capability if it is not listed.
func (m Capabilities) Get(f Function) Capability {
	for _, c := range m {
		if c.Function == f {
			return c
		}
	}
	return Capability{}
}

// ReceiveSize is the longest frame that the peripheral takes, in bytes; 0: not
// told.
func (m Capabilities) ReceiveSize() int {
	c := m.Get(FunctionReceiveSize)
	return int(c.Level) | int(c.Count)<<8
}

// LocalStatus is the state of the peripheral itself (LSTATR).
type LocalStatus struct {
	Tamper    bool // it was opened or taken from the wall
	PowerFail bool
}

func (LocalStatus) Reply() ReplyCode { return CodeLSTATR }

func (m LocalStatus) AppendBinary(b []byte) ([]byte, error) {
	return append(b, bit(m.Tamper), bit(m.PowerFail)), nil
}

func bit(v bool) byte {
	if v {
		return 1
	}
	return 0
}

// InputState is what an input sees.
type InputState byte

const (
	InputInactive InputState = 0
	InputActive   InputState = 1
	InputShort    InputState = 2
	InputOpen     InputState = 3
	InputFault    InputState = 4
	InputUnknown  InputState = 5
)

// Inputs is the state of every input (ISTATR).
type Inputs []InputState

// Outputs is whether each output is on (OSTATR).
type Outputs []bool

// ReaderState is what ails a reader that is wired to the peripheral.
type ReaderState byte

const (
	ReaderOK     ReaderState = 0
	ReaderAbsent ReaderState = 1
	ReaderTamper ReaderState = 2
)

// Readers is the state of each reader (RSTATR).
type Readers []ReaderState

func (Inputs) Reply() ReplyCode  { return CodeISTATR }
func (Outputs) Reply() ReplyCode { return CodeOSTATR }
func (Readers) Reply() ReplyCode { return CodeRSTATR }

func (m Inputs) AppendBinary(b []byte) ([]byte, error) {
	for _, s := range m {
		b = append(b, byte(s))
	}
	return b, nil
}

func (m Outputs) AppendBinary(b []byte) ([]byte, error) {
	for _, on := range m {
		b = append(b, bit(on))
	}
	return b, nil
}

func (m Readers) AppendBinary(b []byte) ([]byte, error) {
	for _, s := range m {
		b = append(b, byte(s))
	}
	return b, nil
}

// CardFormat says how a card's bits are meant.
type CardFormat byte

const (
	CardRaw     CardFormat = 0
	CardWiegand CardFormat = 1 // with parity bits, checked by the reader
	CardUID     CardFormat = 2
	CardOSSSID  CardFormat = 3
)

// Card is a card that was presented (RAW): Bits bits, the first of them the
// high bit of Data[0]. The bits after the last are zero.
type Card struct {
	Reader byte
	Format CardFormat
	Bits   uint16
	Data   Secret
}

func (Card) Reply() ReplyCode { return CodeRAW }

func (m Card) AppendBinary(b []byte) ([]byte, error) {
	if len(m.Data) != (int(m.Bits)+7)/8 {
		return nil, fmt.Errorf("%w: RAW: %d bits in %d bytes", ErrMessage, m.Bits, len(m.Data))
	}
	b = binary.LittleEndian.AppendUint16(append(b, m.Reader, byte(m.Format)), m.Bits)
	return append(b, m.Data...), nil
}

// FormattedCard is a card as characters (FMT, deprecated).
type FormattedCard struct {
	Reader  byte
	Reverse bool // read backwards
	Digits  Secret
}

func (FormattedCard) Reply() ReplyCode { return CodeFMT }

func (m FormattedCard) AppendBinary(b []byte) ([]byte, error) {
	if len(m.Digits) > 255 {
		return nil, fmt.Errorf("%w: FMT: %d characters are more than 255", ErrMessage, len(m.Digits))
	}
	b = append(b, m.Reader, bit(m.Reverse), byte(len(m.Digits)))
	return append(b, m.Digits...), nil
}

// Keypad is keys that were pressed (KEYPAD): '0' to '9', '*' and '#', and what
// else the reader has. On the wire, * is 0x7F and # is 0x0D; readers that send
// the characters themselves are understood too.
type Keypad struct {
	Reader byte
	Keys   Secret
}

func (Keypad) Reply() ReplyCode { return CodeKEYPAD }

func (m Keypad) AppendBinary(b []byte) ([]byte, error) {
	if len(m.Keys) > 255 {
		return nil, fmt.Errorf("%w: KEYPAD: %d keys are more than 255", ErrMessage, len(m.Keys))
	}
	b = append(b, m.Reader, byte(len(m.Keys)))
	for _, k := range m.Keys {
		switch k {
		case '*':
			k = 0x7F
		case '#':
			k = 0x0D
		}
		b = append(b, k)
	}
	return b, nil
}

// Comm is the address and baud rate that a peripheral goes over to (COM).
type Comm struct {
	Address byte
	Baud    uint32
}

func (Comm) Reply() ReplyCode { return CodeCOM }

func (m Comm) AppendBinary(b []byte) ([]byte, error) {
	return binary.LittleEndian.AppendUint32(append(b, m.Address), m.Baud), nil
}

// ClientCryptogram proves that the peripheral has the key (CCRYPT).
type ClientCryptogram struct {
	ID         [8]byte // the client's: of the maker, model and serial number
	Random     [8]byte
	Cryptogram [16]byte
}

func (ClientCryptogram) Reply() ReplyCode { return CodeCCRYPT }

func (m ClientCryptogram) AppendBinary(b []byte) ([]byte, error) {
	b = append(append(b, m.ID[:]...), m.Random[:]...)
	return append(b, m.Cryptogram[:]...), nil
}

// InitialRMAC is the first link of a Secure Channel's chain of MACs (RMAC_I).
type InitialRMAC struct{ MAC [16]byte }

func (InitialRMAC) Reply() ReplyCode { return CodeRMACI }

func (m InitialRMAC) AppendBinary(b []byte) ([]byte, error) { return append(b, m.MAC[:]...), nil }

// Outcomes of a part of a file.
const (
	FileOK           = 0
	FileProcessed    = 1
	FileRebooting    = 2 // it was processed, and the peripheral restarts
	FileFinishing    = 3 // ask again with no data
	FileAborted      = -1
	FileUnrecognised = -2
	FileMalformed    = -3
)

// FileStatus is the answer to a part of a file (FTSTAT).
type FileStatus struct {
	Interleave bool          // other commands may stand between the parts
	LeaveChan  bool          // the parts that follow should come outside the Secure Channel
	PollReply  bool          // there is a separate reply to be polled for
	Delay      time.Duration // to the next part; in steps of 1 ms, at most 65.535 s
	Status     int16         // FileOK …
	NewMax     uint16        // bytes of a part from now on; 0: as before
}

func (FileStatus) Reply() ReplyCode { return CodeFTSTAT }

func (m FileStatus) AppendBinary(b []byte) ([]byte, error) {
	ms := m.Delay.Milliseconds()
	if ms < 0 || ms > 0xFFFF {
		return nil, fmt.Errorf("%w: FTSTAT: a delay of %v is not 0 to 65.535s", ErrMessage, m.Delay)
	}
	b = append(b, bit(m.Interleave)|bit(m.LeaveChan)<<1|bit(m.PollReply)<<2)
	b = binary.LittleEndian.AppendUint16(b, uint16(ms))
	b = binary.LittleEndian.AppendUint16(b, uint16(m.Status))
	return binary.LittleEndian.AppendUint16(b, m.NewMax), nil
}

// ManufacturerReply is a maker's own reply (MFGREP).
type ManufacturerReply struct {
	OUI  [3]byte
	Data Secret
}

func (ManufacturerReply) Reply() ReplyCode { return CodeMFGREP }

func (m ManufacturerReply) AppendBinary(b []byte) ([]byte, error) {
	return append(append(b, m.OUI[:]...), m.Data...), nil
}

// OtherReply is a reply that has no type here.
type OtherReply struct {
	Code ReplyCode
	Data Secret
}

func (m OtherReply) Reply() ReplyCode                      { return m.Code }
func (m OtherReply) AppendBinary(b []byte) ([]byte, error) { return append(b, m.Data...), nil }

// ParseReply reads the data of a reply. It keeps nothing of data.
func ParseReply(code ReplyCode, data []byte) (Reply, error) {
	r := &reading{b: data}
	switch code {
	case CodeACK:
		return parsed[Reply](r, code, ACK{})
	case CodeBUSY:
		return parsed[Reply](r, code, Busy{})
	case CodeNAK:
		return parsed[Reply](r, code, NAK{NAKCode(r.u8()), r.rest()})
	case CodePDID:
		return parsed[Reply](r, code, ID{[3]byte(r.next(3)), r.u8(), r.u8(), r.u32(), [3]byte(r.next(3))})
	case CodePDCAP:
		var m Capabilities
		for len(r.b) > 0 && !r.short {
			m = append(m, Capability{Function(r.u8()), r.u8(), r.u8()})
		}
		return parsed[Reply](r, code, m)
	case CodeLSTATR:
		return parsed[Reply](r, code, LocalStatus{r.u8() != 0, r.u8() != 0})
	case CodeISTATR:
		m := make(Inputs, len(data))
		for i := range m {
			m[i] = InputState(r.u8())
		}
		return parsed[Reply](r, code, m)
	case CodeOSTATR:
		m := make(Outputs, len(data))
		for i := range m {
			m[i] = r.u8() != 0
		}
		return parsed[Reply](r, code, m)
	case CodeRSTATR:
		m := make(Readers, len(data))
		for i := range m {
			m[i] = ReaderState(r.u8())
		}
		return parsed[Reply](r, code, m)
	case CodeRAW:
		return parseCard(r)
	case CodeFMT:
		m := FormattedCard{Reader: r.u8(), Reverse: r.u8() != 0}
		m.Digits = r.sized(int(r.u8()))
		return parsed[Reply](r, code, m)
	case CodeKEYPAD:
		m := Keypad{Reader: r.u8()}
		m.Keys = r.sized(int(r.u8()))
		for i, k := range m.Keys {
			switch k {
			case 0x7F:
				m.Keys[i] = '*'
			case 0x0D:
				m.Keys[i] = '#'
			}
		}
		return parsed[Reply](r, code, m)
	case CodeCOM:
		return parsed[Reply](r, code, Comm{r.u8(), r.u32()})
	case CodeBIOREADR:
		m := BioTemplate{Reader: r.u8(), Status: BioStatus(r.u8()), Type: BioType(r.u8()), Quality: r.u8()}
		m.Template = r.sized(int(r.u16()))
		return parsed[Reply](r, code, m)
	case CodeBIOMATCHR:
		return parsed[Reply](r, code, BioScore{r.u8(), BioStatus(r.u8()), r.u8()})
	case CodeCCRYPT:
		return parsed[Reply](r, code, ClientCryptogram{[8]byte(r.next(8)), [8]byte(r.next(8)), [16]byte(r.next(16))})
	case CodeRMACI:
		return parsed[Reply](r, code, InitialRMAC{[16]byte(r.next(16))})
	case CodeFTSTAT:
		action := r.u8()
		return parsed[Reply](r, code, FileStatus{
			Interleave: action&1 != 0, LeaveChan: action&2 != 0, PollReply: action&4 != 0,
			Delay: time.Duration(r.u16()) * time.Millisecond, Status: int16(r.u16()), NewMax: r.u16(),
		})
	case CodeMFGREP:
		return parsed[Reply](r, code, ManufacturerReply{[3]byte(r.next(3)), r.rest()})
	}
	return OtherReply{code, r.rest()}, nil
}

// parseCard reads RAW. Bits after the last are set to zero, for some readers
// fill them with ones.
func parseCard(r *reading) (Reply, error) {
	m := Card{Reader: r.u8(), Format: CardFormat(r.u8()), Bits: r.u16()}
	m.Data = r.sized((int(m.Bits) + 7) / 8)
	if spare := len(m.Data)*8 - int(m.Bits); spare > 0 && !r.short {
		m.Data[len(m.Data)-1] &= 0xFF << spare
	}
	return parsed[Reply](r, CodeRAW, m)
}
