package access

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/binary"
	"time"
)

// What every device that shows such codes agrees on, as RFC 6238 and RFC 4226
// say: HMAC-SHA-1, six digits, a new code every 30 seconds.
const (
	totpStep   = 30 * time.Second
	totpDigits = 6
	totpMod    = 1_000_000
)

// The length of a TOTP's secret, in bytes: RFC 4226 asks for at least 128 bits.
const MinTOTPSecret, MaxTOTPSecret = 16, 64

// CheckTOTP reports whether digits are the code of RFC 6238 that a device with
// the secret shows at the moment, or one step of 30 seconds before or after it. A
// step opens once: it must be after last, the one that was accepted last; 0: none
// was. The step is what the caller keeps as last from now on; 0 unless ok. A
// secret that is too short has no codes.
//
// It takes the same time whatever the digits are. Whoever calls it must know the
// time: a device's clock says nothing to a controller whose own was never set.
func CheckTOTP(secret, digits []byte, at time.Time, last uint64) (step uint64, ok bool) {
	now := at.Unix() / int64(totpStep/time.Second)
	if now < 1 {
		return 0, false
	}
	found := 0
	for _, s := range [...]uint64{uint64(now) - 1, uint64(now), uint64(now) + 1} {
		code := totp(secret, s)
		same := subtle.ConstantTimeCompare(code[:], digits)
		if s <= last {
			same = 0
		}
		step = uint64(subtle.ConstantTimeSelect(same, int(s), int(step)))
		found |= same
	}
	if found == 0 || len(secret) < MinTOTPSecret {
		return 0, false
	}
	return step, true
}

// totp is the code of one step, in decimal digits.
func totp(secret []byte, step uint64) [totpDigits]byte {
	var counter [8]byte
	binary.BigEndian.PutUint64(counter[:], step)
	mac := hmac.New(sha1.New, secret)
	mac.Write(counter[:])
	sum := mac.Sum(nil)
	n := binary.BigEndian.Uint32(sum[sum[len(sum)-1]&0x0f:]) & 0x7fffffff % totpMod
	var code [totpDigits]byte
	for i := len(code) - 1; i >= 0; i-- {
		code[i] = '0' + byte(n%10)
		n /= 10
	}
	return code
}
