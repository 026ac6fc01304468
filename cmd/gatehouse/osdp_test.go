package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp/keyring"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp/pd"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/config"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// bench is a controller with a line of simulated readers, on a real terminal.
type bench struct {
	wired
	port string
	cut  atomic.Bool // nothing that a reader says arrives
	mark atomic.Bool // a mark byte went ahead of a command
	hold sync.Mutex  // held: nothing arrives until it is not any more
}

const benchConfig = `controller = "north-1"
data = "door"
timezone = "Europe/Amsterdam"
[[drivers.osdp.line]]
name = "rs485-1"
port = %q
[[door]]
name = "a"
strike = { driver = "sim", line = "a.strike" }
`

// newBench has a door with the peripherals as its readers, at addresses from 0
// on; more is added to each device.
func newBench(t *testing.T, more string, far ...*pd.Peripheral) *bench {
	t.Helper()
	t.Parallel()                          // they mostly wait
	dir, err := os.MkdirTemp("", "bench") // short, as newWired's
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &bench{wired: wired{t, filepath.Join(dir, "door"), filepath.Join(dir, "gatehouse.toml")}}
	master, slave, err := pty.Open()
	must(t, err)
	b.port = slave.Name()
	served := make(chan struct{})
	go func() {
		defer close(served)
		pd.Serve(&severable{master, b}, pd.Wire{Rate: rateOf(slave)}, far...)
	}()
	t.Cleanup(func() {
		slave.Close()
		<-served
		master.Close()
	})
	doc := fmt.Sprintf(benchConfig, b.port)
	for a := range far {
		doc += fmt.Sprintf("[[door.reader]]\nname = \"r%d\"\ndirection = \"in\"\nformats = [\"H10301\"]\ndevice = { driver = \"osdp\", line = \"rs485-1\", address = %d%s }\n", a, a, more)
	}
	must(t, os.WriteFile(b.file, []byte(doc), 0o600))
	var said bytes.Buffer
	if status := cli.Run(t.Context(), newRoot(), []string{"init", "--data", b.data, "--controller", "north-1"}, &said, &said); status != 0 {
		t.Fatal(said.String())
	}
	return b
}

// severable is a cable that can be cut in the readers' way back.
type severable struct {
	io.ReadWriter
	b *bench
}

func (s *severable) Read(b []byte) (int, error) {
	n, err := s.ReadWriter.Read(b)
	if n > 0 && b[0] == 0xFF {
		s.b.mark.Store(true)
	}
	return n, err
}

func (s *severable) Write(b []byte) (int, error) {
	s.b.hold.Lock()
	defer s.b.hold.Unlock()
	if s.b.cut.Load() {
		return len(b), nil
	}
	return s.ReadWriter.Write(b)
}

// rateOf is the rate that a program has set a terminal to.
func rateOf(tty *os.File) func() int {
	rates := map[uint32]int{
		unix.B9600: 9600, unix.B19200: 19200, unix.B38400: 38400, unix.B57600: 57600, unix.B115200: 115200, unix.B230400: 230400,
	}
	return func() (rate int) {
		c, err := tty.SyscallConn() // it may be closed meanwhile
		if err != nil {
			return nobodys
		}
		rate = nobodys
		c.Control(func(fd uintptr) {
			if t, err := unix.IoctlGetTermios(int(fd), unix.TCGETS); err == nil {
				rate = rates[t.Cflag&unix.CBAUD]
			}
		})
		return rate
	}
}

// nobodys is a rate that no reader has.
const nobodys = 1

// do runs a command to its end. What it says comes from both its outputs.
func (b *bench) do(args ...string) (status int, said string) {
	b.t.Helper()
	var out syncBuffer
	ctx, stop := context.WithTimeout(b.t.Context(), 30*time.Second)
	defer stop()
	root := newRoot()
	root.SetIn(strings.NewReader(""))
	status = cli.Run(ctx, root, append(append([]string{"osdp"}, args...), "--demo", "--config", b.file), &out, &out)
	return status, out.String()
}

// succeeds is do of a command that has to.
func (b *bench) succeeds(args ...string) string {
	b.t.Helper()
	status, said := b.do(args...)
	if status != 0 {
		b.t.Fatalf("%v: exit status %d: %s", args, status, said)
	}
	return said
}

// fails is do of a command that has to fail, and to say why.
func (b *bench) fails(want string, args ...string) {
	b.t.Helper()
	status, said := b.do(args...)
	if status != 1 || !strings.Contains(said, want) {
		b.t.Errorf("%v: exit status %d, %q; want 1 and %q", args, status, said, want)
	}
}

// kept are the keys that the controller keeps for a reader.
func (b *bench) kept(address byte) (current, next *osdp.Key) {
	b.t.Helper()
	k, err := keys.LoadController(keys.File(pki.KeysDir(b.data)))
	must(b.t, err)
	ring, err := keyring.Open(filepath.Join(b.data, keyring.FileName), k.Readers)
	must(b.t, err)
	defer ring.Close()
	current, next, err = ring.For("rs485-1", address).Load()
	must(b.t, err)
	return current, next
}

// holds checks that the controller keeps a reader's own key for an address, and
// no other.
func (b *bench) holds(address byte, far *pd.Peripheral) {
	b.t.Helper()
	current, next := b.kept(address)
	if current == nil || next != nil || !current.Equal(far.Key()) || far.Key() == (osdp.Key{}) {
		b.t.Error("the controller and the reader do not have the same one key")
	}
}

// provisioned are the records of what was done to readers.
func (b *bench) provisioned() []string {
	b.t.Helper()
	if _, err := os.Stat(filepath.Join(b.data, "records.db")); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var list []string
	for _, e := range b.records() {
		if e.Record.Type == visitorlog.ReaderProvisioned {
			list = append(list, e.Record.Data.Reader+" "+e.Record.Data.Detail)
		}
	}
	return list
}

// keyIsNowhere looks for a key in what was said and recorded.
func (b *bench) keyIsNowhere(key osdp.Key, said string) {
	b.t.Helper()
	file, err := os.ReadFile(filepath.Join(b.data, keyring.FileName))
	must(b.t, err)
	all := said + strings.Join(b.provisioned(), "\n") + string(file)
	for _, form := range []string{string(key[:]), hex.EncodeToString(key[:]), strings.ToUpper(hex.EncodeToString(key[:])), base64.StdEncoding.EncodeToString(key[:]), fmt.Sprint([16]byte(key))} {
		if strings.Contains(all, form) {
			b.t.Error("the key is to be seen")
		}
	}
}

const (
	by      = "J. Smith, Acme"
	idWords = "maker 02-05-D9, model 1 version 1, serial 51000000, firmware 1.0.0"
)

func someKey(b byte) osdp.Key { return osdp.Key(bytes.Repeat([]byte{b}, 16)) }

func TestScanFindsAReaderItsRateAndWhatItCanDo(t *testing.T) {
	far := pd.New(pd.Config{Baud: 38400, Key: someKey(7)})
	b := newBench(t, "", far)
	want := `address 0 at 38400 baud
  ` + idWords + `
  inputs: 2; outputs: 1; card format: level 1; lights: 1 a reader, of kind 4;
  buzzer; CRC; Secure Channel, AES-128; takes frames of 256 bytes; readers wired
  to it: 1; biometrics: iris (template 1); OSDP 2.2 of SIA
`
	if said := b.succeeds("scan", "--alone"); said != want {
		t.Errorf("%s\nwant\n%s", said, want)
	}
	// Without a configuration, and for another program.
	var found foundReader
	said := b.succeeds("scan", "--port", b.port, "--baud", "38400", "--address", "0", "--json")
	if err := json.Unmarshal([]byte(said), &found); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	found.Capabilities = found.Capabilities[5:7]
	if diff := cmp.Diff(foundReader{
		Baud: 38400, Maker: "02-05-D9", Model: 1, Version: 1, Serial: "51000000", Firmware: "1.0.0",
		CRC: true, SecureChannel: true, Biometrics: "iris (template 1)",
		Capabilities: []foundCapability{{8, 1, 0, "CRC"}, {9, 1, 1, "Secure Channel, AES-128"}},
	}, found); diff != "" {
		t.Error(diff)
	}
	b.fails("nobody answers on "+b.port, "scan", "--baud", "9600", "--alone")
	if len(b.provisioned()) != 0 {
		t.Error("looking was recorded")
	}
}

// A converter that cuts off the first byte is one while readers are looked for, too.
func TestScanGoesThroughAConverterAsTheConfigurationSays(t *testing.T) {
	b := newBench(t, "", pd.New(pd.Config{}))
	b.succeeds("scan", "--address", "0", "--baud", "9600")
	if b.mark.Load() {
		t.Error("a mark byte that nobody asked for")
	}
	doc, err := os.ReadFile(b.file)
	must(t, err)
	must(t, os.WriteFile(b.file, bytes.Replace(doc, []byte("\nport = "), []byte("\nmark = true\nport = "), 1), 0o600))
	b.succeeds("scan", "--address", "0", "--baud", "9600")
	if !b.mark.Load() {
		t.Error("no mark byte")
	}
}

func TestScanShowsHowFarItHasCome(t *testing.T) {
	far := pd.New(pd.Config{})
	b := newBench(t, "", far)
	s := newScreen(t)
	end := b.run(s.tty, s.tty, s.tty, "osdp", "scan")
	s.until("serial 51000000")
	s.until("addresses asked [")
	s.until("of 762") // 127 addresses at six rates
	if status := end(); status != 1 {
		t.Errorf("exit status %d of a scan that was ended", status)
	}
	s.until("ended before every address was asked")
}

func TestScanSaysWhatIsMissing(t *testing.T) {
	far := pd.New(pd.Config{Checksum: true, NoSecurity: true})
	b := newBench(t, "", far)
	said := b.succeeds("scan", "--address", "0", "--baud", "9600", "--checksum")
	for _, want := range []string{"NO SECURE CHANNEL", "checksum only, no CRC"} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in %s", want, said)
		}
	}
}

func TestANewReaderGetsItsFirstKeyByAPersonsWord(t *testing.T) {
	far := pd.New(pd.Config{})
	b := newBench(t, "", far)
	b.fails("nobody sits at a terminal", "keyset", "--install", "--by", by)
	if far.Key() != (osdp.Key{}) || len(b.provisioned()) != 0 {
		t.Error("a key was given that nobody agreed to")
	}
	for _, answer := range []string{"no", "yes"} {
		s := newScreen(t)
		end := b.run(s.tty, s.tty, s.tty, "osdp", "keyset", "--install", "--by", by)
		s.until("serial 51000000")
		s.until("everybody knows")
		s.until("Type yes or no:")
		s.types(answer)
		if answer == "no" {
			s.until("nothing was sent to the reader")
			if status := end(); status != 1 || far.Key() != (osdp.Key{}) {
				t.Errorf("exit status %d", status)
			}
			continue
		}
		s.until("has a key of its own, and has proved it")
		if status := end(); status != 0 {
			t.Errorf("exit status %d", status)
		}
		b.holds(0, far)
		b.keyIsNowhere(far.Key(), s.everything())
	}
	what := "osdp:rs485-1#0 a first key over the default key for " + idWords + ", by " + by
	if diff := cmp.Diff([]string{what + ": begun", what + ": done"}, b.provisioned()); diff != "" {
		t.Error(diff)
	}
	b.fails("has its own key already", "keyset", "--install", "--yes", "--by", by)
}

func TestAKeyIsChangedOverTheSecureChannel(t *testing.T) {
	far := pd.New(pd.Config{})
	b := newBench(t, "", far)
	b.succeeds("keyset", "--install", "--yes", "--by", by)
	first := far.Key()
	said := b.succeeds("keyset", "--by", by)
	if far.Key().Equal(first) {
		t.Error("it is the same key")
	}
	b.holds(0, far)
	b.keyIsNowhere(far.Key(), said)
	b.keyIsNowhere(first, said)
	if list := b.provisioned(); len(list) != 4 || !strings.HasSuffix(list[3], "a new key over the Secure Channel for "+idWords+", by "+by+": done") {
		t.Errorf("%q", list)
	}
}

// A reader that does not do what it is told is said so, with what to do; nothing
// is changed and nothing is on the default key afterwards.
func TestReadersThatDoNotTakeAKey(t *testing.T) {
	refuses := func(c osdp.Command) osdp.Reply {
		if _, ok := c.(osdp.SetKey); ok {
			return osdp.NAK{Code: osdp.NAKUnknownCommand}
		}
		return nil
	}
	for name, tt := range map[string]struct {
		far     pd.Config
		power   bool
		args    []string
		want    string
		records int // of the begun and the failed
	}{
		"no key yet":               {pd.Config{}, true, nil, "install one: gatehouse osdp keyset --install", 0},
		"another key":              {pd.Config{Key: someKey(9)}, true, []string{"--install", "--yes"}, "reset it as its maker says", 2},
		"a refusal":                {pd.Config{Answer: refuses}, true, []string{"--install", "--yes"}, "unknown command", 2},
		"no Secure Channel":        {pd.Config{NoSecurity: true}, true, []string{"--install", "--yes"}, "clear_text = true", 0},
		"silence":                  {pd.Config{}, false, nil, "gatehouse osdp scan finds it", 0},
		"silence, to be installed": {pd.Config{}, false, []string{"--install", "--yes"}, "gatehouse osdp scan finds it", 0},
	} {
		t.Run(name, func(t *testing.T) {
			far := pd.New(tt.far)
			far.Power(tt.power)
			b := newBench(t, "", far)
			b.fails(tt.want, append([]string{"keyset", "--by", by, "--within", "2s"}, tt.args...)...)
			if !far.Key().Equal(tt.far.Key) {
				t.Error("the reader has another key")
			}
			if current, _ := b.kept(0); current != nil {
				t.Error("a key is kept as the reader's that it has not proved")
			}
			list := b.provisioned()
			if len(list) != tt.records {
				t.Errorf("records: %q", list)
			}
			if tt.records > 0 && !strings.Contains(list[1], "FAILED") {
				t.Errorf("how it went is not recorded: %q", list)
			}
		})
	}
}

// Whoever puts a new reader in the place of another's has it given a key by the
// installer: not without a word.
func TestAReaderThatLacksTheKeyItShouldHaveIsSaidToBeAnother(t *testing.T) {
	one, another := pd.New(pd.Config{}), pd.New(pd.Config{Address: 1})
	b := newBench(t, "", one, another)
	const warning = "it\nwas reset, or it is another one"
	if said := b.succeeds("keyset", "--address", "0", "--install", "--yes", "--by", by); strings.Contains(said, warning) {
		t.Errorf("a first reader: %s", said)
	}
	k, err := keys.LoadController(keys.File(pki.KeysDir(b.data)))
	must(t, err)
	ring, err := keyring.Open(filepath.Join(b.data, keyring.FileName), k.Readers)
	must(t, err)
	must(t, ring.Copy("rs485-1", 0, 1))
	must(t, ring.Close())
	if said := b.succeeds("keyset", "--address", "1", "--install", "--yes", "--by", by); !strings.Contains(said, warning) {
		t.Errorf("another reader: %s", said)
	}
	b.holds(1, another)
}

// A key that does not open may be another sealing key's fault. It is dropped by
// a person's word, and that is recorded.
func TestAKeyThatDoesNotOpenIsNotDroppedInPassing(t *testing.T) {
	far := pd.New(pd.Config{})
	b := newBench(t, "", far)
	other, err := keys.NewSealer(bytes.Repeat([]byte{1}, 32), "another controller's")
	must(t, err)
	ring, err := keyring.Open(filepath.Join(b.data, keyring.FileName), other)
	must(t, err)
	must(t, ring.For("rs485-1", 0).Begin(someKey(7)))
	must(t, ring.Close())
	before, err := os.ReadFile(filepath.Join(b.data, keyring.FileName))
	must(t, err)
	b.fails("gatehouse osdp forget --address 0", "keyset", "--install", "--yes", "--by", by)
	if after, err := os.ReadFile(filepath.Join(b.data, keyring.FileName)); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the key is dropped: %v", err)
	}
	if far.Key() != (osdp.Key{}) || len(b.provisioned()) != 0 {
		t.Error("something was done")
	}
	b.succeeds("forget", "--address", "0", "--by", by)
	b.succeeds("keyset", "--install", "--yes", "--by", by)
	b.holds(0, far)
}

// Power fails while the key is on its way, before or after the reader has taken
// it. Both keys are kept, and the next start proves which one the reader has.
func TestPowerMayFailWhileAKeyIsOnItsWay(t *testing.T) {
	for name, taken := range map[string]bool{"the reader has the new key": true, "the reader has the old key": false} {
		t.Run(name, func(t *testing.T) {
			var far *pd.Peripheral
			var b *bench
			var failing atomic.Bool
			far = pd.New(pd.Config{
				Answer: func(c osdp.Command) osdp.Reply {
					if _, ok := c.(osdp.SetKey); ok && failing.Load() && !taken {
						b.cut.Store(true)
						return osdp.NAK{Code: osdp.NAKRecord}
					}
					return nil
				},
				Handle: func(c osdp.Command) {
					if _, ok := c.(osdp.SetKey); ok && failing.Load() {
						b.cut.Store(true)
						far.Power(false)
					}
				},
			})
			b = newBench(t, "", far)
			b.succeeds("keyset", "--install", "--yes", "--by", by)
			before := far.Key()
			failing.Store(true)
			b.fails("both are kept", "keyset", "--by", by, "--within", "2s")
			current, next := b.kept(0)
			if current == nil || next == nil || !current.Equal(before) || next.Equal(before) || taken != next.Equal(far.Key()) {
				t.Fatal("these are not the two keys that the reader may have")
			}
			if list := b.provisioned(); !strings.Contains(list[len(list)-1], "FAILED") || !strings.Contains(list[len(list)-1], "both are kept") {
				t.Errorf("how it went is not recorded: %q", list)
			}
			failing.Store(false)
			b.cut.Store(false)
			far.Power(false)
			far.Power(true)
			b.succeeds("keyset", "--by", by)
			b.holds(0, far)
		})
	}
}

// Power fails while the first key is on its way, and the reader has it.
func TestAFirstKeyThatArrivedIsProvedAtTheNextStart(t *testing.T) {
	var far *pd.Peripheral
	var b *bench
	far = pd.New(pd.Config{Handle: func(c osdp.Command) {
		if _, ok := c.(osdp.SetKey); ok {
			b.cut.Store(true)
			far.Power(false)
		}
	}})
	b = newBench(t, "", far)
	b.fails("it is kept, and tried first", "keyset", "--install", "--yes", "--by", by, "--within", "2s")
	if current, next := b.kept(0); current != nil || next == nil || !next.Equal(far.Key()) {
		t.Fatal("the key is not kept")
	}
	b.cut.Store(false)
	far.Power(true)
	b.fails("has its own key already, and has proved it", "keyset", "--install", "--yes", "--by", by)
	b.holds(0, far)
}

// The controller's power fails while the key is on its way: its process, a real
// one, is killed as soon as the reader has the key.
func TestTheControllerMayBeKilledWhileAKeyIsOnItsWay(t *testing.T) {
	var running atomic.Pointer[os.Process]
	far := pd.New(pd.Config{Handle: func(c osdp.Command) {
		if p := running.Load(); p != nil && c.Command() == osdp.CodeKEYSET {
			p.Kill()
		}
	}})
	b := newBench(t, "", far)
	b.succeeds("keyset", "--install", "--yes", "--by", by)
	before := far.Key()
	cmd := exec.CommandContext(t.Context(), "gatehouse", "osdp", "keyset", "--by", by, "--demo", "--config", b.file) // TestMain has made it
	var said syncBuffer
	cmd.Stdout, cmd.Stderr = &said, &said
	b.hold.Lock() // until the process is known, the reader says nothing
	must(t, cmd.Start())
	running.Store(cmd.Process)
	b.hold.Unlock()
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("%v: %s", err, said.String())
	}
	running.Store(nil)
	current, next := b.kept(0)
	if current == nil || next == nil || !current.Equal(before) || !next.Equal(far.Key()) || far.Key().Equal(before) {
		t.Fatal("these are not the two keys that the reader may have")
	}
	if list := b.provisioned(); !strings.HasSuffix(list[len(list)-1], "begun") {
		t.Errorf("that it was begun is not the last record: %q", list)
	}
	b.succeeds("keyset", "--by", by)
	b.holds(0, far)
}

// Whoever began an installation and went away leaves no reader that waits for a
// key.
func TestAnInstallationEndsWhenItsTimeIsOver(t *testing.T) {
	far := pd.New(pd.Config{})
	b := newBench(t, "", far)
	s := newScreen(t)
	b.run(s.tty, s.tty, s.tty, "osdp", "keyset", "--install", "--by", by, "--within", "1s")
	s.until("Type yes or no:")
	s.until("nobody said yes in time")
	s.types("yes")
	if far.Key() != (osdp.Key{}) || len(b.provisioned()) != 0 {
		t.Error("it got a key")
	}
}

// What cannot be recorded is not done.
func TestNoKeyIsSentThatIsNotRecorded(t *testing.T) {
	far := pd.New(pd.Config{})
	b := newBench(t, "", far)
	cfg, err := config.LoadController(b.file, config.Options{Demo: true})
	must(t, err)
	p, err := openProvisioner(t.Context(), cfg, osdpLines(cfg)[0], by, io.Discard)
	must(t, err)
	defer p.ring.Close()
	must(t, p.c.Close()) // the log takes nothing any more
	sent := false
	err = p.recorded(t.Context(), 0, "a key", func() error { sent = true; return nil })
	if err == nil || sent || !strings.Contains(err.Error(), "nothing was sent") {
		t.Errorf("%v, sent %v", err, sent)
	}
}

func TestOSDPCommandsRefuseWhileTheDaemonRuns(t *testing.T) {
	b := newBench(t, "", pd.New(pd.Config{}))
	held, err := visitorlog.Hold(b.data)
	must(t, err)
	defer held.Close()
	for _, args := range [][]string{
		{"scan"}, {"watch"}, {"watch", "--listen"}, {"keyset", "--by", by}, {"keyset", "--install", "--yes", "--by", by},
		{"comset", "--to-address", "3", "--by", by}, {"forget", "--address", "0", "--by", by},
	} {
		b.fails("systemctl stop gatehouse", args...)
	}
}

func TestOSDPCommandsSayWhatIsWrongWithTheirFlags(t *testing.T) {
	far := []*pd.Peripheral{pd.New(pd.Config{}), pd.New(pd.Config{Address: 1})}
	b := newBench(t, "", far...)
	for _, tt := range []struct {
		want string
		args []string
	}{
		{"--by: give the name", []string{"keyset"}},
		{"--by: give the name", []string{"comset", "--to-address", "3"}},
		{"--by: give the name", []string{"forget", "--address", "3"}},
		{"Give --address: the configuration has 2 readers", []string{"keyset", "--by", by}},
		{"127 is not an address", []string{"keyset", "--by", by, "--address", "127"}},
		{"at most 30m", []string{"keyset", "--by", by, "--install", "--within", "31m"}},
		{"only --install asks", []string{"keyset", "--by", by, "--yes"}},
		{"either --to-address or --to-baud", []string{"comset", "--by", by}},
		{"either --to-address or --to-baud", []string{"comset", "--by", by, "--to-address", "1", "--to-baud", "9600"}},
		{"12345 is not one of", []string{"comset", "--by", by, "--to-baud", "12345"}},
		{"12345 is not one of", []string{"scan", "--baud", "12345"}},
		{"either --alone or --address", []string{"scan", "--alone", "--address", "1"}},
		{`there is no line "rs485-2": the configuration has "rs485-1"`, []string{"scan", "--line", "rs485-2"}},
		{"/dev/serial/by-id", []string{"scan", "--port", "/dev/no-such-port"}},
		{"/dev/serial/by-id", []string{"watch", "--port", "/dev/no-such-port", "--line", "rs485-1"}},
		{"without a configuration there are no keys", []string{"watch", "--port", b.port}},
		{"--all is of --listen", []string{"watch", "--all"}},
	} {
		b.fails(tt.want, tt.args...)
	}
	if len(b.provisioned()) != 0 {
		t.Errorf("%q", b.provisioned())
	}
}

func TestAReaderInClearTextGetsNoKey(t *testing.T) {
	b := newBench(t, ", clear_text = true", pd.New(pd.Config{ClearText: true}))
	b.fails("take that out first", "keyset", "--by", by)
}

func TestAReaderMovesToAnotherAddressWithItsKey(t *testing.T) {
	far := pd.New(pd.Config{})
	b := newBench(t, "", far)
	b.succeeds("keyset", "--install", "--yes", "--by", by)
	said := b.succeeds("comset", "--to-address", "3", "--by", by)
	if !strings.Contains(said, `line = "rs485-1", address = 3`) {
		t.Errorf("%q does not say what to change", said)
	}
	b.holds(3, far)
	if current, next := b.kept(0); current != nil || next != nil {
		t.Error("its key is kept at the old address too")
	}
	list := b.provisioned()
	what := "osdp:rs485-1#0 address 0 becomes 3 for " + idWords + ", by " + by
	if diff := cmp.Diff([]string{what + ": begun", what + ": done"}, list[2:]); diff != "" {
		t.Error(diff)
	}
	// It works there.
	b.succeeds("keyset", "--address", "3", "--by", by)
	b.fails("has address 3 already", "comset", "--address", "3", "--to-address", "3", "--by", by)
}

func TestAReaderThatDoesNotMoveKeepsItsKey(t *testing.T) {
	far := pd.New(pd.Config{Answer: func(c osdp.Command) osdp.Reply {
		if _, ok := c.(osdp.SetComm); ok {
			return osdp.NAK{Code: osdp.NAKUnknownCommand}
		}
		return nil
	}})
	b := newBench(t, "", far)
	b.succeeds("keyset", "--install", "--yes", "--by", by)
	b.fails("unknown command", "comset", "--to-address", "3", "--by", by)
	b.holds(0, far)
	if current, _ := b.kept(3); current != nil {
		t.Error("its key is kept where it is not")
	}
	// Keys of a reader that is gone are in the way until they are forgotten.
	b.succeeds("keyset", "--by", by)
	k, err := keys.LoadController(keys.File(pki.KeysDir(b.data)))
	must(t, err)
	ring, err := keyring.Open(filepath.Join(b.data, keyring.FileName), k.Readers)
	must(t, err)
	must(t, ring.For("rs485-1", 3).Begin(someKey(5)))
	must(t, ring.Close())
	b.fails("gatehouse osdp forget --address 3", "comset", "--to-address", "3", "--by", by)
	b.succeeds("forget", "--address", "3", "--by", by)
	if _, next := b.kept(3); next != nil {
		t.Error("it is not forgotten")
	}
	b.fails("unknown command", "comset", "--to-address", "3", "--by", by)
	if list := b.provisioned(); !strings.Contains(strings.Join(list, "\n"), "osdp:rs485-1#3 its key is forgotten, by "+by+": done") {
		t.Errorf("%q", list)
	}
}

// Two readers with one address could not be told apart again.
func TestAReaderIsNotSentWhereAnotherIs(t *testing.T) {
	far := []*pd.Peripheral{pd.New(pd.Config{}), pd.New(pd.Config{Address: 1})}
	b := newBench(t, "", far...)
	b.succeeds("keyset", "--address", "0", "--install", "--yes", "--by", by)
	b.fails("a reader answers at address 1 already, maker 02-05-D9, model 1 version 1, serial 51000001", "comset", "--address", "0", "--to-address", "1", "--by", by)
	if list := b.provisioned(); len(list) != 2 {
		t.Errorf("%q", list)
	}
	b.holds(0, far[0])
	b.succeeds("keyset", "--address", "0", "--by", by) // it is where it was
}

// The cable is cut when the reader has been told to go, and has gone.
func TestAReaderThatWentUnheardHasItsKeyAtEitherAddress(t *testing.T) {
	var b *bench
	far := pd.New(pd.Config{Handle: func(c osdp.Command) {
		if _, ok := c.(osdp.SetComm); ok {
			b.cut.Store(true)
		}
	}})
	b = newBench(t, "", far)
	b.succeeds("keyset", "--install", "--yes", "--by", by)
	b.fails("whether the reader went is not known", "comset", "--to-address", "3", "--by", by, "--within", "2s")
	b.holds(0, far)
	b.holds(3, far)
	b.cut.Store(false)
	b.fails("a reader answers at address 3 already", "comset", "--to-address", "3", "--by", by)
	b.succeeds("keyset", "--address", "3", "--by", by)
	b.holds(3, far)
}

func TestALineOfWhichAReaderStaysBehindIsToldSo(t *testing.T) {
	stays := pd.New(pd.Config{Address: 1, ClearText: true, Answer: func(c osdp.Command) osdp.Reply {
		if _, ok := c.(osdp.SetComm); ok {
			return osdp.NAK{Code: osdp.NAKUnknownCommand}
		}
		return nil
	}})
	b := newBench(t, ", clear_text = true", pd.New(pd.Config{ClearText: true}), stays)
	b.fails("gatehouse osdp scan tells which rate each reader has now", "comset", "--to-baud", "115200", "--by", by)
}

func TestALineWithoutReadersIsSaidSo(t *testing.T) {
	b := newBench(t, "", pd.New(pd.Config{}))
	doc, err := os.ReadFile(b.file)
	must(t, err)
	must(t, os.WriteFile(b.file, append(doc, "[[drivers.osdp.line]]\nname = \"spare\"\nport = \"/dev/ttyS9\"\n"...), 0o600))
	b.fails(`no device of the configuration is on line "spare"`, "comset", "--line", "spare", "--port", b.port, "--to-baud", "115200", "--by", by)
	b.fails(`no device of the configuration is on line "spare"`, "watch", "--line", "spare", "--port", b.port)
}

func TestALineGoesOverToAnotherRate(t *testing.T) {
	far := []*pd.Peripheral{pd.New(pd.Config{ClearText: true}), pd.New(pd.Config{Address: 1, ClearText: true})}
	b := newBench(t, ", clear_text = true", far...)
	said := b.succeeds("comset", "--to-baud", "115200", "--by", by)
	if !strings.Contains(said, "address 1 speaks 115200 baud now") || !strings.Contains(said, "has to say baud = 115200") {
		t.Errorf("%q does not say what to change", said)
	}
	if list := b.provisioned(); len(list) != 4 || !strings.HasPrefix(list[2], "osdp:rs485-1#1") || !strings.HasSuffix(list[3], ": done") {
		t.Errorf("%q", list)
	}
	b.succeeds("scan", "--baud", "115200", "--address", "1")
	b.fails("no rate was changed", "comset", "--to-baud", "9600", "--by", by, "--within", "1s")
}

func TestWatchShowsWhatReadersTellAndNoNumbers(t *testing.T) {
	far := []*pd.Peripheral{pd.New(pd.Config{}), pd.New(pd.Config{Address: 1, Key: someKey(9)})}
	b := newBench(t, "", far...)
	if said := b.succeeds("keyset", "--address", "0", "--install", "--yes", "--by", by); !strings.Contains(said, "2 readers on this line: is this the bench?") {
		t.Errorf("no warning of the other reader in %s", said)
	}
	records := len(b.records())
	var out syncBuffer
	end := b.run(strings.NewReader(""), &out, &out, "osdp", "watch")
	see := func(want string) {
		t.Helper()
		eventually(t, want, func() bool { return strings.Contains(out.String(), want) })
	}
	see("secure: " + idWords)
	see("address   1  state  unsecured: there is no key for the peripheral")
	far[0].Present(adasFrame(t).Bits())
	see("card  26 bits at reader 0")
	far[0].Press("58134711#")
	see("keys  9 keys at reader 0")
	far[0].SetLocal(osdp.LocalStatus{Tamper: true})
	see("tamper YES, power ok")
	if status := end(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	see("address 0: ")
	see("0 of them by forged frames")
	for _, secret := range []string{"58134711", `\b4567\b`, adasFrame(t).Bits()} {
		if regexp.MustCompile(secret).MatchString(out.String()) {
			t.Errorf("%q is to be seen", secret)
		}
	}
	if n := len(b.records()); n != records {
		t.Errorf("%d records were made by looking", n-records)
	}
}

func TestWatchOfAPortWithoutAConfigurationIsInClearTextOnly(t *testing.T) {
	far := pd.New(pd.Config{ClearText: true})
	b := newBench(t, "", far)
	must(t, os.Remove(b.file)) // it is not read
	var out syncBuffer
	end := b.run(strings.NewReader(""), &out, &out, "osdp", "watch", "--port", b.port, "--clear-text", "--json")
	eventually(t, "it works", func() bool { return strings.Contains(out.String(), `"detail":"clear text: maker`) })
	far.Present("10101")
	eventually(t, "the card", func() bool { return strings.Contains(out.String(), `"event":"card","detail":"5 bits`) })
	if status := end(); status != 0 {
		t.Errorf("exit status %d: %s", status, out.String())
	}
	for line := range strings.Lines(out.String()) {
		var e map[string]any
		if err := json.Unmarshal([]byte(line), &e); err != nil || e["event"] == nil {
			t.Errorf("%q: %v", line, err)
		}
	}
}

// tapped is a line whose bytes somebody else sees too.
type tapped struct {
	osdp.Line
	mu  *sync.Mutex
	tap io.Writer
}

func (l tapped) hear(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tap.Write(b)
}

func (l tapped) Write(b []byte) (int, error) {
	l.hear(b)
	return l.Line.Write(b)
}

func (l tapped) Read(b []byte, timeout time.Duration) (int, error) {
	n, err := l.Line.Read(b, timeout)
	l.hear(b[:n])
	return n, err
}

// Somebody else polls two readers, one of them in clear text, and gives the
// other its key.
func TestListenShowsFramesOfOthersAndNothingSecret(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		t.Run(format, func(t *testing.T) {
			master, slave, err := pty.Open()
			must(t, err)
			defer master.Close()
			defer slave.Close()
			var out syncBuffer
			args := []string{"osdp", "watch", "--port", slave.Name(), "--listen"}
			if format == "json" {
				args = append(args, "--json")
			}
			w := &wired{t: t, file: "none"}
			end := w.run(strings.NewReader(""), &out, &out, args...)
			// Before the command has set the terminal, it would answer by an echo.
			eventually(t, "the command listens", func() bool {
				tty, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
				return err == nil && tty.Lflag&unix.ECHO == 0
			})

			clearText, secure := pd.New(pd.Config{ClearText: true}), pd.New(pd.Config{Address: 1})
			var mu sync.Mutex
			bus, err := osdp.New(osdp.Config{
				Open: func(baud int) (osdp.Line, error) {
					return tapped{pd.NewLine(pd.Wire{}, baud, clearText, secure), &mu, master}, nil
				},
				Peripherals: []osdp.PeripheralConfig{{ClearText: true}, {Address: 1, Keys: new(osdp.MemoryKeys)}},
				PollEvery:   10 * time.Millisecond,
			})
			must(t, err)
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				bus.Run(ctx)
			}()
			must(t, bus.Peripherals()[0].Wait(t.Context()))
			template := osdp.Secret("TEMPLATEOFSOMEBODY")
			clearText.Present(adasFrame(t).Bits())
			clearText.Press("58134711")
			clearText.Tell(osdp.BioTemplate{Type: osdp.RightIris, Template: template})
			clearText.Tell(osdp.BioScore{Score: 0xC7})
			clearText.Tell(osdp.OtherReply{Code: osdp.CodeXRD, Data: template})
			key := osdp.Key([]byte("KEYOFTHEREADER!!"))
			must(t, bus.Peripherals()[1].Install(t.Context(), key))
			wants := []string{"26 bits at reader 0", "8 keys at reader 0", "right iris, ok, 18 bytes", "begins ON THE DEFAULT KEY", "KEYSET", "bytes that are encrypted", "XRD, 18 bytes"}
			for _, want := range wants {
				eventually(t, want, func() bool { return strings.Contains(out.String(), want) })
			}
			stop()
			<-ended
			bad := []byte{0x53, 0x80, 0x09, 0x00, 0x04, 0x40, 0x00, 0x12, 0x34} // a reply with a wrong CRC
			mu.Lock()
			_, err = master.Write(bad)
			mu.Unlock()
			must(t, err)
			eventually(t, "the broken frame is counted", func() bool { return strings.Contains(out.String(), "1 replies so far") })
			if status := end(); status != 0 {
				t.Errorf("exit status %d", status)
			}
			text := out.String()
			for _, secret := range []string{"TEMPLATE", "58134711", "KEYOF", hex.EncodeToString(key[:]), fmt.Sprint([16]byte(key))} {
				if strings.Contains(text, secret) {
					t.Errorf("%q is to be seen:\n%s", secret, text)
				}
			}
			if strings.Contains(text, "POLL") {
				t.Error("polls without news are shown")
			}
			last := text[strings.LastIndex(strings.TrimSpace(text), "\n")+1:]
			if format == "text" && !strings.Contains(last, "1 broken replies") || format == "json" && !strings.Contains(last, `"broken":1`) {
				t.Errorf("the last line is %q", last)
			}
		})
	}
}

// Every reply and command that there is has words, and none of its secrets.
func TestWordsOfMessagesHaveNoSecrets(t *testing.T) {
	secret := osdp.Secret("SECRETSECRET")
	for _, r := range []osdp.Reply{
		osdp.Card{Bits: 96, Data: secret}, osdp.FormattedCard{Digits: secret}, osdp.Keypad{Keys: secret},
		osdp.BioTemplate{Template: secret}, osdp.BioScore{Score: 199}, osdp.ManufacturerReply{Data: secret}, osdp.OtherReply{Code: osdp.CodeXRD, Data: secret},
		osdp.NAK{Code: osdp.NAKRecord, Detail: secret}, osdp.ClientCryptogram{}, osdp.InitialRMAC{}, osdp.Inputs{osdp.InputState(1)}, osdp.Outputs{true},
		osdp.Readers{osdp.ReaderTamper}, osdp.LocalStatus{}, osdp.Comm{}, osdp.FileStatus{}, osdp.Busy{}, osdp.ID{},
		osdp.Capabilities{{Function: osdp.FunctionBiometrics, Level: 9}, {Function: 99, Level: 1}},
	} {
		event, words := replyWords(r)
		if event == "" || words == "" || strings.Contains(words, "SECRET") || strings.Contains(words, "199") {
			t.Errorf("%v: %q, %q", r.Reply(), event, words)
		}
	}
	for _, c := range []osdp.Command{
		osdp.SetKey{Key: osdp.Key([]byte("SECRETSECRETSECR"))}, osdp.BioMatch{Template: secret}, osdp.FileTransfer{Data: secret},
		osdp.Manufacturer{Data: secret}, osdp.OtherCommand{Data: secret}, osdp.ShowText{Text: "SECRET"},
	} {
		if words := commandWords(c); strings.Contains(words, "SECRET") {
			t.Errorf("%v: %q", c.Command(), words)
		}
	}
}

// Each snippet of docs/readers.md is a configuration, once a door is put in front
// of it.
func TestTheSnippetsOfTheReadersDocumentAreConfigurations(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "readers.md"))
	must(t, err)
	n := 0
	for block := range strings.SplitSeq(string(text), "```toml\n") {
		if n++; n == 1 {
			continue // what stands before the first
		}
		snippet, _, _ := strings.Cut(block, "```")
		doc := `controller = "north-1"
timezone = "UTC"
[[door]]
name = "a"
strike = { driver = "sim", line = "a.strike" }
` + snippet
		if _, err := config.ParseController("readers.md", doc, config.Options{Demo: true}); err != nil {
			t.Errorf("snippet %d: %v\n%s", n-1, err, doc)
		}
	}
	if n != 5 {
		t.Errorf("%d snippets", n-1)
	}
}
