package registry

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
)

func (s *site) imports(csv string) (Imported, error) {
	return s.Import(ctx, by, strings.NewReader(csv), ImportOptions{Zone: must(time.LoadLocation("Europe/Amsterdam"))(s.t)})
}

const people = `person,name,kind,groups,from,until,extended,operator,pin,duress_pin,instead,format,facility,number,state,card_from,card_until,break_glass,biometric
p-1,Ada King,staff,ops,2026-03-01,2026-12-31,yes,yes,271828,314159,fingerprint=pin;iris=pin,H10301,12,4711,lost,,,,
p-1,Ada King,staff,ops,2026-03-01,2026-12-31,yes,yes,271828,314159,fingerprint=pin;iris=pin,H10301,12,4712,,2026-04-01T08:00,2026-05-01,yes,
p-10,Nettie Stevens,contractor,,,,,,,,,,,,,,,,yes
p-11,Ida Noddack,visitor,,,,,,,,,,,,,,,,
`

func TestAnImportAddsAndChangesAndLeavesTheRest(t *testing.T) {
	s := staffed(t)
	got := must(s.imports("\ufeff" + people))(t)
	if want := (Imported{Rows: 4, People: 3, Credentials: 3, Changes: 6}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	ada := must(s.People.Get(ctx, "p-1"))(t)
	want := Person{ID: "p-1", Name: "Ada King", Kind: access.Staff, Groups: []string{"ops"}, Extended: true, Operator: true, HasPIN: true, HasSign: true,
		From: time.Date(2026, 2, 28, 23, 0, 0, 0, time.UTC), Until: time.Date(2026, 12, 31, 23, 0, 0, 0, time.UTC),
		Instead: map[string]string{"fingerprint": "pin", "iris": "pin"}}
	if diff := gocmp.Diff(text(t, want), text(t, ada.Value)); diff != "" || ada.Version != 2 || ada.Value.own.PIN != "271828" || ada.Value.own.Duress != "314159" {
		t.Errorf("version %d: %s", ada.Version, diff)
	}
	if c := must(s.Credentials.Get(ctx, "c-1"))(t).Value; c.State != access.Lost {
		t.Errorf("the card that was there: %s", text(t, c))
	}
	second := must(s.WithCard(ctx, card(4712)))(t).Value
	if second.Person != "p-1" || !second.BreakGlass || !second.From.Equal(time.Date(2026, 4, 1, 6, 0, 0, 0, time.UTC)) ||
		!second.Until.Equal(time.Date(2026, 5, 1, 22, 0, 0, 0, time.UTC)) {
		t.Errorf("the second card: %s", text(t, second))
	}
	if p := must(s.People.Get(ctx, "p-2"))(t); p.Version != 1 {
		t.Error("somebody who is not in the file was changed")
	}
	before := s.verify()
	if again := must(s.imports(people))(t); again.Changes != 0 || s.verify() != before {
		t.Errorf("the same file again: %+v", again)
	}
	// Columns that are not there, and an empty PIN, leave things as they are.
	must(s.imports("person,kind,pin\np-1,staff,\n"))(t)
	if s.verify() != before {
		t.Error("columns that are not there changed something")
	}
	must(s.imports("person,kind,groups\np-1,staff,\n"))(t)
	if p := must(s.People.Get(ctx, "p-1"))(t).Value; p.Groups != nil || p.Name != "Ada King" || !p.HasPIN {
		t.Errorf("after the groups were emptied: %s", text(t, p))
	}
}

func TestAnImportWithAnyFaultChangesNothingAndTellsThemAll(t *testing.T) {
	const head = "person,name,kind,groups,from,until,extended,operator,pin,instead,format,facility,number,state,card_until,biometric\n"
	good := head + "p-20,Good,staff,ops,,,,,,,H10301,12,5000,,,\n"
	for name, tt := range map[string]struct {
		csv  string
		want []string
	}{
		"empty":      {"", []string{"line 1: the file is empty"}},
		"semicolons": {"person;kind\n", []string{"line 1: the columns are separated by semicolons"}},
		"columns":    {"person,colour,person\n", []string{`line 1: column "colour" is not known`, `column "person" is there twice`, `column "kind" is missing`}},
		"width":      {good + "p-21,x\n", []string{"line 3: 2 fields, the heading has 16"}},
		"no CSV":     {good + "p-21,\"x\ny,staff\n", []string{"line 4: extraneous"}},
		"every line's fault": {good + "p 21,,staff,,,,,,,,,,,,,\np-22,,boss,none,yesterday,,perhaps,,12,x,,,,,,\n",
			[]string{`line 3: person: "p 21"`, `line 4: from: "yesterday" is not a time`, `line 4: extended "perhaps": use yes or no`, `line 4: instead "x"`}},
		"what the registry finds": {good + "p-22,,boss,none,2026-02-01,2026-01-01,,,12,,,,,,,\n",
			[]string{`line 3: kind: "boss"`, `line 3: groups: group "none"`, "line 3: until: is not after from", "line 3: pin: is not 4 to 16 digits"}},
		"another description": {good + "p-20,Better,staff,ops,,,,,,,H10301,12,5001,,,\n", []string{`line 3: person "p-20" is described otherwise in line 2`}},
		"the same card":       {good + "p-20,Good,staff,ops,,,,,,,H10301,12,5000,,,\np-23,,staff,,,,,,,,H10301,12,5000,,,\n", []string{"line 3: the same card as in line 2", "line 4: the same card as in line 2 (person p-20)"}},
		"another's card":      {good + "p-23,,staff,,,,,,,,H10301,12,4711,,,\n", []string{"line 3: the card is registered already, as credential c-1 of p-1"}},
		"visitors' badge":     {good + "p-23,,staff,,,,,,,,H10301,12,9001,,,\n", []string{"line 3: the card is registered already, as credential b-1 of visitors"}},
		"half a card": {good + "p-23,,staff,,,,,,,,,12,77123,,,\np-24,,staff,,,,,,,,H10301,,4715,,,\np-25,,staff,,,,,,,,H10301,1,four,,,\np-26,,staff,,,,,,,,,,,lost,,\n",
			[]string{`line 3: format ""`, "line 4: facility is empty", "line 5: number is not a whole number", "line 6: state is given and no card"}},
		"out of range":    {good + "p-23,,staff,,,,,,,,H10301,12,7712399,,,\n", []string{"line 3: number: it is no card of format H10301"}},
		"finger and card": {good + "p-23,,staff,,,,,,,,H10301,12,1,,,yes\n", []string{"line 3: biometric: it stands for"}},
		"never valid":     {good + "p-23,,staff,,2026-05-01,,,,,,H10301,12,1,,2026-04-01,\n", []string{"line 3: until: it would never be valid"}},
		"who has left":    {good + "p-9,,staff,,,,,,,,,,,,,\n", []string{`line 3: person "p-9" has left`}},
	} {
		t.Run(name, func(t *testing.T) {
			s := staffed(t)
			must(s.People.Create(ctx, by, Person{ID: "p-9", Kind: access.Staff}))(t)
			must(s.Leave(ctx, by, "p-9", 0))(t)
			before := s.verify()
			_, err := s.imports(tt.csv)
			faults, ok := errors.AsType[*ImportFaults](err)
			if !ok {
				t.Fatalf("error %v", err)
			}
			for _, want := range tt.want {
				wantError(t, faults, want)
			}
			for _, secret := range []string{"77123", "5000", "4711", "9001"} {
				if strings.Contains(faults.Error(), secret) {
					t.Errorf("a number is told: %v", faults)
				}
			}
			if after := s.verify(); after != before {
				t.Errorf("audit from %v to %v", before.Head, after.Head)
			}
			_, err = s.People.Get(ctx, "p-20")
			wantIs(t, err, ErrNotFound)
		})
	}
}

func TestFaultsBeyondAThousandAreCounted(t *testing.T) {
	s := newSite(t)
	const kept = 50
	_, err := s.imports("person,kind\n" + numbered(kept+8, "p-%d,boss\n"))
	faults, ok := errors.AsType[*ImportFaults](err)
	if !ok || len(faults.List) != kept || faults.More != 8 || !strings.HasSuffix(faults.Error(), "and 8 more") {
		t.Errorf("%d faults and %d more (%v)", len(faults.List), faults.More, ok)
	}
}

func numbered(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

func TestAFileThatCannotBeReadToItsEndChangesNothing(t *testing.T) {
	s := newSite(t)
	broken := errors.New("the stick was pulled")
	_, err := s.Import(ctx, by, io.MultiReader(strings.NewReader("person,kind\n"+numbered(800, "p-%d,staff\n")), failing{broken}), ImportOptions{})
	wantIs(t, err, broken)
	if v := s.verify(); v.Lines != 0 || v.Objects != 0 {
		t.Errorf("%+v", v)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestMain plays the process that is killed in the middle of an import.
func TestMain(m *testing.M) {
	if dir := os.Getenv("REGISTRY_IMPORT"); dir != "" {
		if err := importUntilKilled(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if err := flag.Set("rapid.checks", tries); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

const rowsOfKilled = 2000

func importUntilKilled(dir string) error {
	o, err := keysOf(dir)
	if err != nil {
		return err
	}
	r, err := Open(ctx, filepath.Join(dir, FileName), o)
	if err != nil {
		return err
	}
	n := 0
	_, err = r.Import(ctx, by, strings.NewReader("person,kind,format,facility,number\n"+numbered(rowsOfKilled, "q-%[1]d,staff,H10301,99,%[1]d\n")), ImportOptions{
		Advance: func(int64) {
			if n++; n*progressEvery == rowsOfKilled/2 {
				fmt.Println("half")
				_, _ = os.Stdin.Read(make([]byte, 1)) // and there it stays
			}
		},
	})
	return errors.Join(err, errors.New("nobody killed it"))
}

// keysOf reads the keys in a folder, as two processes need the same ones.
func keysOf(dir string) (Options, error) {
	o := Options{Formats: badge.Builtin(), Clock: time.Now}
	secret, err := os.ReadFile(filepath.Join(dir, "secret"))
	if err != nil {
		return o, err
	}
	if o.Sealer, err = keys.NewSealer(secret, "registry"); err != nil {
		return o, err
	}
	o.Index, err = keys.NewPepper(secret)
	return o, err
}

func TestAProcessThatIsKilledInTheMiddleOfAnImportChangesNothing(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte(strings.Repeat("k", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, path: filepath.Join(dir, FileName), o: must(keysOf(dir))(t)}
	s.open()
	defer func() { s.Close() }()
	must(s.People.Create(ctx, by, Person{ID: "p-1", Kind: access.Staff}))(t)
	before := s.verify()

	child := exec.Command(must(os.Executable())(t))
	child.Env = append(os.Environ(), "REGISTRY_IMPORT="+dir)
	stay := must(child.StdinPipe())(t)
	defer stay.Close()
	out := must(child.StdoutPipe())(t)
	child.Stderr = os.Stderr
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err := errors.Join(child.Process.Kill(), err); err != nil || line != "half\n" {
		t.Errorf("%q, %v", line, err)
	}
	if err := child.Wait(); err == nil || child.ProcessState.Exited() {
		t.Errorf("it was not killed: %v", child.ProcessState)
	}

	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s.open()
	if after := s.verify(); after != before {
		t.Errorf("audit from %v to %v", before.Head, after.Head)
	}
	got := must(s.Import(ctx, by, strings.NewReader("person,kind,format,facility,number\n"+numbered(100, "q-%[1]d,staff,H10301,99,%[1]d\n")), ImportOptions{}))(t)
	if got.Changes != 200 {
		t.Errorf("the import afterwards: %+v", got)
	}
	s.verify()
}
