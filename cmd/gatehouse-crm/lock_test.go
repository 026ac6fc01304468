package main

import (
	"strings"
	"testing"
)

func TestOneCRMWorksInAFolder(t *testing.T) {
	dir := t.TempDir()
	release, err := lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(dir); err == nil || !strings.Contains(err.Error(), "another gatehouse-crm") {
		t.Errorf("the second one: %v", err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	again, err := lock(dir)
	if err != nil {
		t.Fatalf("after the first one ended: %v", err)
	}
	again()
}
