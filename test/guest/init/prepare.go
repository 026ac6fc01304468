package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/gatehouse-acs/gatehouse/test/guest"
	"golang.org/x/sys/unix"
)

// prepare makes of a kernel that has just booted a machine with its file
// systems, its network and its GPIO chip.
func prepare() error {
	for _, m := range []struct{ kind, at string }{
		{"proc", "/proc"},
		{"sysfs", "/sys"},
		{"devtmpfs", "/dev"},
		{"tmpfs", "/tmp"},
		{"tmpfs", "/run"},
		{"configfs", "/sys/kernel/config"},
	} {
		if err := mount(m.kind, m.kind, m.at); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(guest.DataDir, 0o700); err != nil {
		return err
	}
	if _, err := os.Stat("/dev/vda"); err == nil {
		if err := errors.Join(mount("/dev/vda", "ext4", guest.DataDir), own(guest.DataDir)); err != nil {
			return err
		}
	}
	if err := up("lo", netip.MustParseAddr("127.0.0.1"), 8); err != nil {
		return err
	}
	if err := up("eth0", netip.MustParseAddr(guest.Address), 24); err != nil && !errors.Is(err, syscall.ENODEV) {
		return err
	}
	return makeChip()
}

func mount(what, kind, at string) error {
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	err := unix.Mount(what, at, kind, 0, "")
	if err != nil && !errors.Is(err, syscall.EBUSY) { // devtmpfs may be there already
		return fmt.Errorf("mounting %s at %s: %w", what, at, err)
	}
	return nil
}

// own gives files to root: whoever made the disk's image may be anybody.
func own(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Sys().(*syscall.Stat_t).Uid == 0 {
			return nil
		}
		return os.Lchown(path, 0, 0)
	})
}

// up gives a network interface its address.
func up(name string, addr netip.Addr, bits int) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	mask := netip.PrefixFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), bits).Masked().Addr()
	for _, set := range []struct {
		request uint
		value   netip.Addr
	}{{unix.SIOCSIFADDR, addr}, {unix.SIOCSIFNETMASK, mask}} {
		ifr, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		if err := ifr.SetInet4Addr(set.value.AsSlice()); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(s, set.request, ifr); err != nil {
			return fmt.Errorf("address of %s: %w", name, err)
		}
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	return nil
}

// makeChip makes the GPIO chip.
func makeChip() error {
	const device = "/sys/kernel/config/gpio-sim/door"
	const bank = device + "/bank0"
	write := func(path, text string) error { return os.WriteFile(path, []byte(text), 0) }
	if err := os.MkdirAll(bank, 0o755); err != nil {
		return fmt.Errorf("gpio-sim: %w", err)
	}
	err := errors.Join(write(bank+"/label", guest.Chip), write(bank+"/num_lines", strconv.Itoa(guest.Lines)))
	for i := range guest.Lines {
		line := fmt.Sprintf("%s/line%d", bank, i)
		err = errors.Join(err, os.Mkdir(line, 0o755), write(line+"/name", fmt.Sprintf("GPIO%d", i)))
	}
	if err := errors.Join(err, write(device+"/live", "1")); err != nil {
		return fmt.Errorf("gpio-sim: %w", err)
	}
	// The kernel chose these names.
	chip, err := os.ReadFile(bank + "/chip_name")
	if err != nil {
		return err
	}
	dev, err := os.ReadFile(device + "/dev_name")
	if err != nil {
		return err
	}
	dir := filepath.Join("/sys/devices/platform", strings.TrimSpace(string(dev)), strings.TrimSpace(string(chip)))
	return errors.Join(os.Setenv(chipEnv, dir), os.Setenv("HOME", "/tmp"), os.Setenv("PATH", "/bin"))
}
