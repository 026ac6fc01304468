package guest_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/test/guest"
)

// TestWhatHappensAtTheDoorReachesTheCRM has a CRM on this machine, which the
// guest reaches over TLS.
func TestWhatHappensAtTheDoorReachesTheCRM(t *testing.T) {
	t.Parallel()
	// The broker's port has to be known before it listens.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	l.Close()

	c := newController(t, 5, fmt.Sprintf("[crm]\nbroker = \"tls://crm.example:%s\"", port), patient)
	crm := filepath.Join(c.dir, "crm")
	tool(t, "gatehouse-crm", "pki", "init", "--data", crm, "--host", "crm.example", "--timezone", "UTC")
	var shown struct{ Fingerprint string }
	if err := json.Unmarshal([]byte(tool(t, "gatehouse-crm", "pki", "show", "--data", crm, "--json")), &shown); err != nil {
		t.Fatal(err)
	}
	bundle := filepath.Join(c.dir, "north-1.bundle")
	tool(t, "gatehouse-crm", "controllers", "approve", filepath.Join(c.data(), "request.json"), "--data", crm, "--out", bundle, "--yes")
	tool(t, "gatehouse", "join", bundle, "--data", c.data(), "--fingerprint", shown.Fingerprint)
	c.admit()
	config := c.write("crm.toml", fmt.Sprintf("data = %q\ntimezone = \"UTC\"\n[mqtt]\nlisten = \"127.0.0.1:%s\"\n[http]\nlisten = \"127.0.0.1:0\"\n", crm, port))
	run := exec.Command(filepath.Join(needed(t).host, "gatehouse-crm"), "run", "--config", config)
	run.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.Create(filepath.Join(c.dir, "crm.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	run.Stderr = log
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = run.Process.Kill()
		_ = run.Wait()
		if text, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("gatehouse-crm:\n%s", text)
		}
	}()

	m := boot(t, c.hardware(hardware{mode: free, net: true}))
	m.synchronised()
	m.startDaemon(c)
	for n := range c.cards {
		m.getsIn(c, 0, n)
	}
	var status struct {
		Records struct{ Size, Acknowledged uint64 }
	}
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		if err := json.Unmarshal(m.ask(guest.Request{Read: pages + "/status"}).Output, &status); err != nil {
			t.Fatal(err)
		}
		if r := status.Records; r.Size > 0 && r.Acknowledged == r.Size {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("of %d records the CRM has countersigned %d", status.Records.Size, status.Records.Acknowledged)
		}
	}
	const path = "/tmp/door.ndjson"
	m.run("/bin/gatehouse", "log", "export", "--data", data, "--out", path)
	export := c.write("door.ndjson", string(m.ask(guest.Request{Read: path}).Output))
	if said := tool(t, "gatehouse-crm", "compare", export, "--data", crm); !strings.Contains(said, "differences 0") {
		t.Errorf("gatehouse-crm compare: %s", said)
	}
	if n := len(grants(m.records())); n < c.cards {
		t.Errorf("%d people came in, and %d are recorded", c.cards, n)
	}
}
