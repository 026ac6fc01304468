// Package pki is how a controller and a CRM come to know each other: the
// certificates of their connection, the request that a controller makes, the
// bundle that a CRM answers with, and what the controller pins for ever after.
package pki

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
)

// CRMName is the name under which the CRM itself connects to the broker. No
// controller may have it.
const CRMName = "gatehouse-crm"

var controllerName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// CheckName reports what is wrong with a controller's name. It stands in MQTT
// topics, certificates and records, and is unique over all sites of a CRM.
func CheckName(name string) error {
	if !controllerName.MatchString(name) {
		return fmt.Errorf("%q cannot name a controller: want 1 to 63 lower-case letters, digits and hyphens, with a letter or digit first", name)
	}
	if name == CRMName {
		return fmt.Errorf("%q cannot name a controller: it is the CRM's own name", name)
	}
	return nil
}

// version is the version of every format of this package.
const version = 1

// decode reads one JSON object strictly: no unknown field, nothing after it,
// and only in the form in which encoding writes it, so that no two texts mean
// the same.
func decode(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON object")
	}
	again, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var plain bytes.Buffer
	if err := json.Compact(&plain, data); err != nil {
		return err
	}
	if !bytes.Equal(again, plain.Bytes()) {
		return errors.New("JSON object is not in its canonical form")
	}
	return nil
}

func checkVersion(v int) error {
	if v != version {
		return fmt.Errorf("version is %d, this program knows only %d", v, version)
	}
	return nil
}
