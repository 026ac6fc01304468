package osdp

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The frames of Annex E of the standard.
func TestFramesAreThoseOfAnnexE(t *testing.T) {
	for _, test := range []struct {
		name  string
		frame Frame
		want  string
	}{
		{"COMSET to all, CRC", Frame{Address: 0x7F, Control: ControlCRC, Code: byte(CodeCOMSET), Data: unhex(t, "00 80 25 00 00")},
			"53 7F 0D 00 04 6E 00 80 25 00 00 6E 38"},
		{"ID, CRC", Frame{Control: ControlCRC, Code: byte(CodeID), Data: Secret{0}}, "53 00 09 00 04 61 00 C0 66"},
		{"COMSET to all, checksum", Frame{Address: 0x7F, Code: byte(CodeCOMSET), Data: unhex(t, "00 80 25 00 00")},
			"53 7F 0C 00 00 6E 00 80 25 00 00 0F"},
		{"ID, checksum", Frame{Code: byte(CodeID), Data: Secret{0}}, "53 00 08 00 00 61 00 44"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := test.frame.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			if want := unhex(t, test.want); !bytes.Equal(got, want) {
				t.Errorf("made % X\nwant % X", got, want)
			}
			back, err := ParseFrame(got)
			if err != nil {
				t.Fatal(err)
			}
			if again, _ := back.Bytes(); !bytes.Equal(again, got) {
				t.Errorf("read and made again it is % X", again)
			}
		})
	}
}

// The session of Annex E: the default key, random numbers B0… and A0….
func annexE() *SecureChannel {
	var a, b [8]byte
	for i := range a {
		a[i], b[i] = 0xB0+byte(i), 0xA0+byte(i)
	}
	return NewSecureChannel(DefaultKey(), a, b)
}

func TestTheSecureChannelIsThatOfAnnexE(t *testing.T) {
	if key := DefaultKey(); !bytes.Equal(key[:], unhex(t, "303132333435363738393A3B3C3D3E3F")) {
		t.Error("the default key is another one")
	}
	s := annexE()
	client, server, rmac := s.ClientCryptogram(), s.ServerCryptogram(), s.InitialRMAC()
	for _, test := range []struct {
		what string
		got  []byte
		want string
	}{
		{"client cryptogram", client[:], "FDE5D2F428EC16312471EA3C02BD7796"},
		{"server cryptogram", server[:], "26D3356E07762D262801FC8E6665A891"},
		{"R-MAC I", rmac[:], "B2A30057EB98BA2229EC1F875662B524"},
	} {
		if want := unhex(t, test.want); !bytes.Equal(test.got, want) {
			t.Errorf("%s %X, want %X", test.what, test.got, want)
		}
	}
	// The session's keys themselves, by what they make of a block of zeros.
	for _, test := range []struct {
		what string
		got  [16]byte
		key  string
	}{
		{"S-MAC1", encryptBlock(s.mac1, [16]byte{}), "5E86C676603BDEE2D8BEAFE178637332"},
		{"S-MAC2", encryptBlock(s.mac2, [16]byte{}), "6FDA86E857777E81132035758239172E"},
		{"S-ENC", encryptBlock(s.enc, [16]byte{}), "BF8DC2A8329ACB8C67C6D0CD9A451682"},
	} {
		if want := encryptBlock(newAES([16]byte(unhex(t, test.key))), [16]byte{}); test.got != want {
			t.Errorf("%s is not %s", test.what, test.key)
		}
	}
}
