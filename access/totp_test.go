package access

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The vectors of RFC 6238, appendix B, for HMAC-SHA-1: of their eight digits the
// last six.
var totpVectors = []struct {
	unix int64
	code string
}{{59, "287082"}, {1111111109, "081804"}, {1111111111, "050471"}, {1234567890, "005924"}, {2000000000, "279037"}, {20000000000, "353130"}}

var totpSecret = []byte("12345678901234567890")

func TestTOTPIsThatOfTheStandard(t *testing.T) {
	for _, v := range totpVectors {
		step, ok := CheckTOTP(totpSecret, []byte(v.code), time.Unix(v.unix, 0), 0)
		if want := uint64(v.unix / 30); !ok || step != want {
			t.Errorf("at %d: step %d, %v", v.unix, step, ok)
		}
	}
}

func TestATOTPIsTakenOnceAndOnlyInItsTime(t *testing.T) {
	const step = 1111111109 / 30 // it ends at 1111111110
	code := []byte("081804")
	for name, c := range map[string]struct {
		secret, digits []byte
		unix           int64
		last           uint64
		ok             bool
	}{
		"in its step":               {totpSecret, code, 1111111109, 0, true},
		"in the one before":         {totpSecret, code, 1111111050, 0, true},
		"in the one after":          {totpSecret, code, 1111111139, 0, true},
		"two steps early":           {totpSecret, code, 1111111049, 0, false},
		"two steps late":            {totpSecret, code, 1111111140, 0, false},
		"after the step before":     {totpSecret, code, 1111111109, step - 1, true},
		"a second time":             {totpSecret, code, 1111111109, step, false},
		"after a later step":        {totpSecret, code, 1111111109, step + 1, false},
		"another code":              {totpSecret, []byte("081805"), 1111111109, 0, false},
		"too short":                 {totpSecret, code[:5], 1111111109, 0, false},
		"too long":                  {totpSecret, append(code[:6:6], '0'), 1111111109, 0, false},
		"none":                      {totpSecret, nil, 1111111109, 0, false},
		"no secret":                 {nil, code, 1111111109, 0, false},
		"a secret that is short":    {totpSecret[:MinTOTPSecret-1], codeOf(totpSecret[:MinTOTPSecret-1], step), 1111111109, 0, false},
		"a secret that is not":      {totpSecret[:MinTOTPSecret], codeOf(totpSecret[:MinTOTPSecret], step), 1111111109, 0, true},
		"at the beginning of time":  {totpSecret, codeOf(totpSecret, 1), 0, 0, false},
		"before all time":           {totpSecret, codeOf(totpSecret, 1), -1 << 40, 0, false},
		"the zero time, as no time": {totpSecret, codeOf(totpSecret, 1), time.Time{}.Unix(), 0, false},
	} {
		got, ok := CheckTOTP(c.secret, c.digits, time.Unix(c.unix, 0), c.last)
		if ok != c.ok || ok && got != step || !ok && got != 0 {
			t.Errorf("%s: step %d, %v", name, got, ok)
		}
	}
}

func codeOf(secret []byte, step uint64) []byte {
	code := totp(secret, step)
	return code[:]
}

// However a code and its time are drawn, what was accepted is never accepted again.
func TestNoTOTPIsAcceptedTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secret := rapid.SliceOfN(rapid.Byte(), MinTOTPSecret, MaxTOTPSecret).Draw(t, "secret")
		var last uint64
		seen := make(map[uint64]bool)
		for range 20 {
			at := rapid.Int64Range(300, 900).Draw(t, "at")
			shown := uint64(rapid.Int64Range(at/30-2, at/30+2).Draw(t, "step"))
			step, ok := CheckTOTP(secret, codeOf(secret, shown), time.Unix(at, 0), last)
			if !ok {
				continue
			}
			if seen[step] || step <= last || step > uint64(at/30)+1 || step < uint64(at/30)-1 {
				t.Fatalf("step %d at %d after %d", step, at, last)
			}
			seen[step], last = true, step
		}
	})
}
