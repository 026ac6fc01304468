// Package pd simulates OSDP peripherals: readers with cards, a keypad,
// fingerprints and irises, which insist on the Secure Channel and can be told
// to misbehave. They are for tests and for trying a panel without hardware.
package pd

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
)

// Config describes a peripheral. Its zero value is a reader at address 0 with
// no key yet, with one LED, buzzer, keypad and output, two inputs, a fingerprint
// and an iris scanner.
type Config struct {
	Address      byte
	Baud         int               // osdp.DefaultBaud
	Key          osdp.Key          // zero: none yet, and the default key is taken
	ClearText    bool              // serves without the Secure Channel too
	NoSecurity   bool              // has no Secure Channel
	ID           osdp.ID           // zero: one is made up
	Capabilities []osdp.Capability // nil: those of the above
	Checksum     bool              // knows only the checksum

	DirectScan  bool           // answers a scan at once, not on a later poll
	ScanTimeout time.Duration  // 10 s
	BioTypes    []osdp.BioType // that it scans; nil: fingers and irises

	// Answer may give the reply to a command in place of the peripheral; nil: it
	// answers itself. It may not call the peripheral's methods.
	Answer func(osdp.Command) osdp.Reply
	// Handle is told each command that was carried out, but for polls. It may
	// call the peripheral's methods.
	Handle func(osdp.Command)
}

// Fault is a way to misbehave.
type Fault byte

const (
	Drop      Fault = iota // does not hear the command
	DropReply              // hears it, and its reply is lost
	Flip                   // one bit of the reply is another
	Truncate               // only half of the reply is sent
	Noise                  // noise comes before the reply
	Echo                   // the command comes back before the reply
	Late                   // the reply comes after LateBy
	Busy                   // asks for patience
	WrongMAC               // the reply's MAC is wrong, its CRC is not
	Replay                 // an earlier reply is sent, with the same number
	Clear                  // the reply is in clear text, whatever the session
)

// LateBy is how much too late a Late reply is.
const LateBy = osdp.DefaultReplyTimeout + 50*time.Millisecond

var faultNames = [...]string{"drop", "drop-reply", "flip", "truncate", "noise", "echo", "late", "busy", "wrong-mac", "replay", "clear"}

func (f Fault) String() string {
	if int(f) < len(faultNames) {
		return faultNames[f]
	}
	return fmt.Sprintf("fault %d", byte(f))
}

// ParseFault reads a fault's name, such as "wrong-mac".
func ParseFault(name string) (Fault, error) {
	i := slices.Index(faultNames[:], name)
	if i < 0 {
		return 0, fmt.Errorf("unknown fault %q: there are %v", name, faultNames)
	}
	return Fault(i), nil
}

// Trait is what a person holds to a scanner.
type Trait struct {
	Type     osdp.BioType
	Quality  byte
	Template osdp.Secret
	Score    byte // of a comparison with the template; 0: 255, the best
	Brief    bool // it is taken away once it has matched, or was enrolled
}

// maxEvents bounds what waits to be polled.
const maxEvents = 16

// Peripheral is a simulated one. Its methods may be called from any goroutine.
type Peripheral struct {
	mu      sync.Mutex
	config  Config
	faults  map[Fault]int
	off     bool
	local   osdp.LocalStatus
	inputs  osdp.Inputs
	outputs osdp.Outputs
	events  []osdp.Reply
	trait   *Trait
	scan    *scan
	file    []byte
	files   map[osdp.FileType]osdp.Secret

	// The protocol's side.
	session     *osdp.SecureChannel
	established bool
	ownKey      bool // of the session: not the default key
	number      byte
	heard       time.Time
	command     []byte // the last one, and what was answered
	reply       []byte
	earlier     map[byte][]byte // replies by their number
}

// scan is one that waits for somebody.
type scan struct {
	read  *osdp.BioRead
	match *osdp.BioMatch
	until time.Time
}

// New makes a peripheral; Serve or NewLine puts it on a line.
func New(c Config) *Peripheral {
	if c.Baud == 0 {
		c.Baud = osdp.DefaultBaud
	}
	if c.ID == (osdp.ID{}) {
		c.ID = osdp.ID{OUI: [3]byte{0x02, 0x05, 0xD9}, Model: 1, Version: 1, Serial: 0x51000000 | uint32(c.Address), Firmware: [3]byte{1, 0, 0}}
	}
	if c.ScanTimeout == 0 {
		c.ScanTimeout = 10 * time.Second
	}
	if c.BioTypes == nil {
		for t := osdp.RightThumb; t <= osdp.LeftLittle; t++ {
			c.BioTypes = append(c.BioTypes, t)
		}
		c.BioTypes = append(c.BioTypes, osdp.RightIris, osdp.LeftIris)
	}
	if c.Capabilities == nil {
		security, check := byte(1), byte(1)
		if c.NoSecurity {
			security = 0
		}
		if c.Checksum {
			check = 0
		}
		c.Capabilities = []osdp.Capability{
			{Function: osdp.FunctionInputs, Level: 1, Count: 2}, {Function: osdp.FunctionOutputs, Level: 1, Count: 1},
			{Function: osdp.FunctionCardFormat, Level: 1}, {Function: osdp.FunctionLED, Level: 4, Count: 1},
			{Function: osdp.FunctionBuzzer, Level: 1, Count: 1}, {Function: osdp.FunctionCheck, Level: check},
			{Function: osdp.FunctionSecurity, Level: security, Count: security},
			{Function: osdp.FunctionReceiveSize, Level: 0, Count: 1}, // 256 bytes
			{Function: osdp.FunctionReaders, Level: 1, Count: 1},
			{Function: osdp.FunctionBiometrics, Level: 3, Count: 1}, {Function: osdp.FunctionVersion, Level: 2},
		}
	}
	return &Peripheral{
		config: c, faults: map[Fault]int{}, inputs: make(osdp.Inputs, 2), outputs: make(osdp.Outputs, 1),
		files: map[osdp.FileType]osdp.Secret{}, earlier: map[byte][]byte{},
	}
}

// Inject makes the next n commands to the peripheral suffer from a fault; -1:
// all of them, 0: none any more.
func (p *Peripheral) Inject(f Fault, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults[f] = n
}

// hit reports whether a fault is due, and counts it.
func (p *Peripheral) hit(f Fault) bool {
	n := p.faults[f]
	if n > 0 {
		p.faults[f]--
	}
	return n != 0
}

// Power switches the peripheral off or on. It forgets what is not its key,
// address or rate.
func (p *Peripheral) Power(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.off = !on; p.off {
		p.session, p.established, p.events, p.scan, p.trait, p.file = nil, false, nil, nil, nil, nil
		p.number, p.command, p.reply = 0, nil, nil
		clear(p.earlier)
		clear(p.outputs)
	}
}

// Online reports whether the panel is there: over the Secure Channel with the
// peripheral's own key, or without one where the peripheral allows that.
func (p *Peripheral) Online() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.off && time.Since(p.heard) < osdp.OfflineAfter && (p.established && p.ownKey || p.config.ClearText)
}

// Key is the peripheral's key; zero: none yet.
func (p *Peripheral) Key() osdp.Key {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.config.Key
}

// File is the last file of a type that was received whole; nil: none.
func (p *Peripheral) File(t osdp.FileType) osdp.Secret {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Clone(p.files[t])
}

// Outputs is whether each output is on.
func (p *Peripheral) Outputs() osdp.Outputs {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.outputs)
}

// Present holds a card to the reader: bits of '0' and '1'.
func (p *Peripheral) Present(bits string) {
	card := osdp.Card{Format: osdp.CardWiegand, Bits: uint16(len(bits)), Data: make(osdp.Secret, (len(bits)+7)/8)}
	for i, b := range []byte(bits) {
		if b == '1' {
			card.Data[i/8] |= 0x80 >> (i % 8)
		}
	}
	p.Tell(card)
}

// Press presses keys: 0 to 9, * and #.
func (p *Peripheral) Press(keys string) { p.Tell(osdp.Keypad{Keys: osdp.Secret(keys)}) }

// Tell has the peripheral give a reply when it is polled next. What comes while
// it is off, or when too much waits already, is lost.
func (p *Peripheral) Tell(r osdp.Reply) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tell(r)
}

func (p *Peripheral) tell(r osdp.Reply) {
	if !p.off && len(p.events) < maxEvents {
		p.events = append(p.events, r)
	}
}

// Hold holds a finger or an eye to the scanner; nil takes it away.
func (p *Peripheral) Hold(t *Trait) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trait = t
	if p.scan != nil && t != nil {
		if r, ok := p.scanned(); ok {
			p.scan = nil
			p.tell(r)
		}
	}
}

// SetLocal changes the tamper and the power state.
func (p *Peripheral) SetLocal(s osdp.LocalStatus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.local = s
	p.tell(s)
}

// SetInput changes what an input sees.
func (p *Peripheral) SetInput(i int, s osdp.InputState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inputs[i] = s
	p.tell(slices.Clone(p.inputs))
}

// receive deals with a frame from the line and gives what comes back, if
// anything does, and when.
func (p *Peripheral) receive(f osdp.Frame, raw []byte, rate int) (reply []byte, after time.Duration) {
	p.mu.Lock()
	if p.off || f.Reply || f.Address != p.config.Address && f.Address != osdp.Broadcast || rate != 0 && rate != p.config.Baud || p.hit(Drop) {
		p.mu.Unlock()
		return nil, 0
	}
	reply, done := p.answer(f, raw)
	handle := p.config.Handle
	if p.hit(Late) {
		after = LateBy
	}
	reply = p.spoil(reply, raw)
	p.mu.Unlock()
	if done != nil && handle != nil {
		handle(done)
	}
	return reply, after
}

// answer makes the reply to a command, which is done when it was carried out
// now.
func (p *Peripheral) answer(f osdp.Frame, raw []byte) (reply []byte, done osdp.Command) {
	now := time.Now()
	if now.Sub(p.heard) >= osdp.OfflineAfter {
		p.session, p.established = nil, false
	}
	p.heard = now
	number := f.Control.Sequence()
	if number != 0 && bytes.Equal(raw, p.command) {
		return p.reply, nil // it was not heard: the same again
	}
	if p.hit(Busy) {
		return p.frame(f, 0, osdp.Busy{}, nil, false), nil
	}
	respond := func(r osdp.Reply, block []byte, sealed bool) []byte {
		p.number = number
		p.command = bytes.Clone(raw)
		p.reply = p.frame(f, number, r, block, sealed)
		return p.reply
	}
	refuse := func(code osdp.NAKCode) []byte {
		p.session, p.established = nil, false
		return respond(osdp.NAK{Code: code}, nil, false)
	}
	switch {
	case number == 0:
		p.session, p.established = nil, false
	case number != p.number%3+1:
		return refuse(osdp.NAKSequence), nil
	}
	secured := len(f.Block) > 0 && f.Block[0] > 0x14
	switch {
	case secured && !p.established, !secured && p.established:
		return refuse(osdp.NAKSecurity), nil
	case secured:
		opened, err := p.session.Open(raw)
		if err != nil {
			return refuse(osdp.NAKSecurity), nil
		}
		f = opened
	}
	command, err := osdp.ParseCommand(osdp.CommandCode(f.Code), f.Data)
	if err != nil {
		return respond(osdp.NAK{Code: osdp.NAKLength}, nil, secured), nil
	}
	switch c := command.(type) {
	case osdp.Challenge:
		return p.challenged(c, f, respond, refuse), nil
	case osdp.ServerCryptogram:
		return p.proved(c, f, respond, refuse), nil
	case osdp.GetID, osdp.GetCapabilities:
	default:
		if !secured && !p.config.ClearText {
			return refuse(osdp.NAKSecurity), nil
		}
		if _, ok := c.(osdp.SetKey); secured && !p.ownKey && !ok && p.config.Key != (osdp.Key{}) {
			return refuse(osdp.NAKSecurity), nil
		}
	}
	answer := p.carryOut(command, secured)
	reply = respond(answer, nil, secured)
	if _, ok := answer.(osdp.NAK); ok {
		return reply, nil
	}
	switch c := command.(type) {
	case osdp.Poll:
		return reply, nil
	case osdp.SetKey:
		p.config.Key = c.Key
		p.session, p.established = nil, false
	case osdp.SetComm:
		p.config.Address, p.config.Baud = c.Address, int(c.Baud)
		p.session, p.established = nil, false
	}
	return reply, command
}

// frame makes a reply's bytes.
func (p *Peripheral) frame(to osdp.Frame, number byte, r osdp.Reply, block []byte, sealed bool) []byte {
	data, err := r.AppendBinary(nil)
	if err != nil {
		panic(fmt.Sprintf("pd: %v", err)) // what a test has told it to tell
	}
	f := osdp.Frame{Address: p.config.Address, Reply: true, Block: block, Code: byte(r.Reply()), Data: data}
	f.Control = osdp.Control(number) | to.Control&osdp.ControlCRC
	if p.config.Checksum {
		f.Control &^= osdp.ControlCRC
	}
	var raw []byte
	if sealed && !p.hit(Clear) {
		raw, err = p.session.Seal(f)
	} else {
		raw, err = f.Bytes()
	}
	if err != nil {
		panic(fmt.Sprintf("pd: %v", err))
	}
	return raw
}

// challenged begins a Secure Channel.
func (p *Peripheral) challenged(c osdp.Challenge, f osdp.Frame, respond func(osdp.Reply, []byte, bool) []byte, refuse func(osdp.NAKCode) []byte) []byte {
	keyed := p.config.Key != osdp.Key{}
	switch {
	case p.config.NoSecurity:
		return refuse(osdp.NAKNoSecurity)
	case len(f.Block) != 2 || f.Block[0] != 0x11, keyed != (f.Block[1] == 1):
		return refuse(osdp.NAKSecurity)
	}
	key := osdp.DefaultKey()
	if keyed {
		key = p.config.Key
	}
	var random [8]byte
	rand.Read(random[:])
	p.session, p.established, p.ownKey = osdp.NewSecureChannel(key, c.Random, random), false, keyed
	m := osdp.ClientCryptogram{Random: random, Cryptogram: p.session.ClientCryptogram()}
	id, _ := p.config.ID.AppendBinary(nil)
	copy(m.ID[:], id)
	return respond(m, []byte{0x12, f.Block[1]}, false)
}

// proved ends the handshake.
func (p *Peripheral) proved(c osdp.ServerCryptogram, f osdp.Frame, respond func(osdp.Reply, []byte, bool) []byte, refuse func(osdp.NAKCode) []byte) []byte {
	if p.session == nil || len(f.Block) != 2 || f.Block[0] != 0x13 {
		return refuse(osdp.NAKSecurity)
	}
	want := p.session.ServerCryptogram()
	if subtle.ConstantTimeCompare(want[:], c.Cryptogram[:]) != 1 {
		p.session = nil
		return respond(osdp.InitialRMAC{}, []byte{0x14, 0xFF}, false)
	}
	p.established = true
	return respond(osdp.InitialRMAC{MAC: p.session.InitialRMAC()}, []byte{0x14, 1}, false)
}

// carryOut does what a command says.
func (p *Peripheral) carryOut(command osdp.Command, secured bool) osdp.Reply {
	if p.config.Answer != nil {
		if r := p.config.Answer(command); r != nil {
			return r
		}
	}
	switch c := command.(type) {
	case osdp.Poll:
		if p.scan != nil && time.Now().After(p.scan.until) {
			p.tell(p.scan.timedOut())
			p.scan = nil
		}
		if len(p.events) > 0 {
			r := p.events[0]
			p.events = p.events[1:]
			return r
		}
	case osdp.GetID:
		return p.config.ID
	case osdp.GetCapabilities:
		return osdp.Capabilities(p.config.Capabilities)
	case osdp.GetLocalStatus:
		return p.local
	case osdp.GetInputs:
		return p.inputs
	case osdp.GetOutputs:
		return p.outputs
	case osdp.GetReaders:
		return osdp.Readers{osdp.ReaderOK}
	case osdp.SetOutputs:
		for _, o := range c {
			if int(o.Output) >= len(p.outputs) {
				return osdp.NAK{Code: osdp.NAKRecord}
			}
			p.outputs[o.Output] = o.Action == osdp.OutputOnAbort || o.Action == osdp.OutputOnAfterTimer || o.Action == osdp.OutputOnTimed
		}
		return slices.Clone(p.outputs)
	case osdp.SetComm:
		return osdp.Comm(c)
	case osdp.SetKey:
		if !secured {
			return osdp.NAK{Code: osdp.NAKSecurity}
		}
	case osdp.BioRead:
		return p.scanFor(c.Type, c.Format, &scan{read: &c})
	case osdp.BioMatch:
		return p.scanFor(c.Type, c.Format, &scan{match: &c})
	case osdp.Abort:
		p.scan = nil
	case osdp.FileTransfer:
		return p.takeFile(c)
	case osdp.Manufacturer:
		return osdp.ManufacturerReply(c)
	case osdp.OtherCommand:
		return osdp.NAK{Code: osdp.NAKUnknownCommand}
	}
	return osdp.ACK{}
}

// scanFor begins a scan. Somebody may be at the scanner already.
func (p *Peripheral) scanFor(t osdp.BioType, f osdp.BioFormat, s *scan) osdp.Reply {
	finger := t >= osdp.RightThumb && t <= osdp.LeftLittle
	switch {
	case t != osdp.BioDefault && !slices.Contains(p.config.BioTypes, t):
		return osdp.NAK{Code: osdp.NAKBioType}
	case f > osdp.BioFormatANSI378, f != osdp.BioFormatDefault && !finger:
		return osdp.NAK{Code: osdp.NAKBioFormat}
	}
	s.until = time.Now().Add(p.config.ScanTimeout)
	p.scan = s
	if r, ok := p.scanned(); ok {
		p.scan = nil
		if p.config.DirectScan {
			return r
		}
		p.tell(r)
	} else if p.config.DirectScan {
		p.scan = nil
		return s.timedOut()
	}
	return osdp.ACK{}
}

// scanned gives the outcome of the scan, if what is held to the scanner is what
// it waits for.
func (p *Peripheral) scanned() (osdp.Reply, bool) {
	if p.trait == nil {
		return nil, false
	}
	if c := p.scan.read; c != nil {
		if c.Type != osdp.BioDefault && c.Type != p.trait.Type {
			return nil, false
		}
		m := osdp.BioTemplate{Reader: c.Reader, Type: p.trait.Type, Quality: p.trait.Quality, Template: p.trait.Template}
		p.leave()
		return m, true
	}
	c := p.scan.match
	want := c.Template
	if len(want) == 0 {
		want = p.files[osdp.FileTemplate]
	}
	m := osdp.BioScore{Reader: c.Reader}
	if (c.Type == osdp.BioDefault || c.Type == p.trait.Type) && len(want) > 0 && bytes.Equal(want, p.trait.Template) {
		if m.Score = p.trait.Score; m.Score == 0 {
			m.Score = 0xFF
		}
		p.leave()
	}
	return m, true
}

// leave is somebody who goes once all is done.
func (p *Peripheral) leave() {
	if p.trait.Brief {
		p.trait = nil
	}
}

func (s *scan) timedOut() osdp.Reply {
	if s.read != nil {
		return osdp.BioTemplate{Reader: s.read.Reader, Status: osdp.BioTimeout, Type: s.read.Type}
	}
	return osdp.BioScore{Reader: s.match.Reader, Status: osdp.BioTimeout}
}

// takeFile takes a part of a file; one that does not follow ends the transfer.
func (p *Peripheral) takeFile(c osdp.FileTransfer) osdp.Reply {
	if c.Offset == 0 {
		p.file = nil
	}
	if int(c.Offset) != len(p.file) || int(c.Total) < len(p.file)+len(c.Data) || c.Total > osdp.MaxMessage {
		p.file = nil
		return osdp.FileStatus{Status: osdp.FileMalformed}
	}
	if p.file = append(p.file, c.Data...); len(p.file) < int(c.Total) {
		return osdp.FileStatus{Interleave: true}
	}
	p.files[c.Type] = p.file
	p.file = nil
	return osdp.FileStatus{Interleave: true, Status: osdp.FileProcessed}
}

// spoil applies the faults of the way back.
func (p *Peripheral) spoil(reply, command []byte) []byte {
	number := command[4] & 3
	old := p.earlier[number]
	p.earlier[number] = reply
	reply = bytes.Clone(reply)
	if p.hit(Replay) && old != nil {
		reply = bytes.Clone(old)
	}
	if p.hit(WrongMAC) {
		reply = forge(reply)
	}
	if p.hit(Flip) {
		reply[len(reply)/2] ^= 0x10
	}
	if p.hit(Truncate) {
		reply = reply[:len(reply)/2]
	}
	if p.hit(Noise) {
		reply = append([]byte{0x00, 0xFF, 0x53, 0x80, 0x53, 0x11}, reply...)
	}
	if p.hit(Echo) {
		reply = append(bytes.Clone(command), reply...)
	}
	if p.hit(DropReply) {
		return nil
	}
	return reply
}

// forge alters a frame's MAC and makes its check right again.
func forge(raw []byte) []byte {
	f, err := osdp.ParseFrame(raw)
	if err != nil {
		return raw
	}
	f.MAC[0] ^= 1
	b, err := f.Bytes()
	if err != nil {
		return raw
	}
	return b
}
