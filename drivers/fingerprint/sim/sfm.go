package sim

import (
	"slices"
	"time"

	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint/sfm"
)

// SFM describes a Suprema module. Its zero value is one on a line of its own,
// which answers a scan twice and takes two templates of a finger.
type SFM struct {
	Baud         int    // 115200
	Terminal     uint16 // on RS-485
	Serial       uint32
	Capacity     int // of templates, 1000
	TemplateSize int // 384
	OneAnswer    bool
	EnrollMode   uint32        // 0x41
	Timeout      time.Duration // for a finger, 10 s
	Locked       bool
	ShortList    bool // LT lists IDs only, as old modules
	FreeScan     bool // was left on
}

// New makes the module.
func (c SFM) New() *Module {
	if c.Baud == 0 {
		c.Baud = 115200
	}
	if c.Capacity == 0 {
		c.Capacity = 1000
	}
	if c.TemplateSize == 0 {
		c.TemplateSize = 384
	}
	if c.EnrollMode == 0 {
		c.EnrollMode = 0x41
	}
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	s := &sfmModule{SFM: c, library: library{}, duress: map[fingerprint.ID]int{}, params: map[sfm.Parameter]uint32{
		sfm.Timeout: 0x3A, sfm.TemplateSize: uint32(c.TemplateSize), sfm.EnrollMode: c.EnrollMode, sfm.Security: 0x50,
		sfm.ModuleID: uint32(c.Terminal), sfm.FirmwareVersion: le.Uint32([]byte("V3.5")), sfm.SerialNumber: c.Serial,
		sfm.Baudrate: 0, sfm.SendScanSuccess: 0x31, sfm.MatchingTimeout: 0x33, sfm.FakeDetection: 0x30,
	}}
	if c.FreeScan {
		s.params[sfm.FreeScan] = 0x31
	}
	if c.OneAnswer {
		s.params[sfm.SendScanSuccess] = 0x30
	}
	return newModule(s)
}

type sfmModule struct {
	SFM
	library library
	duress  map[fingerprint.ID]int // which of the templates is the one for a threat
	params  map[sfm.Parameter]uint32

	scan    *sfm.Packet
	until   time.Time
	scanned [][]byte
	lifted  bool // since the last of them
	data    *sfm.Packet
}

func (s *sfmModule) reset()                   { s.scan, s.scanned, s.data = nil, nil, nil }
func (s *sfmModule) baud() int                { return s.Baud }
func (s *sfmModule) stored() []fingerprint.ID { return s.library.ids() }

func (s *sfmModule) lamp() fingerprint.Light { return fingerprint.Light{} }

func (s *sfmModule) store(id fingerprint.ID, f Finger) {
	s.library[id] = [][]byte{f.template(s.TemplateSize)}
}

// next finds a command, and data where they have to come.
func (s *sfmModule) next(b []byte) (int, bool) {
	if s.data != nil {
		n := int(s.data.Size) + 1
		if len(b) < n {
			return 0, false
		}
		return n, true
	}
	return sfm.Next(b, func(sfm.Packet) bool { return true })
}

func (s *sfmModule) reply(p sfm.Packet, e sfm.Error, param, size uint32) []byte {
	b, _ := sfm.Packet{Terminal: s.Terminal, Command: p.Command, Param: param, Size: size, Flag: byte(e)}.AppendBinary(nil)
	return b
}

func (s *sfmModule) answer(command []byte, _ *Finger) [][]byte {
	if p := s.data; p != nil {
		s.data = nil
		if command[len(command)-1] != 0x0A {
			return [][]byte{s.reply(*p, sfm.DataError, p.Param, 0)}
		}
		return [][]byte{s.reply(*p, s.enroll(p.Param, command[:len(command)-1]), p.Param, 0)}
	}
	var p sfm.Packet
	sfm.Next(command, func(q sfm.Packet) bool { p = q; return true })
	if p.Terminal != s.Terminal {
		return nil
	}
	say := func(e sfm.Error, param, size uint32) [][]byte { return [][]byte{s.reply(p, e, param, size)} }
	id := fingerprint.ID(p.Param)
	switch {
	case p.Command == sfm.CA:
		out := say(sfm.Success, 0, 0)
		if s.scan != nil {
			out = append([][]byte{s.reply(*s.scan, sfm.Canceled, 0, 0)}, out...)
			s.scan, s.scanned = nil, nil
		}
		return out
	case p.Command == sfm.ID:
		return say(sfm.Success, uint32(s.Terminal), 0)
	case s.Locked:
		return say(sfm.Locked, 0, 0)
	case s.scan != nil:
		return say(sfm.Busy, 0, 0)
	}
	switch p.Command {
	case sfm.SR:
		v, ok := s.params[sfm.Parameter(p.Flag)]
		switch sfm.Parameter(p.Flag) {
		case sfm.EnrolledFinger:
			v, ok = uint32(s.library.templates()), true
		case sfm.AvailableFinger:
			v, ok = uint32(s.Capacity-s.library.templates()), true
		}
		if !ok {
			return say(sfm.Unsupported, 0, 0)
		}
		return say(sfm.Success, 0, v)
	case sfm.SW:
		if _, ok := s.params[sfm.Parameter(p.Flag)]; !ok {
			return say(sfm.Unsupported, 0, 0)
		}
		s.params[sfm.Parameter(p.Flag)] = p.Size
	case sfm.SF:
	case sfm.RS:
		if v := s.params[sfm.Baudrate]; v >= 0x31 {
			s.Baud = []int{9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600}[v-0x31]
		}
	case sfm.ES, sfm.VS, sfm.IS:
		if p.Command == sfm.VS && s.library[id] == nil {
			return say(sfm.NotFound, p.Param, 0)
		}
		if p.Command == sfm.ES && s.library.templates() >= s.Capacity {
			return say(sfm.MemFull, p.Param, 0)
		}
		s.scan, s.scanned, s.lifted, s.until = &p, nil, true, time.Now().Add(s.Timeout)
		return nil
	case sfm.CT:
		if s.library[id] == nil {
			return say(sfm.NotFound, p.Param, 0)
		}
		return say(sfm.ExistID, p.Param, uint32(len(s.library[id])))
	case sfm.DT:
		if s.library[id] == nil {
			return say(sfm.NotFound, p.Param, 0)
		}
		delete(s.library, id)
		delete(s.duress, id)
	case sfm.DA:
		clear(s.library)
		clear(s.duress)
	case sfm.LT:
		var list []byte
		ids := s.library.ids()
		for _, id := range ids {
			list = le.AppendUint32(list, uint32(id))
			if !s.ShortList {
				list = append(list, byte(len(s.library[id])), 0, 0, 0)
			}
		}
		out := say(sfm.Success, uint32(len(ids)), uint32(len(list)))
		if len(ids) == 0 {
			return out
		}
		return append(out, append(list, 0x0A))
	case sfm.RT:
		templates := s.library[id]
		if templates == nil {
			return say(sfm.NotFound, p.Param, 0)
		}
		var out [][]byte
		for i, t := range templates {
			e := sfm.Continue
			if i == len(templates)-1 {
				e = sfm.Success
			}
			out = append(out, s.reply(p, e, p.Param, uint32(len(t))), append(slices.Clone(t), 0x0A))
		}
		return out
	case sfm.ET:
		s.data = &p
		return nil
	default:
		return say(sfm.Unsupported, 0, 0)
	}
	return say(sfm.Success, p.Param, 0)
}

func (s *sfmModule) enroll(user uint32, templates ...[]byte) sfm.Error {
	id := fingerprint.ID(user)
	if s.library.templates()+len(templates) > s.Capacity {
		return sfm.MemFull
	}
	for _, t := range templates {
		s.library[id] = append(s.library[id], slices.Clone(t))
	}
	return sfm.Success
}

// later carries a scan on.
func (s *sfmModule) later(now time.Time, finger *Finger) (out [][]byte, waits bool) {
	if s.scan == nil {
		return nil, false
	}
	p := *s.scan
	done := func(e sfm.Error, param, size uint32) ([][]byte, bool) {
		s.scan, s.scanned = nil, nil
		return append(out, s.reply(p, e, param, size)), false
	}
	if now.After(s.until) {
		return done(sfm.TimeOut, 0, 0)
	}
	if finger == nil {
		s.lifted = true
		return nil, true
	}
	if !s.lifted {
		return nil, true
	}
	s.lifted = false
	if s.params[sfm.SendScanSuccess] == 0x31 {
		out = append(out, s.reply(p, sfm.ScanSuccess, 0, 0))
	}
	switch {
	case finger.Fake:
		return done(sfm.FakeDetected, 0, 0)
	case finger.Poor:
		return done(sfm.TryAgain, 0, 0)
	}
	t := finger.template(s.TemplateSize)
	id, n, found := s.library.find(t)
	if p.Command == sfm.ES {
		if found {
			return done(sfm.ExistFinger, uint32(id), 0)
		}
		s.scanned = append(s.scanned, t)
		if s.params[sfm.EnrollMode] != 0x30 && len(s.scanned) < 2 {
			s.until = now.Add(s.Timeout)
			return out, true
		}
		if string(s.scanned[0]) != string(t) {
			return done(sfm.ScanFail, 0, 0)
		}
		templates := s.scanned
		if s.params[sfm.EnrollMode] != 0x41 {
			templates = templates[:1]
		}
		if p.Flag == 0x92 {
			s.duress[fingerprint.ID(p.Param)] = len(s.library[fingerprint.ID(p.Param)])
		}
		return done(s.enroll(p.Param, templates...), p.Param, 90)
	}
	if !found || p.Command == sfm.VS && id != fingerprint.ID(p.Param) {
		if p.Command == sfm.VS {
			return done(sfm.NotMatch, p.Param, 0)
		}
		return done(sfm.NotFound, 0, 0)
	}
	e := sfm.Success
	if first, ok := s.duress[id]; ok && n >= first {
		e = sfm.DuressFinger
	}
	return done(e, uint32(id), uint32(n))
}
