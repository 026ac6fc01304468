package osdp

import (
	"encoding/binary"
	"fmt"
)

// The commands that only ask.
type (
	// Poll asks for whatever there is to tell (POLL).
	Poll struct{}
	// GetID asks for an ID.
	GetID struct{}
	// GetCapabilities asks for Capabilities (CAP).
	GetCapabilities struct{}
	// GetLocalStatus asks for a LocalStatus (LSTAT).
	GetLocalStatus struct{}
	// GetInputs asks for Inputs (ISTAT).
	GetInputs struct{}
	// GetOutputs asks for Outputs (OSTAT).
	GetOutputs struct{}
	// GetReaders asks for Readers (RSTAT).
	GetReaders struct{}
	// Abort ends what the peripheral is at, such as a scan (ABORT).
	Abort struct{}
)

func (Poll) Command() CommandCode            { return CodePOLL }
func (GetID) Command() CommandCode           { return CodeID }
func (GetCapabilities) Command() CommandCode { return CodeCAP }
func (GetLocalStatus) Command() CommandCode  { return CodeLSTAT }
func (GetInputs) Command() CommandCode       { return CodeISTAT }
func (GetOutputs) Command() CommandCode      { return CodeOSTAT }
func (GetReaders) Command() CommandCode      { return CodeRSTAT }
func (Abort) Command() CommandCode           { return CodeABORT }

func (Poll) AppendBinary(b []byte) ([]byte, error)            { return b, nil }
func (GetID) AppendBinary(b []byte) ([]byte, error)           { return append(b, 0), nil }
func (GetCapabilities) AppendBinary(b []byte) ([]byte, error) { return append(b, 0), nil }
func (GetLocalStatus) AppendBinary(b []byte) ([]byte, error)  { return b, nil }
func (GetInputs) AppendBinary(b []byte) ([]byte, error)       { return b, nil }
func (GetOutputs) AppendBinary(b []byte) ([]byte, error)      { return b, nil }
func (GetReaders) AppendBinary(b []byte) ([]byte, error)      { return b, nil }
func (Abort) AppendBinary(b []byte) ([]byte, error)           { return b, nil }

// OutputAction is what an output is to do.
type OutputAction byte

const (
	OutputNone          OutputAction = 0
	OutputOffAbort      OutputAction = 1 // off for good; a timed state ends
	OutputOnAbort       OutputAction = 2
	OutputOffAfterTimer OutputAction = 3 // off for good, once a timed state is over
	OutputOnAfterTimer  OutputAction = 4
	OutputOnTimed       OutputAction = 5 // on for Timer, then back
	OutputOffTimed      OutputAction = 6
)

// Output is a command to one output.
type Output struct {
	Output byte // the first is 0
	Action OutputAction
	Timer  uint16 // in units of 100 ms, for the timed actions
}

// SetOutputs switches outputs (OUT); there is at least one.
type SetOutputs []Output

func (SetOutputs) Command() CommandCode { return CodeOUT }

func (c SetOutputs) AppendBinary(b []byte) ([]byte, error) {
	if len(c) == 0 {
		return nil, fmt.Errorf("%w: OUT: no output", ErrMessage)
	}
	for _, o := range c {
		b = append(b, o.Output, byte(o.Action))
		b = binary.LittleEndian.AppendUint16(b, o.Timer)
	}
	return b, nil
}

// Color is one of a reader's light.
type Color byte

const (
	Black Color = iota // dark
	Red
	Green
	Amber
	Blue
	Magenta
	Cyan
	White
)

// What an LED command's temporary part does.
const (
	LEDKeep   = 0 // changes nothing
	LEDCancel = 1 // ends the temporary state
	LEDSet    = 2 // begins one
)

// LED is a command to one light.
type LED struct {
	Reader, LED byte // the first is 0
	Temporary   byte // LEDKeep, LEDCancel or LEDSet
	Flash       Flash
	Timer       uint16 // of the temporary state, in units of 100 ms
	Permanent   bool   // whether Steady replaces the permanent state
	Steady      Flash
}

// Flash is how a light alternates between two colours. With both times zero
// some peripherals stay dark: give On a time for a steady light.
type Flash struct {
	On, Off           byte // in units of 100 ms
	OnColor, OffColor Color
}

// SetLEDs sets lights (LED); there is at least one.
type SetLEDs []LED

func (SetLEDs) Command() CommandCode { return CodeLED }

func (c SetLEDs) AppendBinary(b []byte) ([]byte, error) {
	if len(c) == 0 {
		return nil, fmt.Errorf("%w: LED: no light", ErrMessage)
	}
	for _, l := range c {
		b = append(b, l.Reader, l.LED, l.Temporary)
		b = append(b, l.Flash.On, l.Flash.Off, byte(l.Flash.OnColor), byte(l.Flash.OffColor))
		b = binary.LittleEndian.AppendUint16(b, l.Timer)
		permanent := byte(0)
		if l.Permanent {
			permanent = 1
		}
		b = append(b, permanent, l.Steady.On, l.Steady.Off, byte(l.Steady.OnColor), byte(l.Steady.OffColor))
	}
	return b, nil
}

// Tones of Buzz.
const (
	ToneOff     = 1
	ToneDefault = 2
)

// Buzz sounds a reader's buzzer (BUZ).
type Buzz struct {
	Reader  byte
	Tone    byte // ToneOff or ToneDefault
	On, Off byte // in units of 100 ms
	Count   byte // how often; 0: until told otherwise
}

func (Buzz) Command() CommandCode { return CodeBUZ }

func (c Buzz) AppendBinary(b []byte) ([]byte, error) {
	return append(b, c.Reader, c.Tone, c.On, c.Off, c.Count), nil
}

// What ShowText does with the text.
const (
	TextPermanent     = 1
	TextPermanentWrap = 2
	TextTemporary     = 3
	TextTemporaryWrap = 4
)

// ShowText writes on a reader's display (TEXT).
type ShowText struct {
	Reader      byte
	Mode        byte // TextPermanent to TextTemporaryWrap
	Seconds     byte // of a temporary text
	Row, Column byte // the first is 1
	Text        string
}

func (ShowText) Command() CommandCode { return CodeTEXT }

func (c ShowText) AppendBinary(b []byte) ([]byte, error) {
	if len(c.Text) > 255 {
		return nil, fmt.Errorf("%w: TEXT: %d bytes of text are more than 255", ErrMessage, len(c.Text))
	}
	b = append(b, c.Reader, c.Mode, c.Seconds, c.Row, c.Column, byte(len(c.Text)))
	return append(b, c.Text...), nil
}

// SetComm gives a peripheral another address or baud rate (COMSET). See
// Peripheral.SetAddress and Bus.SetBaud, which follow it there.
type SetComm struct {
	Address byte
	Baud    uint32
}

func (SetComm) Command() CommandCode { return CodeCOMSET }

func (c SetComm) AppendBinary(b []byte) ([]byte, error) {
	return binary.LittleEndian.AppendUint32(append(b, c.Address), c.Baud), nil
}

// SetKey gives a peripheral its key (KEYSET). See Peripheral.SetKey, which
// keeps the key before it sends it.
type SetKey struct{ Key Key }

func (SetKey) Command() CommandCode { return CodeKEYSET }

func (c SetKey) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, 1, byte(len(c.Key)))
	return append(b, c.Key[:]...), nil
}

// Challenge begins a Secure Channel (CHLNG).
type Challenge struct{ Random [8]byte }

func (Challenge) Command() CommandCode { return CodeCHLNG }

func (c Challenge) AppendBinary(b []byte) ([]byte, error) { return append(b, c.Random[:]...), nil }

// ServerCryptogram proves to the peripheral that the panel has the key (SCRYPT).
type ServerCryptogram struct{ Cryptogram [16]byte }

func (ServerCryptogram) Command() CommandCode { return CodeSCRYPT }

func (c ServerCryptogram) AppendBinary(b []byte) ([]byte, error) {
	return append(b, c.Cryptogram[:]...), nil
}

// SetReceiveSize tells the longest frame that the panel takes (ACURXSIZE).
type SetReceiveSize struct{ Bytes uint16 }

func (SetReceiveSize) Command() CommandCode { return CodeACURXSIZE }

func (c SetReceiveSize) AppendBinary(b []byte) ([]byte, error) {
	return binary.LittleEndian.AppendUint16(b, c.Bytes), nil
}

// KeepActive keeps a card in the reader's field powered (KEEPACTIVE).
type KeepActive struct{ Milliseconds uint16 }

func (KeepActive) Command() CommandCode { return CodeKEEPACTIVE }

func (c KeepActive) AppendBinary(b []byte) ([]byte, error) {
	return binary.LittleEndian.AppendUint16(b, c.Milliseconds), nil
}

// FileType says what a file is for; 0x80 to 0xFF are a maker's own.
type FileType byte

const (
	FileOpaque   FileType = 1
	FileTemplate FileType = 2 // for the BIOMATCH that follows
	FileDisplay  FileType = 3
)

// FileTransfer sends a part of a file (FILETRANSFER). See Peripheral.SendFile.
type FileTransfer struct {
	Type   FileType
	Total  uint32
	Offset uint32
	Data   Secret
}

func (FileTransfer) Command() CommandCode { return CodeFILETRANSFER }

func (c FileTransfer) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, byte(c.Type))
	b = binary.LittleEndian.AppendUint32(b, c.Total)
	b = binary.LittleEndian.AppendUint32(b, c.Offset)
	return appendSized(b, c.Data, c.Command())
}

// Manufacturer is a maker's own command (MFG).
type Manufacturer struct {
	OUI  [3]byte // of the maker, by IEEE
	Data Secret
}

func (Manufacturer) Command() CommandCode { return CodeMFG }

func (c Manufacturer) AppendBinary(b []byte) ([]byte, error) {
	return append(append(b, c.OUI[:]...), c.Data...), nil
}

// OtherCommand is a command that has no type here.
type OtherCommand struct {
	Code CommandCode
	Data Secret
}

func (c OtherCommand) Command() CommandCode                  { return c.Code }
func (c OtherCommand) AppendBinary(b []byte) ([]byte, error) { return append(b, c.Data...), nil }

// ParseCommand reads the data of a command, as a peripheral does. It keeps
// nothing of data.
func ParseCommand(code CommandCode, data []byte) (Command, error) {
	r := &reading{b: data}
	switch code {
	case CodePOLL:
		return parsed[Command](r, code, Poll{})
	case CodeID, CodeCAP:
		// The byte is 0; others are for future use.
		if kind := r.u8(); kind != 0 {
			return nil, fmt.Errorf("%w: %v: a kind of %#02x, not 0", ErrMessage, code, kind)
		}
		if code == CodeID {
			return parsed[Command](r, code, GetID{})
		}
		return parsed[Command](r, code, GetCapabilities{})
	case CodeLSTAT:
		return parsed[Command](r, code, GetLocalStatus{})
	case CodeISTAT:
		return parsed[Command](r, code, GetInputs{})
	case CodeOSTAT:
		return parsed[Command](r, code, GetOutputs{})
	case CodeRSTAT:
		return parsed[Command](r, code, GetReaders{})
	case CodeABORT:
		return parsed[Command](r, code, Abort{})
	case CodeOUT:
		var c SetOutputs
		for ok := true; ok; ok = len(r.b) > 0 && !r.short {
			c = append(c, Output{r.u8(), OutputAction(r.u8()), r.u16()})
		}
		return parsed[Command](r, code, c)
	case CodeLED:
		return parseLEDs(r)
	case CodeBUZ:
		return parsed[Command](r, code, Buzz{r.u8(), r.u8(), r.u8(), r.u8(), r.u8()})
	case CodeTEXT:
		c := ShowText{Reader: r.u8(), Mode: r.u8(), Seconds: r.u8(), Row: r.u8(), Column: r.u8()}
		c.Text = string(r.sized(int(r.u8())))
		return parsed[Command](r, code, c)
	case CodeCOMSET:
		return parsed[Command](r, code, SetComm{r.u8(), r.u32()})
	case CodeKEYSET:
		if kind, size := r.u8(), r.u8(); !r.short && (kind != 1 || size != 16) {
			return nil, fmt.Errorf("%w: KEYSET: a key of kind %d and %d bytes, not of kind 1 and 16", ErrMessage, kind, size)
		}
		return parsed[Command](r, code, SetKey{Key(r.next(16))})
	case CodeCHLNG:
		return parsed[Command](r, code, Challenge{[8]byte(r.next(8))})
	case CodeSCRYPT:
		return parsed[Command](r, code, ServerCryptogram{[16]byte(r.next(16))})
	case CodeACURXSIZE:
		return parsed[Command](r, code, SetReceiveSize{r.u16()})
	case CodeKEEPACTIVE:
		return parsed[Command](r, code, KeepActive{r.u16()})
	case CodeFILETRANSFER:
		c := FileTransfer{Type: FileType(r.u8()), Total: r.u32(), Offset: r.u32()}
		c.Data = r.sized(int(r.u16()))
		return parsed[Command](r, code, c)
	case CodeBIOREAD:
		return parsed[Command](r, code, BioRead{r.u8(), BioType(r.u8()), BioFormat(r.u8()), r.u8()})
	case CodeBIOMATCH:
		c := BioMatch{Reader: r.u8(), Type: BioType(r.u8()), Format: BioFormat(r.u8()), Threshold: r.u8()}
		c.Template = r.sized(int(r.u16()))
		return parsed[Command](r, code, c)
	case CodeMFG:
		return parsed[Command](r, code, Manufacturer{[3]byte(r.next(3)), r.rest()})
	}
	return OtherCommand{code, r.rest()}, nil
}

func parseLEDs(r *reading) (Command, error) {
	var c SetLEDs
	flash := func() Flash { return Flash{r.u8(), r.u8(), Color(r.u8()), Color(r.u8())} }
	for ok := true; ok; ok = len(r.b) > 0 && !r.short {
		l := LED{Reader: r.u8(), LED: r.u8(), Temporary: r.u8(), Flash: flash(), Timer: r.u16()}
		permanent := r.u8()
		if permanent > 1 {
			return nil, fmt.Errorf("%w: LED: a permanent control of %d, not 0 or 1", ErrMessage, permanent)
		}
		l.Permanent, l.Steady = permanent == 1, flash()
		c = append(c, l)
	}
	return parsed[Command](r, CodeLED, c)
}
