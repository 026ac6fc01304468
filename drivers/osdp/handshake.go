package osdp

import (
	"crypto/subtle"
	"fmt"
	"time"
)

// step is what is asked next.
type step byte

const (
	stepID step = iota
	stepCapabilities
	stepChallenge
	stepCryptogram
	stepClearText // a poll, for the peripheral may want a Secure Channel
	stepReady
)

// start goes on with the handshake.
func (p *Peripheral) start(now time.Time, out *outgoing, f Frame, reply Reply) {
	nak, refused := reply.(NAK)
	switch p.step {
	case stepID:
		id, ok := reply.(ID)
		if !ok {
			p.unsecure(now, unexpected(CodeID, reply))
			return
		}
		p.mu.Lock()
		p.status.ID = id
		p.mu.Unlock()
		p.step = stepCapabilities
	case stepCapabilities:
		caps, ok := reply.(Capabilities)
		if !ok && !refused {
			p.unsecure(now, unexpected(CodeCAP, reply))
			return
		}
		p.mu.Lock()
		p.status.Capabilities = caps
		p.mu.Unlock()
		if p.config.ClearText {
			p.step = stepClearText
			return
		}
		p.step = stepChallenge
		if err := p.chooseKey(); err != nil {
			p.unsecure(now, err)
		}
	case stepChallenge:
		m, ok := reply.(ClientCryptogram)
		switch {
		case refused:
			p.unsecure(now, nak)
		case !ok || len(f.Block) != 2 || f.Block[0] != blockClientCryptogram:
			p.unsecure(now, unexpected(CodeCHLNG, reply))
		case f.Block[1] != p.keyKind() && p.install:
			p.unsecure(now, fmt.Errorf("%w: one of its own already", ErrKey))
		case f.Block[1] != p.keyKind():
			p.unsecure(now, fmt.Errorf("%w: the default one, and none of its own", ErrKey))
		default:
			p.verifyClient(now, m)
		}
	case stepCryptogram:
		m, ok := reply.(InitialRMAC)
		switch want := p.session.InitialRMAC(); {
		case refused:
			p.unsecure(now, nak)
		case !ok || len(f.Block) != 2 || f.Block[0] != blockInitialRMAC:
			p.unsecure(now, unexpected(CodeSCRYPT, reply))
		case f.Block[1] == 0xFF || subtle.ConstantTimeCompare(want[:], m.MAC[:]) != 1:
			p.unsecure(now, ErrKey)
		default:
			p.established(now)
		}
	case stepClearText:
		if refused {
			p.unsecure(now, nak)
			return
		}
		p.work(now, ClearText)
		p.ready(now, out, reply)
	}
}

// keyKind is which key a handshake is with, as its security blocks say it.
func (p *Peripheral) keyKind() byte {
	if p.install {
		return 0 // the default key
	}
	return 1
}

func unexpected(c CommandCode, r Reply) error {
	if nak, ok := r.(NAK); ok {
		return fmt.Errorf("%v: %w", c, nak)
	}
	return fmt.Errorf("%w: %v after %v", ErrUnexpected, r.Reply(), c)
}

// chooseKey finds the key of the handshake. The default key is used to install
// another one, and never else.
func (p *Peripheral) chooseKey() error {
	if p.install {
		p.key = DefaultKey()
		return nil
	}
	current, next, err := p.config.Keys.Load()
	if err != nil {
		return err
	}
	choice := current
	if next != nil && (current == nil || p.useNext) {
		choice = next
	}
	switch {
	case choice == nil:
		return ErrNoKey
	case choice.Equal(DefaultKey()):
		return ErrDefaultKey
	}
	p.key = *choice
	return nil
}

// verifyClient checks that the peripheral has the key. After a change of keys
// that was cut short it may have the other one.
func (p *Peripheral) verifyClient(now time.Time, m ClientCryptogram) {
	session := NewSecureChannel(p.key, p.random, m.Random)
	want := session.ClientCryptogram()
	if subtle.ConstantTimeCompare(want[:], m.Cryptogram[:]) == 1 {
		p.session, p.step = session, stepCryptogram
		return
	}
	p.useNext = !p.useNext
	tried := p.triedBoth
	before := p.key
	if p.install || tried || p.chooseKey() != nil || p.key.Equal(before) {
		p.unsecure(now, ErrKey)
		return
	}
	p.triedBoth = true // and challenge it again
}

// established has a Secure Channel.
func (p *Peripheral) established(now time.Time) {
	p.began = now
	if p.install {
		p.step = stepReady
		p.set(now, Installing, nil)
		return
	}
	if _, next, err := p.config.Keys.Load(); err != nil || next != nil && next.Equal(p.key) {
		if err == nil {
			err = p.config.Keys.Commit(p.key)
		}
		if err != nil {
			p.unsecure(now, err)
			return
		}
	}
	p.useNext = false
	p.mu.Lock()
	p.proved = p.key
	p.mu.Unlock()
	p.work(now, Secure)
}

// work begins what a peripheral is for, by asking how things are.
func (p *Peripheral) work(now time.Time, s State) {
	p.step = stepReady
	p.initial = []Command{GetLocalStatus{}}
	if p.status.Capabilities.Get(FunctionInputs).Count > 0 {
		p.initial = append(p.initial, GetInputs{})
	}
	if p.status.Capabilities.Get(FunctionBiometrics).Level > 0 {
		// A template is longer than what a peripheral may send unasked.
		p.initial = append(p.initial, SetReceiveSize{MaxFrame})
	}
	if p.abandoned != 0 {
		p.abort()
	}
	p.set(now, s, nil)
}
