package keys

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"pgregory.net/rapid"
)

func TestSealedTextOpensOnlyWhereItBelongs(t *testing.T) {
	secret, purpose := bytes.Repeat([]byte{7}, 32), "records"
	s := must[*Sealer](t)(NewSealer(secret, purpose))
	rapid.Check(t, func(t *rapid.T) {
		plain := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "plain")
		aad := rapid.SliceOfN(rapid.Byte(), 0, 50).Draw(t, "aad")
		sealed := s.Seal(plain, aad)
		if len(sealed) != len(plain)+SealOverhead {
			t.Fatalf("sealed %d bytes as %d", len(plain), len(sealed))
		}
		got, err := s.Open(sealed, aad)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("opened as %x: %v", got, err)
		}
		if _, err := s.Open(sealed, append(aad, 0)); err == nil {
			t.Fatal("opened in another place")
		}
		i := rapid.IntRange(0, len(sealed)*8-1).Draw(t, "bit")
		sealed[i/8] ^= 1 << (i % 8)
		if _, err := s.Open(sealed, aad); err == nil {
			t.Fatalf("opened with bit %d changed", i)
		}
	})
	sealed := s.Seal([]byte("x"), nil)
	for n := range sealed {
		if _, err := s.Open(sealed[:n], nil); err == nil {
			t.Errorf("opened when cut to %d bytes", n)
		}
	}
	for name, other := range map[string]*Sealer{
		"another purpose": must[*Sealer](t)(NewSealer(secret, "allowlist")),
		"another key":     must[*Sealer](t)(NewSealer(bytes.Repeat([]byte{8}, 32), purpose)),
	} {
		if _, err := other.Open(sealed, nil); err == nil {
			t.Errorf("opened with %s", name)
		}
	}
	if bytes.Equal(s.Seal([]byte("x"), nil), s.Seal([]byte("x"), nil)) {
		t.Error("the same text was sealed twice the same")
	}
}

func TestIndexIsHMACSHA256CutTo16Bytes(t *testing.T) {
	const want = "dd7edc35ac4fd5346edb380ff04fbdd3" // by Python's hmac module
	p := must[*Pepper](t)(NewPepper(bytes.Repeat([]byte{0x0b}, 32)))
	for range 3 {
		if got := p.Index([]byte("H10301")); hex.EncodeToString(got[:]) != want {
			t.Errorf("index is %x, want %s", got, want)
		}
	}
}

func TestSecretsOfAnotherLengthAreRefused(t *testing.T) {
	for _, n := range []int{0, 16, 31, 33, 64} {
		if _, err := NewSealer(make([]byte, n), "x"); err == nil {
			t.Errorf("sealing key of %d bytes was taken", n)
		}
		if _, err := NewPepper(make([]byte, n)); err == nil {
			t.Errorf("pepper of %d bytes was taken", n)
		}
	}
}

// secrets are all the types that hold one, with the secret bytes.
func secrets(t *testing.T) map[any][][]byte {
	t.Helper()
	block := func(content []byte) []byte {
		b, _ := pem.Decode(content)
		return b.Bytes
	}
	es, ed := must[[]byte](t)(GenerateKey(ES256)), must[[]byte](t)(GenerateKey(EdDSA))
	seal, pepper, id := GenerateSeal(), GeneratePepper(), must[[]byte](t)(GenerateIdentity())
	d, err := must[*PrivateKey](t)(ParsePrivateKey(es)).key.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	seed := must[*PrivateKey](t)(ParsePrivateKey(ed)).key.(ed25519.PrivateKey).Seed()
	edSigner := must[*Signer](t)(ParseSigner(ed, TypeRecord))
	cosigner := must[*Cosigner](t)(ParseCosignerKey(ed, "crm.example"))
	return map[any][][]byte{
		must[note.Signer](t)(edSigner.NoteSigner(origin)): {seed, ed, block(ed)},
		cosigner.Note(): {seed, ed, block(ed)},
		cosigner:        {seed, ed, block(ed)},
		edSigner:        {seed, ed, block(ed)},
		must[*Signer](t)(ParseSigner(es, TypeRecord)): {d, es, block(es)},
		must[*Signer](t)(ParseSigner(ed, TypeRecord)): {seed, ed, block(ed)},
		must[*PrivateKey](t)(ParsePrivateKey(es)):     {d, es, block(es)},
		must[*PrivateKey](t)(ParsePrivateKey(ed)):     {seed, ed, block(ed)},
		must[*Sealer](t)(ParseSeal(seal, "records")):  {block(seal), seal},
		must[*Pepper](t)(ParsePepper(pepper)):         {block(pepper), pepper},
		must[*Identity](t)(ParseIdentity(id)):         {id, bytes.TrimSpace(id)},
	}
}

func TestNoWayOfPrintingASecretShowsIt(t *testing.T) {
	for v, hidden := range secrets(t) {
		var out bytes.Buffer
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%b", "%t", "%p", "%y"} {
			fmt.Fprintf(&out, verb, v)
			fmt.Fprintf(&out, verb, struct{ Key any }{v})
			fmt.Fprintf(&out, verb, []any{v})
		}
		fmt.Fprintln(&out, v, errors.New(fmt.Sprint(v)))
		for _, h := range []slog.Handler{slog.NewJSONHandler(&out, nil), slog.NewTextHandler(&out, nil)} {
			slog.New(h).Info("x", "key", v, "all", map[string]any{"k": v}, slog.Group("g", "k", v))
		}
		b, err := json.Marshal(map[string]any{"k": v, "l": []any{v}})
		if err != nil {
			t.Errorf("%T: %v", v, err)
		}
		out.Write(b)
		for _, s := range hidden {
			for _, form := range []string{
				string(s), hex.EncodeToString(s), strings.ToUpper(hex.EncodeToString(s)), fmt.Sprint(s), fmt.Sprintf("% x", s), fmt.Sprintf("%#v", s),
				base64.StdEncoding.EncodeToString(s), base64.RawURLEncoding.EncodeToString(s),
			} {
				if strings.Contains(out.String(), strings.Trim(form, "[]{}")) {
					t.Errorf("%T is shown when it is printed", v)
				}
			}
		}
	}
}

func writeKey(t *testing.T, dir, name string, content []byte, mode fs.FileMode) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func privateDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	if err := MakeDir(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestKeysThatOthersCanReadAreRefusedWithWhatToDo(t *testing.T) {
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o644, 0o660, 0o666, 0o610, 0o601, 0o602, 0o777} {
		dir := privateDir(t)
		writeKey(t, dir, NameLog, must[[]byte](t)(GenerateKey(ES256)), mode)
		_, err := File(dir).Read(NameLog)
		if want := "run chmod 600 " + filepath.Join(dir, NameLog); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("mode %o: error is %v, want one with %q", mode, err, want)
		}
	}
	for _, mode := range []fs.FileMode{0o600, 0o400} {
		dir := privateDir(t)
		writeKey(t, dir, NameLog, []byte("x"), mode)
		if b, err := File(dir).Read(NameLog); err != nil || string(b) != "x" {
			t.Errorf("mode %o: %q, %v", mode, b, err)
		}
	}
	for _, mode := range []fs.FileMode{0o755, 0o750, 0o701, 0o777, 0o730} {
		dir := privateDir(t)
		writeKey(t, dir, NameLog, []byte("x"), 0o600)
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		_, err := File(dir).Read(NameLog)
		if want := "run chmod 700 " + dir; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("folder of mode %o: error is %v, want one with %q", mode, err, want)
		}
	}
}

// file is the description of a file that belongs to a user.
type file struct {
	fs.FileInfo
	mode fs.FileMode
	uid  uint32
}

func (f file) Mode() fs.FileMode { return f.mode }
func (f file) IsDir() bool       { return f.mode.IsDir() }
func (f file) Sys() any          { return &syscall.Stat_t{Uid: f.uid} }

func TestKeysOfAnotherUserAreRefused(t *testing.T) {
	me := uint32(os.Geteuid())
	if err := onlyOwner("x", file{mode: 0o600, uid: me}); err != nil {
		t.Error(err)
	}
	err := onlyOwner("x", file{mode: 0o600, uid: me + 1})
	if err == nil || !strings.Contains(err.Error(), "belongs to user") || !strings.Contains(err.Error(), "chown") {
		t.Errorf("error is %v", err)
	}
	if err := onlyOwner("x", file{mode: 0o644, uid: me + 1}); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("of two faults it says %v", err)
	}
}

func TestOnlyRegularFilesOfAModerateSizeAreKeys(t *testing.T) {
	dir := privateDir(t)
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	writeKey(t, dir, "large", make([]byte, maxFile+1), 0o600)
	writeKey(t, dir, "largest", make([]byte, maxFile), 0o600)
	for name, want := range map[string]string{
		"pipe":            "not a regular file",
		"folder":          "not a regular file",
		"large":           "more than",
		"":                "cannot be the name",
		".":               "not a regular file",
		"..":              "cannot be the name",
		"../keys/largest": "cannot be the name",
		"/etc/passwd":     "cannot be the name",
	} {
		if _, err := File(dir).Read(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error is %v, want one with %q", name, err, want)
		}
	}
	if _, err := File(dir).Read("largest"); err != nil {
		t.Error(err)
	}
	if _, err := File(dir).Read("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing key: %v", err)
	}
	if _, err := File(filepath.Join(dir, "none")).Read("x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing folder: %v", err)
	}
}

func TestCredentialsComeFromSystemdsFolder(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	if _, err := Credential().Read(NameLog); err == nil || !strings.Contains(err.Error(), "LoadCredential") {
		t.Errorf("outside a service: %v", err)
	}
	dir := privateDir(t)
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	// systemd grants access by an ACL, which shows as the group's.
	writeKey(t, dir, NameLog, []byte("x"), 0o440)
	if b, err := Credential().Read(NameLog); err != nil || string(b) != "x" {
		t.Errorf("%q, %v", b, err)
	}
	writeKey(t, dir, NameLog, []byte("x"), 0o444)
	if _, err := Credential().Read(NameLog); err == nil || !strings.Contains(err.Error(), "everybody") {
		t.Errorf("mode 444: %v", err)
	}
}

func TestProvidersSayWhatTheyDoNotProtect(t *testing.T) {
	for _, p := range []Provider{File("x"), Credential()} {
		if s := p.Describe(); !strings.Contains(s, "stolen") && !strings.Contains(s, "takes the disk") {
			t.Errorf("%s: %q says nothing of a stolen card", p.Name(), s)
		}
	}
}

func TestCreateNeverOverwritesAndLeavesNothingBehind(t *testing.T) {
	dir := privateDir(t)
	path := filepath.Join(dir, "a.key")
	if err := Create(path, []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := Create(path, []byte("two")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second time: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "one" {
		t.Errorf("holds %q, %v", b, err)
	}
	if err := Replace(path, []byte("three")); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "three" {
		t.Errorf("holds %q, %v", b, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("folder holds %v, %v", entries, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode is %v, %v", info.Mode(), err)
	}
	if err := Replace(filepath.Join(dir, "none", "x"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in a missing folder: %v", err)
	}
}

func TestMakeDirTakesOnlyAPrivateFolder(t *testing.T) {
	root := t.TempDir()
	if err := MakeDir(filepath.Join(root, "a/b")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(root, "a/b"))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode is %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(filepath.Join(root, "a"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := MakeDir(filepath.Join(root, "a")); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("open folder: %v", err)
	}
	writeKey(t, root, "file", nil, 0o600)
	if err := MakeDir(filepath.Join(root, "file")); err == nil {
		t.Error("a file was taken for a folder")
	}
}

func TestInitMakesEachKeyOnce(t *testing.T) {
	for _, alg := range algorithms {
		dir := filepath.Join(t.TempDir(), "keys")
		made, err := InitController(dir, alg)
		if err != nil || len(made) != 6 {
			t.Fatalf("made %v, %v", made, err)
		}
		first := must[*ControllerKeys](t)(LoadController(File(dir)))
		if first.Log.Algorithm() != alg || first.Policy.Algorithm() != alg {
			t.Errorf("algorithms are %s, %s, want %s", first.Log.Algorithm(), first.Policy.Algorithm(), alg)
		}
		if first.Log.KeyID() == first.Policy.KeyID() {
			t.Error("two keys are the same")
		}
		if err := os.Remove(filepath.Join(dir, NamePolicy)); err != nil {
			t.Fatal(err)
		}
		if made, err = InitController(dir, alg); err != nil || len(made) != 1 || made[0] != NamePolicy {
			t.Errorf("made %v, %v", made, err)
		}
		second := must[*ControllerKeys](t)(LoadController(File(dir)))
		if first.Log.KeyID() != second.Log.KeyID() || !first.Pepper.Equal(second.Pepper) {
			t.Error("a key was overwritten")
		}
		if got, err := second.Records.Open(first.Records.Seal([]byte("x"), nil), nil); err != nil || string(got) != "x" {
			t.Errorf("sealing key was overwritten: %v", err)
		}
		if _, err := second.Allowlist.Open(first.Records.Seal([]byte("x"), nil), nil); err == nil {
			t.Error("records open as the allowlist")
		}
	}
	if _, err := InitController(t.TempDir()+"/keys", "RS256"); err == nil {
		t.Error("RS256 was taken")
	}
}

func TestEveryFaultOfTheKeysIsReportedAtOnce(t *testing.T) {
	dir := privateDir(t)
	writeKey(t, dir, NameLog, must[[]byte](t)(GenerateKey(ES256)), 0o644)
	writeKey(t, dir, NameSeal, GeneratePepper(), 0o600)
	writeKey(t, dir, NamePolicy, []byte("x"), 0o600)
	writeKey(t, dir, NameIdentity, []byte("AGE-SECRET-KEY-PQ-1XXX"), 0o600)
	_, err := LoadController(File(dir))
	if err == nil {
		t.Fatal("loaded")
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 5 {
		t.Errorf("%d faults, want 5:\n%v", len(lines), err)
	}
	for _, want := range []string{"chmod 600", `"seal.key": file is a "GATEHOUSE PEPPER"`, `"policy.key": file is not PEM`, "pepper.key: no such file", `"identity.key": file is a damaged age identity`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no word of %q in:\n%v", want, err)
		}
	}
	// What is wrong with the folder is said once.
	if _, err := LoadController(File(filepath.Join(dir, "none"))); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("missing folder: %v", err)
	}
}

func TestControllerWorksAloneWithoutTheKeysOfAConnection(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	if _, err := InitController(dir, ES256); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{NameTLS, NameIdentity} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	k, err := LoadController(File(dir))
	if err != nil || k.TLS != nil || k.Identity != nil {
		t.Errorf("%+v, %v", k, err)
	}
}

func TestCRMWorksWithoutTheKeysThatAreKeptOffline(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	if made, err := InitCRM(dir); err != nil || len(made) != 8 {
		t.Fatalf("made %v, %v", made, err)
	}
	k, err := LoadCRM(File(dir), "crm.example")
	if err != nil || k.CA == nil || k.Broker == nil || k.PolicyRoot == nil || k.Policy == nil || k.Registry == nil || k.Pepper == nil || k.Cosigner.Public().Name() != "crm.example" {
		t.Fatalf("%+v, %v", k, err)
	}
	for _, name := range []string{NameCA, NameBroker, NamePolicyRoot, NamePolicy} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err = LoadCRM(File(dir), "crm.example"); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filepath.Join(dir, NameCosigner)); err != nil {
		t.Fatal(err)
	}
	if _, err = LoadCRM(File(dir), "crm.example"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without the cosigner's key: %v", err)
	}
}

func TestKeyFilesAreReadStrictly(t *testing.T) {
	es := string(must[[]byte](t)(GenerateKey(ES256)))
	block, _ := pem.Decode([]byte(es))
	headers := string(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes, Headers: map[string]string{"DEK-Info": "x"}}))
	for name, content := range map[string]string{
		"empty":          "",
		"two blocks":     es + es,
		"trailing bytes": es + "x",
		"headers":        headers,
		"another type":   strings.ReplaceAll(es, "PRIVATE KEY", "EC PRIVATE KEY"),
		"not PKCS#8":     string(pem.EncodeToMemory(&pem.Block{Type: pemPrivateKey, Bytes: []byte("x")})),
		"a pepper":       string(GeneratePepper()),
	} {
		if _, err := ParseSigner([]byte(content), TypeRecord); err == nil {
			t.Errorf("%s: taken", name)
		} else if len(content) > 100 && strings.Contains(err.Error(), strings.Split(es, "\n")[1]) {
			t.Errorf("%s: the error repeats the key", name)
		}
	}
	if _, err := ParseCosignerKey([]byte(es), "crm.example"); err == nil {
		t.Error("a P-256 key was taken as a cosigner's")
	}
	for _, id := range []string{"", "x", "AGE-SECRET-KEY-1QQQ", "AGE-SECRET-KEY-PQ-1QQQ", string(must[[]byte](t)(GenerateIdentity())) + "x"} {
		if _, err := ParseIdentity([]byte(id)); err == nil {
			t.Errorf("identity %q was taken", id)
		} else if len(id) > 40 && strings.Contains(err.Error(), id[20:40]) {
			t.Error("the error repeats the identity")
		}
	}
}

func TestWhatIsSealedToAnIdentityOpensOnlyThere(t *testing.T) {
	a := must[*Identity](t)(ParseIdentity(must[[]byte](t)(GenerateIdentity())))
	b := must[*Identity](t)(ParseIdentity(must[[]byte](t)(GenerateIdentity())))
	sealed := must[[]byte](t)(SealTo(a.Recipient(), []byte("pepper")))
	if got, err := a.Open(sealed); err != nil || string(got) != "pepper" {
		t.Errorf("opened as %q: %v", got, err)
	}
	if _, err := b.Open(sealed); err == nil {
		t.Error("opened by another identity")
	}
	sealed[len(sealed)-1] ^= 1
	if _, err := a.Open(sealed); err == nil {
		t.Error("opened after a change")
	}
	for _, r := range []string{"", "age1", "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"} {
		if CheckRecipient(r) == nil {
			t.Errorf("recipient %q was taken", r)
		}
	}
}

func FuzzKeyFiles(f *testing.F) {
	for _, alg := range algorithms {
		f.Add(must[[]byte](f)(GenerateKey(alg)))
	}
	f.Add(GenerateSeal())
	f.Add(GeneratePepper())
	f.Add(must[[]byte](f)(GenerateIdentity()))
	f.Fuzz(func(t *testing.T, content []byte) {
		if s, err := ParseSigner(content, TypeRecord); err == nil {
			v := mustVerifier(t, s.JWK(), TypeRecord)
			if _, err := v.Verify(mustSign(t, s, "x")); err != nil {
				t.Fatalf("a key that was read does not sign: %v", err)
			}
		}
		if s, err := ParseSeal(content, "x"); err == nil {
			if _, err := s.Open(s.Seal(nil, nil), nil); err != nil {
				t.Fatal(err)
			}
		}
		if p, err := ParsePepper(content); err == nil {
			if first := p.Index(nil); p.Index(nil) != first {
				t.Fatal("index is not stable")
			}
		}
		if i, err := ParseIdentity(content); err == nil && CheckRecipient(i.Recipient()) != nil {
			t.Fatal("an identity that was read has no recipient")
		}
	})
}

func BenchmarkSign(b *testing.B) {
	for _, alg := range algorithms {
		s := newSigner(b, alg, TypeRecord)
		payload := bytes.Repeat([]byte("x"), 564)
		b.Run(string(alg), func(b *testing.B) {
			for b.Loop() {
				if _, err := s.Sign(payload); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	for _, alg := range algorithms {
		s := newSigner(b, alg, TypeRecord)
		v := mustVerifier(b, s.JWK(), TypeRecord)
		jws := mustSign(b, s, strings.Repeat("x", 564))
		b.Run(string(alg), func(b *testing.B) {
			for b.Loop() {
				if _, err := v.Verify(jws); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkIndex(b *testing.B) {
	p := must[*Pepper](b)(NewPepper(make([]byte, 32)))
	c := make([]byte, 39)
	for b.Loop() {
		p.Index(c)
	}
}
