package test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	database "database/sql"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-acs/gatehouse/test/rig"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	_ "github.com/mattn/go-sqlite3"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

// output runs a program to its end and returns what it said.
func output(t *testing.T, name string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*rig.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// TestABadgeBecomesACountersignedRecord plays the demo's story with the real
// programs, and then holds what they left on disk to what is published.
func TestABadgeBecomesACountersignedRecord(t *testing.T) {
	t.Parallel()
	bin := rig.Programs(t)
	data := filepath.Join(t.TempDir(), "site")
	stdout, stderr, err := output(t, filepath.Join(bin, "gatehouse-demo"), "--once", "--data", data)
	if err != nil {
		t.Fatalf("the story: %v\n%s%s", err, stdout, stderr)
	}
	for _, want := range []string{
		"denied: revoked", "denied: lost", "denied: out of schedule", "denied: unknown", "forced", "held", "nothing was lost", "differences 0",
		"granted, badge and fingerprint", "granted, badge and iris", "denied: factor mismatch", "denied: factor missing", "denied: factor unavailable",
		"duress", "broken: ", "works again", "was added at the CRM", "has left, and every door says that it knows",
		"a lockdown was ordered at the CRM", "denied: lockdown", "the lockdown was ended at the CRM",
		"a visit was planned at the CRM", "denied: escort missing", "granted, with Ada Lovelace", "together with p-1001, escort", "look at the cooling",
		"a code opens once",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("the story does not tell %q:\n%s", want, stdout)
		}
	}
	gatehouse, crm := filepath.Join(bin, "gatehouse"), filepath.Join(bin, "gatehouse-crm")
	door, central := filepath.Join(data, "door"), filepath.Join(data, "crm")

	t.Run("the records say which factors were given, and how they came out", func(t *testing.T) {
		factorsRecorded(t, filepath.Join(data, "gatehouse.ndjson"))
	})
	t.Run("every record is as its schema says", func(t *testing.T) { recordsFitSchema(t, filepath.Join(data, "gatehouse.ndjson")) })
	t.Run("a stock JOSE library verifies the records", func(t *testing.T) {
		joseVerifies(t, gatehouse, door, filepath.Join(data, "gatehouse-crm.ndjson"))
	})
	t.Run("anybody can check the proof of a record", func(t *testing.T) { proofsHold(t, bin, data) })
	t.Run("what names people or cards is nowhere in clear", func(t *testing.T) { nothingInClear(t, data) })
	t.Run("the door's log with a changed byte does not verify", func(t *testing.T) {
		changed := filepath.Join(t.TempDir(), "door")
		if err := os.CopyFS(changed, os.DirFS(door)); err != nil {
			t.Fatal(err)
		}
		private(t, changed)
		sql(t, filepath.Join(changed, "records.db"), `UPDATE rec SET leaf = zeroblob(32) WHERE seq = 7`)
		_, stderr, err := output(t, gatehouse, "log", "verify", "--data", changed)
		if err == nil || !strings.Contains(stderr, "7") {
			t.Errorf("verify: %v, %s; want exit 1 and record 7 named", err, stderr)
		}
	})
	t.Run("the CRM's log with a changed byte does not verify", func(t *testing.T) {
		changed := filepath.Join(t.TempDir(), "crm")
		if err := os.CopyFS(changed, os.DirFS(central)); err != nil {
			t.Fatal(err)
		}
		private(t, changed)
		sql(t, filepath.Join(changed, "central.db"), `UPDATE records SET jws = replace(jws, '.', 'A.') WHERE seq = 7`)
		_, stderr, err := output(t, crm, "log", "verify", "--data", changed)
		if err == nil || !strings.Contains(stderr, "7") {
			t.Errorf("verify: %v, %s; want exit 1 and record 7 named", err, stderr)
		}
	})
}

// private makes what a copy made readable to others the owner's alone.
func private(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return os.Chmod(path, 0o700)
		}
		return os.Chmod(path, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// exported are the records of an export.
func exported(t *testing.T, path string) (records []string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line struct{ JWS string }
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		if line.JWS != "" {
			records = append(records, line.JWS)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if len(records) < 25 {
		t.Fatalf("%s has %d records: the story makes more", path, len(records))
	}
	return records
}

// payload is what a record says, as JSON.
func payload(t *testing.T, jws string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(strings.Split(jws, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// factorsRecorded holds that the story's second factors are in the records, with
// who enrolled them, and without anything of what was compared.
func factorsRecorded(t *testing.T, path string) {
	seen := map[string]int{}
	for _, jws := range exported(t, path) {
		text := payload(t, jws)
		var r struct {
			Type    visitorlog.Type
			Subject string
			Data    visitorlog.Data
		}
		if err := json.Unmarshal(text, &r); err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{"score", "template"} {
			if bytes.Contains(bytes.ToLower(text), []byte(word)) {
				t.Errorf("a record speaks of a %s: %s", word, text)
			}
		}
		d := r.Data
		what := string(r.Type)
		switch r.Type {
		case visitorlog.DecisionGranted, visitorlog.DecisionDenied:
			if d.Door != "server-room-c" && d.Door != "server-room-d" {
				continue
			}
			what = fmt.Sprintf("%s %s %s:", d.Door, d.Reason, strings.Join(d.Factors, "+"))
			for _, o := range slices.Compact(d.Outcomes) { // a wrong finger may be tried again
				what += fmt.Sprintf(" %s %s at %s", o.Factor, o.Outcome, o.Reader)
			}
		case visitorlog.EnrollmentMade:
			e := d.Enrollment
			what = fmt.Sprintf("%s %s at %s by %s and %s", r.Type, strings.Join(e.Parts, "+"), e.Scanner, e.Operator, e.Approver)
		case visitorlog.ReaderFault:
			what = fmt.Sprintf("%s %s %t", r.Type, d.Reader, *d.Active)
		}
		seen[what]++
	}
	for _, want := range []string{
		"server-room-c granted badge+fingerprint: badge proved at c-in fingerprint proved at c-finger",
		"server-room-c factor_mismatch badge: badge proved at c-in fingerprint no_match at c-finger",
		"server-room-c factor_missing badge: badge proved at c-in fingerprint missing at c-finger",
		"server-room-c factor_unavailable badge: badge proved at c-in fingerprint unavailable at c-finger",
		"server-room-c granted_duress badge+fingerprint: badge proved at c-in fingerprint proved at c-finger",
		"server-room-d granted badge+iris: badge proved at d-in iris proved at d-eye",
		"gatehouse.enrollment.made right-index+left-little at c-finger by p-1003 and p-1004",
		"gatehouse.enrollment.made right-iris at d-eye by p-1003 and p-1004",
		"gatehouse.reader.provisioned", "gatehouse.duress",
		"gatehouse.reader.fault d-in true", "gatehouse.reader.fault d-in false",
		"gatehouse.reader.fault d-eye true", "gatehouse.reader.fault d-eye false",
	} {
		if seen[want] == 0 {
			t.Errorf("no record says %q: they say %v", want, seen)
		}
	}
}

func recordsFitSchema(t *testing.T, path string) {
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	schema, err := c.Compile(filepath.Join("..", "configs", "record.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, jws := range exported(t, path) {
		text := payload(t, jws)
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(v); err != nil {
			t.Errorf("%s\n%v", text, err)
		}
	}
}

// joseVerifies verifies what the CRM exported with npm's jose and the
// controller's published keys, as a CRM's developer would.
func joseVerifies(t *testing.T, gatehouse, door, records string) {
	dir := t.TempDir()
	for _, name := range []string{"package.json", "verify.mjs"} {
		copyFile(t, filepath.Join("jose", name), filepath.Join(dir, name))
	}
	npm := exec.CommandContext(t.Context(), "npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--silent")
	npm.Dir = dir
	if out, err := npm.CombinedOutput(); err != nil {
		t.Fatalf("npm install: %v\n%s", err, out)
	}
	shown, stderr, err := output(t, gatehouse, "keys", "show", "--json", "--data", door)
	if err != nil {
		t.Fatalf("keys show: %v\n%s", err, stderr)
	}
	var keys struct{ JWKS json.RawMessage }
	if err := json.Unmarshal([]byte(shown), &keys); err != nil {
		t.Fatal(err)
	}
	jwks := filepath.Join(dir, "jwks.json")
	if err := os.WriteFile(jwks, keys.JWKS, 0o600); err != nil {
		t.Fatal(err)
	}
	verify := func(records string) (string, error) {
		stdout, stderr, err := output(t, "node", filepath.Join(dir, "verify.mjs"), jwks, records)
		return stdout + stderr, err
	}
	said, err := verify(records)
	if want := fmt.Sprintf("%d verified", len(exported(t, records))); err != nil || !strings.Contains(said, want) {
		t.Errorf("jose: %v, %s; want %q", err, said, want)
	}

	text, err := os.ReadFile(records)
	if err != nil {
		t.Fatal(err)
	}
	one := exported(t, records)[3]
	other := []byte(one)
	other[len(other)/2] ^= 1 // in the payload; still base64url or not, it is not what was signed
	changed := filepath.Join(dir, "changed.ndjson")
	if err := os.WriteFile(changed, bytes.Replace(text, []byte(one), other, 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if said, err := verify(changed); err == nil {
		t.Errorf("jose verified a changed record: %s", said)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// nothingInClear looks for people and cards in everything that the programs
// wrote: databases, logs, exports. What the demo itself wrote for them to read
// is left out.
func nothingInClear(t *testing.T, data string) {
	// What the simulated reader itself keeps of its key, and what it sends of an
	// eye.
	key, err := os.ReadFile(filepath.Join(data, "reader-d.key"))
	if err != nil || len(key) != 16 {
		t.Fatalf("the reader's key has %d bytes: %v", len(key), err)
	}
	eye := sha256.Sum256([]byte("p-1001 right-iris"))
	looked := 0
	err = filepath.WalkDir(data, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || d.Name() == "reader-d.key" {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		b, err := io.ReadAll(f)
		if err != nil {
			return err
		}
		looked++
		for _, secret := range []string{
			"Lovelace", "Turing", // names
			"10111101100010001110101110", // a card's frame
			string(key), hex.EncodeToString(key), base64.StdEncoding.EncodeToString(key),
			string(eye[:]), hex.EncodeToString(eye[:]), base64.StdEncoding.EncodeToString(eye[:]),
		} {
			if bytes.Contains(b, []byte(secret)) {
				t.Errorf("%s holds %q in clear", path, secret)
			}
		}
		if strings.HasSuffix(path, "door/records.db") || strings.HasSuffix(path, "door/allowlist.db") || strings.HasSuffix(path, "door/enrolled.db") {
			for _, identifying := range []string{"p-1001", "p-2001", "Bombe Cooling"} {
				if bytes.Contains(b, []byte(identifying)) {
					t.Errorf("%s holds %q in clear", path, identifying)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if looked < 10 {
		t.Errorf("only %d files were looked at", looked)
	}
}

// sql changes a database behind the program's back.
func sql(t *testing.T, path, statement string) {
	t.Helper()
	db, err := database.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if r, err := db.Exec(statement); err != nil {
		t.Fatal(err)
	} else if n, err := r.RowsAffected(); err != nil || n == 0 {
		t.Fatalf("%s changed nothing: %v", statement, err)
	}
}
