package keys

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// maxFile is the largest key file that is read, in bytes.
const maxFile = 16 << 10

// Provider is a place where keys are kept.
type Provider interface {
	// Name is the provider's name in the configuration.
	Name() string
	// Describe says what keeping keys there protects against, and what not.
	Describe() string
	// Read returns the content of a key's file. The error is an
	// fs.ErrNotExist when there is no such key. It refuses what others can
	// read.
	Read(name string) ([]byte, error)
}

// File keeps keys as files in a folder of their own.
func File(dir string) Provider { return fileProvider{dir} }

type fileProvider struct{ dir string }

func (fileProvider) Name() string { return "file" }

func (fileProvider) Describe() string {
	return "Keys are files that only their owner can read. That protects them from other users of this machine. " +
		"It does not protect them from whoever takes the disk or the card: such a person can read the names of people and visits, " +
		"try badge numbers against the index, and sign as this machine. Encrypt the partition, or keep the keys elsewhere, where that matters."
}

func (p fileProvider) Read(name string) ([]byte, error) {
	return readKeyFile(p.dir, name, onlyOwner)
}

// Credential reads keys that systemd hands to the service (LoadCredential=,
// LoadCredentialEncrypted=) in the folder that $CREDENTIALS_DIRECTORY names.
func Credential() Provider { return credentialProvider{os.Getenv("CREDENTIALS_DIRECTORY")} }

type credentialProvider struct{ dir string }

func (credentialProvider) Name() string { return "credential" }

func (credentialProvider) Describe() string {
	return "Keys are systemd credentials: only this service sees them, in memory, while it runs. What they protect depends on where systemd takes them from. " +
		"Encrypted to a TPM (systemd-creds encrypt --with-key=tpm2), or kept on another machine, the stolen disk or card alone yields nothing. " +
		"Encrypted with the host key, or not at all, they protect nothing once the disk is stolen, because the host key is on the same disk."
}

func (p credentialProvider) Read(name string) ([]byte, error) {
	if p.dir == "" {
		return nil, fmt.Errorf("read key %q: $CREDENTIALS_DIRECTORY is not set: start the program as a systemd service with LoadCredential=, or use keys.provider = \"file\"", name)
	}
	// systemd may grant access by an ACL, whose mask shows in the group's
	// bits, and leave root as the owner.
	return readKeyFile(p.dir, name, func(path string, info fs.FileInfo) error {
		if info.Mode().Perm()&0o007 != 0 {
			return fmt.Errorf("%s can be read by everybody (mode %#o): let systemd place it by LoadCredential=", path, info.Mode().Perm())
		}
		if uid, ok := owner(info); ok && uid != 0 && uid != os.Geteuid() {
			return fmt.Errorf("%s belongs to user %d: let systemd place it by LoadCredential=", path, uid)
		}
		return nil
	})
}

func readKeyFile(dir, name string, check func(path string, info fs.FileInfo) error) ([]byte, error) {
	if !filepath.IsLocal(name) || filepath.Base(name) != name {
		return nil, fmt.Errorf("%q cannot be the name of a key", name)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("folder of keys: %w", err)
	}
	if err := check(dir, info); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, name)
	// Not blocking, lest a pipe in the file's place hangs the program. What
	// was opened is what is checked.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if err := check(path, info); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s has more than %d bytes: it is not a key", path, maxFile)
	}
	return b, nil
}

// onlyOwner refuses a file or folder that somebody else can reach.
func onlyOwner(path string, info fs.FileInfo) error {
	var errs []error
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		want := 0o600
		if info.IsDir() {
			want = 0o700
		}
		errs = append(errs, fmt.Errorf("%s can be reached by other users (mode %#o): run chmod %o %s", path, mode, want, path))
	}
	if uid, ok := owner(info); ok && uid != os.Geteuid() {
		errs = append(errs, fmt.Errorf("%s belongs to user %d, but this program runs as user %d: run it as the owner, or change the owner with chown", path, uid, os.Geteuid()))
	}
	return errors.Join(errs...)
}

func owner(info fs.FileInfo) (uid int, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(st.Uid), true
}
