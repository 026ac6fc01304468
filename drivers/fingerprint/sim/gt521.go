package sim

import (
	"slices"
	"time"

	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint/gt521"
)

// GT521 describes a GT-511C3 or GT-521F52. Its zero value is the former.
type GT521 struct {
	Baud         int    // 9600
	Serial       string // what its serial number is made of
	Capacity     int    // 200
	TemplateSize int    // 498
}

// New makes the module.
func (c GT521) New() *Module {
	if c.Baud == 0 {
		c.Baud = 9600
	}
	if c.Capacity == 0 {
		c.Capacity = 200
	}
	if c.TemplateSize == 0 {
		c.TemplateSize = 498
	}
	g := &gt521Module{GT521: c, usual: c.Baud, library: library{}}
	g.reset()
	return newModule(g)
}

type gt521Module struct {
	GT521
	usual   int // the rate after a loss of power
	library library

	led      bool
	image    *Finger
	enrol    [][]byte
	enrolID  int // -1: none
	download int // of SetTemplate; -1: none
}

func (g *gt521Module) reset() {
	g.Baud, g.led, g.image, g.enrol, g.enrolID, g.download = g.usual, false, nil, nil, -1, -1
}

func (g *gt521Module) baud() int                                 { return g.Baud }
func (g *gt521Module) stored() []fingerprint.ID                  { return g.library.ids() }
func (g *gt521Module) later(time.Time, *Finger) ([][]byte, bool) { return nil, false }

func (g *gt521Module) lamp() fingerprint.Light { return fingerprint.Light{} }

func (g *gt521Module) store(id fingerprint.ID, f Finger) {
	g.library[id] = [][]byte{f.template(g.TemplateSize)}
}

// next finds a command, and a data packet where one has to come.
func (g *gt521Module) next(b []byte) (int, bool) {
	if g.download >= 0 && len(b) > 0 && b[0] == 0x5A {
		n := g.TemplateSize + 6
		if len(b) < n {
			return 0, false
		}
		return n, true
	}
	return gt521.Next(b, func(p gt521.Packet) bool { return p.Code != gt521.ACK && p.Code != gt521.NACK })
}

func (g *gt521Module) packet(c gt521.Code, param uint32) []byte {
	b, _ := gt521.Packet{Param: param, Code: c}.AppendBinary(nil)
	return b
}

func (g *gt521Module) answer(command []byte, finger *Finger) [][]byte {
	ack := func(param int) [][]byte { return [][]byte{g.packet(gt521.ACK, uint32(param))} }
	nack := func(r gt521.Reason) [][]byte { return [][]byte{g.packet(gt521.NACK, uint32(r))} }
	if command[0] == 0x5A {
		id := fingerprint.ID(g.download)
		g.download = -1
		t, err := gt521.ParseData(command)
		if err != nil {
			return nack(gt521.CommError)
		}
		if other, _, ok := g.library.find(t); ok {
			return nack(gt521.Reason(other))
		}
		g.library[id] = [][]byte{slices.Clone(t)}
		return ack(0)
	}
	var p gt521.Packet
	gt521.Next(command, func(q gt521.Packet) bool { p = q; return q.Code != gt521.ACK && q.Code != gt521.NACK })
	g.download = -1
	id := fingerprint.ID(p.Param)
	needsID := slices.Contains([]gt521.Code{gt521.CheckEnrolled, gt521.EnrollStart, gt521.DeleteID, gt521.Verify, gt521.GetTemplate, gt521.SetTemplate}, p.Code)
	if needsID && int(p.Param) >= g.Capacity {
		return nack(gt521.InvalidID)
	}
	needsUse := slices.Contains([]gt521.Code{gt521.CheckEnrolled, gt521.DeleteID, gt521.Verify, gt521.GetTemplate}, p.Code)
	if needsUse && g.library[id] == nil {
		return nack(gt521.NotUsed)
	}
	var seen []byte
	if g.image != nil {
		seen = g.image.template(g.TemplateSize)
	}
	switch p.Code {
	case gt521.Open:
		info := append([]byte{1, 0, 0x14, 0x20, 0, 0, 0, 0}, serialNumber(g.Serial, 16)...)
		return append(ack(0), gt521.AppendData(nil, info))
	case gt521.ChangeBaudrate:
		if !slices.Contains(gt521.Bauds, int(p.Param)) {
			return nack(gt521.InvalidBaud)
		}
		g.Baud = int(p.Param)
	case gt521.CmosLED:
		g.led = p.Param == 1
	case gt521.GetEnrollCount:
		return ack(len(g.library))
	case gt521.CheckEnrolled:
	case gt521.IsPressFinger:
		if finger == nil || !g.led {
			return ack(1)
		}
	case gt521.CaptureFinger:
		switch g.image = nil; {
		case finger == nil || !g.led:
			return nack(gt521.NotPressed)
		case finger.Poor:
			return nack(gt521.BadFinger)
		}
		g.image = finger
	case gt521.Identify:
		if len(g.library) == 0 {
			return nack(gt521.Empty)
		}
		found, _, ok := g.library.find(seen)
		if !ok {
			return nack(gt521.IdentifyFailed)
		}
		return ack(int(found))
	case gt521.Verify:
		if string(g.library[id][0]) != string(seen) {
			return nack(gt521.VerifyFailed)
		}
	case gt521.EnrollStart:
		if g.library[id] != nil {
			return nack(gt521.AlreadyUsed)
		}
		if len(g.library) >= g.Capacity {
			return nack(gt521.Full)
		}
		g.enrolID, g.enrol = int(id), nil
	case gt521.Enroll1, gt521.Enroll2, gt521.Enroll3:
		n := int(p.Code - gt521.Enroll1)
		if g.enrolID < 0 || len(g.enrol) != n || seen == nil {
			return nack(gt521.TurnError)
		}
		g.enrol = append(g.enrol, seen)
		g.image = nil
		if n < 2 {
			break
		}
		target := fingerprint.ID(g.enrolID)
		g.enrolID = -1
		if string(g.enrol[0]) != string(seen) || string(g.enrol[1]) != string(seen) {
			return nack(gt521.EnrollFailed)
		}
		if other, _, ok := g.library.find(seen); ok {
			return nack(gt521.Reason(other))
		}
		g.library[target] = [][]byte{seen}
	case gt521.DeleteID:
		delete(g.library, id)
	case gt521.DeleteAll:
		if len(g.library) == 0 {
			return nack(gt521.Empty)
		}
		clear(g.library)
	case gt521.GetTemplate:
		return append(ack(0), gt521.AppendData(nil, g.library[id][0]))
	case gt521.SetTemplate:
		g.download = int(p.Param)
	default:
		return nack(gt521.NotSupported)
	}
	return ack(0)
}
