package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp/pd"
	"github.com/gatehouse-acs/gatehouse/internal/badgeview"
	"github.com/spf13/cobra"
)

const readerHelp = `card H10301:123:4567     hold a card to the reader: FORMAT:facility:number, FORMAT:number, or its bits
keys 4711#               press keys: 0 to 9, * and #
finger NAME [PART]       hold somebody's finger to it; the right index unless PART says, such as: left thumb
eye NAME [PART]          hold somebody's eye to it; the right iris, or: left iris
away                     take finger or eye away again
tamper on | tamper off   the reader is opened, or closed
power on | power off     its key stays
fault NAME[:N]           misbehave for all commands, or for the next N; N 0: no more of it
                         drop, drop-reply, flip, truncate, noise, echo, late, busy, wrong-mac, replay, clear,
                         power-loss[:SECONDS]
help, quit
with several readers, the address before the command: 1 card H10301:123:4567`

// readersAsked is what the flags say.
type readersAsked struct {
	addresses []int
	baud      int
	keyFiles  []string // of the readers in their order; there may be fewer
	clearText bool
	faults    []string
	link      string
}

func newReaderCmd() *cobra.Command {
	var asked readersAsked
	cmd := &cobra.Command{
		Use:   "reader",
		Short: "Simulate OSDP readers, to try a panel without hardware",
		Long: `Simulate one or more OSDP readers at a pseudo-terminal, whose name is printed: for
Gatehouse, or any panel. Cards, keys, fingers and eyes are given by commands, typed
a line each. What the panel tells a reader is shown, but never a key or a card's
number. It ends with Ctrl-C, the end of input, or quit.

A reader has no key at first, as a new one, and takes the default key until it is
given its own. With --key-file it keeps that.

Commands:
` + indented(readerHelp),
		Example: `  gatehouse-demo reader --link /tmp/reader --key-file reader.key
  # in another terminal:
  gatehouse osdp scan --port /tmp/reader --baud 9600 --alone`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return asked.run(cmd.Context(), cmd.InOrStdin(), &journal{w: cmd.OutOrStdout()})
		},
	}
	cmd.Flags().IntSliceVar(&asked.addresses, "address", []int{0}, "`address` of the reader, 0 to 126; repeated, there is another reader on the line, at the same address too")
	cmd.Flags().IntVar(&asked.baud, "baud", osdp.DefaultBaud, "`rate` of the readers: they hear nothing at another one")
	cmd.Flags().StringArrayVar(&asked.keyFiles, "key-file", nil, "`FILE` with the key of the reader, 32 hexadecimal digits; written when the reader is given another one. Repeated, of the second reader, and so on")
	cmd.Flags().BoolVar(&asked.clearText, "clear-text", false, "serve a panel without the Secure Channel, too")
	cmd.Flags().StringArrayVar(&asked.faults, "fault", nil, "misbehave from the start, as the command fault; `NAME[:N]`, may be repeated")
	linkFlag(cmd, &asked.link)
	return cmd
}

func (a *readersAsked) run(ctx context.Context, in io.Reader, say *journal) error {
	if !slices.Contains(osdp.Bauds, a.baud) {
		return fmt.Errorf("--baud: %d is not one of %v", a.baud, osdp.Bauds)
	}
	if len(a.keyFiles) > len(a.addresses) {
		return fmt.Errorf("--key-file: there are more files (%d) than readers (%d): give an --address for each", len(a.keyFiles), len(a.addresses))
	}
	var line readerLine
	var far []*pd.Peripheral
	for i := range a.addresses {
		r, err := a.reader(i, say)
		if err != nil {
			return err
		}
		defer r.trouble.end()
		line, far = append(line, r), append(far, r.Peripheral)
	}
	return device{
		serve: func(end io.ReadWriter, rate func() int) { pd.Serve(end, pd.Wire{Rate: rate}, far...) },
		ready: func(port string) {
			for i, r := range line {
				key := "with its own key"
				if r.Key() == (osdp.Key{}) {
					key = "without a key yet"
				}
				say.print("reader %d at address %d, %d baud, %s", i+1, r.address, a.baud, key)
			}
			say.print("at %s: gatehouse osdp scan --port %[1]s --baud %d --address %d", port, a.baud, line[0].address)
			say.print("help shows what can be done to it")
		},
		look: func() {
			for _, r := range line {
				r.look()
			}
		},
		do:   line.do,
		help: readerHelp,
	}.run(ctx, in, say, a.link)
}

// reader makes the i-th one.
func (a *readersAsked) reader(i int, say *journal) (*reader, error) {
	address := a.addresses[i]
	if address < 0 || address > osdp.MaxAddress {
		return nil, fmt.Errorf("--address: %d is not an address: they are 0 to %d", address, osdp.MaxAddress)
	}
	r := &reader{address: address, note: func(format string, args ...any) {
		say.note("address %d: "+format, append([]any{address}, args...)...)
	}}
	config := pd.Config{
		Address: byte(address), Baud: a.baud, ClearText: a.clearText, Capabilities: capabilities, Handle: r.told,
		// Two at one address are not alike.
		ID: osdp.ID{OUI: [3]byte{0x02, 0x05, 0xD9}, Model: 1, Version: 1, Serial: 0x51000000 | uint32(i)<<8 | uint32(address), Firmware: [3]byte{1, 0, 0}},
	}
	if i < len(a.keyFiles) {
		r.keyFile = a.keyFiles[i]
		var err error
		if config.Key, err = readKey(r.keyFile); err != nil {
			return nil, fmt.Errorf("--key-file: %w", err)
		}
	}
	r.Peripheral = pd.New(config)
	r.trouble = &trouble[pd.Fault]{device: r.Peripheral, parse: pd.ParseFault, note: r.note}
	for _, f := range a.faults {
		if err := r.trouble.begin(f); err != nil {
			return nil, fmt.Errorf("--fault: %w", err)
		}
	}
	return r, nil
}

// readKey reads the key that a reader has kept; zero: it has none yet.
func readKey(path string) (key osdp.Key, err error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return key, nil
	case err != nil:
		return key, err
	case !info.Mode().IsRegular():
		return key, fmt.Errorf("%s is not a regular file", path)
	case info.Mode().Perm()&0o077 != 0:
		return key, fmt.Errorf("%s can be reached by others (mode %#o): chmod 600 %[1]s", path, info.Mode().Perm())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return key, err
	}
	if key, err = osdp.ParseKey(strings.TrimSpace(string(text))); err != nil {
		return key, fmt.Errorf("%s: %w: write them, or remove the file, and the reader has no key yet", path, err)
	}
	if key.Equal(osdp.Key{}) || key.Equal(osdp.DefaultKey()) {
		return key, fmt.Errorf("%s holds a key that everybody knows: remove the file, and the reader has no key yet", path)
	}
	return key, nil
}

// reader is one simulated reader.
type reader struct {
	*pd.Peripheral
	trouble *trouble[pd.Fault]
	address int // that it began with, by which it is called
	keyFile string
	online  bool
	note    func(format string, args ...any)
}

// look says whether the panel has come or gone.
func (r *reader) look() {
	if online := r.Online(); online != r.online {
		r.online = online
		r.note("%s", map[bool]string{true: "the panel is there", false: "the panel is gone"}[online])
	}
}

// capabilities are those of the simulator, and a display.
var capabilities = []osdp.Capability{
	{Function: osdp.FunctionInputs, Level: 1, Count: 2}, {Function: osdp.FunctionOutputs, Level: 1, Count: 1},
	{Function: osdp.FunctionCardFormat, Level: 1}, {Function: osdp.FunctionLED, Level: 4, Count: 1},
	{Function: osdp.FunctionBuzzer, Level: 1, Count: 1}, {Function: osdp.FunctionText, Level: 1, Count: 1},
	{Function: osdp.FunctionCheck, Level: 1}, {Function: osdp.FunctionSecurity, Level: 1, Count: 1},
	{Function: osdp.FunctionReceiveSize, Count: 1}, // 256 bytes
	{Function: osdp.FunctionReaders, Level: 1, Count: 1},
	{Function: osdp.FunctionBiometrics, Level: 3, Count: 1}, {Function: osdp.FunctionVersion, Level: 2},
}

// readerLine is the readers of a line.
type readerLine []*reader

// do does what was typed, at the reader whose address stands ahead of it.
func (line readerLine) do(words []string) error {
	meant := line
	if address, err := strconv.Atoi(words[0]); err == nil {
		meant = slices.DeleteFunc(slices.Clone(line), func(r *reader) bool { return r.address != address })
		words = words[1:]
		if len(meant) == 0 {
			return fmt.Errorf("there is no reader at address %d", address)
		}
		if len(words) == 0 {
			return errors.New("behind the address stands a command: help shows those that there are")
		}
	} else if slices.ContainsFunc(line, func(r *reader) bool { return r.address != line[0].address }) {
		return fmt.Errorf("which reader? Write its address first, such as: %d %s", line[0].address, words[0])
	}
	for _, r := range meant {
		if err := r.do(words); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) do(words []string) error {
	if known, err := r.trouble.do(words); known {
		return err
	}
	if r.trouble.dark() {
		return fmt.Errorf("the reader at address %d has no power: power on", r.address)
	}
	switch words[0] {
	case "card":
		if len(words) != 2 {
			return errors.New("write: card FORMAT:facility:number, or card and its bits")
		}
		frame, shown, err := parseCard(words[1])
		if err != nil {
			return err
		}
		r.Present(frame.Bits())
		r.note("card %s", shown)
	case "keys":
		if len(words) != 2 || strings.Trim(words[1], "0123456789*#") != "" || len(words[1]) > maxKeys {
			return fmt.Errorf("write: keys 4711#, of 0 to 9, * and #, at most %d", maxKeys)
		}
		r.Press(words[1])
		r.note("%d keys", len(words[1]))
	case "finger", "eye":
		return r.hold(words)
	case "away":
		r.Hold(nil)
		r.note("nobody is at the scanner")
	case "tamper":
		on, err := onOff(words)
		if err != nil {
			return err
		}
		r.SetLocal(osdp.LocalStatus{Tamper: on})
		r.note("tamper %s", words[1])
	default:
		return unknown(words)
	}
	return nil
}

// maxKeys are the most keys that are pressed at once; the protocol has 255.
const maxKeys = 32

// parseCard reads a card, and gives what may be shown of it.
func parseCard(text string) (frame badge.Frame, shown string, err error) {
	if strings.Trim(text, "01") == "" {
		frame, err = badge.ParseFrame(text)
		return frame, fmt.Sprintf("of %d bits", frame.Len()), err
	}
	table := badge.Builtin()
	card, err := badgeview.ParseCard(table, text)
	if err != nil {
		return frame, "", fmt.Errorf("%w, or its bits as 0 and 1", err)
	}
	format, err := table.Find(card.Format)
	if err != nil {
		return frame, "", err
	}
	frame, err = format.Encode(card)
	return frame, card.String(), err
}

// hold holds a finger or an eye to the scanner.
func (r *reader) hold(words []string) error {
	parts := []osdp.BioType{osdp.RightIris, osdp.LeftIris}
	if words[0] == "finger" {
		parts = []osdp.BioType{
			osdp.RightIndex, osdp.RightThumb, osdp.RightMiddle, osdp.RightRing, osdp.RightLittle,
			osdp.LeftThumb, osdp.LeftIndex, osdp.LeftMiddle, osdp.LeftRing, osdp.LeftLittle,
		}
	}
	part := 0
	if len(words) > 2 {
		part = slices.IndexFunc(parts, func(t osdp.BioType) bool { return t.String() == strings.Join(words[2:], " ") })
	}
	if len(words) < 2 || part < 0 {
		return fmt.Errorf("write: %s NAME, or %[1]s NAME and one of %v", words[0], parts)
	}
	template := sha256.Sum256([]byte(words[1] + " " + parts[part].String()))
	r.Hold(&pd.Trait{Type: parts[part], Quality: 230, Template: template[:]})
	r.note("the %v of %s is at the scanner, until: away", parts[part], words[1])
	return nil
}

// told says what the panel has told the reader.
func (r *reader) told(c osdp.Command) {
	switch c := c.(type) {
	case osdp.SetLEDs:
		for _, l := range c {
			r.note("light %d: %s", l.LED, lightWords(l))
		}
	case osdp.Buzz:
		switch {
		case c.Tone == osdp.ToneOff:
			r.note("buzzer off")
		case c.Count == 0:
			r.note("buzzer, until told otherwise")
		default:
			r.note("buzzer %d times %v", c.Count, tenths(c.On))
		}
	case osdp.ShowText:
		r.note("text %q", c.Text)
	case osdp.SetOutputs:
		r.note("outputs %v", r.Outputs())
	case osdp.SetKey:
		r.keyed(c.Key)
	case osdp.SetComm:
		r.note("COMSET: it goes to address %d at %d baud; here it is called %d still", c.Address, c.Baud, r.address)
	case osdp.BioRead:
		r.note("the panel asks for a scan: %v", c.Type)
	case osdp.BioMatch:
		r.note("the panel asks whether this is somebody: %v", c.Type)
	case osdp.Abort:
		r.note("the panel ends what it has asked for")
	case osdp.FileTransfer:
		if int(c.Offset)+len(c.Data) >= int(c.Total) {
			r.note("a file of %d bytes", c.Total)
		}
	}
}

// keyed keeps a new key, as a reader does.
func (r *reader) keyed(key osdp.Key) {
	if r.keyFile == "" {
		r.note("KEYSET: it has its own key now, until the end: --key-file would keep it")
		return
	}
	if err := os.WriteFile(r.keyFile, []byte(hex.EncodeToString(key[:])+"\n"), 0o600); err != nil {
		r.note("KEYSET: it has its own key now, which is lost at the end: %v", err)
		return
	}
	r.note("KEYSET: it has its own key now, kept in %s", r.keyFile)
}

// lightWords says what becomes of a light.
func lightWords(l osdp.LED) string {
	var words []string
	if l.Permanent {
		words = append(words, flashWords(l.Steady))
	}
	switch l.Temporary {
	case osdp.LEDCancel:
		words = append(words, "not for a time any more")
	case osdp.LEDSet:
		words = append(words, fmt.Sprintf("%s for %v", flashWords(l.Flash), time.Duration(l.Timer)*100*time.Millisecond))
	}
	if len(words) == 0 {
		return "as before"
	}
	return strings.Join(words, ", ")
}

func flashWords(f osdp.Flash) string {
	switch {
	case f.Off == 0 || f.OnColor == f.OffColor:
		return colorWords(f.OnColor)
	case f.On == 0:
		return colorWords(f.OffColor)
	}
	return fmt.Sprintf("%s %v and %s %v in turn", colorWords(f.OnColor), tenths(f.On), colorWords(f.OffColor), tenths(f.Off))
}

func tenths(n byte) time.Duration { return time.Duration(n) * 100 * time.Millisecond }

func colorWords(c osdp.Color) string {
	names := []string{"dark", "red", "green", "amber", "blue", "magenta", "cyan", "white"}
	if int(c) < len(names) {
		return names[c]
	}
	return fmt.Sprintf("colour %d", c)
}
