package badge

import (
	"bufio"
	"errors"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// readTSV reads a table of testdata with the columns named.
func readTSV(t testing.TB, name string, columns ...string) [][]string {
	t.Helper()
	file, err := os.Open("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var rows [][]string
	for s := bufio.NewScanner(file); s.Scan(); {
		rows = append(rows, strings.Split(s.Text(), "\t"))
	}
	if len(rows) < 2 || !slices.Equal(rows[0], columns) {
		t.Fatalf("%s does not begin with the columns %v", name, columns)
	}
	return rows[1:]
}

type vector struct {
	credential Credential
	frame      Frame
}

func readVectors(t testing.TB) []vector {
	t.Helper()
	var vectors []vector
	for _, row := range readTSV(t, "wiegand_vectors.tsv", "format", "bits", "facility", "number", "issue", "oem", "frame") {
		var n [5]uint64
		for i := range n {
			v, err := strconv.ParseUint(row[i+1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			n[i] = v
		}
		frame, err := ParseFrame(row[6])
		if err != nil {
			t.Fatal(err)
		}
		if frame.Len() != int(n[0]) {
			t.Fatalf("a vector of %s has %d bits, and says %d", row[0], frame.Len(), n[0])
		}
		vectors = append(vectors, vector{Credential{row[0], n[1], n[2], n[3], n[4]}, frame})
	}
	return vectors
}

func mustFormat(t testing.TB, name string) *Format {
	t.Helper()
	f, ok := Builtin().Format(name)
	if !ok {
		t.Fatalf("there is no format %q", name)
	}
	return f
}

func TestVectorsDecodeAndEncodeToTheLetter(t *testing.T) {
	vectors := readVectors(t)
	seen := map[string]int{}
	for _, v := range vectors {
		f := mustFormat(t, v.credential.Format)
		seen[f.Name()]++
		got, err := f.Decode(v.frame)
		if err != nil || got != v.credential {
			t.Errorf("%s: decoded %s to %+v, %v; want %+v", f.Name(), v.frame.Bits(), got.Number, err, v.credential.Number)
		}
		frame, err := f.Encode(v.credential)
		if err != nil || frame != v.frame {
			t.Errorf("%s: encoded to %s, %v; want %s", f.Name(), frame.Bits(), err, v.frame.Bits())
		}
	}
	// The formats that are not from the vectors' source have tests of their own.
	for _, f := range Builtin().Formats() {
		if _, own := makersFrames[f.Name()]; !own && seen[f.Name()] == 0 {
			t.Errorf("no vector holds %s to anything", f.Name())
		}
	}
}

func TestBadParityIsRefused(t *testing.T) {
	for _, row := range readTSV(t, "wiegand_bad_parity.tsv", "format", "bits", "flipped_bit", "frame") {
		frame, err := ParseFrame(row[3])
		if err != nil {
			t.Fatal(err)
		}
		c, err := mustFormat(t, row[0]).Decode(frame)
		var parity *ParityError
		if !errors.As(err, &parity) {
			t.Errorf("%s with bit %s flipped: got %v, %v; want a parity error", row[0], row[2], c, err)
			continue
		}
		// A parity over other parities fails with theirs, so any of them may be named.
		var named []int
		for _, fault := range err.(*DecodeError).Faults {
			var p *ParityError
			if errors.As(fault, &p) {
				named = append(named, p.Bit)
			}
		}
		if flipped, _ := strconv.Atoi(row[2]); !slices.Contains(named, flipped) {
			t.Errorf("%s: the flipped bit %d is not among those named, %v", row[0], flipped, named)
		}
	}
}

// makersFrames are frames worked out by hand from the makers' layouts, or
// printed in their manuals.
var makersFrames = map[string][]struct {
	frame      string
	credential Credential
}{
	// The same frames as H10301 123/4567 and H10306 123/4567, as one number.
	"ZKTeco26": {{"1 0111101100010001 11010111 0", Credential{Number: 123<<16 | 4567}}},
	"ZKTeco34": {{"0 0000000001111011 0001000111010111 1", Credential{Number: 123<<16 | 4567}}},
	// Odd parity over facility and the number's first bit; even over the rest.
	"ZKTeco36": {{"1 0000000001111011 0001000111010111 10 1", Credential{Facility: 123, Number: 4567, OEM: 2}}},
	// The facility's last bit is under the second parity: five ones, then nine.
	"ZKTeco36a": {{"1 000000000001111011 0001000111010111 0", Credential{Facility: 123, Number: 4567}}},
	"ZKTeco37a": {{"1 101 0000000011 000111 0001000111010111 1", Credential{OEM: 5, Issue: 3, Facility: 7, Number: 4567}}},
	"ZKTeco50":  {{"0 0000000001111011 00000000000000000001000111010111 1", Credential{Facility: 123, Number: 4567}}},
	"AWID50":    {{"0 0000000001111011 00000000000000000001000111010111 1", Credential{Facility: 123, Number: 4567}}},
	// CDVI's NANOPB manual prints this frame for the EM badge 0102166A37.
	"CDVI30": {{"1 0010 0001 0110 0110 1010 0011 0111 1", Credential{Number: 0x2166A37}}},
	// Its 44-bit example: 01001950C3 and the check 3.
	"EM44":      {{"0000 0001 0000 0000 0001 1001 0101 0000 1100 0011 0011", Credential{Number: 0x01001950C3}}},
	"EM32":      {{"0000 0000 0001 1001 0101 0000 1100 0011", Credential{Number: 0x001950C3}}},
	"MIFARE32":  {{"0x04A1B2C3/32", Credential{Number: 0x04A1B2C3}}},
	"MIFARE32R": {{"0xC3B2A104/32", Credential{Number: 0x04A1B2C3}}},
	// 04A1 has four ones, so even parity 0; B2C3 has eight, so odd parity 1.
	"MIFARE34":  {{"0 0000010010100001 1011001011000011 1", Credential{Number: 0x04A1B2C3}}},
	"MIFARE34R": {{"0 1100001110110010 1010000100000100 1", Credential{Number: 0x04A1B2C3}}},
	"MIFARE56":  {{"0x04112233445566/56", Credential{Number: 0x04112233445566}}},
	"MIFARE56R": {{"0x66554433221104/56", Credential{Number: 0x04112233445566}}},
	// The example of NIST's PACS guidance: 0032-0001-092446-0-1-1112223333112232.
	"FASCN200": {{"0xD0439458210C2C19A0846D83685A1082108CE73984108CA3FC/200",
		Credential{Facility: 320001, Number: 9244601, Issue: 1112223333, OEM: 112232}}},
}

func TestMakersFramesDecodeAndEncodeToTheLetter(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(makersFrames)) {
		f := mustFormat(t, name)
		for _, m := range makersFrames[name] {
			frame, err := ParseText(m.frame, 0)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			want := m.credential
			want.Format = name
			if got, err := f.Decode(frame); err != nil || got != want {
				t.Errorf("%s: decoded to %d/%d/%d/%d, %v", name, got.Facility, got.Number, got.Issue, got.OEM, err)
			}
			if got, err := f.Encode(want); err != nil || got != frame {
				t.Errorf("%s: encoded to %s, %v", name, got.Bits(), err)
			}
		}
	}
}
