package sim

import (
	"bytes"
	"slices"
	"time"

	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint/zfm"
)

// ZFM describes a module of the EF 01 family. Its zero value is an R503.
type ZFM struct {
	Baud         int    // 57600
	Address      uint32 // zfm.AnyAddress
	Password     uint32
	Serial       string // what its serial number is made of
	Capacity     int    // 200
	TemplateSize int    // 1536
	PacketSize   int    // 128
	// Old has no ReadProdInfo and so no serial number, no coloured light, and
	// sends nothing when it starts.
	Old bool
	// Bare has no ReadSysPara, as the R308.
	Bare bool
	// Full has no room for a template.
	Full bool
	// Dark has a lamp that fails to light.
	Dark bool
}

// New makes the module.
func (c ZFM) New() *Module {
	if c.Baud == 0 {
		c.Baud = 57600
	}
	if c.Address == 0 {
		c.Address = zfm.AnyAddress
	}
	if c.Capacity == 0 {
		c.Capacity = 200
	}
	if c.TemplateSize == 0 {
		c.TemplateSize = 1536
	}
	if c.PacketSize == 0 {
		c.PacketSize = 128
	}
	z := &zfmModule{ZFM: c, library: library{}, security: 3}
	z.reset()
	return newModule(z)
}

type zfmModule struct {
	ZFM
	library  library
	notepad  [16][32]byte
	security byte
	light    fingerprint.Light

	verified bool
	boot     []byte
	image    *Finger
	buffers  [7][]byte
	download int // into which buffer data packets go; 0: none
}

func (z *zfmModule) reset() {
	z.verified, z.image, z.buffers, z.download, z.boot = false, nil, [7][]byte{}, 0, nil
	if !z.Old {
		z.boot = []byte{0x55}
	}
}

func (z *zfmModule) baud() int                { return z.Baud }
func (z *zfmModule) stored() []fingerprint.ID { return z.library.ids() }
func (z *zfmModule) later(time.Time, *Finger) (out [][]byte, waits bool) {
	if z.boot != nil {
		out, z.boot = [][]byte{z.boot}, nil
	}
	return out, false
}

func (z *zfmModule) lamp() fingerprint.Light { return z.light }

func (z *zfmModule) store(id fingerprint.ID, f Finger) {
	z.library[id] = [][]byte{f.template(z.TemplateSize)}
}

func (z *zfmModule) next(b []byte) (int, bool) {
	return zfm.Next(b, func(p zfm.Packet) bool { return p.PID != zfm.Ack })
}

// packet makes one. What does not fit into it the simulator has got wrong.
func (z *zfmModule) packet(pid zfm.PID, payload ...byte) []byte {
	b, err := zfm.Packet{Address: z.Address, PID: pid, Payload: payload}.AppendBinary(nil)
	if err != nil {
		panic(err)
	}
	return b
}

func (z *zfmModule) ack(c zfm.Code, rest ...byte) [][]byte {
	return [][]byte{z.packet(zfm.Ack, append([]byte{byte(c)}, rest...)...)}
}

func (z *zfmModule) answer(command []byte, finger *Finger) [][]byte {
	// What is before the command in these bytes was stepped over.
	var p zfm.Packet
	zfm.Next(command, func(q zfm.Packet) bool { p = q; return q.PID != zfm.Ack })
	if p.Address != z.Address {
		return nil
	}
	if p.PID != zfm.Command {
		if z.download > 0 && z.download < len(z.buffers) {
			z.buffers[z.download] = append(z.buffers[z.download], p.Payload...)
			if p.PID == zfm.LastData {
				z.download = 0
			}
		}
		return nil
	}
	i, params := zfm.Instruction(p.Payload[0]), append(p.Payload[1:], make([]byte, 40)...)
	if !z.verified && i != zfm.VfyPwd {
		return z.ack(zfm.NotVerified)
	}
	u16 := func(at int) int { return int(be.Uint16(params[at:])) }
	buffer := func() *[]byte { return &z.buffers[int(params[0])%len(z.buffers)] }
	switch i {
	case zfm.VfyPwd:
		if be.Uint32(params) != z.Password {
			return z.ack(zfm.WrongPassword)
		}
		z.verified = true
	case zfm.SetPwd:
		z.Password = be.Uint32(params)
	case zfm.GenImg:
		if z.image = finger; finger == nil {
			return z.ack(zfm.NoFinger)
		}
	case zfm.Img2Tz:
		switch {
		case z.image == nil:
			return z.ack(zfm.NoImage)
		case z.image.Poor:
			return z.ack(zfm.PoorImage)
		}
		*buffer() = z.image.template(z.TemplateSize)
	case zfm.MatchTz:
		if z.buffers[1] == nil || !bytes.Equal(z.buffers[1], z.buffers[2]) {
			return z.ack(zfm.NoMatch, 0, 0)
		}
		return z.ack(zfm.OK, 0, 120)
	case zfm.Search:
		id, _, ok := z.library.find(*buffer())
		if !ok || int(id) < u16(1) || int(id) >= u16(1)+u16(3) {
			return z.ack(zfm.NotFound, 0, 0, 0, 0)
		}
		return z.ack(zfm.OK, byte(id>>8), byte(id), 0, 98)
	case zfm.RegModel:
		for _, b := range z.buffers[1:] {
			if b != nil && !bytes.Equal(b, z.buffers[1]) {
				return z.ack(zfm.MergeFailed)
			}
		}
		z.buffers = [7][]byte{1: z.buffers[1]}
	case zfm.Store:
		switch {
		case u16(1) >= z.Capacity:
			return z.ack(zfm.BadID)
		case z.Full:
			return z.ack(zfm.Full)
		case len(*buffer()) != z.TemplateSize:
			return z.ack(zfm.IllegalData)
		}
		z.library[fingerprint.ID(u16(1))] = [][]byte{slices.Clone(*buffer())}
	case zfm.LoadChar:
		t := z.library[fingerprint.ID(u16(1))]
		if t == nil {
			return z.ack(zfm.BadTemplate)
		}
		*buffer() = slices.Clone(t[0])
	case zfm.UpChar:
		out := z.ack(zfm.OK)
		for rest := *buffer(); len(rest) > 0; {
			n, pid := min(len(rest), z.PacketSize), zfm.Data
			if n == len(rest) {
				pid = zfm.LastData
			}
			out = append(out, z.packet(pid, rest[:n]...))
			rest = rest[n:]
		}
		return out
	case zfm.DownChar:
		z.download = int(params[0])
		*buffer() = nil
	case zfm.DeletChar:
		for n := range u16(2) {
			delete(z.library, fingerprint.ID(u16(0)+n))
		}
	case zfm.Empty:
		clear(z.library)
	case zfm.SetSysPara:
		switch params[0] {
		case 4:
			out := z.ack(zfm.OK)
			z.Baud = int(params[1]) * 9600
			return out
		case 5:
			z.security = params[1]
		case 6:
			z.PacketSize = 32 << params[1]
		default:
			return z.ack(zfm.BadRegister)
		}
	case zfm.ReadSysPara:
		if z.Bare {
			return z.ack(zfm.Undefined)
		}
		b := be.AppendUint16([]byte{0, 0, 0, 0}, uint16(z.Capacity))
		b = be.AppendUint32(append(b, 0, z.security), z.Address)
		b = be.AppendUint16(b, uint16(slices.Index([]int{32, 64, 128, 256}, z.PacketSize)))
		return z.ack(zfm.OK, be.AppendUint16(b, uint16(z.Baud/9600))...)
	case zfm.ReadProdInfo:
		if z.Old {
			return z.ack(zfm.Undefined)
		}
		b := make([]byte, 46)
		copy(b, "R503")
		copy(b[16:], "1401")
		copy(b[20:], serialNumber(z.Serial, 8))
		b[28], b[29] = 1, 2
		copy(b[30:], "GD3C")
		be.PutUint16(b[38:], 192)
		be.PutUint16(b[40:], 192)
		be.PutUint16(b[42:], uint16(z.TemplateSize))
		be.PutUint16(b[44:], uint16(z.Capacity))
		return z.ack(zfm.OK, b...)
	case zfm.WriteNotepad:
		copy(z.notepad[params[0]%16][:], params[1:])
	case zfm.ReadNotepad:
		return z.ack(zfm.OK, z.notepad[params[0]%16][:]...)
	case zfm.TemplateNum:
		return z.ack(zfm.OK, byte(len(z.library)>>8), byte(len(z.library)))
	case zfm.ReadIndex:
		var page [32]byte
		for id := range z.library {
			if int(id)/256 == int(params[0]) {
				page[id%256/8] |= 1 << (id % 8)
			}
		}
		return z.ack(zfm.OK, page[:]...)
	case zfm.AuraLED:
		if z.Old {
			return z.ack(zfm.Undefined)
		}
		if z.Dark && params[0] != 4 {
			return z.ack(zfm.ExecutionFailed)
		}
		z.light = fingerprint.Light{Colour: fingerprint.Colour(params[2]), Times: params[3]}
		switch params[0] {
		case 1:
			z.light.Effect = fingerprint.Breathe
		case 2:
			z.light.Effect = fingerprint.Flash
		case 4:
			z.light = fingerprint.Light{}
		}
	case zfm.LEDOn, zfm.LEDOff:
		if !z.Old {
			return z.ack(zfm.Unsupported)
		}
	default:
		return z.ack(zfm.Undefined)
	}
	return z.ack(zfm.OK)
}
