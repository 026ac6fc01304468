package gpio

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// iioDevices is where Linux shows its industrial I/O devices, analogue inputs
// among them (Documentation/ABI/testing/sysfs-bus-iio).
const iioDevices = "/sys/bus/iio/devices"

// adc is one analogue input: a channel of an IIO device, or plain files of the
// same names and content, which is how one is simulated.
type adc struct {
	raw           string  // path
	scale, offset float64 // mV = (raw + offset) × scale
}

// checkADC refuses what cannot name an analogue input.
func checkADC(name string) error {
	_, channel, ok := strings.Cut(name, "/")
	if !ok || filepath.Clean(name) != name || channel == "" || !strings.HasPrefix(filepath.Base(name), "in_voltage") {
		return fmt.Errorf("adc: %q is no analogue input: write its device's name and the channel, such as %q (or the channel's path without _raw)", name, "ads1015/in_voltage0")
	}
	return nil
}

// openADC finds an input by its device's name, as in ads1015/in_voltage0 (the
// number in a device's path changes from boot to boot), or by a path.
func openADC(devices, name string) (*adc, error) {
	if err := checkADC(name); err != nil {
		return nil, err
	}
	channel := name
	if !filepath.IsAbs(name) {
		device, rest, _ := strings.Cut(name, "/")
		dir, err := findADC(devices, device)
		if err != nil {
			return nil, err
		}
		channel = filepath.Join(dir, rest)
	}
	a := &adc{raw: channel + "_raw", scale: 1}
	shared := filepath.Join(filepath.Dir(channel), "in_voltage") // of all channels
	for _, f := range []struct {
		suffix string
		into   *float64
	}{{"_scale", &a.scale}, {"_offset", &a.offset}} {
		text, err := readAttribute(channel + f.suffix)
		if errors.Is(err, fs.ErrNotExist) {
			text, err = readAttribute(shared + f.suffix)
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue // the ABI lets either be left out
		}
		if err == nil {
			*f.into, err = parseAttribute(text)
		}
		if err != nil {
			return nil, fmt.Errorf("adc: %w", err)
		}
	}
	if a.scale <= 0 {
		return nil, fmt.Errorf("adc: %q has a scale of %v, which is not above 0", name, a.scale)
	}
	if _, err := a.millivolts(); err != nil {
		return nil, err
	}
	return a, nil
}

// findADC finds the folder of the one device with a name.
func findADC(devices, name string) (string, error) {
	files, err := filepath.Glob(filepath.Join(devices, "*", "name"))
	if err != nil {
		return "", err
	}
	var found, all []string
	for _, f := range files {
		text, err := readAttribute(f)
		if err != nil {
			return "", fmt.Errorf("adc: %w", err)
		}
		is := strings.TrimSpace(string(text))
		all = append(all, strconv.Quote(is))
		if is == name {
			found = append(found, filepath.Dir(f))
		}
	}
	slices.Sort(all)
	switch {
	case len(all) == 0:
		return "", fmt.Errorf("adc: there is no analogue input device %q, nor another: is its overlay loaded?", name)
	case len(found) == 0:
		return "", fmt.Errorf("adc: there is no analogue input device %q: there are %s", name, strings.Join(all, ", "))
	case len(found) > 1:
		return "", fmt.Errorf("adc: %d analogue input devices are called %q: name the channel by its path", len(found), name)
	}
	return found[0], nil
}

// millivolts measures.
func (a *adc) millivolts() (float64, error) {
	text, err := readAttribute(a.raw)
	if err != nil {
		return 0, fmt.Errorf("adc: %w", err)
	}
	raw, err := parseAttribute(text)
	if err != nil {
		return 0, fmt.Errorf("adc: %q: %w", a.raw, err)
	}
	mv := (raw + a.offset) * a.scale
	if math.IsInf(mv, 0) {
		return 0, fmt.Errorf("adc: %q: %v is out of range", a.raw, raw)
	}
	return mv, nil
}

// maxAttribute is more than any number in sysfs has, in bytes.
const maxAttribute = 64

func readAttribute(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxAttribute+1))
}

// parseAttribute reads a number as the kernel writes it: decimal digits, with
// a sign and a fraction if need be, and a line feed.
func parseAttribute(text []byte) (float64, error) {
	number := strings.TrimSuffix(string(text), "\n")
	for _, c := range []byte(number) {
		if (c < '0' || c > '9') && c != '-' && c != '.' {
			return 0, fmt.Errorf("%.70q is not a number", text)
		}
	}
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || len(text) > maxAttribute {
		return 0, fmt.Errorf("%.70q is not a number", text)
	}
	return v, nil
}
