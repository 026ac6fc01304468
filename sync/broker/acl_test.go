package broker

import (
	"strings"
	"testing"

	"github.com/gatehouse-acs/gatehouse/sync/wire"
)

func TestWhoIsKnown(t *testing.T) {
	for name, want := range map[string]bool{
		wire.CRM: true, "north-1": true, "1": true, "": false, "-1": false, "North": false, "a/b": false, "+": false, "#": false,
		strings.Repeat("n", 63): true, strings.Repeat("n", 64): false,
	} {
		if got := known(name); got != want {
			t.Errorf("known(%q) = %t", name, got)
		}
	}
}

// FuzzNoFilterReachesForeignTopics: whatever filter a client thinks of, if it
// is allowed it matches nothing but what is meant for that client.
func FuzzNoFilterReachesForeignTopics(f *testing.F) {
	for _, filter := range []string{
		"gatehouse/north-1/down/#", "gatehouse/+/up/#", "gatehouse/north-1/down/+", "#", "+/+/+/+", "gatehouse/#",
		"gatehouse/north-1/down", "gatehouse/north-1/down/../../south-1", "$share/g/gatehouse/+/up/#", "gatehouse//up/#",
		"gatehouse/south-1/up/state", "$SYS/#", "/", "",
	} {
		f.Add(filter)
	}
	var topics []string
	for _, c := range []string{"north-1", "south-1"} {
		for _, kind := range wire.Kinds() {
			topic, err := wire.Topic(c, kind)
			if err != nil {
				f.Fatal(err)
			}
			topics = append(topics, topic)
		}
	}
	topics = append(topics, "$SYS/broker/version", "gatehouse/gatehouse-crm/down/command", "other")
	f.Fuzz(func(t *testing.T, filter string) {
		for _, topic := range topics {
			if !matches(filter, topic) {
				continue
			}
			if maySubscribe("north-1", filter) && !strings.HasPrefix(topic, "gatehouse/north-1/down/") {
				t.Errorf("controller: %q matches %q", filter, topic)
			}
			if _, kind, err := wire.ParseTopic(topic); maySubscribe(wire.CRM, filter) && (err != nil || !kind.Up()) {
				t.Errorf("CRM: %q matches %q", filter, topic)
			}
		}
		for _, name := range []string{"north-1", wire.CRM} {
			if mayPublish(name, filter, false) {
				if _, _, err := wire.ParseTopic(filter); err != nil {
					t.Errorf("%s may publish on %q", name, filter)
				}
			}
		}
	})
}

// matches is the matching of MQTT 3.1.1, section 4.7, level by level.
func matches(filter, topic string) bool {
	if strings.HasPrefix(topic, "$") && (strings.HasPrefix(filter, "#") || strings.HasPrefix(filter, "+")) {
		return false
	}
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	for i, level := range f {
		if level == "#" {
			return i == len(f)-1
		}
		if i >= len(t) || (level != "+" && level != t[i]) {
			return false
		}
	}
	return len(f) == len(t)
}
