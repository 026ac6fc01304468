package gpio

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/warthog618/go-gpiocdev/uapi"

	"github.com/gatehouse-acs/gatehouse/internal/spelling"
)

// usual are the labels of the chip that a board's header is wired to.
var usual = []string{
	"pinctrl-bcm2711", // Raspberry Pi 4, 400, CM4
	"pinctrl-bcm2835", // Raspberry Pi 1 to 3, Zero, CM1 to CM3
	"pinctrl-rp1",     // Raspberry Pi 5, 500, CM5
	"pinctrl-sim",     // the kernel's simulated chip
}

// Chip is one GPIO controller, as the kernel describes it.
type Chip struct {
	Name  string // the kernel's, such as gpiochip0: it changes from kernel to kernel, so nothing is found by it
	Label string // of the chip's driver, such as pinctrl-bcm2711
	Lines []Line // by offset

	path string
}

// Line is one line of a chip.
type Line struct {
	Name     string // of the board's device tree, such as GPIO17; empty: it has none
	Output   bool
	Used     bool   // somebody holds it
	Consumer string // who; the kernel need not know
}

// Chips lists the controllers of this machine, by label. Looking requests no
// line and so changes none: on a Raspberry Pi even reading a line that nobody
// holds takes a UART or an I2C bus off its pins. It is an error if there is no
// controller.
func Chips() ([]Chip, error) { return chipsIn("/dev") }

func chipsIn(dir string) ([]Chip, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "gpiochip*"))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("this machine has no GPIO controller (there is no %s/gpiochip*): run this on the one that the door is wired to", dir)
	}
	var chips []Chip
	known := map[uint64]bool{} // a Raspberry Pi 5 has two names for its first chip
	for _, p := range paths {
		chip, device, err := describe(p)
		if err != nil {
			return nil, err
		}
		if !known[device] {
			known[device] = true
			chips = append(chips, chip)
		}
	}
	slices.SortStableFunc(chips, func(a, b Chip) int { return strings.Compare(a.Label, b.Label) })
	return chips, nil
}

// describe asks one chip what it is, and gives its device number.
func describe(path string) (Chip, uint64, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return Chip{}, 0, fmt.Errorf("%w: put the user of this program into the group that owns it (gpio on a Raspberry Pi)", err)
	}
	if err != nil {
		return Chip{}, 0, err
	}
	defer f.Close()
	stat, err := f.Stat()
	if err != nil {
		return Chip{}, 0, err
	}
	var device uint64
	if s, ok := stat.Sys().(*syscall.Stat_t); ok {
		device = uint64(s.Rdev)
	}
	info, err := uapi.GetChipInfo(f.Fd())
	if err != nil {
		return Chip{}, 0, fmt.Errorf("%s is no GPIO controller: %w", path, err)
	}
	chip := Chip{Name: uapi.BytesToString(info.Name[:]), Label: uapi.BytesToString(info.Label[:]), path: path}
	for i := range int(info.Lines) {
		l, err := uapi.GetLineInfoV2(f.Fd(), i)
		if err != nil {
			return Chip{}, 0, fmt.Errorf("%s: line %d: %w (a kernel of version 5.10 or later is needed)", path, i, err)
		}
		chip.Lines = append(chip.Lines, Line{
			Name:     uapi.BytesToString(l.Name[:]),
			Output:   l.Flags.IsOutput(),
			Used:     l.Flags.IsUsed(),
			Consumer: uapi.BytesToString(l.Consumer[:]),
		})
	}
	return chip, device, nil
}

// findChip finds the one chip with a label, or with one of the usual labels if
// none is asked for.
func findChip(chips []Chip, label string) (Chip, error) {
	var found []Chip
	for _, c := range chips {
		if c.Label == label || label == "" && slices.Contains(usual, c.Label) {
			found = append(found, c)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1 && label == "":
		return Chip{}, fmt.Errorf("more than one GPIO controller may be the board's: say which with chip; there are %s", inventory(chips))
	case len(found) > 1:
		return Chip{}, fmt.Errorf("%d GPIO controllers have the label %q: there are %s", len(found), label, inventory(chips))
	case label == "":
		return Chip{}, fmt.Errorf("no GPIO controller has one of the labels %s: name another with chip; there are %s", strings.Join(usual, ", "), inventory(chips))
	default:
		return Chip{}, fmt.Errorf("no GPIO controller has the label %q: there are %s", label, inventory(chips))
	}
}

// inventory is the chips that there are, with their lines.
func inventory(chips []Chip) string {
	var each []string
	for _, c := range chips {
		each = append(each, fmt.Sprintf("%q (%s)", c.Label, c.names()))
	}
	return strings.Join(each, ", ")
}

// find gives the offset of the line with a name. It must be free.
func (c Chip) find(name string) (int, error) {
	is := func(l Line) bool { return l.Name == name }
	i := slices.IndexFunc(c.Lines, is)
	switch {
	case name == "":
		return 0, fmt.Errorf("a line needs a name: chip %q has %s", c.Label, c.names())
	case i < 0:
		return 0, c.unknown(name)
	case slices.ContainsFunc(c.Lines[i+1:], is):
		return 0, fmt.Errorf("chip %q has more than one line %q", c.Label, name)
	case c.Lines[i].Used && c.Lines[i].Consumer == consumer():
		return 0, fmt.Errorf("line %q of chip %q is already in use by this program: is it in the configuration twice?", name, c.Label)
	case c.Lines[i].Used:
		return 0, fmt.Errorf("line %q of chip %q is taken by %s", name, c.Label, c.Lines[i].holder())
	}
	return i, nil
}

func (c Chip) unknown(name string) error {
	advice := ""
	if _, err := strconv.Atoi(name); err == nil {
		advice = "a line goes by its name, never by its number; "
	}
	var names []string
	for _, l := range c.Lines {
		if l.Name != "" {
			names = append(names, l.Name)
		}
	}
	if near := spelling.Nearest(name, names); near != "" {
		advice += fmt.Sprintf("did you mean %q? ", near)
	}
	return fmt.Errorf("chip %q has no line %q: %sthere are %s", c.Label, name, advice, c.names())
}

// holder is who holds the line, as far as the kernel knows.
func (l Line) holder() string {
	if l.Consumer == "" {
		return "the kernel or another program"
	}
	return strconv.Quote(l.Consumer)
}

// names lists the chip's lines: GPIO0 to GPIO27, ID_SDA.
func (c Chip) names() string {
	var parts []string
	first, last := "", ""
	end := func() {
		switch {
		case first == "":
		case first == last:
			parts = append(parts, spelling.Printable(first))
		default:
			parts = append(parts, spelling.Printable(first)+" to "+spelling.Printable(last))
		}
	}
	for _, l := range c.Lines {
		switch {
		case l.Name == "":
		case last != "" && follows(last, l.Name):
			last = l.Name
		default:
			end()
			first, last = l.Name, l.Name
		}
	}
	end()
	if len(parts) == 0 {
		return "no line with a name"
	}
	return strings.Join(parts, ", ")
}

// follows reports whether two names differ by one in the number at their end.
func follows(a, b string) bool {
	const digits = "0123456789"
	stem := strings.TrimRight(a, digits)
	if stem != strings.TrimRight(b, digits) {
		return false
	}
	n, errA := strconv.Atoi(a[len(stem):])
	m, errB := strconv.Atoi(b[len(stem):])
	return errA == nil && errB == nil && m == n+1
}

// consumer is the name under which this program holds its lines, as periph
// makes it.
func consumer() string {
	name := fmt.Sprintf("%s@%d", path.Base(os.Args[0]), os.Getpid())
	const most = 31 // bytes; the kernel's field ends with a zero byte
	return name[:min(len(name), most)]
}
