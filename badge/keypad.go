package badge

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"
)

// KeypadEncoding is how a keypad reader sends what is typed. It cannot be told from
// the frames, so a reader's configuration says it.
type KeypadEncoding string

// The encodings of keypads.
const (
	Keypad4Bit  KeypadEncoding = "4-bit"  // a frame a key: its number, 10 for *, 11 for #
	Keypad8Bit  KeypadEncoding = "8-bit"  // a frame a key: the complement of the 4-bit code, then that code
	Keypad26Bit KeypadEncoding = "26-bit" // the PIN whole, as the number of an H10301 frame
)

const (
	keyClear = 0xA // *
	keyEnter = 0xB // #

	// keypadError is what a 26-bit keypad sends for an entry that it refused.
	keypadError = 65535

	// MaxPIN is the most digits that a PIN has.
	MaxPIN = 16
)

var (
	// ErrNotKey is a frame that did not come from a keypad's keys: a card.
	ErrNotKey = errors.New("the frame is not from a keypad's keys")
	// ErrKeypad is a key that was misread or refused, a PIN over MaxPIN digits, or an entry
	// that the keypad itself refused. What was typed so far is forgotten.
	ErrKeypad = errors.New("the keypad's entry is unreadable")
)

// Keypad gathers the keys of one keypad into PINs: # ends one, * begins anew,
// and digits left standing for the time-out are forgotten. It keeps no clock:
// times come with the calls. It is for one goroutine.
type Keypad struct {
	encoding KeypadEncoding
	facility uint64
	timeout  time.Duration

	digits  [MaxPIN]byte
	n       int
	tooLong bool
	last    time.Time // of the newest digit
}

var h10301 = sync.OnceValue(func() *Format {
	f, _ := Builtin().Format("H10301")
	return f
})

// NewKeypad is a collector for one keypad; 5 seconds is a usual time-out.
// Facility is the facility code, most often 0, of the PINs of a 26-bit keypad:
// 26-bit frames with another one are cards.
func NewKeypad(encoding KeypadEncoding, facility uint64, timeout time.Duration) (*Keypad, error) {
	switch encoding {
	case Keypad4Bit, Keypad8Bit, Keypad26Bit:
	default:
		return nil, fmt.Errorf("keypad encoding %q is not %q, %q or %q", encoding, Keypad4Bit, Keypad8Bit, Keypad26Bit)
	}
	if timeout <= 0 {
		return nil, fmt.Errorf("keypad time-out %v is not above zero", timeout)
	}
	return &Keypad{encoding: encoding, facility: facility, timeout: timeout}, nil
}

// Press takes one frame. It returns a PIN when one is complete, nil while it
// is being typed. The error is ErrNotKey, and then nothing changed, or ErrKeypad.
// The caller clears the PIN.
func (k *Keypad) Press(r Read) (*PIN, error) {
	k.Expire(r.At)
	if r.Refused != "" {
		// It counts for nothing but its length, which no digit can be told from.
		if !r.Keypad && r.Frame.Len() != k.width() {
			return nil, ErrNotKey
		}
		k.clear()
		return nil, ErrKeypad
	}
	if k.encoding == Keypad26Bit {
		return k.whole(r.Frame)
	}
	key, err := k.key(r.Frame)
	if err != nil {
		if errors.Is(err, ErrKeypad) {
			k.clear()
		}
		return nil, err
	}
	switch key {
	case keyClear:
		k.clear()
		return nil, nil
	case keyEnter:
		defer k.clear()
		switch {
		case k.tooLong:
			return nil, ErrKeypad
		case k.n == 0:
			return nil, nil
		}
		return &PIN{digits: slices.Clone(k.digits[:k.n])}, nil
	}
	k.last = r.At
	if k.n == MaxPIN {
		k.clear()
		k.tooLong = true // until # or the time-out: its tail is not a PIN
	}
	if !k.tooLong {
		k.digits[k.n] = '0' + key
		k.n++
	}
	return nil, nil
}

// Expire forgets what was typed if the time-out has passed since its last
// digit, and says whether there was something to forget.
func (k *Keypad) Expire(now time.Time) bool {
	if k.n == 0 && !k.tooLong || now.Sub(k.last) < k.timeout {
		return false
	}
	k.clear()
	return true
}

// Forget forgets what was typed.
func (k *Keypad) Forget() { k.clear() }

// Next is when Expire has something to do, and whether there is such a time.
func (k *Keypad) Next() (time.Time, bool) {
	if k.n == 0 && !k.tooLong {
		return time.Time{}, false
	}
	return k.last.Add(k.timeout), true
}

func (k *Keypad) clear() {
	clear(k.digits[:])
	k.n, k.tooLong = 0, false
}

// width is how many bits a key is; 0: a PIN comes whole.
func (k *Keypad) width() int {
	switch k.encoding {
	case Keypad4Bit:
		return 4
	case Keypad8Bit:
		return 8
	}
	return 0
}

// key is the 4-bit code of a frame, 0 to keyEnter.
func (k *Keypad) key(f Frame) (byte, error) {
	width := k.width()
	if f.Len() != width {
		return 0, ErrNotKey
	}
	var v byte
	for i := range len(f.bits) {
		v = v<<1 | f.bits[i]&1
	}
	key := v & 0xF
	if width == 8 && v>>4 != ^v&0xF || key > keyEnter {
		return 0, ErrKeypad
	}
	return key, nil
}

// whole reads a PIN that came in one frame. The wire carries a number, so
// leading zeros of the PIN are lost.
func (k *Keypad) whole(f Frame) (*PIN, error) {
	c, err := h10301().Decode(f)
	if err != nil || c.Facility != k.facility {
		return nil, ErrNotKey
	}
	if c.Number == keypadError {
		return nil, ErrKeypad
	}
	return &PIN{digits: strconv.AppendUint(make([]byte, 0, MaxPIN), c.Number, 10)}, nil
}

// Format masks what was typed under every verb.
func (k *Keypad) Format(s fmt.State, _ rune) { fmt.Fprintf(s, "%s keypad", string(k.encoding)) }

// LogValue masks what was typed.
func (k *Keypad) LogValue() slog.Value { return slog.StringValue(string(k.encoding) + " keypad") }

// PIN is the digits that somebody typed. It prints as nothing but "PIN", not
// even its length. Whoever has used it clears it; copies share its memory.
type PIN struct{ digits []byte }

// Digits are the digits as '0' to '9', in the PIN's own memory: Clear zeroes
// them, and a copy would stay behind.
func (p PIN) Digits() []byte { return p.digits }

// Clear zeroes the digits.
func (p PIN) Clear() { clear(p.digits) }

// String masks the digits.
func (p PIN) String() string { return "PIN" }

// Format masks the digits under every verb.
func (p PIN) Format(s fmt.State, _ rune) { fmt.Fprint(s, p.String()) }

// LogValue masks the digits.
func (p PIN) LogValue() slog.Value { return slog.StringValue(p.String()) }
