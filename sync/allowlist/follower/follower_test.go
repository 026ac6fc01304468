package follower

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/access/allowlist"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
)

var quiet = slog.New(slog.DiscardHandler)

func TestANewControllerFetchesTheSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.change(access.Active, many()...)
		s.current()
		s.inForce(1)
		s.wantState(1, access.Active)
		asked := s.asked()
		if st := s.f.Status(); st.Snapshots != 1 || st.Deltas != 0 || st.Received != uint64(len(asked)) || st.Missing != 0 || st.Fault != "" || len(asked) < 3 {
			t.Errorf("asked for %v: %+v", asked, st)
		}
		if left, err := os.ReadDir(filepath.Join(s.dir, "parts")); err != nil || len(left) > 0 {
			t.Errorf("left in the spool: %v, %v", left, err)
		}
		if p := s.src.Policy(time.Now()); p.Freshness != access.Fresh {
			t.Errorf("%+v", p)
		}
	})
}

func TestAPushedDeltaIsInForceWithoutBeingAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.change(access.Active, 1, 2)
		s.current()
		s.asked()
		s.change(access.Revoked, 1)
		s.deliver(wire.KindDelta, wire.Part{Blob: s.deltas[0].ID, Sealed: s.parts[s.deltas[0].ID][0]})
		s.current()
		s.inForce(2)
		s.wantState(1, access.Revoked)
		s.wantState(2, access.Active)
		if asked := s.asked(); asked != nil {
			t.Errorf("asked for %v", asked)
		}
		if n := s.told.Load(); n != 2 {
			t.Errorf("the CRM was told of %d versions", n)
		}
	})
}

func TestTheShortestWayIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.change(access.Active, 1, 2)
		s.current()
		for n := range uint64(4) {
			s.change(access.Active, n+10)
		}
		s.change("", 2)
		s.current()
		s.inForce(6)
		s.wantState(2, "")
		if st := s.f.Status(); st.Snapshots != 1 || st.Deltas != 5 {
			t.Errorf("%+v", st)
		}
		s.deltas = nil // none reaches back so far
		s.change(access.Lost, 1)
		s.deltas = nil
		s.current()
		s.inForce(7)
		s.wantState(1, access.Lost)
		if st := s.f.Status(); st.Snapshots != 2 || st.Deltas != 5 {
			t.Errorf("%+v", st)
		}
	})
}

// A revocation is not kept waiting by the large change that comes after it.
func TestWhatHasComeIsInForceWhileTheRestIsFetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.change(access.Active, 1)
		s.current()
		s.change(access.Revoked, 1)
		s.change(access.Active, many()[1:]...)
		large := s.deltas[1].ID
		s.set(false, func(p wire.Part) bool { return p.Blob != large })
		s.current()
		s.inForce(2)
		s.wantState(1, access.Revoked)
		s.set(false, nil)
		s.f.Connected()
		synctest.Wait()
		s.inForce(3)
	})
}

// Rule 10: the allowlist never goes backwards, and only what is signed counts.
func TestWhatIsNotToBeTrustedIsRefused(t *testing.T) {
	other := func(typ string) *keys.Signer { return newSigner(t, typ) }
	for name, tt := range map[string]struct {
		spoil func(s *site) *wire.Publication
		want  Refusal
	}{
		"no publication": {func(s *site) *wire.Publication {
			s.f.Handle(wire.KindManifest, []byte("{}"))
			return nil
		}, Malformed},
		"too large": {func(s *site) *wire.Publication {
			s.f.Handle(wire.KindManifest, make([]byte, wire.MaxPublication+1))
			return nil
		}, TooLarge},
		"more credentials than a door takes": {func(s *site) *wire.Publication {
			m := s.manifest()
			m.Count = maxCount + 1
			return s.publication(m, s.token())
		}, TooLarge},
		"for another controller": {func(s *site) *wire.Publication {
			p := s.publication(s.manifest(), s.token())
			p.Controller = "south-1"
			return p
		}, WrongController},
		"a manifest of another controller": {func(s *site) *wire.Publication {
			m := s.manifest()
			m.Controller = "south-1"
			return s.publication(m, s.token())
		}, WrongController},
		"a token of another controller": {func(s *site) *wire.Publication {
			f := s.token()
			f.Controller = "south-1"
			return s.publication(s.manifest(), f)
		}, WrongController},
		"a token of another version": {func(s *site) *wire.Publication {
			f := s.token()
			f.Version++
			return s.publication(s.manifest(), f)
		}, Malformed},
		"another root": {func(s *site) *wire.Publication {
			s.root = other(keys.TypePolicy)
			s.authority = []string{s.certificate(1)}
			return s.publication(s.manifest(), s.token())
		}, WrongSignature},
		"a key that is not certified": {func(s *site) *wire.Publication {
			s.key = other(keys.TypeManifest)
			return s.publication(s.manifest(), s.token())
		}, WrongSignature},
		"a manifest by another key": {func(s *site) *wire.Publication {
			p := s.publication(s.manifest(), s.token())
			s.key = other(keys.TypeManifest)
			p.Manifest = s.publication(s.manifest(), s.token()).Manifest
			return p
		}, WrongSignature},
		"a token by another key": {func(s *site) *wire.Publication {
			p := s.publication(s.manifest(), s.token())
			s.key = other(keys.TypeManifest)
			p.Fresh = s.publication(s.manifest(), s.token()).Fresh
			return p
		}, WrongSignature},
		"a token in the place of a manifest": {func(s *site) *wire.Publication {
			p := s.publication(s.manifest(), s.token())
			p.Manifest = p.Fresh
			return p
		}, WrongSignature},
		"an earlier certificate": {func(s *site) *wire.Publication {
			s.authority = []string{s.certificate(1)}
			return s.publication(s.manifest(), s.token())
		}, Downgrade},
		"a certificate that has ended": {func(s *site) *wire.Publication {
			p := s.publication(s.manifest(), s.token())
			time.Sleep(400 * 24 * time.Hour)
			return p
		}, Expired},
		"another pepper": {func(s *site) *wire.Publication {
			m := s.manifest()
			m.Generation = strings.Repeat("0", 32)
			return s.publication(m, s.token())
		}, WrongPepper},
		"an earlier version": {func(s *site) *wire.Publication {
			s.version, s.deltas = 1, nil
			return s.publication(s.manifest(), s.token())
		}, Downgrade},
		"a version below the CRM's receipts": {func(s *site) *wire.Publication {
			s.f.Raise(9)
			return s.publication(s.manifest(), s.token())
		}, Downgrade},
		"a manifest of long ago": {func(s *site) *wire.Publication {
			m := s.manifest()
			time.Sleep(40 * 24 * time.Hour)
			return s.publication(m, s.token())
		}, Expired},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				s.authority = []string{s.certificate(2)}
				s.change(access.Active, 1)
				s.version = 2
				s.current()
				s.inForce(2)
				s.change(access.Revoked, 1)
				if p := tt.spoil(s); p != nil {
					s.publish(p)
				}
				synctest.Wait()
				s.wantRefused(map[Refusal]uint64{tt.want: 1})
				if want := []string{string(tt.want) + " +0"}; !slices.Equal(s.recorded, want) {
					t.Errorf("recorded %q, want %q", s.recorded, want)
				}
				if s.f.floor.Load() == 0 {
					s.inForce(2)
					s.wantState(1, access.Active)
				} else {
					s.inForce(0) // the CRM remembers a later one than is here
				}
			})
		})
	}
}

// The broker keeps the last manifest, and so does whoever listens there.
func TestYesterdaysManifestChangesAndConfirmsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.change(access.Active, 1)
		yesterday := s.publication(s.manifest(), s.token())
		s.publish(yesterday)
		time.Sleep(24 * time.Hour)
		s.publish(yesterday)
		if p := s.src.Policy(time.Now()); p.Freshness != access.Expired {
			t.Errorf("%+v", p)
		}
		if st := s.f.Status(); st.Stale != 1 || len(st.Refused) != 0 {
			t.Errorf("%+v", st)
		}
		s.current()
		if p := s.src.Policy(time.Now()); p.Freshness != access.Fresh {
			t.Errorf("%+v", p)
		}
		s.change(access.Revoked, 1)
		s.current()
		s.publish(yesterday)
		s.inForce(2)
		s.wantState(1, access.Revoked)
		s.wantRefused(map[Refusal]uint64{Downgrade: 1})
	})
}

// A CRM that was put back to an older state has not what it announced before.
func TestWhatTheCRMHasNoMoreIsNotWaitedForForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.change(access.Active, many()...)
		s.current()
		s.set(true, nil)
		s.version = 9
		former := s.publication(s.manifest(), s.token())
		s.publish(former)
		s.inForce(1)
		s.version = 1
		s.change(access.Revoked, 1)
		early := s.publication(s.manifest(), s.token())
		s.publish(early) // of the same moment: nothing says which of the two is newer
		s.wantRefused(map[Refusal]uint64{Replayed: 1})
		time.Sleep(time.Minute)
		s.set(false, nil)
		s.current()
		s.inForce(2)
		s.wantState(1, access.Revoked)
		s.publish(early)
		s.inForce(2)
	})
}

func TestAnOlderTokenConfirmsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.change(access.Active, 1)
		m := s.manifest()
		older := s.publication(m, s.token())
		time.Sleep(time.Minute)
		s.publish(s.publication(m, s.token()))
		s.publish(older)
		s.inForce(1)
		s.wantRefused(map[Refusal]uint64{Replayed: 1})
	})
}

func TestAControllerThatWasAwayForFortyDaysIsCurrentAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.change(access.Active, 1, 2)
		s.current()
		time.Sleep(40 * 24 * time.Hour)
		if p := s.src.Policy(time.Now()); p.Freshness != access.Expired {
			t.Errorf("%+v", p)
		}
		s.change(access.Revoked, 2)
		s.f.Connected()
		s.current()
		s.inForce(2)
		if p := s.src.Policy(time.Now()); p.Freshness != access.Fresh {
			t.Errorf("%+v", p)
		}
	})
}

// A clock that was never set ends nothing by itself; the CRM's receipts do.
func TestAnUnsetClockJudgesByTheCRMsFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.clock.state = access.ClockUnset
		s.change(access.Active, 1)
		m, token := s.manifest(), s.token()
		p := s.publication(m, token)
		time.Sleep(40 * 24 * time.Hour)
		s.clock.floor = time.Now()
		s.publish(p)
		s.inForce(0)
		s.wantRefused(map[Refusal]uint64{Expired: 1})
		s.current()
		s.inForce(1)
		if p := s.src.Policy(time.Unix(0, 0)); p.Freshness != access.Fresh {
			t.Errorf("%+v", p)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.clock.state = access.ClockUnset
		s.change(access.Active, 1)
		m := s.manifest()
		time.Sleep(40 * 24 * time.Hour)
		s.publish(s.publication(m, s.token()))
		s.inForce(1) // nothing says that it has ended
		if p := s.src.Policy(time.Unix(0, 0)); p.Freshness != access.Expired {
			t.Errorf("nobody vouched for the time, and it is %+v", p)
		}
	})
}

func TestTheConnectionMayBeCutAtEveryPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.change(access.Active, many()...)
		p := s.publication(s.manifest(), s.token())
		m, err := wire.OpenManifest(p.Manifest, verifier(t, s.key))
		if err != nil {
			t.Fatal(err)
		}
		for cut := range len(m.Snapshot.Parts) {
			var came int
			s.set(false, func(wire.Part) bool {
				if came == 1 || cut == 0 && came == 0 {
					s.set(true, nil)
					return false
				}
				came++
				return true
			})
			s.publish(p) // as the broker does on each connection
			s.f.Connected()
			synctest.Wait()
			if have := s.f.Status().Received; have != uint64(cut) {
				t.Fatalf("after cut %d there are %d parts", cut, have)
			}
			s.start(Options{}) // and the power is cut too
			s.f.set(func(st *Status) { st.Received = uint64(cut) })
			synctest.Wait()
		}
		s.set(false, nil)
		s.asked()
		s.publish(p)
		s.inForce(1)
		if asked := s.asked(); !slices.Equal(asked, []int{len(m.Snapshot.Parts) - 1}) {
			t.Errorf("asked for %v, and %d of %d parts were there", asked, len(m.Snapshot.Parts)-1, len(m.Snapshot.Parts))
		}
	})
}

func verifier(t testing.TB, s *keys.Signer) *keys.Verifier {
	t.Helper()
	v, err := s.Verifier(keys.TypeManifest)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestWhatStaysOutIsAskedForAgainLaterAndLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.change(access.Active, 1)
		s.set(false, func(wire.Part) bool { return false })
		s.current()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := len(s.asked()); n < 6 || n > 15 {
			t.Errorf("asked %d times in ten minutes", n)
		}
		s.set(false, nil)
		s.f.Connected()
		synctest.Wait()
		s.inForce(1)
	})
}

func TestRequestsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.change(access.Active, 1)
		m := s.manifest()
		real := m.Snapshot
		// A blob of many parts, of which nothing ever comes.
		m.Snapshot.Bytes = 100 * wire.MaxPart
		m.Snapshot.Parts = slices.Repeat(real.Parts, 100)
		s.set(false, func(wire.Part) bool { return false })
		s.parts[real.ID] = slices.Repeat(s.parts[real.ID], 100)
		s.publish(s.publication(m, s.token()))
		if asked := s.asked(); len(asked) != wire.MaxFetchParts {
			t.Errorf("asked for %d parts at once", len(asked))
		}
	})
}

// The CRM drops what is asked for beyond its own limit, and that costs more time.
func TestPartsAreAskedForAtABoundedRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &loop{tokens: partBurst, filled: time.Now(), retry: stopped()}
		defer l.retry.Stop()
		asked := 0
		for range 100 {
			n := min(l.allowed(), wire.MaxFetchParts)
			l.tokens -= float64(n)
			asked += n
			time.Sleep(100 * time.Millisecond)
		}
		if most := partBurst + 10*partsPerSecond; asked > most || asked < most-2*partsPerSecond {
			t.Errorf("asked for %d parts in ten seconds, want up to %d", asked, most)
		}
	})
}

func TestPartsThatWereNotSignedAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.change(access.Active, 1)
		wrong := true
		s.set(false, func(p wire.Part) bool {
			if wrong {
				wrong = false
				p.Sealed = slices.Concat(p.Sealed[:len(p.Sealed)-1], []byte{p.Sealed[len(p.Sealed)-1] ^ 1})
				s.deliver(wire.KindChunk, p)
				return false
			}
			return true
		})
		s.current()
		s.inForce(0)
		s.wantRefused(map[Refusal]uint64{WrongPart: 1})
		s.f.Handle(wire.KindChunk, []byte("x"))
		s.f.Handle(wire.KindDelta, make([]byte, wire.MaxPartFrame+1))
		synctest.Wait()
		s.wantRefused(map[Refusal]uint64{WrongPart: 1, Malformed: 1, TooLarge: 1})
		time.Sleep(time.Minute)
		synctest.Wait()
		s.inForce(1)
	})
}

// What a power cut spoils is fetched again.
func TestAPartThatWasSpoiledOnTheDiskIsFetchedAgain(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"torn":    func(path string) error { return os.Truncate(path, 100) },
		"changed": func(path string) error { return os.WriteFile(path, make([]byte, wire.MaxPart), 0o600) },
		"gone":    os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				s.change(access.Active, many()...)
				m := s.manifest()
				last := len(m.Snapshot.Parts) - 1
				s.set(false, func(p wire.Part) bool { return p.Number != last })
				s.publish(s.publication(m, s.token()))
				if err := spoil(filepath.Join(s.dir, "parts", m.Snapshot.ID, "0")); err != nil {
					t.Fatal(err)
				}
				s.asked()
				s.set(false, nil)
				s.f.Connected()
				synctest.Wait()
				s.inForce(1)
				if asked := s.asked(); !slices.Equal(asked, []int{last, 0}) {
					t.Errorf("asked for %v", asked)
				}
				s.wantRefused(map[Refusal]uint64{})
			})
		})
	}
}

func TestOfDeltasThatDoNotFitTheSnapshotIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.change(access.Active, 1, 2, 3)
		s.current()
		s.change(access.Revoked, 1)
		// The CRM took somebody away, and the delta does not say so.
		card := h10301(2)
		delete(s.rows, s.pepper.Index(card.Canonical()))
		s.current()
		s.inForce(2)
		s.wantState(1, access.Revoked)
		s.wantState(2, "")
		s.wantRefused(map[Refusal]uint64{Unfit: 1})
		if st := s.f.Status(); st.Snapshots != 2 {
			t.Errorf("%+v", st)
		}
	})
}

func TestAManifestOfWhichNothingFitsIsNotTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.change(access.Active, 1)
		m := s.manifest()
		m.Count = 7
		p := s.publication(m, s.token())
		s.publish(p)
		s.wantRefused(map[Refusal]uint64{Unfit: 1})
		s.asked()
		time.Sleep(time.Minute)
		s.publish(p)
		p.Fresh = s.publication(m, s.token()).Fresh
		s.publish(p)
		if asked := s.asked(); asked != nil {
			t.Errorf("asked for %v again", asked)
		}
		s.inForce(0)
		s.current() // made anew
		s.inForce(1)
	})
}

// A blob is sealed for one place: its parts cannot be another blob's.
func TestABlobThatDoesNotOpenIsUnfit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.change(access.Active, 1)
		m := s.manifest()
		parts := s.parts[m.Snapshot.ID]
		m.Snapshot.ID = strings.Repeat("ab", 16)
		s.parts[m.Snapshot.ID] = parts
		s.publish(s.publication(m, s.token()))
		s.wantRefused(map[Refusal]uint64{Unfit: 1})
		s.inForce(0)
	})
}

// failing is a source that cannot write.
type failing struct {
	*allowlist.Source
	fail atomic.Bool
}

func (f *failing) Apply(ctx context.Context, u allowlist.Update) error {
	if f.fail.Load() {
		return fs.ErrPermission
	}
	return f.Source.Apply(ctx, u)
}

func TestAFaultOfThisMachineIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		src := &failing{Source: s.src}
		src.fail.Store(true)
		s.start(Options{Source: src})
		s.change(access.Active, 1)
		s.current()
		if st := s.f.Status(); st.Fault == "" || len(st.Refused) != 0 {
			t.Errorf("%+v", st)
		}
		src.fail.Store(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		s.inForce(1)
		if st := s.f.Status(); st.Fault != "" {
			t.Errorf("%+v", st)
		}
	})
}

// While nothing can be kept, nothing is fetched.
func TestASpoolThatCannotBeWrittenIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.change(access.Active, many()...)
		m := s.manifest()
		inTheWay := filepath.Join(s.dir, "parts", m.Snapshot.ID)
		s.set(false, func(p wire.Part) bool {
			if p.Number == 0 {
				if err := os.WriteFile(inTheWay, nil, 0o600); err != nil {
					t.Error(err)
				}
			}
			return true
		})
		s.publish(s.publication(m, s.token()))
		s.asked()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if asked := s.asked(); asked != nil || s.f.Status().Fault == "" {
			t.Errorf("asked for %v: %+v", asked, s.f.Status())
		}
		if err := os.Remove(inTheWay); err != nil {
			t.Fatal(err)
		}
		s.set(false, nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		s.inForce(1)
	})
}

func TestRefusalsOfAKindAreRecordedOnceAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		for range 100 {
			s.f.Handle(wire.KindManifest, []byte("{}"))
			synctest.Wait()
			time.Sleep(time.Minute)
		}
		if want := []string{"malformed +0", "malformed +59"}; !slices.Equal(s.recorded, want) {
			t.Errorf("recorded %q, want %q", s.recorded, want)
		}
		s.wantRefused(map[Refusal]uint64{Malformed: 100})
	})
}

// The root that was pinned certifies the next one, which certifies the key.
func TestANewRootAndANewKeyAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.change(access.Active, 1)
		s.current()
		former := s.root
		s.root, s.key = newSigner(t, keys.TypePolicy), newSigner(t, keys.TypeManifest)
		rotation, err := keys.RotatePolicyRoot(former, s.root, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		s.authority = append(rotation, s.certificate(2))
		s.change(access.Revoked, 1)
		s.current()
		s.inForce(2)
		if n := len(s.certified); n != 2 || s.certified[1].Serial != 2 || s.certified[1].Root.KeyID != s.root.KeyID() {
			t.Errorf("kept %+v", s.certified)
		}
		if k := s.f.PolicyKey(); k == nil || k.JWK.KeyID != s.key.KeyID() {
			t.Errorf("policy key %+v", k)
		}
		// What was seen outlives a restart.
		s.start(Options{Serial: 2})
		s.authority = append(rotation, s.certificate(1))
		s.current()
		s.wantRefused(map[Refusal]uint64{Downgrade: 1})
		s.root = former
		s.authority = []string{s.certificate(3)}
		s.current()
		s.wantRefused(map[Refusal]uint64{Downgrade: 1, WrongSignature: 1})
	})
}

// A card that was restored brings back what the CRM has seen replaced.
func TestAnOldCopyEndsWhenTheCRMIsHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.change(access.Active, 1)
		s.current()
		s.wantState(1, access.Active)
		s.change(access.Revoked, 1)
		s.f.Raise(2)
		synctest.Wait()
		s.inForce(0)
		s.current()
		s.inForce(2)
		s.wantState(1, access.Revoked)
	})
}

func TestOnlyMessagesOfTheAllowlistAreTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		for _, kind := range wire.Kinds() {
			want := kind == wire.KindManifest || kind == wire.KindDelta || kind == wire.KindChunk
			if got := s.f.Handle(kind, []byte("x")); got != want {
				t.Errorf("%s: %v", kind, got)
			}
		}
	})
}

func TestAFollowerSaysWhatItLacks(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("made of nothing")
	}
}

func TestTheSpoolHoldsOnlyWhatIsWanted(t *testing.T) {
	s := spool{t.TempDir()}
	blobs := []wire.Blob{{ID: strings.Repeat("1", 32)}, {ID: strings.Repeat("2", 32)}}
	for _, b := range blobs {
		for n := range 2 {
			if err := s.keep(&b, n, []byte("part "+strconv.Itoa(n))); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.retain(blobs[1:]); err != nil {
		t.Fatal(err)
	}
	if _, err := s.read(&blobs[0], 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	if b, err := s.read(&blobs[1], 1); err != nil || string(b) != "part 1" {
		t.Errorf("%q, %v", b, err)
	}
	if info, err := os.Stat(s.path(&blobs[1], 1)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}
