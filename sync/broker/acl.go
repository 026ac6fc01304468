package broker

import (
	"strings"

	"github.com/gatehouse-acs/gatehouse/sync/wire"
)

// The rules of who may say and hear what. configs/mosquitto/acl says the same
// to Mosquitto, except for retained messages, on which it has no rule.

// known reports whether name may connect at all.
func known(name string) bool {
	return name == wire.CRM || wire.CheckController(name) == nil
}

// mayPublish reports whether name may publish on topic: a controller on its
// own up/ topics, the CRM on any controller's down/ topics. Only what wire
// says is retained may be retained: a retained command would open a door after
// each reconnect.
func mayPublish(name, topic string, retained bool) bool {
	controller, kind, err := wire.ParseTopic(topic)
	if err != nil || (retained && !kind.Retained()) {
		return false
	}
	if name == wire.CRM {
		return !kind.Up()
	}
	return kind.Up() && controller == name
}

// maySubscribe reports whether name may subscribe with filter, and, as a topic
// is a filter that matches itself, whether a message on a topic may be
// delivered to it.
func maySubscribe(name, filter string) bool {
	rest, ok := strings.CutPrefix(filter, wire.Prefix+"/")
	if !ok {
		return false
	}
	controller, rest, _ := strings.Cut(rest, "/")
	direction, rest, _ := strings.Cut(rest, "/")
	if rest == "" {
		return false // nothing is published there, and up/ alone is no reason to be let in
	}
	if name == wire.CRM {
		return direction == "up" && (controller == "+" || wire.CheckController(controller) == nil)
	}
	return direction == "down" && controller == name
}
