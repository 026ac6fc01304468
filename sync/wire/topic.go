// Package wire is the contract between a controller and the CRM: the MQTT
// topics, the payloads on them, and their limits. It parses strictly: there
// is exactly one way to write a payload, and whatever else arrives is refused.
package wire

import (
	"fmt"
	"strings"
)

// Prefix is the first level of every topic.
const Prefix = "gatehouse"

// CRM is the client name of the CRM at the broker. No controller may have it.
const CRM = "gatehouse-crm"

// MaxController is the longest name of a controller, in bytes.
const MaxController = 63

// Kind is what a topic carries: the levels after the controller's name. The
// controller writes what begins with up/, the CRM what begins with down/.
type Kind string

// The kinds of topic.
const (
	KindRecords     Kind = "up/records"
	KindState       Kind = "up/state"
	KindFetch       Kind = "up/fetch"
	KindRequest     Kind = "up/request" // for a new certificate, as request.json is
	KindReceipt     Kind = "down/receipt"
	KindManifest    Kind = "down/manifest"
	KindChunk       Kind = "down/chunk"
	KindDelta       Kind = "down/delta"
	KindCommand     Kind = "down/command"
	KindCertificate Kind = "down/certificate" // PEM
)

// Kinds lists every kind of topic.
func Kinds() []Kind {
	return []Kind{KindRecords, KindState, KindFetch, KindRequest, KindReceipt, KindManifest, KindChunk, KindDelta, KindCommand, KindCertificate}
}

// Up reports whether a controller writes topics of this kind; otherwise the
// CRM does.
func (k Kind) Up() bool { return strings.HasPrefix(string(k), "up/") }

// Retained reports whether the broker keeps the last message of this kind.
// Nothing that could move a strike is ever kept.
func (k Kind) Retained() bool { return k == KindState || k == KindManifest }

func (k Kind) known() bool {
	for _, known := range Kinds() {
		if k == known {
			return true
		}
	}
	return false
}

// Message is one MQTT message, as it is published or as it arrived.
type Message struct {
	Topic    string
	Payload  []byte
	Retained bool
}

// CheckController refuses a name that no controller can have. Names are
// lower-case letters, digits and hyphens, so that none can hold a level
// separator or a wildcard and each is fit for a certificate and a file name.
func CheckController(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("controller name is empty")
	case len(name) > MaxController:
		return fmt.Errorf("controller name has %d bytes, more than %d", len(name), MaxController)
	case name == CRM:
		return fmt.Errorf("controller name %q is the CRM's own", name)
	case name[0] == '-':
		return fmt.Errorf("controller name %q begins with a hyphen", name)
	}
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return fmt.Errorf("controller name %q has %q: only a-z, 0-9 and - are allowed", name, c)
		}
	}
	return nil
}

// Topic is the topic of one kind for one controller.
func Topic(controller string, kind Kind) (string, error) {
	if err := CheckController(controller); err != nil {
		return "", err
	}
	if !kind.known() {
		return "", fmt.Errorf("topic kind %q is unknown", kind)
	}
	return Prefix + "/" + controller + "/" + string(kind), nil
}

// ParseTopic takes a topic apart. It accepts only what Topic makes.
func ParseTopic(topic string) (controller string, kind Kind, err error) {
	rest, ok := strings.CutPrefix(topic, Prefix+"/")
	if !ok {
		return "", "", fmt.Errorf("topic %q does not begin with %s/", topic, Prefix)
	}
	controller, tail, _ := strings.Cut(rest, "/")
	if err := CheckController(controller); err != nil {
		return "", "", fmt.Errorf("topic %q: %w", topic, err)
	}
	if kind = Kind(tail); !kind.known() {
		return "", "", fmt.Errorf("topic %q is of no known kind", topic)
	}
	return controller, kind, nil
}

// DownFilter is the subscription of a controller: all that is sent to it.
func DownFilter(controller string) (string, error) {
	if err := CheckController(controller); err != nil {
		return "", err
	}
	return Prefix + "/" + controller + "/down/#", nil
}

// UpFilter is the subscription of the CRM: all that controllers send.
func UpFilter() string { return Prefix + "/+/up/#" }
