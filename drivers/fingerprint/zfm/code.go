package zfm

import (
	"fmt"

	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint"
)

// Instruction is the first byte of a command.
type Instruction byte

// Instructions, by the manuals' names.
const (
	GenImg        Instruction = 0x01
	Img2Tz        Instruction = 0x02
	MatchTz       Instruction = 0x03
	Search        Instruction = 0x04
	RegModel      Instruction = 0x05
	Store         Instruction = 0x06
	LoadChar      Instruction = 0x07
	UpChar        Instruction = 0x08
	DownChar      Instruction = 0x09
	DeletChar     Instruction = 0x0C
	Empty         Instruction = 0x0D
	SetSysPara    Instruction = 0x0E
	ReadSysPara   Instruction = 0x0F
	SetPwd        Instruction = 0x12
	VfyPwd        Instruction = 0x13
	WriteNotepad  Instruction = 0x18
	ReadNotepad   Instruction = 0x19
	HiSpeedSearch Instruction = 0x1B // missing on the R503; Search does the same
	TemplateNum   Instruction = 0x1D
	ReadIndex     Instruction = 0x1F
	AutoEnroll    Instruction = 0x31
	AuraLED       Instruction = 0x35
	ReadProdInfo  Instruction = 0x3C
	LEDOn         Instruction = 0x50
	LEDOff        Instruction = 0x51
)

// Parameters of SetSysPara.
const (
	paramBaud     = 4 // times 9600
	paramSecurity = 5
	paramPacket   = 6 // 0 to 3: 32, 64, 128, 256 bytes
)

// Code is a confirmation code, the first byte of an answer. It is an error, so
// that errors.Is(err, zfm.PoorImage) finds the answer that caused one.
type Code byte

// Confirmation codes (R503 manual 1.2.2, page 10).
const (
	OK              Code = 0x00
	ReceiveError    Code = 0x01
	NoFinger        Code = 0x02
	CaptureFailed   Code = 0x03
	PoorImage       Code = 0x06
	FewFeatures     Code = 0x07
	NoMatch         Code = 0x08
	NotFound        Code = 0x09
	MergeFailed     Code = 0x0A
	BadID           Code = 0x0B
	BadTemplate     Code = 0x0C
	UploadFailed    Code = 0x0D
	NoData          Code = 0x0E
	ImageFailed     Code = 0x0F
	DeleteFailed    Code = 0x10
	EmptyFailed     Code = 0x11
	WrongPassword   Code = 0x13
	NoImage         Code = 0x15
	FlashError      Code = 0x18
	Undefined       Code = 0x19
	BadRegister     Code = 0x1A
	BadValue        Code = 0x1B
	BadPage         Code = 0x1C
	PortError       Code = 0x1D
	Full            Code = 0x1F
	WrongAddress    Code = 0x20
	NotVerified     Code = 0x21
	EmptyTemplate   Code = 0x22
	EmptyLibrary    Code = 0x24
	TimedOut        Code = 0x26
	Enrolled        Code = 0x27
	SensorError     Code = 0x29
	IllegalData     Code = 0x35 // of an R558, to Store
	Unsupported     Code = 0xFC
	HardwareError   Code = 0xFD
	ExecutionFailed Code = 0xFE
)

var codes = map[Code]struct {
	name string
	is   error // what the families have in common
}{
	OK:              {"ok", nil},
	ReceiveError:    {"it did not understand the packet", nil},
	NoFinger:        {"no finger", fingerprint.ErrNoFinger},
	CaptureFailed:   {"the finger could not be captured", fingerprint.ErrPoorFinger},
	PoorImage:       {"the image is too messy", fingerprint.ErrPoorFinger},
	FewFeatures:     {"too few features", fingerprint.ErrPoorFinger},
	NoMatch:         {"no match", nil},
	NotFound:        {"not found", nil},
	MergeFailed:     {"the captures are not of one finger", fingerprint.ErrPoorFinger},
	BadID:           {"ID out of range", fingerprint.ErrNoSuchID},
	BadTemplate:     {"the template cannot be read", fingerprint.ErrEmpty},
	UploadFailed:    {"the template cannot be sent", fingerprint.ErrFailed},
	NoData:          {"it cannot receive data packets", fingerprint.ErrFailed},
	ImageFailed:     {"the image cannot be sent", fingerprint.ErrFailed},
	DeleteFailed:    {"the template cannot be deleted", fingerprint.ErrFailed},
	EmptyFailed:     {"the library cannot be emptied", fingerprint.ErrFailed},
	WrongPassword:   {"wrong password", fingerprint.ErrLocked},
	NoImage:         {"no valid image", fingerprint.ErrPoorFinger},
	FlashError:      {"its flash cannot be written", fingerprint.ErrFailed},
	Undefined:       {"undefined error", fingerprint.ErrFailed},
	BadRegister:     {"no such register", fingerprint.ErrUnsupported},
	BadValue:        {"no such value of the register", fingerprint.ErrUnsupported},
	BadPage:         {"no such page of the notepad", fingerprint.ErrUnsupported},
	PortError:       {"its port failed", fingerprint.ErrFailed},
	Full:            {"the library is full", fingerprint.ErrFull},
	WrongAddress:    {"wrong address", fingerprint.ErrLocked},
	NotVerified:     {"the password must be verified first", fingerprint.ErrRestarted},
	EmptyTemplate:   {"the template is empty", fingerprint.ErrEmpty},
	EmptyLibrary:    {"the library is empty", fingerprint.ErrEmpty},
	TimedOut:        {"timed out", fingerprint.ErrNoFinger},
	Enrolled:        {"the finger is enrolled already", fingerprint.ErrDuplicate},
	SensorError:     {"the sensor failed", fingerprint.ErrFailed},
	IllegalData:     {"illegal data", fingerprint.ErrTemplate},
	Unsupported:     {"unsupported", fingerprint.ErrUnsupported},
	HardwareError:   {"its hardware failed", fingerprint.ErrFailed},
	ExecutionFailed: {"the command failed", fingerprint.ErrFailed},
}

func (c Code) String() string {
	if known, ok := codes[c]; ok {
		return known.name
	}
	return "an unknown code"
}

func (c Code) Error() string {
	return fmt.Sprintf("zfm: the module says: %v (%#02x)", c.String(), byte(c))
}

// Is tells what the families have in common.
func (c Code) Is(target error) bool {
	is := codes[c].is
	return is != nil && target == is
}

// Refused makes a Code a fingerprint.Refusal.
func (Code) Refused() {}
