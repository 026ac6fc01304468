package osdp

import (
	"context"
	"fmt"
	"time"
)

// BioRead has the reader scan, and waits for the template until ctx ends: give
// it as long as a person needs, 10 to 30 s. A peripheral that refuses the type
// or the format makes it fail with NAKBioType or NAKBioFormat. A scan with
// another status than BioOK is no error. Templates and scores go over the Secure
// Channel only: in ClearText, BioRead and BioMatch fail with ErrUnsecured.
func (p *Peripheral) BioRead(ctx context.Context, c BioRead) (BioTemplate, error) {
	release, err := p.holdScan(ctx)
	if err != nil {
		return BioTemplate{}, err
	}
	defer release()
	reply, err := p.do(ctx, &job{command: c, later: CodeBIOREADR})
	if err != nil {
		return BioTemplate{}, err
	}
	m, ok := reply.(BioTemplate)
	if !ok {
		return BioTemplate{}, unexpected(CodeBIOREAD, reply)
	}
	if m.Reader != c.Reader {
		return BioTemplate{}, fmt.Errorf("%w: a scan by reader %d, not %d", ErrUnexpected, m.Reader, c.Reader)
	}
	return m, nil
}

// BioMatch has the reader scan and compare, and waits for the score as BioRead
// does. A template that is longer than what the peripheral receives goes before
// as a file. Whether the score is enough is BioScore.Matches.
//
// The outcome of a scan that was given up is never taken for a later one's:
// BioMatch and BioRead fail with ErrScanPending while it may still come.
func (p *Peripheral) BioMatch(ctx context.Context, c BioMatch) (BioScore, error) {
	release, err := p.holdScan(ctx)
	if err != nil {
		return BioScore{}, err
	}
	defer release()
	full := Frame{Data: make([]byte, 6+len(c.Template))}
	if most := p.Status().Capabilities.ReceiveSize(); sealedSize(full)+1 > min(orDefault(most, MaxFrame), MaxFrame) {
		if err := p.SendFile(ctx, FileTemplate, c.Template); err != nil {
			return BioScore{}, err
		}
		c.Template = nil
	}
	reply, err := p.do(ctx, &job{command: c, later: CodeBIOMATCHR})
	if err != nil {
		return BioScore{}, err
	}
	m, ok := reply.(BioScore)
	if !ok {
		return BioScore{}, unexpected(CodeBIOMATCH, reply)
	}
	if m.Reader != c.Reader {
		return BioScore{}, fmt.Errorf("%w: a scan by reader %d, not %d", ErrUnexpected, m.Reader, c.Reader)
	}
	return m, nil
}

// holdScan lets one scan after the other have the peripheral, with its template.
func (p *Peripheral) holdScan(ctx context.Context) (release func(), err error) {
	if p.config.ClearText {
		return nil, ErrUnsecured
	}
	select {
	case p.scan <- struct{}{}:
		return func() { <-p.scan }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// leastPart is the least that a part of a file has room for, whatever a
// peripheral tells; defaultPart is for one that tells nothing.
const (
	leastPart   = 16
	defaultPart = 64
)

// SendFile sends a file in parts (FILETRANSFER) and returns when the peripheral
// has dealt with it. It never leaves the Secure Channel, even if asked to.
func (p *Peripheral) SendFile(ctx context.Context, t FileType, data Secret) error {
	part := defaultPart
	if most := p.Status().Capabilities.ReceiveSize(); most > 0 {
		// What a sealed frame has besides: head, block, code, MAC, CRC, the part's
		// own head of 11 bytes and up to 16 of padding.
		part = min(most, MaxFrame) - (headerSize + 2 + 1 + macSize + 2 + 11 + 16)
	}
	part = max(part, leastPart)
	for sent := 0; ; {
		n := min(part, len(data)-sent)
		reply, err := p.Do(ctx, FileTransfer{Type: t, Total: uint32(len(data)), Offset: uint32(sent), Data: data[sent : sent+n]})
		if err != nil {
			return err
		}
		sent += n
		var s FileStatus // of an ACK: go on
		switch m := reply.(type) {
		case FileStatus:
			s = m
		case ACK:
		default:
			return unexpected(CodeFILETRANSFER, reply)
		}
		if s.Status < 0 {
			return fmt.Errorf("the peripheral gave the file up: status %d", s.Status)
		}
		if s.NewMax > 0 {
			part = max(min(part, int(s.NewMax)), leastPart)
		}
		if sent == len(data) && s.Status != FileFinishing {
			return nil
		}
		select {
		case <-time.After(s.Delay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
