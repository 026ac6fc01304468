package broker

import (
	"errors"
	"fmt"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

const (
	// maxKeepAlive bounds how long a client that is gone counts as connected,
	// and thereby when its will is published.
	maxKeepAlive = 5 * time.Minute
	// takeOver bounds the wait for a client's former connection to end.
	takeOver = 10 * time.Second
)

// rules is the hook through which the server asks who may do what.
type rules struct {
	mochi.HookBase
	b *Broker
}

func (*rules) ID() string { return "gatehouse" }

func (*rules) Provides(event byte) bool {
	switch event {
	case mochi.OnConnect, mochi.OnConnectAuthenticate, mochi.OnSessionEstablish, mochi.OnACLCheck, mochi.OnPublish:
		return true
	}
	return false
}

// OnConnect judges the CONNECT packet of a client whose certificate has been
// verified. Who is refused is told so and disconnected.
func (r *rules) OnConnect(cl *mochi.Client, pk packets.Packet) error {
	c, ok := cl.Net.Conn.(*conn)
	if !ok {
		return errors.New("not a connection of the broker's own listener")
	}
	refuse := func(code packets.Code, format string, args ...any) error {
		// The client may be gone already; it is refused in any case. In 3.1.1
		// the code for a bad name or password reads "not authorised".
		_ = r.b.server.SendConnack(cl, code, false, nil)
		return fmt.Errorf(format, args...)
	}
	keepAlive := time.Duration(pk.Connect.Keepalive) * time.Second
	will := cl.Properties.Will
	switch {
	case cl.Properties.ProtocolVersion != 4:
		return refuse(packets.ErrUnsupportedProtocolVersion, "MQTT protocol level %d: only 4 (3.1.1) is spoken", cl.Properties.ProtocolVersion)
	case pk.Connect.ClientIdentifier != c.name:
		return refuse(packets.ErrClientIdentifierNotValid, "client id %q is not the certificate's name", pk.Connect.ClientIdentifier)
	case keepAlive == 0 || keepAlive > maxKeepAlive:
		return refuse(packets.ErrBadUsernameOrPassword, "keep-alive of %s: must be 1 s to %s", keepAlive, maxKeepAlive)
	case pk.Connect.WillFlag && !mayPublish(c.name, will.TopicName, will.Retain):
		r.b.denied.Add(1)
		return refuse(packets.ErrBadUsernameOrPassword, "will on %q (retained: %t) is forbidden", will.TopicName, will.Retain)
	case r.b.cfg.Revoked(c.name): // asked last, so that it is as fresh as can be
		return refuse(packets.ErrBadUsernameOrPassword, "revoked")
	}
	// No session outlives its connection: the outbox is the controller's.
	cl.Properties.Clean = true
	return nil
}

// OnConnectAuthenticate lets in who has passed OnConnect: the certificate is
// the only credential, a user name or password is not looked at.
func (r *rules) OnConnectAuthenticate(cl *mochi.Client, _ packets.Packet) bool {
	c, ok := cl.Net.Conn.(*conn)
	return ok && c.name == cl.ID
}

// OnSessionEstablish ends the former connection of the same client, if there
// is one, and waits for its end. Left to the server, the two overlap: the
// former one's will could be published after the new one's state, and its
// clearing up could take the new one off the list of clients.
func (r *rules) OnSessionEstablish(cl *mochi.Client, _ packets.Packet) {
	c := cl.Net.Conn.(*conn) // OnConnect has seen to it
	c.joined = true
	r.b.mu.Lock()
	former := r.b.clients[c.name]
	r.b.clients[c.name] = c
	r.b.mu.Unlock()
	if former != nil {
		former.kill()
		select {
		case <-former.done:
		case <-time.After(takeOver):
			r.b.log.Error("the former connection does not end", "client", c.name)
		}
	}
	r.b.log.Info("client connected", "client", c.name, "remote", cl.Net.Remote)
}

// OnACLCheck judges subscriptions and, with the topic for a filter, each
// delivery. Publishes are judged in OnPublish.
func (r *rules) OnACLCheck(cl *mochi.Client, filter string, write bool) bool {
	if write {
		return true
	}
	if maySubscribe(cl.ID, filter) {
		return true
	}
	r.b.denied.Add(1)
	r.b.log.Warn("forbidden subscription", "client", cl.ID, "filter", filter)
	return false
}

// OnPublish drops what is forbidden. MQTT 3.1.1 knows no refusal of a publish:
// it can be acknowledged and dropped, as Mosquitto does too, or answered by
// closing the connection, upon which a controller with one topic too many
// would never get a record through.
func (r *rules) OnPublish(cl *mochi.Client, pk packets.Packet) (packets.Packet, error) {
	if mayPublish(cl.ID, pk.TopicName, pk.FixedHeader.Retain) {
		return pk, nil
	}
	r.b.denied.Add(1)
	r.b.log.Warn("forbidden publish", "client", cl.ID, "topic", pk.TopicName, "retained", pk.FixedHeader.Retain)
	return pk, packets.CodeSuccessIgnore
}
