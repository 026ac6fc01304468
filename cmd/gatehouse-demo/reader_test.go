package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp/panel"
	"github.com/gatehouse-acs/gatehouse/test/rig"
)

// readerKey is the key of a reader that has its own.
var readerKey = osdp.Key{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}

// keyFile is a file with it.
func keyFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "reader.key")
	if err := os.WriteFile(path, []byte(hex.EncodeToString(readerKey[:])+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// polled is a reader that a panel polls.
type polled struct {
	*tryOut
	*osdp.Peripheral
	told chan osdp.Reply
}

// poll lets a panel poll the reader.
func poll(d *tryOut, c osdp.PeripheralConfig) polled {
	d.t.Helper()
	p := polled{tryOut: d, told: make(chan osdp.Reply, 64)}
	bus, err := osdp.New(osdp.Config{
		Open:        func(baud int) (osdp.Line, error) { return panel.Serial(d.port, baud) },
		Peripherals: []osdp.PeripheralConfig{c},
		PollEvery:   10 * time.Millisecond,
		Handle: func(e osdp.Event) {
			if e.Reply != nil {
				p.told <- e.Reply
			}
		},
	})
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		bus.Run(ctx) // ends with ctx, and with its error
	}()
	d.t.Cleanup(func() { cancel(); <-ended })
	p.Peripheral = bus.Peripheral(c.Address)
	return p
}

// secure is a reader with its own key, and a panel that has it.
func secure(t *testing.T) polled {
	t.Helper()
	d := begin(t, "reader", "--key-file", keyFile(t))
	p := poll(d, osdp.PeripheralConfig{Keys: osdp.NewMemoryKeys(readerKey)})
	p.reaches(osdp.Secure)
	d.says("address 0: the panel is there")
	return p
}

func (p polled) reaches(s osdp.State) {
	p.t.Helper()
	rig.Eventually(p.t, s.String(), func() bool { return p.Status().State == s })
}

// hears waits for what the reader tells.
func hears[R osdp.Reply](p polled) R {
	p.t.Helper()
	deadline := time.After(rig.Patience)
	for {
		select {
		case r := <-p.told:
			if r, ok := r.(R); ok {
				return r
			}
		case <-deadline:
			var want R
			p.t.Fatalf("the panel never hears %T", want)
		}
	}
}

// command has the panel tell the reader something.
func (p polled) tell(c osdp.Command) {
	p.t.Helper()
	if _, err := p.Do(p.t.Context(), c); err != nil {
		p.t.Fatal(err)
	}
}

func TestGatehouseFindsTheSimulatedReader(t *testing.T) {
	d := begin(t, "reader", "--address", "3", "--baud", "115200")
	var found struct {
		Address       int  `json:"address"`
		Baud          int  `json:"baud"`
		SecureChannel bool `json:"secure_channel"`
	}
	out := rig.Tool(t, "gatehouse", "osdp", "scan", "--port", d.port, "--address", "3", "--json")
	if err := json.Unmarshal([]byte(out), &found); err != nil || found.Address != 3 || found.Baud != 115200 || !found.SecureChannel {
		t.Errorf("found %+v, %v, in %q", found, err, out)
	}
}

func TestTwoReadersAreFoundUnlessTheyHaveOneAddress(t *testing.T) {
	for second, want := range map[string]int{"1": 2, "0": 0} {
		t.Run(second, func(t *testing.T) {
			d := begin(t, "reader", "--address", "0", "--address", second)
			line, err := panel.Serial(d.port, osdp.DefaultBaud)
			if err != nil {
				t.Fatal(err)
			}
			defer line.Close()
			count := 0
			for _, err := range osdp.Discover(t.Context(), line, osdp.Discovery{Bauds: []int{osdp.DefaultBaud}, Addresses: []byte{0, 1}}) {
				if err != nil {
					t.Fatal(err)
				}
				count++
			}
			if count != want {
				t.Errorf("%d found, want %d", count, want)
			}
		})
	}
}

func TestWhatIsGivenToTheReaderReachesThePanelAndIsNotShown(t *testing.T) {
	p := secure(t)
	p.command("card H10301:123:45678")
	if c, want := hears[osdp.Card](p), rig.Card(t, 45678); c.Bits != 26 || want.Len() != 26 {
		t.Errorf("the panel hears %d bits of a card", c.Bits)
	}
	p.command("card 10110")
	if c := hears[osdp.Card](p); c.Bits != 5 || !bytes.Equal(c.Data, []byte{0b10110_000}) {
		t.Errorf("the panel hears %d bits of a card, % x", c.Bits, []byte(c.Data))
	}
	p.command("keys 4711#")
	if k := hears[osdp.Keypad](p); string(k.Keys) != "4711#" {
		t.Errorf("the panel hears keys %q", []byte(k.Keys))
	}
	p.command("tamper on")
	if s := hears[osdp.LocalStatus](p); !s.Tamper {
		t.Error("the panel hears of no tampering")
	}
	p.says("card H10301 ••78")
	p.says("card of 5 bits")
	p.says("5 keys")
	for _, secret := range []string{"45678", "4711", "10110", hex.EncodeToString(readerKey[:])} {
		if strings.Contains(p.all(), secret) {
			t.Errorf("it shows %s", secret)
		}
	}
}

func TestWhatThePanelTellsIsShown(t *testing.T) {
	p := secure(t)
	p.tell(osdp.SetLEDs{{Permanent: true, Steady: osdp.Flash{On: 1, OnColor: osdp.Red, OffColor: osdp.Red}}})
	p.says("light 0: red\n")
	p.tell(osdp.SetLEDs{{Temporary: osdp.LEDSet, Timer: 30, Flash: osdp.Flash{On: 2, Off: 1, OnColor: osdp.Green}}})
	p.says("light 0: green 200ms and dark 100ms in turn for 3s")
	p.tell(osdp.Buzz{Tone: osdp.ToneDefault, On: 3, Count: 2})
	p.says("buzzer 2 times 300ms")
	p.tell(osdp.ShowText{Mode: osdp.TextPermanent, Row: 1, Column: 1, Text: "Your finger\x1b"})
	p.says(`text "Your finger\x1b"`)
}

func TestAKeyIsKeptAndNeverShown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "reader.key")
	d := begin(t, "reader", "--key-file", path)
	d.says("without a key yet")
	keys := &osdp.MemoryKeys{}
	p := poll(d, osdp.PeripheralConfig{Keys: keys})
	if err := p.Install(t.Context(), readerKey); err != nil {
		t.Fatal(err)
	}
	p.says("KEYSET: it has its own key now, kept in " + path)
	p.reaches(osdp.Secure)
	if kept, err := readKey(path); err != nil || !kept.Equal(readerKey) {
		t.Errorf("another key is kept: %v", err) // readKey refuses what others can read
	}
	if strings.Contains(p.all(), hex.EncodeToString(readerKey[:4])) {
		t.Error("the key is shown")
	}
}

func TestAReaderSuffersFromItsFaults(t *testing.T) {
	for fault, test := range map[string]struct {
		what string
		came func(osdp.Counters) bool
	}{
		"drop:2":       {"a command without an answer", func(c osdp.Counters) bool { return c.Silent > 0 && c.Repeats > 0 }},
		"flip:2":       {"a broken answer", func(c osdp.Counters) bool { return c.Garbled > 0 }},
		"busy:2":       {"an answer that asks for patience", func(c osdp.Counters) bool { return c.Busy > 0 }},
		"wrong-mac:1":  {"a channel lost by a forged frame", func(c osdp.Counters) bool { return c.Lost > 0 && c.Forged > 0 }},
		"clear:1":      {"a channel lost by clear text", func(c osdp.Counters) bool { return c.Lost > 0 && c.Forged > 0 }},
		"power-loss:1": {"a channel lost", func(c osdp.Counters) bool { return c.Lost > 0 && c.Forged == 0 }},
	} {
		t.Run(fault, func(t *testing.T) {
			p := secure(t)
			p.command("fault " + fault)
			rig.Eventually(t, test.what, func() bool { return test.came(p.Status().Counters) })
			p.reaches(osdp.Secure) // again, for it was for a while
			p.command("card H10301:1:2")
			hears[osdp.Card](p)
		})
	}
}

func TestAReaderWithoutPowerIsGoneUntilItHasSome(t *testing.T) {
	p := secure(t)
	p.command("power off")
	p.reaches(osdp.Offline)
	p.command("card H10301:1:2")
	p.says("the reader at address 0 has no power: power on")
	p.command("power on")
	p.reaches(osdp.Secure)
}

func TestANameIsAlwaysTheSameFinger(t *testing.T) {
	p := secure(t)
	scan := func(line string, part osdp.BioType) []byte {
		t.Helper()
		p.command(line)
		m, err := p.BioRead(t.Context(), osdp.BioRead{Type: part})
		if err != nil || m.Status != osdp.BioOK || m.Type != part {
			t.Fatalf("%s: %v, %v, %v", line, m.Type, m.Status, err)
		}
		p.command("away")
		return m.Template
	}
	ada := scan("finger ada", osdp.RightIndex)
	for line, part := range map[string]osdp.BioType{"finger ben": osdp.RightIndex, "finger ada left thumb": osdp.LeftThumb, "eye ada": osdp.RightIris} {
		if bytes.Equal(scan(line, part), ada) {
			t.Errorf("%s is like Ada's finger", line)
		}
	}
	if !bytes.Equal(scan("finger ada", osdp.RightIndex), ada) {
		t.Error("Ada's finger is another one now")
	}
}

func TestClearTextIsServedOnlyIfItIsSaid(t *testing.T) {
	for flag, want := range map[string]osdp.State{"--clear-text=true": osdp.ClearText, "--clear-text=false": osdp.Unsecured} {
		t.Run(flag, func(t *testing.T) {
			poll(begin(t, "reader", flag), osdp.PeripheralConfig{ClearText: true}).reaches(want)
		})
	}
}
