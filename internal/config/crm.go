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
	Alarms   Alarms `toml:"alarms"`

	Zone *time.Location `toml:"-"` // of Timezone
}

// MQTT is how controllers reach the CRM: by the broker inside it, or by
// another. Exactly one is set.
type MQTT struct {
	Listen string `toml:"listen"` // host:port of the broker inside; always TLS
	Broker string `toml:"broker"` // tls://host:port of another
}

// Alarms says when the CRM raises one.
type Alarms struct {
	SilentAfter time.Duration `toml:"silent_after"` // nothing was heard of a controller for so long
}

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
	d.within("alarms.silent_after", c.Alarms.SilentAfter, minSilentAfter, maxSilentAfter)
}
