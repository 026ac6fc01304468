package registry

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"net/url"
)

// totpSecret is the length of a secret in bytes, that of SHA-1's sum (RFC 4226,
// section 4).
const totpSecret = 20

// GiveTOTP makes a new secret for the one-time codes of RFC 6238 (SHA-1, 6 digits,
// 30 s) that the person's device shows, in the place of one that they had. It is
// returned this once, as an otpauth URI that devices read: it is to be shown to
// whoever asked, and nowhere else. The URI names the person by id. Version is as of
// Update.
func (r *Registry) GiveTOTP(ctx context.Context, c Change, person string, version uint64) (row Row[Person], uri string, err error) {
	secret := make([]byte, totpSecret)
	rand.Read(secret) // never fails
	row, err = r.People.Update(ctx, c, person, version, func(p *Person) error {
		p.setOwn(func(o *own) { o.TOTP = secret })
		return nil
	})
	if err != nil {
		return row, "", err
	}
	return row, otpauth(person, secret), nil
}

// ForgetTOTP takes the person's one-time codes away.
func (p *Person) ForgetTOTP() { p.setOwn(func(o *own) { o.TOTP = nil }) }

const totpIssuer = "Gatehouse"

// otpauth is the URI in the form that the authenticators of telephones read.
func otpauth(person string, secret []byte) string {
	return fmt.Sprintf("otpauth://totp/%s:%s?secret=%s&issuer=%[1]s&algorithm=SHA1&digits=6&period=30", totpIssuer, url.PathEscape(person), encodeTOTP(secret))
}

func encodeTOTP(secret []byte) string {
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(secret)
}
