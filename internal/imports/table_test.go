package imports

// everything stands for all packages of ours.
const everything = "..."

// table says which packages of ours each package may import. "drivers/..." is
// every package below drivers; a row for a package itself goes before one for
// a folder around it. A package without a row is an error, and so is a row
// without a package.
var table = map[string][]string{
	// The domain: no I/O, no clock.
	"badge":     {"internal/spelling"},
	"biometric": {},
	"access":    {"badge"},

	// What is kept.
	"access/allowlist":   {"access", "badge", "internal/fields"},
	"access/registry":    {"access", "access/allowlist", "badge", "internal/fields", "internal/spelling", "internal/sqlite"},
	"access/replay":      {"access", "visitorlog"},
	"biometric/enrolled": {"biometric", "internal/sqlite"},
	"visitorlog":         {"access"},
	"visitorlog/central": {"visitorlog", "access"},

	// What is at the door.
	"biometric/enroll":     {"access", "biometric", "biometric/enrolled", "visitorlog"},
	"door":                 {"access", "badge", "biometric", "visitorlog"},
	"drivers":              {"badge", "biometric", "drivers/..."}, // its table names each of them
	"drivers/gpio":         {"badge", "internal/spelling"},
	"drivers/wiegand":      {"badge", "drivers/gpio"},
	"drivers/osdp":         {}, // a protocol package for everybody
	"drivers/osdp/pd":      {"drivers/osdp"},
	"drivers/osdp/keyring": {"drivers/osdp"},
	"drivers/osdp/panel":   {"badge", "biometric", "drivers/iris", "drivers/osdp", "drivers/osdp/keyring", "drivers/serial"},
	"drivers/iris":         {"biometric", "drivers/osdp"},
	"drivers/serial":       {},
	// Serial fingerprint modules: the families, what they have in common, and
	// modules to try them with.
	"drivers/fingerprint":         {"biometric", "drivers/serial"},
	"drivers/fingerprint/zfm":     {"biometric", "drivers/fingerprint"},
	"drivers/fingerprint/sfm":     {"biometric", "drivers/fingerprint"},
	"drivers/fingerprint/gt521":   {"biometric", "drivers/fingerprint"},
	"drivers/fingerprint/sim":     {"drivers/fingerprint", "drivers/fingerprint/..."},
	"drivers/fingerprint/scanner": {"badge", "biometric", "drivers/serial", "drivers/fingerprint", "drivers/fingerprint/zfm", "drivers/fingerprint/sfm", "drivers/fingerprint/gt521"},
	"drivers/drivertest":          {"badge", "biometric"},
	"drivers/...":                 {"badge"},

	// What is between the controller and the CRM.
	"sync/wire":                {"access", "visitorlog"},
	"sync/mqtt":                {"sync/wire"},
	"sync/broker":              {"sync/wire"},
	"sync/uplink":              {"sync/wire", "visitorlog", "access"},
	"sync/allowlist/follower":  {"sync/wire", "access/allowlist", "internal/keys"},
	"sync/allowlist/publisher": {"sync/wire", "access", "access/allowlist", "internal/sqlite"},
	"sync/command/receiver":    {"sync/wire", "access", "door", "visitorlog"},
	"sync/command/sender":      {"sync/wire", "visitorlog/central"},
	"sync/ingest":              {"sync/wire", "visitorlog", "visitorlog/central", "access"},

	// What people and other programs reach over HTTP.
	"web/api":         {"access", "access/registry", "badge", "internal/badgeview", "internal/fields", "internal/loopback", "internal/serve", "web/api/clients"},
	"web/api/clients": {"internal/fields", "internal/spelling", "internal/sqlite"},

	// What programs are made of besides.
	"internal/badgeview":    {"badge", "internal/cli"},
	"internal/cli":          {},
	"internal/clock":        {"access"},
	"internal/config":       {"badge", "biometric", "access", "drivers", "internal/loopback", "internal/spelling"},
	"internal/control":      {},
	"internal/decisionview": {"access", "internal/cli"},
	"internal/fields":       {"internal/spelling"},
	"internal/imports":      {},
	"internal/keys":         {},
	"internal/logview":      {"visitorlog", "visitorlog/central", "access", "internal/cli", "internal/keys", "internal/spelling"},
	"internal/loopback":     {},
	"internal/metrics":      {"internal/loopback", "internal/serve"},
	"internal/pki":          {"internal/keys"},
	"internal/serve":        {},
	"internal/spelling":     {},
	"internal/sqlite":       {},
	"internal/systemd":      {},
	"internal/benchtable":   {},

	// Wiring, and tests of what is wired.
	"cmd/...":  {everything},
	"test":     {everything},
	"test/...": {everything},
}

// owners says which packages may import a library: each is behind one or two
// packages of ours, so that it can be replaced. Tests may use what they like.
var owners = map[string][]string{
	"github.com/mattn/go-sqlite3":           {"internal/sqlite", "access/allowlist", "access/registry", "visitorlog", "visitorlog/central"},
	"github.com/pressly/goose/v3":           {"internal/sqlite", "visitorlog", "visitorlog/central"},
	"github.com/eclipse/paho.mqtt.golang":   {"sync/mqtt"},
	"github.com/mochi-mqtt/server/v2":       {"sync/broker"},
	"github.com/go-jose/go-jose/v4":         {"internal/keys", "internal/pki", "cmd/..."},
	"filippo.io/age":                        {"internal/keys", "internal/pki"},
	"github.com/BurntSushi/toml":            {"internal/config", "access/allowlist", "access/registry"},
	"github.com/coreos/go-systemd/v22":      {"internal/systemd"},
	"github.com/spf13/cobra":                {"internal/cli", "internal/logview", "cmd/..."},
	"github.com/Shopify/toxiproxy/v2":       {"test/..."},
	"github.com/rogpeppe/go-internal":       {"test/..."},
	"github.com/santhosh-tekuri/jsonschema": {"test/..."},
	"github.com/transparency-dev/merkle":    {"test/..."},
	"pgregory.net/rapid":                    {"test/..."},
	"github.com/google/go-cmp":              {"test/..."},
	"github.com/prometheus/client_golang":   {"internal/metrics"},
	"periph.io/x":                           {"drivers/gpio"},
	"github.com/warthog618/go-gpiocdev":     {"drivers/gpio"},
	"github.com/tarm/serial":                {"drivers/osdp", "drivers/serial"},
	"github.com/creack/pty":                 {"drivers/fingerprint/sim", "cmd/gatehouse-demo", "test/..."},
	"log":                                   {}, // log/slog, injected
	"github.com/transparency-dev/formats":   {"internal/keys", "visitorlog", "visitorlog/central", "sync/..."},
	"golang.org/x/mod/sumdb":                {"internal/keys", "internal/pki", "visitorlog", "visitorlog/central", "internal/logview", "sync/...", "cmd/..."},
	"testing":                               {"drivers/drivertest", "test/..."},
}

// pure are the files that decide: what they know comes in, what they want goes
// out. They do no I/O, read no clock and start no goroutine.
var pure = []string{
	"badge/*.go", "biometric/*.go", "access/*.go", "door/machine*.go",
	"drivers/wiegand/decoder.go", "drivers/wiegand/frame.go", "drivers/wiegand/timing.go", "drivers/wiegand/health.go",
}

// impureImports may not be imported by pure files, nor may what is below them.
var impureImports = []string{"os", "net", "io/fs", "io/ioutil", "database/sql", "syscall", "log", "math/rand", "math/rand/v2", "crypto/rand", "unsafe", "runtime", "plugin", "testing"}

// pureExceptions may be imported all the same: they do nothing by themselves.
var pureExceptions = []string{"log/slog", "net/netip"}

// impureCalls are the functions that pure files may not use, by package.
var impureCalls = map[string][]string{
	"time": {"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "LoadLocation", "Local"},
	"fmt":  {"Print", "Printf", "Println", "Scan", "Scanf", "Scanln"},
}
