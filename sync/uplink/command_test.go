package uplink_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/sync/uplink"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// TestWhatWasUsedUpComesBackWithTheNextState: a controller whose card is restored
// says its state first, and hears of it before anything is used again.
func TestWhatWasUsedUpComesBackWithTheNextState(t *testing.T) {
	p := newPipe(t, 1, fate{})
	c := newCRM(t, p)
	heard := make(chan []string, 64)
	d := newController(t, "north-1", c, func(o *uplink.Options) { o.Used = func(used []string) { heard <- used } })
	d.settle(30 * time.Second)
	_, err := d.log.Append(context.Background(), func(*visitorlog.Tx) (visitorlog.Draft, error) {
		return visitorlog.Draft{Type: visitorlog.DoorClosed, Data: visitorlog.Data{Door: "a", Used: []string{"code:c-1"}}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	d.settle(30 * time.Second)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) { // it is checked after it was stored
		if used, err := c.store.Used(t.Context(), "north-1"); err != nil || time.Now().After(end) {
			t.Fatalf("the CRM does not know that it was used: %v", err)
		} else if len(used) > 0 {
			break
		}
	}
	d.stop()
	d.start()
	select {
	case used := <-heard:
		if len(used) != 1 || used[0] != "code:c-1" {
			t.Errorf("used %q", used)
		}
	case <-time.After(30 * time.Second):
		t.Error("nothing was said to be used up")
	}
}

func TestAnAnnouncedStateHasTheNonceOfTheMoment(t *testing.T) {
	p := newPipe(t, 1, fate{})
	c := newCRM(t, p)
	var nonce atomic.Value
	nonce.Store("")
	states := make(chan string, 64)
	p.onSeen(func(m wire.Message) {
		if s, err := wire.ParseState(m.Payload); err == nil && s.Online {
			states <- s.Nonce
		}
	})
	d := newController(t, "north-1", c, func(o *uplink.Options) { o.Nonce = func() string { return nonce.Load().(string) } })
	d.settle(30 * time.Second)
	if got := <-states; got != "" {
		t.Errorf("the first state has the nonce %q, and nobody had asked", got)
	}
	want := random()
	nonce.Store(want)
	d.uplink.Announce()
	select {
	case got := <-states:
		if got != want {
			t.Errorf("nonce %q, want %q", got, want)
		}
	case <-time.After(30 * time.Second):
		t.Error("no state was published")
	}
	d.write(3)
	d.settle(30 * time.Second) // records arrive all the same
}
