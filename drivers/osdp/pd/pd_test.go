package pd_test

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp/pd"
)

var key = osdp.Key{1, 2, 3}

// panel speaks to a peripheral frame by frame.
type panel struct {
	*testing.T
	line    osdp.Line
	session *osdp.SecureChannel
}

func bubble(t *testing.T, f func(p *panel), far ...*pd.Peripheral) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &panel{T: t, line: pd.NewLine(pd.Wire{}, osdp.DefaultBaud, far...)}
		defer p.line.Close()
		f(p)
	})
}

// send sends bytes and gives the frame that comes back; nil: none does.
func (p *panel) send(raw []byte) []byte {
	p.Helper()
	if _, err := p.line.Write(raw); err != nil {
		p.Fatal(err)
	}
	var d osdp.Decoder
	b := make([]byte, osdp.MaxFrame)
	for {
		n, err := p.line.Read(b, time.Second)
		if err != nil {
			p.Fatal(err)
		}
		if n == 0 {
			return nil
		}
		d.Write(b[:n])
		if _, back, ok := d.Next(false); ok {
			return back
		}
	}
}

// frame makes a command's frame, sealed when there is a session.
func (p *panel) frame(number byte, c osdp.Command, block ...byte) []byte {
	p.Helper()
	data, err := c.AppendBinary(nil)
	if err != nil {
		p.Fatal(err)
	}
	f := osdp.Frame{Control: osdp.ControlCRC | osdp.Control(number), Code: byte(c.Command()), Data: data}
	if len(block) > 0 {
		f.Block = block
	}
	var raw []byte
	if p.session != nil && block == nil {
		raw, err = p.session.Seal(f)
	} else {
		raw, err = f.Bytes()
	}
	if err != nil {
		p.Fatal(err)
	}
	return raw
}

// ask sends a command and reads its reply.
func (p *panel) ask(number byte, c osdp.Command, block ...byte) osdp.Reply {
	p.Helper()
	raw := p.send(p.frame(number, c, block...))
	f, err := osdp.ParseFrame(raw)
	if err == nil && p.session != nil && len(f.Block) == 1 {
		f, err = p.session.Open(raw)
	}
	if err != nil {
		p.Fatal(err)
	}
	m, err := osdp.ParseReply(osdp.ReplyCode(f.Code), f.Data)
	if err != nil {
		p.Fatal(err)
	}
	return m
}

// secure makes a Secure Channel, with the numbers 0 to 3.
func (p *panel) secure(key osdp.Key, kind byte) {
	p.Helper()
	p.session = nil
	p.ask(0, osdp.GetID{})
	p.ask(1, osdp.GetCapabilities{})
	random := [8]byte{9, 9, 9}
	client, ok := p.ask(2, osdp.Challenge{Random: random}, 0x11, kind).(osdp.ClientCryptogram)
	if !ok {
		p.Fatal("the challenge was refused")
	}
	s := osdp.NewSecureChannel(key, random, client.Random)
	if client.Cryptogram != s.ClientCryptogram() {
		p.Fatal("it has another key")
	}
	if rmac, ok := p.ask(3, osdp.ServerCryptogram{Cryptogram: s.ServerCryptogram()}, 0x13, kind).(osdp.InitialRMAC); !ok || rmac.MAC != s.InitialRMAC() {
		p.Fatal("the cryptogram was refused")
	}
	p.session = s
}

func (p *panel) expect(what string, got osdp.Reply, want osdp.ReplyCode) {
	p.Helper()
	if got.Reply() != want {
		p.Errorf("%s: %v, want %v", what, got, want)
	}
}

func (p *panel) refused(what string, got osdp.Reply, want osdp.NAKCode) {
	p.Helper()
	if nak, ok := got.(osdp.NAK); !ok || nak.Code != want {
		p.Errorf("%s: %v, want NAK %d", what, got, want)
	}
}

func TestAPeripheralInsistsOnTheSecureChannel(t *testing.T) {
	bubble(t, func(p *panel) {
		p.expect("ID", p.ask(0, osdp.GetID{}), osdp.CodePDID)
		p.expect("CAP", p.ask(1, osdp.GetCapabilities{}), osdp.CodePDCAP)
		p.refused("POLL", p.ask(2, osdp.Poll{}), osdp.NAKSecurity)
		p.ask(0, osdp.GetID{})
		p.refused("KEYSET", p.ask(1, osdp.SetKey{Key: key}), osdp.NAKSecurity)
		p.ask(0, osdp.GetID{})
		p.refused("a challenge with the default key", p.ask(1, osdp.Challenge{}, 0x11, 0), osdp.NAKSecurity)
		p.secure(key, 1)
		p.expect("POLL", p.ask(1, osdp.Poll{}), osdp.CodeACK)
	}, pd.New(pd.Config{Key: key}))
}

func TestACommandThatComesTwiceIsAnsweredAlikeAndCarriedOutOnce(t *testing.T) {
	done := 0
	far := pd.New(pd.Config{Key: key, Handle: func(osdp.Command) { done++ }})
	bubble(t, func(p *panel) {
		p.secure(key, 1)
		done = 0
		raw := p.frame(1, osdp.Buzz{})
		first := p.send(raw)
		again := p.send(raw)
		if !bytes.Equal(first, again) || done != 1 {
			t.Errorf("answered % X, then % X; carried out %d times", first, again, done)
		}
	}, far)
}

func TestAPeripheralsSessionEnds(t *testing.T) {
	for name, end := range map[string]func(p *panel, far *pd.Peripheral){
		"with a wrong number": func(p *panel, _ *pd.Peripheral) { p.refused("3 after 1", p.ask(3, osdp.Poll{}), osdp.NAKSequence) },
		"with clear text": func(p *panel, _ *pd.Peripheral) {
			s := p.session
			p.session = nil
			p.refused("clear text", p.ask(2, osdp.Poll{}), osdp.NAKSecurity)
			p.session = s
		},
		"with a wrong MAC": func(p *panel, _ *pd.Peripheral) {
			raw := p.frame(2, osdp.Poll{})
			f, err := osdp.ParseFrame(raw)
			if err != nil {
				p.Fatal(err)
			}
			f.MAC[3] ^= 1
			if raw, err = f.Bytes(); err != nil {
				p.Fatal(err)
			}
			if f, err = osdp.ParseFrame(p.send(raw)); err != nil || osdp.ReplyCode(f.Code) != osdp.CodeNAK {
				p.Errorf("a wrong MAC: %v, %v", f, err)
			}
		},
		"with silence":   func(p *panel, _ *pd.Peripheral) { time.Sleep(osdp.OfflineAfter) },
		"with its power": func(p *panel, far *pd.Peripheral) { far.Power(false); far.Power(true) },
		"with a new start": func(p *panel, _ *pd.Peripheral) {
			s := p.session
			p.session = nil
			p.ask(0, osdp.GetID{})
			p.session = s
		},
	} {
		t.Run(name, func(t *testing.T) {
			far := pd.New(pd.Config{Key: key})
			bubble(t, func(p *panel) {
				p.secure(key, 1)
				p.expect("POLL", p.ask(1, osdp.Poll{}), osdp.CodeACK)
				end(p, far)
				for number := range byte(3) {
					f, err := osdp.ParseFrame(p.send(p.frame(number+1, osdp.Poll{})))
					if err != nil || osdp.ReplyCode(f.Code) != osdp.CodeNAK || len(f.Block) != 0 {
						p.Errorf("afterwards: %v, %v", f, err)
					}
				}
				p.secure(key, 1)
				p.expect("POLL", p.ask(1, osdp.Poll{}), osdp.CodeACK)
			}, far)
		})
	}
}

func TestAPeripheralTakesItsFirstKeyOverTheDefaultOne(t *testing.T) {
	far := pd.New(pd.Config{})
	bubble(t, func(p *panel) {
		p.secure(osdp.DefaultKey(), 0)
		if far.Online() {
			p.Error("the default key counts as its own")
		}
		p.expect("KEYSET", p.ask(1, osdp.SetKey{Key: key}), osdp.CodeACK)
		p.secure(key, 1)
		if far.Key() != key || !far.Online() {
			p.Error("it has not taken the key")
		}
	}, far)
}

func TestAPeripheralAtAnotherRateHearsNothing(t *testing.T) {
	bubble(t, func(p *panel) {
		if raw := p.send(p.frame(0, osdp.GetID{})); raw != nil {
			p.Errorf("it answered % X", raw)
		}
		if err := p.line.SetBaud(115200); err != nil {
			p.Fatal(err)
		}
		p.expect("ID", p.ask(0, osdp.GetID{}), osdp.CodePDID)
	}, pd.New(pd.Config{Baud: 115200}))
}

func TestAWireTakesItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := pd.NewLine(pd.Wire{Baud: 9600}, 9600, pd.New(pd.Config{}))
		defer line.Close()
		p := &panel{T: t, line: line}
		start := time.Now()
		command := p.frame(0, osdp.GetID{})
		reply := p.send(command)
		want := time.Duration(len(command)+len(reply)) * 10 * time.Second / 9600
		if took := time.Since(start); took != want {
			t.Errorf("%d bytes took %v, not %v", len(command)+len(reply), took, want)
		}
	})
}

func TestFaultsHaveNames(t *testing.T) {
	for f := pd.Drop; f <= pd.Clear; f++ {
		got, err := pd.ParseFault(f.String())
		if err != nil || got != f {
			t.Errorf("%v: %v, %v", f, got, err)
		}
	}
	if _, err := pd.ParseFault("disco"); err == nil {
		t.Error("a fault that does not exist was taken")
	}
}
