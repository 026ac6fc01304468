package osdp

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var commands = []struct {
	command Command
	data    string
}{
	{Poll{}, ""}, {GetID{}, "00"}, {GetCapabilities{}, "00"},
	{GetLocalStatus{}, ""}, {GetInputs{}, ""}, {GetOutputs{}, ""}, {GetReaders{}, ""}, {Abort{}, ""},
	{SetOutputs{{1, OutputOnTimed, 0x0132}, {2, OutputOffAbort, 0}}, "01 05 3201 02 01 0000"},
	{SetLEDs{{Reader: 0, LED: 1, Temporary: LEDSet, Flash: Flash{2, 3, Green, Black}, Timer: 30, Permanent: true, Steady: Flash{5, 0, Red, Red}}},
		"00 01 02 02 03 02 00 1E00 01 05 00 01 01"},
	{Buzz{0, ToneDefault, 2, 1, 3}, "00 02 02 01 03"},
	{ShowText{Reader: 0, Mode: TextTemporary, Seconds: 5, Row: 1, Column: 2, Text: "Hi"}, "00 03 05 01 02 02 4869"},
	{SetComm{9, 115200}, "09 00C20100"},
	{SetKey{DefaultKey()}, "01 10 303132333435363738393A3B3C3D3E3F"},
	{Challenge{[8]byte{1, 2, 3, 4, 5, 6, 7, 8}}, "0102030405060708"},
	{ServerCryptogram{[16]byte{15: 7}}, "00000000000000000000000000000007"},
	{SetReceiveSize{1024}, "0004"}, {KeepActive{7000}, "581B"},
	{FileTransfer{FileTemplate, 300, 256, Secret{1, 2}}, "02 2C010000 00010000 0200 0102"},
	{BioRead{0, LeftIris, BioFormatDefault, 50}, "00 0D 00 32"},
	{BioMatch{0, RightIndex, BioFormatANSI378, 0x80, Secret{7, 8, 9}}, "00 02 02 80 0300 070809"},
	{Manufacturer{[3]byte{1, 2, 3}, Secret{4, 5}}, "010203 0405"},
	{OtherCommand{CodeXWR, Secret{1}}, "01"},
}

func TestCommandsHaveTheLayoutOfTheStandard(t *testing.T) {
	for _, test := range commands {
		t.Run(test.command.Command().String(), func(t *testing.T) {
			got, err := test.command.AppendBinary(nil)
			if err != nil {
				t.Fatal(err)
			}
			if want := unhex(t, test.data); !bytes.Equal(got, want) {
				t.Errorf("written % X\nwant    % X", got, want)
			}
			back, err := ParseCommand(test.command.Command(), got)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.command, back); diff != "" {
				t.Errorf("-written +read:\n%s", diff)
			}
		})
	}
}

var replies = []struct {
	reply Reply
	data  string
}{
	{ACK{}, ""}, {Busy{}, ""}, {NAK{NAKBioType, nil}, "07"}, {NAK{0x99, Secret{1, 2}}, "99 0102"},
	{ID{[3]byte{1, 2, 3}, 4, 5, 0x06070809, [3]byte{10, 11, 12}}, "010203 04 05 09080706 0A0B0C"},
	{Capabilities{{FunctionBiometrics, 3, 1}, {FunctionReceiveSize, 0, 2}}, "0E0301 0A0002"},
	{LocalStatus{Tamper: true}, "01 00"}, {LocalStatus{PowerFail: true}, "00 01"},
	{Inputs{InputInactive, InputActive, InputShort, InputOpen, InputFault, InputUnknown}, "00 01 02 03 04 05"},
	{Outputs{true, false}, "01 00"}, {Readers{ReaderOK, ReaderAbsent, ReaderTamper}, "00 01 02"},
	{Card{0, CardWiegand, 26, Secret{0xBD, 0x88, 0x8E, 0x80}}, "00 01 1A00 BD888E80"},
	{FormattedCard{0, true, Secret("123")}, "00 01 03 313233"},
	{Keypad{1, Secret("12*#")}, "01 04 31327F0D"},
	{Comm{5, 115200}, "05 00C20100"},
	{BioTemplate{0, BioOK, RightIris, 90, Secret{0x46, 0x4D}}, "00 00 0B 5A 0200 464D"},
	{BioScore{0, BioTimeout, 0x7F}, "00 01 7F"},
	{ClientCryptogram{[8]byte{1}, [8]byte{2}, [16]byte{3}}, "0100000000000000 0200000000000000 03000000000000000000000000000000"},
	{InitialRMAC{[16]byte{4}}, "04000000000000000000000000000000"},
	{FileStatus{Interleave: true, PollReply: true, Delay: 1500e6, Status: FileMalformed, NewMax: 64}, "05 DC05 FDFF 4000"},
	{ManufacturerReply{[3]byte{1, 2, 3}, Secret{4}}, "010203 04"},
	{OtherReply{CodeXRD, Secret{1, 2, 3}}, "010203"},
}

func TestRepliesHaveTheLayoutOfTheStandard(t *testing.T) {
	for _, test := range replies {
		t.Run(test.reply.Reply().String(), func(t *testing.T) {
			got, err := test.reply.AppendBinary(nil)
			if err != nil {
				t.Fatal(err)
			}
			if want := unhex(t, test.data); !bytes.Equal(got, want) {
				t.Errorf("written % X\nwant    % X", got, want)
			}
			back, err := ParseReply(test.reply.Reply(), got)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.reply, back); diff != "" {
				t.Errorf("-written +read:\n%s", diff)
			}
		})
	}
}

func TestAMessageOfTheWrongLengthIsRefused(t *testing.T) {
	for _, test := range []struct {
		reply ReplyCode
		data  string
	}{
		{CodeACK, "00"}, {CodeNAK, ""}, {CodePDID, "0102030405060708090A0B"}, {CodePDCAP, "0102"}, {CodeLSTATR, "01"},
		{CodeRAW, "00 01 1A00 BD888E"}, {CodeRAW, "00 01 1A00 BD888E8000"}, {CodeKEYPAD, "00 03 3132"}, {CodeKEYPAD, "00 01 3132"},
		{CodeBIOREADR, "00 00 01 50 0500 01020304"}, {CodeBIOMATCHR, "0000"}, {CodeCCRYPT, "00"}, {CodeFTSTAT, "00 0000 0000"},
	} {
		_, err := ParseReply(test.reply, unhex(t, test.data))
		if !errors.Is(err, ErrMessage) {
			t.Errorf("%v of %q: %v, want ErrMessage", test.reply, test.data, err)
		}
	}
	for _, test := range []struct {
		command CommandCode
		data    string
	}{
		{CodePOLL, "00"}, {CodeID, ""}, {CodeID, "01"}, {CodeOUT, ""}, {CodeOUT, "010203"}, {CodeLED, "00"},
		{CodeLED, "00 01 02 02 03 02 00 1E00 02 05 00 01 01"}, {CodeKEYSET, "02 10 303132333435363738393A3B3C3D3E3F"},
		{CodeKEYSET, "01 0F 303132333435363738393A3B3C3D3E"}, {CodeBIOMATCH, "00 02 02 80 0400 070809"},
	} {
		_, err := ParseCommand(test.command, unhex(t, test.data))
		if !errors.Is(err, ErrMessage) {
			t.Errorf("%v of %q: %v, want ErrMessage", test.command, test.data, err)
		}
	}
}

func TestACardHasNoBitsBehindItsLast(t *testing.T) {
	m, err := ParseReply(CodeRAW, unhex(t, "00 00 1A00 BD888EFF"))
	if err != nil {
		t.Fatal(err)
	}
	if got := m.(Card).Data[3]; got != 0xC0 {
		t.Errorf("the last byte is %#02x, want 0xc0", got)
	}
}

func TestAKeypadsKeysAreReadInEitherSpelling(t *testing.T) {
	for _, data := range []string{"00 03 31 7F 0D", "00 03 31 2A 23"} {
		m, err := ParseReply(CodeKEYPAD, unhex(t, data))
		if err != nil {
			t.Fatal(err)
		}
		if got := string(m.(Keypad).Keys); got != "1*#" {
			t.Errorf("%s: keys %q, want 1*#", data, got)
		}
	}
}

func TestAScoreIsAMatchOnlyWhenTheScanWentWell(t *testing.T) {
	for _, test := range []struct {
		m         BioScore
		threshold byte
		want      bool
	}{
		{BioScore{0, BioOK, 0x80}, 0x80, true},
		{BioScore{0, BioOK, 0x7F}, 0x80, false},
		{BioScore{0, BioTimeout, 0xFF}, 0x80, false},
		{BioScore{0, BioUnknown, 0xFF}, 0, false},
		{BioScore{0, BioOK, 0}, 0, false},
	} {
		if got := test.m.Matches(test.threshold); got != test.want {
			t.Errorf("%+v at %d: %v", test.m, test.threshold, got)
		}
	}
}

func TestANAKIsAnErrorOfItsCode(t *testing.T) {
	err := fmt.Errorf("scan: %w", NAK{Code: NAKBioFormat})
	if !errors.Is(err, NAKBioFormat) || errors.Is(err, NAKBioType) {
		t.Errorf("%v is not only NAKBioFormat", err)
	}
	var nak NAK
	if !errors.As(err, &nak) || nak.Code != NAKBioFormat {
		t.Errorf("%v is no NAK", err)
	}
}

// No way of printing may show what a card, a keypad, a scanner or a key store
// gave.
func TestSecretsAreNeverPrinted(t *testing.T) {
	secret := Secret("\xC0\xFF\xEE1234567890secret")
	key := Key(secret[:16])
	frame := Frame{Control: ControlCRC, Code: byte(CodeMFG), Data: secret}
	for _, v := range []any{
		secret, key, &key, frame, &frame, Card{Data: secret}, Keypad{Keys: secret}, BioTemplate{Template: secret}, BioMatch{Template: secret},
		FileTransfer{Data: secret}, SetKey{key}, []any{SetKey{key}}, Manufacturer{Data: secret}, OtherReply{Data: secret}, NAK{Detail: secret},
		NewSecureChannel(key, [8]byte{}, [8]byte{}), map[string]Key{"a": key}, Event{Reply: Card{Data: secret}},
	} {
		var out strings.Builder
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "% x"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		log := slog.New(slog.NewJSONHandler(&out, nil))
		log.Info("x", "v", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		if b, err := json.Marshal(v); err == nil {
			out.Write(b)
		}
		text := strings.ToLower(strings.ReplaceAll(out.String(), " ", ""))
		for _, trace := range []string{"c0ffee", "1234567890", hex.EncodeToString(secret[5:9]), "wp/umt", "192,255,238", "192255238"} {
			if strings.Contains(text, trace) {
				t.Errorf("%T shows its secret: %s", v, out.String())
				break
			}
		}
	}
}
