package badge

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const keys = "0123456789*#"

// keyFrame is the frame of a key as the two burst encodings send it.
func keyFrame(t testing.TB, encoding KeypadEncoding, key rune) Frame {
	t.Helper()
	code := strings.IndexRune(keys, key)
	bits := fmt.Sprintf("%04b", code)
	if encoding == Keypad8Bit {
		bits = fmt.Sprintf("%04b", ^code&0xF) + bits
	}
	f, err := ParseFrame(bits)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// typed presses keys a second apart and returns what came of the last.
func typed(t testing.TB, k *Keypad, encoding KeypadEncoding, at time.Time, text string) (*PIN, error) {
	t.Helper()
	var pin *PIN
	var err error
	for i, key := range text {
		pin, err = k.Press(Read{Frame: keyFrame(t, encoding, key), At: at.Add(time.Duration(i) * time.Second)})
		if i < len(text)-1 && pin != nil {
			t.Fatalf("a PIN came at key %d of %d", i, len(text))
		}
	}
	return pin, err
}

func newKeypad(t testing.TB, encoding KeypadEncoding) *Keypad {
	t.Helper()
	k, err := NewKeypad(encoding, 0, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeysMakeAPIN(t *testing.T) {
	for _, encoding := range []KeypadEncoding{Keypad4Bit, Keypad8Bit} {
		for _, tt := range []struct{ keys, want string }{
			{"1234567890#", "1234567890"},
			{"0012#", "0012"},
			{"99*42#", "42"},
			{"1#", "1"},
			{"#", ""},
			{"5*#", ""},
			{"1234567890123456#", "1234567890123456"},
		} {
			pin, err := typed(t, newKeypad(t, encoding), encoding, start, tt.keys)
			got := ""
			if pin != nil {
				got = string(pin.Digits())
			}
			if err != nil || got != tt.want {
				t.Errorf("%s: %q gives %q, %v; want %q", encoding, tt.keys, got, err, tt.want)
			}
		}
	}
}

// The codes of HID, CDVI and Essex keypads, from their manuals.
func TestEightBitKeysAreTheMakersCodes(t *testing.T) {
	for i, code := range []byte{0xF0, 0xE1, 0xD2, 0xC3, 0xB4, 0xA5, 0x96, 0x87, 0x78, 0x69, 0x5A, 0x4B} {
		f, err := ParseText(fmt.Sprintf("0x%02X/8", code), 0)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := newKeypad(t, Keypad8Bit).key(f); err != nil || int(got) != i {
			t.Errorf("%02X: key %c, %v; want %c", code, keys[got], err, keys[i])
		}
	}
}

func TestEveryOtherCodeIsRefused(t *testing.T) {
	for width, encoding := range map[int]KeypadEncoding{4: Keypad4Bit, 8: Keypad8Bit} {
		good := 0
		for code := range 1 << width {
			f, err := ParseFrame(fmt.Sprintf("%0*b", width, code))
			if err != nil {
				t.Fatal(err)
			}
			switch _, err := newKeypad(t, encoding).Press(Read{Frame: f, At: start}); {
			case err == nil:
				good++
			case !errors.Is(err, ErrKeypad):
				t.Errorf("%0*b: %v", width, code, err)
			}
		}
		if good != len(keys) {
			t.Errorf("%s: %d codes are keys, not %d", encoding, good, len(keys))
		}
	}
}

func TestAMisreadKeyForgetsWhatWasTyped(t *testing.T) {
	k := newKeypad(t, Keypad8Bit)
	if _, err := typed(t, k, Keypad8Bit, start, "12"); err != nil {
		t.Fatal(err)
	}
	bad, err := ParseFrame("00000011")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Press(Read{Frame: bad, At: start.Add(2 * time.Second)}); !errors.Is(err, ErrKeypad) {
		t.Fatalf("got %v, want ErrKeypad", err)
	}
	if k.digits != [MaxPIN]byte{} {
		t.Error("digits stayed behind")
	}
	if pin, err := typed(t, k, Keypad8Bit, start.Add(3*time.Second), "34#"); err != nil || string(pin.Digits()) != "34" {
		t.Errorf("the next PIN is %v", err)
	}
}

func TestAKeyThatWasRefusedIsNoDigit(t *testing.T) {
	for _, encoding := range []KeypadEncoding{Keypad4Bit, Keypad8Bit} {
		for _, flagged := range []bool{true, false} {
			k := newKeypad(t, encoding)
			if _, err := typed(t, k, encoding, start, "12"); err != nil {
				t.Fatal(err)
			}
			refused := Read{Frame: keyFrame(t, encoding, '3'), At: start.Add(2 * time.Second), Keypad: flagged, Refused: "edges were lost"}
			if pin, err := k.Press(refused); pin != nil || !errors.Is(err, ErrKeypad) {
				t.Errorf("%s: %v, %v; want ErrKeypad", encoding, pin, err)
			}
			if k.digits != [MaxPIN]byte{} {
				t.Errorf("%s: digits stayed behind", encoding)
			}
			if pin, err := k.Press(Read{Frame: keyFrame(t, encoding, '#'), At: start.Add(3 * time.Second)}); pin != nil || err != nil {
				t.Errorf("%s: # after it gives %v, %v", encoding, pin, err)
			}
		}
	}
}

func TestAPINThatWasRefusedIsNone(t *testing.T) {
	frame, err := mustFormat(t, "H10301").Encode(Credential{Format: "H10301", Number: 1234})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		flagged bool
		want    error
	}{{true, ErrKeypad}, {false, ErrNotKey}} { // what is not flagged may be a card
		pin, err := newKeypad(t, Keypad26Bit).Press(Read{Frame: frame, At: start, Keypad: tt.flagged, Refused: "too slow"})
		if pin != nil || !errors.Is(err, tt.want) {
			t.Errorf("flagged %v: %v, %v; want %v", tt.flagged, pin, err, tt.want)
		}
	}
}

func TestWhatWasTypedCanBeForgotten(t *testing.T) {
	k := newKeypad(t, Keypad4Bit)
	if _, err := typed(t, k, Keypad4Bit, start, "12"); err != nil {
		t.Fatal(err)
	}
	if k.Forget(); k.digits != [MaxPIN]byte{} {
		t.Error("digits stayed behind")
	}
	if pin, err := typed(t, k, Keypad4Bit, start.Add(time.Second), "3#"); err != nil || string(pin.Digits()) != "3" {
		t.Errorf("they are part of the next PIN: %v", err)
	}
}

func TestACardBetweenKeysChangesNothing(t *testing.T) {
	k := newKeypad(t, Keypad4Bit)
	if _, err := typed(t, k, Keypad4Bit, start, "12"); err != nil {
		t.Fatal(err)
	}
	card, err := ParseFrame("10111101100010001110101110")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Press(Read{Frame: card, At: start.Add(2 * time.Second)}); !errors.Is(err, ErrNotKey) {
		t.Fatalf("got %v, want ErrNotKey", err)
	}
	if pin, err := typed(t, k, Keypad4Bit, start.Add(3*time.Second), "3#"); err != nil || string(pin.Digits()) != "123" {
		t.Errorf("the PIN was lost: %v", err)
	}
}

func TestDigitsLeftStandingAreZeroedAtTheTimeOut(t *testing.T) {
	k := newKeypad(t, Keypad4Bit)
	if _, ok := k.Next(); ok {
		t.Error("an empty keypad wants a tick")
	}
	if _, err := typed(t, k, Keypad4Bit, start, "12"); err != nil {
		t.Fatal(err)
	}
	due, ok := k.Next()
	if want := start.Add(time.Second + 5*time.Second); !ok || !due.Equal(want) {
		t.Fatalf("the tick is due at %v, not %v", due, want)
	}
	if k.Expire(due.Add(-1)) {
		t.Error("it expired early")
	}
	if !k.Expire(due) || k.digits != [MaxPIN]byte{} {
		t.Error("the digits were not zeroed at the time-out")
	}
	if k.Expire(due) {
		t.Error("it expired twice")
	}
	// Without a tick in between, a late key begins anew all the same.
	if _, err := typed(t, k, Keypad4Bit, start, "12"); err != nil {
		t.Fatal(err)
	}
	if pin, err := typed(t, k, Keypad4Bit, start.Add(time.Minute), "34#"); err != nil || string(pin.Digits()) != "34" {
		t.Errorf("digits from before the time-out are part of the PIN: %v", err)
	}
}

func TestAnEntryOverTheLongestPINIsRefusedWhole(t *testing.T) {
	k := newKeypad(t, Keypad4Bit)
	pin, err := typed(t, k, Keypad4Bit, start, strings.Repeat("7", MaxPIN+3)+"#")
	if pin != nil || !errors.Is(err, ErrKeypad) {
		t.Errorf("got %v, %v; want ErrKeypad", pin, err)
	}
	if pin, err := typed(t, k, Keypad4Bit, start.Add(time.Minute), "12#"); err != nil || string(pin.Digits()) != "12" {
		t.Errorf("the next PIN is refused: %v", err)
	}
}

func TestA26BitPIN(t *testing.T) {
	f := mustFormat(t, "H10301")
	for _, tt := range []struct {
		facility, number uint64
		want             string
		err              error
	}{
		{0, 1234, "1234", nil},
		{0, 12, "12", nil}, // 0012 as well: the wire has no leading zeros
		{0, 0, "0", nil},
		{0, 65534, "65534", nil},
		{0, 65535, "", ErrKeypad},
		{123, 1234, "", ErrNotKey},
	} {
		frame, err := f.Encode(Credential{Format: "H10301", Facility: tt.facility, Number: tt.number})
		if err != nil {
			t.Fatal(err)
		}
		pin, err := newKeypad(t, Keypad26Bit).Press(Read{Frame: frame, At: start})
		got := ""
		if pin != nil {
			got = string(pin.Digits())
		}
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%d/%d: %q, %v", tt.facility, tt.number, got, err)
		}
	}
	bad, err := ParseFrame("10000000000000000000000010")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newKeypad(t, Keypad26Bit).Press(Read{Frame: bad, At: start}); !errors.Is(err, ErrNotKey) {
		t.Errorf("bad parity: %v", err)
	}
}

func TestAPINIsNeverPrinted(t *testing.T) {
	k := newKeypad(t, Keypad4Bit)
	typedPIN := "8642"
	if _, err := typed(t, k, Keypad4Bit, start, typedPIN); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	show := func(v any) {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%c"} {
			fmt.Fprintf(&b, verb+" ", v)
		}
		slog.New(slog.NewJSONHandler(&b, nil)).Info("", "v", v)
		slog.New(slog.NewTextHandler(&b, nil)).Info("", "v", v)
	}
	show(k)
	pin, err := typed(t, k, Keypad4Bit, start.Add(4*time.Second), "#")
	if err != nil {
		t.Fatal(err)
	}
	show(pin)
	show(*pin)
	show(struct{ P *PIN }{pin})
	for _, secret := range []string{typedPIN, "38363432", "[56 54 52 50]", strconv.Quote("8")} {
		if strings.Contains(b.String(), secret) {
			t.Errorf("%q is in what was printed", secret)
		}
	}
	pin.Clear()
	if bytes.ContainsAny(pin.Digits(), "123456789") {
		t.Error("Clear left digits")
	}
	if k.digits != [MaxPIN]byte{} {
		t.Error("the keypad kept the digits of a PIN that it gave out")
	}
}

func TestAKeypadThatCannotWorkIsRefused(t *testing.T) {
	if _, err := NewKeypad("6-bit", 0, time.Second); err == nil {
		t.Error("an unknown encoding was taken")
	}
	if _, err := NewKeypad(Keypad4Bit, 0, 0); err == nil {
		t.Error("a time-out of zero was taken")
	}
}

// A model: what stands since the last * or #, or a pause, is the PIN.
func TestAPINIsWhatWasTypedSinceTheLastStarHashOrPause(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		encoding := rapid.SampledFrom([]KeypadEncoding{Keypad4Bit, Keypad8Bit}).Draw(rt, "encoding")
		k := newKeypad(t, encoding)
		now, model := start, ""
		for _, press := range rapid.SliceOfN(rapid.IntRange(0, 100), 0, 60).Draw(rt, "presses") {
			pause := time.Second
			if press%10 == 9 {
				pause = 5 * time.Second
			}
			now = now.Add(pause)
			if pause >= 5*time.Second {
				model = ""
			}
			key := rune(keys[press%len(keys)])
			pin, err := k.Press(Read{Frame: keyFrame(t, encoding, key), At: now})
			switch key {
			case '*':
				model = ""
			case '#':
				switch {
				case len(model) > MaxPIN:
					if !errors.Is(err, ErrKeypad) {
						rt.Fatalf("a PIN of %d digits: %v", len(model), err)
					}
				case (pin == nil) != (model == ""), pin != nil && string(pin.Digits()) != model, err != nil:
					rt.Fatalf("not the PIN of %d digits that was typed: %v", len(model), err)
				}
				model = ""
				continue
			default:
				model += string(key)
			}
			if pin != nil || err != nil {
				rt.Fatalf("%c gave a PIN or an error: %v", key, err)
			}
		}
	})
}

func FuzzKeypad(f *testing.F) {
	f.Add("0001", "1011", 0)
	f.Add("11100001", "01001011", 1)
	f.Add("00000000000000000000000010", "10111101100010001110101110", 2)
	f.Fuzz(func(t *testing.T, first, second string, encoding int) {
		k := newKeypad(t, []KeypadEncoding{Keypad4Bit, Keypad8Bit, Keypad26Bit}[uint(encoding)%3])
		for _, bits := range []string{first, second} {
			frame, err := ParseFrame(bits)
			if err != nil {
				return
			}
			pin, err := k.Press(Read{Frame: frame, At: start})
			if pin != nil && err != nil {
				t.Fatal("a PIN and an error at once")
			}
			if pin != nil && len(bytes.Trim(pin.Digits(), "0123456789")) > 0 {
				t.Fatal("a PIN of other characters than digits")
			}
			if err != nil && !errors.Is(err, ErrNotKey) && !errors.Is(err, ErrKeypad) {
				t.Fatal(err)
			}
		}
	})
}
