package config

import (
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/loopback"
)

// CRM is the configuration of gatehouse-crm.
type CRM struct {
	Data     string `toml:"data"` // directory of keys and records; absolute
	Timezone string `toml:"timezone"`
	MQTT     MQTT   `toml:"mqtt"`
	HTTP     HTTP   `toml:"http"`
	API      API    `toml:"api"`
	Alarms   Alarms `toml:"alarms"`
	Visits   Visits `toml:"visits"`
	Policy   Policy `toml:"policy"`

	Zone *time.Location `toml:"-"` // of Timezone
}

// MQTT is how controllers reach the CRM: by the broker inside it, or by
// another. Exactly one is set.
type MQTT struct {
	Listen string `toml:"listen"` // host:port of the broker inside; always TLS
	Broker string `toml:"broker"` // tls://host:port of another
}

// API is where programs, such as the CRM, work with the registry.
type API struct {
	Listen    string `toml:"listen"`    // host:port; "": nowhere
	Plaintext bool   `toml:"plaintext"` // without TLS, on a loopback address
}

// Alarms says when the CRM raises one.
type Alarms struct {
	SilentAfter time.Duration `toml:"silent_after"` // nothing was heard of a controller for so long
}

// Policy says when the doors are told of what the registry says.
type Policy struct {
	Publish string `toml:"publish"` // PublishAtOnce or PublishByCommand
}

// When the doors are told.
const (
	PublishAtOnce = "at_once"
	// PublishByCommand is at once for what takes something away; the rest waits
	// for `gatehouse-crm policy publish`.
	PublishByCommand = "by_command"
)

// Visits says what becomes of visits that nobody signed out.
type Visits struct {
	Grace time.Duration `toml:"grace"` // how long after its end a visit may go on
}

const maxGrace = 31 * 24 * time.Hour

const (
	minSilentAfter = 10 * time.Second
	maxSilentAfter = 7 * 24 * time.Hour
)

// LoadCRM reads the configuration of gatehouse-crm. If the file can be read
// the error is a Faults with everything that is wrong in it.
func LoadCRM(path string) (*CRM, error) {
	doc, err := Read(path)
	if err != nil {
		return nil, err
	}
	return ParseCRM(path, doc)
}

// ParseCRM is LoadCRM for a document that was read from path.
func ParseCRM(path, doc string) (*CRM, error) {
	c := &CRM{
		Data:   "/var/lib/gatehouse-crm",
		HTTP:   HTTP{Listen: "127.0.0.1:9181"},
		Alarms: Alarms{SilentAfter: 15 * time.Minute},
		Visits: Visits{Grace: 12 * time.Hour},
		Policy: Policy{Publish: PublishAtOnce},
	}
	d := parse(path, doc, Options{}, c)
	if d.lines != nil { // it is TOML
		c.validate(d)
	}
	if err := d.err(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *CRM) validate(d *decoder) {
	c.Data = d.data(c.Data)
	c.Zone = d.zone(c.Timezone, true)
	switch m := c.MQTT; {
	case m.Listen == "" && m.Broker == "":
		d.add("mqtt", `it names no broker: set listen = ":8883" for the one inside, or broker = "tls://…" for another`)
	case m.Listen != "" && m.Broker != "":
		d.add("mqtt.broker", "listen is set as well: use the broker inside, or another, not both")
	case m.Broker != "":
		d.broker("mqtt.broker", m.Broker)
	default:
		if _, err := loopback.CheckHostPort(m.Listen); err != nil {
			d.add("mqtt.listen", "%v", err)
		}
	}
	d.http(c.HTTP)
	c.API.validate(d)
	if p := c.Policy.Publish; p != PublishAtOnce && p != PublishByCommand {
		d.add("policy.publish", "is %q, want %q or %q", p, PublishAtOnce, PublishByCommand)
	}
	d.within("alarms.silent_after", c.Alarms.SilentAfter, minSilentAfter, maxSilentAfter)
	d.within("visits.grace", c.Visits.Grace, 0, maxGrace)
}

func (a API) validate(d *decoder) {
	if a.Listen == "" {
		if a.Plaintext {
			d.add("api.plaintext", "there is no listen: the API is off")
		}
		return
	}
	host, err := loopback.CheckHostPort(a.Listen)
	switch {
	case err != nil:
		d.add("api.listen", "%v", err)
	case a.Plaintext && !loopback.Is(host):
		d.add("api.plaintext", "tokens and names would cross a network in clear: take it away, or listen on 127.0.0.1 or [::1]")
	}
}
