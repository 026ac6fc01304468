package main

import (
	"context"
	"io"
	"net"
	"sync"
)

// network is the wire between the controller and the CRM: a TCP relay on
// loopback that can be cut.
type network struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]struct{}
}

func newNetwork(target string) (*network, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &network{listener: l, target: target, conns: make(map[net.Conn]struct{})}, nil
}

// Addr is where the controller finds the CRM.
func (n *network) Addr() string { return n.listener.Addr().String() }

// Port is the port of Addr.
func (n *network) Port() string {
	_, port, _ := net.SplitHostPort(n.Addr())
	return port
}

// Run relays until ctx ends.
func (n *network) Run(ctx context.Context) error {
	var relays sync.WaitGroup
	defer relays.Wait()
	stop := context.AfterFunc(ctx, func() {
		n.listener.Close()
		n.Cut(true)
	})
	defer stop()
	for {
		c, err := n.listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		relays.Go(func() { n.relay(c) })
	}
}

// Cut breaks every connection and lets none through until it is called with
// false.
func (n *network) Cut(cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = cut
	if cut {
		for c := range n.conns {
			c.Close()
		}
	}
}

func (n *network) relay(near net.Conn) {
	if !n.keep(near) {
		return
	}
	defer n.drop(near)
	far, err := net.Dial("tcp", n.target)
	if err != nil || !n.keep(far) {
		return
	}
	defer n.drop(far)
	var up sync.WaitGroup
	up.Go(func() {
		io.Copy(far, near) // an error here is a broken connection: what the demo is about
		far.Close()
	})
	io.Copy(near, far)
	near.Close()
	up.Wait()
}

// keep remembers an open connection, or closes it when the network is cut.
func (n *network) keep(c net.Conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cut {
		c.Close()
		return false
	}
	n.conns[c] = struct{}{}
	return true
}

func (n *network) drop(c net.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, c)
	c.Close()
}
