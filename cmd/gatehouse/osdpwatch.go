package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp/keyring"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/config"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/spelling"
	"github.com/spf13/cobra"
)

func newOSDPWatchCmd() *cobra.Command {
	var t osdpTarget
	var address int
	var listen, all, clearText, asJSON bool
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Show what readers tell, or every frame of a line",
		Long: `Poll the readers of a line as the daemon does, with the keys that this controller
keeps, and show what they tell, until Ctrl-C. Nothing is decided and nothing
recorded.

With --listen, say nothing, and show the frames of a line that somebody else
polls. Of what goes over a Secure Channel only who speaks, what about and how much
is to be seen. Polls without news are counted and not shown, unless --all is given.

Keys, card numbers, PINs and templates are never shown, only how long they are.

With --port and without --line no configuration is read: there are no keys then,
so give --listen, or --clear-text for a reader that has no Secure Channel.`,
		Example: `  sudo -u gatehouse gatehouse osdp watch --line rs485-1
  gatehouse osdp watch --port /dev/ttyUSB0 --baud 9600 --listen`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			view := &osdpView{w: cmd.OutOrStdout(), json: asJSON, all: all}
			switch {
			case listen && (clearText || address >= 0):
				return errors.New("--listen asks nobody: leave --address and --clear-text out")
			case all && !listen:
				return errors.New("--all is of --listen")
			case listen:
				line, release, err := t.take(cmd)
				if err != nil {
					return err
				}
				defer release()
				return listenOSDP(cmd.Context(), line, view)
			case t.bare():
				return watchBare(cmd.Context(), &t, address, clearText, view)
			case clearText:
				return errors.New("--clear-text is of a --port without a --line: the configuration says which of its readers have no Secure Channel")
			}
			return watchLine(cmd, &t, address, view)
		},
	}
	t.flags(cmd)
	addressFlag(cmd, &address)
	cmd.Flags().Lookup("address").Usage = "`address` of the one reader to poll, 0 to 126"
	cmd.Flags().BoolVar(&listen, "listen", false, "say nothing, and show the frames that others send")
	cmd.Flags().BoolVar(&all, "all", false, "with --listen: polls without news, too")
	cmd.Flags().BoolVar(&clearText, "clear-text", false, "poll without the Secure Channel: everybody at the wires can read and forge what is said")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print each event as a line of JSON")
	return cmd
}

// watchBare polls one reader in clear text, without a configuration.
func watchBare(ctx context.Context, t *osdpTarget, address int, clearText bool, view *osdpView) error {
	line, err := t.alone()
	if err != nil {
		return err
	}
	if !clearText {
		return errors.New("without a configuration there are no keys: give --line, or --listen, or --clear-text for a reader without a Secure Channel")
	}
	reader, err := line.one(max(address, 0))
	if err != nil {
		return err
	}
	return view.poll(ctx, line, []osdp.PeripheralConfig{{Address: reader.address, ClearText: true}})
}

// watchLine polls the readers of the configuration with their keys.
func watchLine(cmd *cobra.Command, t *osdpTarget, address int, view *osdpView) (err error) {
	cfg, line, err := t.find(cmd)
	if err != nil {
		return err
	}
	readers := line.readers
	if address >= 0 {
		one, err := line.one(address)
		if err != nil {
			return err
		}
		readers = []osdpReader{one}
	}
	held, err := holdLines(cfg.Data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, held.Close()) }()
	ring, err := keptKeys(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ring.Close()) }()
	return view.poll(cmd.Context(), line, line.peripherals(ring, readers...))
}

// keptKeys opens the keys of the readers, without the visitor log.
func keptKeys(cfg *config.Controller) (*keyring.Ring, error) {
	p, err := keyProvider(cfg.Keys.Provider, cfg.Data)
	if err != nil {
		return nil, err
	}
	k, err := keys.LoadController(p)
	if err != nil {
		return nil, fmt.Errorf("%w\ngatehouse init makes them", err)
	}
	return openRing(cfg, k.Readers)
}

// osdpEvent is one thing that happened on a line.
type osdpEvent struct {
	Time    time.Time `json:"time"`
	Address byte      `json:"address"`
	// Event is state, broken or fault; command or reply, of --listen; else
	// what a reader told: card, keys, status, inputs, outputs or other.
	Event  string `json:"event"`
	Code   string `json:"code,omitempty"`   // of a command or reply, by the standard's name
	Number *byte  `json:"number,omitempty"` // of a command or reply
	Detail string `json:"detail,omitempty"`
}

// osdpHeard is the last line of --listen.
type osdpHeard struct {
	Event   string `json:"event"` // counters
	Frames  uint64 `json:"frames"`
	Polls   uint64 `json:"polls"`   // of them, without news
	Broken  uint64 `json:"broken"`  // replies that were cut short or altered on the way
	Skipped uint64 `json:"skipped"` // bytes that were no frame
}

// osdpPolled is the last line about each reader that was polled.
type osdpPolled struct {
	Event    string       `json:"event"` // counters
	Address  byte         `json:"address"`
	Counters osdpCounters `json:"counters"`
}

// osdpCounters is osdp.Counters, for another program.
type osdpCounters struct {
	Replies   uint64 `json:"replies"`
	Repeats   uint64 `json:"repeats"`
	Silent    uint64 `json:"silent"`
	Garbled   uint64 `json:"garbled"`
	Busy      uint64 `json:"busy"`
	Malformed uint64 `json:"malformed"`
	Lost      uint64 `json:"lost"`
	Forged    uint64 `json:"forged"`
}

// osdpView shows what happens on a line. One goroutine uses it.
type osdpView struct {
	w    io.Writer
	json bool
	all  bool
}

func (v *osdpView) show(e osdpEvent) error {
	e.Detail = spelling.Printable(e.Detail)
	if v.json {
		return cli.PrintJSON(v.w, e)
	}
	words := e.Event
	if e.Code != "" {
		words = fmt.Sprintf("%-7s %d %s", e.Event, *e.Number, e.Code)
	}
	_, err := fmt.Fprintf(v.w, "%s address %3d  %s\n", e.Time.Format("15:04:05.000"), e.Address, strings.TrimSpace(words+"  "+e.Detail))
	return err
}

// poll shows what peripherals tell when they are polled, until ctx ends.
func (v *osdpView) poll(ctx context.Context, line osdpLine, peripherals []osdp.PeripheralConfig) error {
	events := make(chan osdpEvent, 256)
	var lost uint64 // of Handle's goroutine until the bus has stopped
	bus, err := startBus(ctx, line, peripherals, func(e osdp.Event) {
		select {
		case events <- eventOf(e):
		default: // a terminal that stands still (Ctrl-S) must not stop the polls
			lost++
		}
	})
	if err != nil {
		return err
	}
	for err == nil && ctx.Err() == nil {
		select {
		case e := <-events:
			err = v.show(e)
		case <-ctx.Done():
		}
	}
	bus.stop()
	for len(events) > 0 && err == nil {
		err = v.show(<-events)
	}
	if err != nil {
		return err
	}
	for _, p := range bus.Peripherals() {
		s := p.Status()
		if v.json {
			err = cli.PrintJSON(v.w, osdpPolled{"counters", s.Address, osdpCounters(s.Counters)})
		} else {
			c := s.Counters
			_, err = fmt.Fprintf(v.w, "address %d: %d replies, %d commands repeated, %d without an answer, %d answers broken, %d busy, %d malformed, %d channels lost, %d of them by forged frames\n",
				s.Address, c.Replies, c.Repeats, c.Silent, c.Garbled, c.Busy, c.Malformed, c.Lost, c.Forged)
		}
		if err != nil {
			return err
		}
	}
	if lost > 0 {
		return fmt.Errorf("%d events were not shown, because what shows them was too slow", lost)
	}
	return nil
}

// eventOf says what a reader told, with nothing secret in it.
func eventOf(e osdp.Event) osdpEvent {
	o := osdpEvent{Time: e.At, Address: e.Peripheral.Address()}
	switch {
	case e.Reply != nil:
		o.Event, o.Detail = replyWords(e.Reply)
	case e.Err != nil && (e.State == osdp.Secure || e.State == osdp.ClearText):
		o.Event, o.Detail = "fault", e.Err.Error()
	default:
		o.Event, o.Detail = "state", e.State.String()
		switch {
		case e.Err != nil:
			o.Detail += ": " + advised(e.Err).Error()
		case e.State == osdp.Secure, e.State == osdp.ClearText:
			o.Detail += ": " + e.Peripheral.Status().ID.String()
		}
	}
	return o
}

// replyWords says what a reply is, and nothing secret of it: of cards, keys and
// templates their length, of a comparison nothing but whether somebody came.
func replyWords(r osdp.Reply) (event, words string) {
	switch m := r.(type) {
	case osdp.Card:
		return "card", fmt.Sprintf("%d bits at reader %d", m.Bits, m.Reader)
	case osdp.FormattedCard:
		return "card", fmt.Sprintf("%d characters at reader %d", len(m.Digits), m.Reader)
	case osdp.Keypad:
		return "keys", fmt.Sprintf("%d keys at reader %d", len(m.Keys), m.Reader)
	case osdp.LocalStatus:
		return "status", fmt.Sprintf("tamper %s, power %s", onOff(m.Tamper, "YES", "no"), onOff(m.PowerFail, "FAILING", "ok"))
	case osdp.Inputs:
		return "inputs", eachOf(m, inputStateWords)
	case osdp.Outputs:
		return "outputs", eachOf(m, func(on bool) string { return onOff(on, "on", "off") })
	case osdp.Readers:
		return "readers", eachOf(m, readerStateWords)
	case osdp.BioTemplate:
		return "template", fmt.Sprintf("%v, %v, %d bytes", m.Type, m.Status, len(m.Template))
	case osdp.BioScore:
		return "comparison", m.Status.String()
	case osdp.NAK:
		return "refusal", m.Error()
	case osdp.ID:
		return "identity", m.String()
	case osdp.Capabilities:
		var list []string
		for _, c := range m {
			list = append(list, capabilityWords(c))
		}
		return "abilities", strings.Join(list, "; ")
	case osdp.Comm:
		return "address", fmt.Sprintf("goes to address %d at %d baud", m.Address, m.Baud)
	case osdp.FileStatus:
		return "file", fmt.Sprintf("status %d", m.Status)
	case osdp.ManufacturerReply:
		return "other", fmt.Sprintf("of maker %02X-%02X-%02X, %d bytes", m.OUI[0], m.OUI[1], m.OUI[2], len(m.Data))
	case osdp.OtherReply:
		return "other", fmt.Sprintf("%v, %d bytes", m.Code, len(m.Data))
	}
	return "other", r.Reply().String()
}

// eachOf says the state of each of several parts, by their numbers.
func eachOf[S any](states []S, words func(S) string) string {
	list := make([]string, len(states))
	for i, s := range states {
		list[i] = fmt.Sprintf("%d %s", i, words(s))
	}
	return strings.Join(list, ", ")
}

func inputStateWords(s osdp.InputState) string {
	names := []string{"inactive", "active", "SHORT", "CUT", "FAULT"}
	if int(s) < len(names) {
		return names[s]
	}
	return "unknown"
}

func readerStateWords(s osdp.ReaderState) string {
	switch s {
	case osdp.ReaderOK:
		return "ok"
	case osdp.ReaderAbsent:
		return "ABSENT"
	case osdp.ReaderTamper:
		return "TAMPER"
	}
	return "unknown"
}

func onOff(on bool, yes, no string) string {
	if on {
		return yes
	}
	return no
}

// commandWords is replyWords of a command.
func commandWords(c osdp.Command) string {
	switch m := c.(type) {
	case osdp.SetComm:
		return fmt.Sprintf("go to address %d at %d baud", m.Address, m.Baud)
	case osdp.SetKey:
		return "A KEY, IN CLEAR TEXT"
	case osdp.BioRead:
		return fmt.Sprintf("scan %v", m.Type)
	case osdp.BioMatch:
		return fmt.Sprintf("compare %v with %d bytes", m.Type, len(m.Template))
	case osdp.FileTransfer:
		return fmt.Sprintf("%d bytes at %d of %d", len(m.Data), m.Offset, m.Total)
	case osdp.Manufacturer:
		return fmt.Sprintf("of maker %02X-%02X-%02X, %d bytes", m.OUI[0], m.OUI[1], m.OUI[2], len(m.Data))
	case osdp.OtherCommand:
		return fmt.Sprintf("%d bytes", len(m.Data))
	}
	return ""
}

// patience is how long a listener waits for the rest of a frame: longer than
// the gap between two bytes, for converters hand bytes on in heaps.
const patience = 100 * time.Millisecond

// listenOSDP shows the frames of a line until ctx ends.
func listenOSDP(ctx context.Context, line osdpLine, view *osdpView) (err error) {
	port, err := openPort(line.port, line.baud)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, port.Close()) }()
	var d osdp.Decoder
	count := osdpHeard{Event: "counters"}
	b := make([]byte, 512)
	for ctx.Err() == nil {
		n, err := port.Read(b, patience)
		if err != nil {
			return fmt.Errorf("%s: %w", line.port, err)
		}
		d.Write(b[:n])
		clear(b[:n])
		for {
			f, raw, ok := d.Next(n == 0)
			if !ok {
				break
			}
			count.Frames++
			e, news := frameEvent(f)
			clear(f.Data)
			clear(raw)
			if !news {
				count.Polls++
			}
			if !news && !view.all {
				continue
			}
			e.Time = time.Now()
			if err := view.show(e); err != nil {
				return err
			}
		}
		if d.Broken > count.Broken {
			count.Broken = d.Broken
			if err := view.show(osdpEvent{Time: time.Now(), Event: "broken", Detail: fmt.Sprintf("%d replies so far were cut short or altered on the way", d.Broken)}); err != nil {
				return err
			}
		}
	}
	count.Skipped = d.Skipped
	if view.json {
		return cli.PrintJSON(view.w, count)
	}
	_, err = fmt.Fprintf(view.w, "%d frames, of them %d polls without news; %d broken replies, %d bytes that were no frame\n", count.Frames, count.Polls, count.Broken, count.Skipped)
	if err == nil && count.Frames == 0 {
		_, err = fmt.Fprintf(view.w, "no frame came at %d baud: is it another rate (--baud), or A and B swapped?\n", line.baud)
	}
	return err
}

// frameEvent says what a frame is about. It is no news that a peripheral was
// polled and had nothing to tell.
func frameEvent(f osdp.Frame) (e osdpEvent, news bool) {
	number := f.Control.Sequence()
	e = osdpEvent{Address: f.Address, Event: "command", Code: osdp.CommandCode(f.Code).String(), Number: &number}
	news = osdp.CommandCode(f.Code) != osdp.CodePOLL
	if f.Reply {
		e.Event, e.Code = "reply", osdp.ReplyCode(f.Code).String()
		news = osdp.ReplyCode(f.Code) != osdp.CodeACK
	}
	e.Detail = frameWords(f)
	return e, news
}

// Types of the security block that a frame of the Secure Channel has.
const (
	blockHandshakeLast = 0x14 // 0x11 to 0x14 begin the channel
	blockEncrypted     = 0x17 // and above: the data are encrypted
)

func frameWords(f osdp.Frame) string {
	switch {
	case len(f.Block) == 0:
	case f.Block[0] <= blockHandshakeLast:
		if len(f.Block) > 1 && f.Block[1] == 0 {
			return "a Secure Channel begins ON THE DEFAULT KEY"
		}
		return "a Secure Channel begins"
	case f.Block[0] >= blockEncrypted:
		return fmt.Sprintf("secured, %d bytes that are encrypted", len(f.Data))
	default:
		return "secured"
	}
	if f.Reply {
		m, err := osdp.ParseReply(osdp.ReplyCode(f.Code), f.Data)
		if err != nil {
			return err.Error()
		}
		if _, nothing := m.(osdp.ACK); nothing {
			return ""
		}
		_, words := replyWords(m)
		return words
	}
	c, err := osdp.ParseCommand(osdp.CommandCode(f.Code), f.Data)
	if err != nil {
		return err.Error()
	}
	return commandWords(c)
}
