package osdp

import (
	"bytes"
	"testing"
	"time"
)

func TestATemplateThatNobodyWaitsForIsCleared(t *testing.T) {
	p := newPeripheral(nil, PeripheralConfig{})
	p.step = stepReady
	p.abandon(CodeBIOREADR)
	template := Secret("an eye's template")
	p.ready(time.Now(), &outgoing{command: Poll{}}, BioTemplate{Template: template})
	if !bytes.Equal(template, make([]byte, len(template))) {
		t.Error("it is still in memory")
	}
}
