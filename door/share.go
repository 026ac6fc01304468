package door

import (
	"context"
	"errors"
	"sync"
)

// Share makes one input, such as the key switch of a whole site, the input of
// several doors. Each gets its own Watch; the input itself is watched while
// any of them is.
func Share(in Input) Input { return &shared{in: in} }

type shared struct {
	in Input

	mu       sync.Mutex
	watchers int
	cancel   context.CancelFunc
	state    *sharedState
}

// sharedState is one Watch of the shared input. changed is closed and
// replaced with each change.
type sharedState struct {
	changed chan struct{}
	told    bool
	active  bool
	err     error
}

// Watch implements Input. Changes that follow each other faster than changed
// returns are told as one; the last state is always told.
func (s *shared) Watch(ctx context.Context, changed func(active bool)) error {
	state := s.join()
	defer s.leave(state)
	told, last := false, false
	for {
		s.mu.Lock()
		now, wake := *state, state.changed
		s.mu.Unlock()
		if now.told && (!told || now.active != last) {
			told, last = true, now.active
			changed(last)
		}
		if now.err != nil {
			return now.err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wake:
		}
	}
}

func (s *shared) join() *sharedState {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers++
	if s.state == nil || s.state.err != nil {
		state := &sharedState{changed: make(chan struct{})}
		ctx, cancel := context.WithCancel(context.Background())
		s.state, s.cancel = state, cancel
		go s.follow(ctx, state)
	}
	return s.state
}

func (s *shared) leave(state *sharedState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watchers--; s.watchers == 0 && s.state != nil {
		s.cancel()
		s.state = nil
	}
}

func (s *shared) follow(ctx context.Context, state *sharedState) {
	change := func(f func()) {
		s.mu.Lock()
		defer s.mu.Unlock()
		f()
		close(state.changed)
		state.changed = make(chan struct{})
	}
	err := guard(func() error {
		return s.in.Watch(ctx, func(active bool) { change(func() { state.told, state.active = true, active }) })
	})
	if err == nil {
		err = errors.New("it stopped to watch")
	}
	change(func() { state.err = err })
}
