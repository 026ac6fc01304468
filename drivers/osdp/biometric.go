package osdp

import "fmt"

// BioType is a part of the body.
type BioType byte

// The parts of the body. The right hand's fingers are RightThumb to
// RightLittle, the left hand's LeftThumb to LeftLittle.
const (
	BioDefault  BioType = 0x00 // whichever the reader takes
	RightThumb  BioType = 0x01
	RightIndex  BioType = 0x02
	RightMiddle BioType = 0x03
	RightRing   BioType = 0x04
	RightLittle BioType = 0x05
	LeftThumb   BioType = 0x06
	LeftIndex   BioType = 0x07
	LeftMiddle  BioType = 0x08
	LeftRing    BioType = 0x09
	LeftLittle  BioType = 0x0A
	RightIris   BioType = 0x0B
	RightRetina BioType = 0x0C
	LeftIris    BioType = 0x0D
	LeftRetina  BioType = 0x0E
	Face        BioType = 0x0F
	RightHand   BioType = 0x10
	LeftHand    BioType = 0x11
)

var bioTypeNames = [...]string{
	"default", "right thumb", "right index", "right middle", "right ring", "right little", "left thumb", "left index", "left middle",
	"left ring", "left little", "right iris", "right retina", "left iris", "left retina", "face", "right hand", "left hand",
}

func (t BioType) String() string {
	if int(t) < len(bioTypeNames) {
		return bioTypeNames[t]
	}
	return fmt.Sprintf("biometric type %#02x", byte(t))
}

// BioFormat is how a template is written. There is no code for an iris
// template: it goes as BioFormatDefault.
type BioFormat byte

const (
	BioFormatDefault BioFormat = 0 // the maker's own
	BioFormatPGM     BioFormat = 1 // raw fingerprint image
	BioFormatANSI378 BioFormat = 2 // ANSI/INCITS 378 fingerprint template
)

// BioStatus is how a scan ended.
type BioStatus byte

const (
	BioOK      BioStatus = 0x00
	BioTimeout BioStatus = 0x01 // nobody came
	BioUnknown BioStatus = 0xFF // unknown error
)

func (s BioStatus) String() string {
	switch s {
	case BioOK:
		return "ok"
	case BioTimeout:
		return "nobody came in time"
	case BioUnknown:
		return "unknown error of the reader"
	}
	return fmt.Sprintf("biometric status %#02x", byte(s))
}

// BioRead asks for a scan that gives a template (BIOREAD). See
// Peripheral.BioRead, which waits for it.
type BioRead struct {
	Reader  byte
	Type    BioType
	Format  BioFormat
	Quality byte
}

func (BioRead) Command() CommandCode { return CodeBIOREAD }

func (c BioRead) AppendBinary(b []byte) ([]byte, error) {
	return append(b, c.Reader, byte(c.Type), byte(c.Format), c.Quality), nil
}

// BioTemplate is what a scan gave (BIOREADR).
type BioTemplate struct {
	Reader   byte
	Status   BioStatus
	Type     BioType
	Quality  byte
	Template Secret
}

func (BioTemplate) Reply() ReplyCode { return CodeBIOREADR }

func (m BioTemplate) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, m.Reader, byte(m.Status), byte(m.Type), m.Quality)
	return appendSized(b, m.Template, m.Reply())
}

// BioMatch asks for a scan and compares it with a template (BIOMATCH). An empty
// template means the one that was sent before as a FileTemplate. See
// Peripheral.BioMatch, which waits for the outcome.
type BioMatch struct {
	Reader    byte
	Type      BioType
	Format    BioFormat
	Threshold byte // the least score that the reader is to take for a match
	Template  Secret
}

func (BioMatch) Command() CommandCode { return CodeBIOMATCH }

func (c BioMatch) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, c.Reader, byte(c.Type), byte(c.Format), c.Threshold)
	return appendSized(b, c.Template, c.Command())
}

// BioScore is the outcome of a comparison (BIOMATCHR).
type BioScore struct {
	Reader byte
	Status BioStatus
	Score  byte // 0: no match, 0xFF: the best
}

func (BioScore) Reply() ReplyCode { return CodeBIOMATCHR }

func (m BioScore) AppendBinary(b []byte) ([]byte, error) {
	return append(b, m.Reader, byte(m.Status), m.Score), nil
}

// Matches reports whether the scan went well and scored at least threshold,
// which is at least 1: a score of 0 is no match, whatever is asked.
func (m BioScore) Matches(threshold byte) bool {
	return m.Status == BioOK && m.Score >= max(threshold, 1)
}
