package door

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

const viasCode = "48213377"

// coded has a visitor with a one-time code.
func coded(v *vault) {
	v.list.codes = map[string]*access.Entry{viasCode: {
		Person: "via", Kind: access.Visitor, State: access.Active, Code: &access.Code{ID: "c-1", Door: v.cfg.Name},
		Rights: []access.Right{{Door: v.cfg.Name, Schedule: access.Always()}},
		Visit:  &access.Visit{Host: "bob"},
	}}
}

var codeOrBadge = []string{"badge", "code"}

func TestACodeOpensOnceAndARestartRevivesNone(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{}, codeOrBadge, coded)
		v.types(viasCode + "#")
		v.passes()
		b.answered("granted via granted")
		d := b.newest(visitorlog.DecisionGranted)
		if !slices.Equal(d.Used, []string{"code:c-1"}) || !slices.Equal(d.Factors, []string{"code"}) || d.Visit.Host != "bob" {
			t.Errorf("data %+v", d)
		}
		v.types(viasCode + "#")
		b.answered("denied via code_used")
		b.restart()
		v = b.door(access.Door{}, codeOrBadge, coded)
		v.types(viasCode + "#")
		b.answered("denied via code_used")
		if strings.Contains(v.printed.String(), viasCode) {
			t.Error("the code stands in the program's own log")
		}
		v.comes(v.in, adasCard) // a badge still does
		b.answered("granted ada granted")
	})
}

func TestACodeIsTakenOnlyWhereARuleNamesIt(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{}, []string{"badge"}, coded)
		v.types(viasCode + "#")
		synctest.Wait()
		b.answered()
		if s := v.door.Status(); s.Readers[0].Keys == 0 || !s.Locked {
			t.Errorf("status %+v", s)
		}
	})
}

func TestACodeOfAnotherDoorOpensNothing(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{}, codeOrBadge, coded, func(v *vault) {
			v.list.codes[viasCode].Code.Door, v.list.codes[viasCode].Rights[0].Door = "other", access.EveryDoor
		})
		v.types(viasCode + "#")
		b.answered("denied via wrong_door")
		if used := b.state(usedStates + usedCode + "c-1"); used != nil {
			t.Error("it was used up")
		}
	})
}

func TestACodeAndAPINAreAskedForTogether(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{}, []string{"code+pin"}, coded, func(v *vault) { v.list.codes[viasCode].PIN = []byte("8080") })
		v.types(viasCode + "#")
		v.expect("show ask_pin")
		v.types("8080#")
		b.answered("granted via granted")
	})
}

func TestWrongCodesLockTheReader(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		limited := func(v *vault) { v.cfg.Limits = access.Limits{PersonAfter: 3, ReaderAfter: 3, For: time.Minute} }
		v := b.door(access.Door{}, codeOrBadge, coded, limited)
		for range 3 {
			v.types("00000000#")
			synctest.Wait()
		}
		const nobodys = "denied unknown (a code was typed that nobody has"
		b.answered(nobodys+")", nobodys+")", nobodys+"; too many failures: the reader is locked out for 1m0s)")
		b.restart()
		v = b.door(access.Door{}, codeOrBadge, coded, limited)
		v.types(viasCode + "#")
		b.answered("denied via reader_locked_out")
		time.Sleep(time.Minute)
		v.types(viasCode + "#")
		b.answered("granted via granted")
	})
}

func TestACodeThatIsTypedDuringALoanIsNobodys(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{}, codeOrBadge, coded)
		loan, err := v.door.Lend(t.Context(), access.In)
		if err != nil {
			t.Fatal(err)
		}
		v.types(viasCode + "#")
		b.answered()
		loan.Return()
		synctest.Wait()
		v.types(viasCode + "#")
		b.answered("granted via granted")
	})
}

// guards is a guard's order of a code for a visitor.
func (b *building) guards(v *vault, id, digits string) Order {
	o := order(GiveCode)
	o.ID, o.Person, o.Host, o.Code = id, "via", "bob", CodeIndex(b.secrets, v.cfg.Name, []byte(digits))
	return o
}

func TestAGuardsCodeOpensOnceWithinAMinute(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{}, codeOrBadge)
		if err := b.ordered(v, b.guards(v, "cmd-1", "1111")); err != nil {
			t.Fatal(err)
		}
		if err := b.ordered(v, b.guards(v, "cmd-2", "1111")); !errors.Is(err, ErrRefused) {
			t.Errorf("the same digits: %v", err)
		}
		time.Sleep(CodeFor - 10*time.Second)
		v.types("1111#")
		v.passes()
		v.types("1111#")
		b.answered("granted via granted", "denied via code_used")
		if d := b.newest(visitorlog.DecisionGranted); !slices.Equal(d.Used, []string{"code:cmd-1"}) || d.Visit.Host != "bob" || d.Kind != access.Visitor {
			t.Errorf("data %+v", d)
		}
		if err := b.ordered(v, b.guards(v, "cmd-1", "2222")); !errors.Is(err, ErrRefused) {
			t.Errorf("an order that was used up: %v", err)
		}
		if err := b.ordered(v, b.guards(v, "cmd-3", "3333")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(CodeFor)
		v.types("3333#")
		b.answered("denied unknown (a code was typed that nobody has)")
		if err := b.ordered(v, b.guards(v, "cmd-4", "4444")); err != nil {
			t.Fatal(err)
		}
		b.restart()
		v = b.door(access.Door{}, codeOrBadge)
		v.types("4444#")
		b.answered("denied unknown (a code was typed that nobody has)")
	})
}

func TestACodeOfOneDoorIsNotThatOfAnother(t *testing.T) {
	s := newSecrets(t)
	one := CodeIndex(s, "a", []byte("1111"))
	if one == CodeIndex(s, "b", []byte("1111")) || one == CodeIndex(s, "a", []byte("1112")) || one != CodeIndex(s, "a", []byte("1111")) {
		t.Error("the hash does not depend on the door and the digits, or on more")
	}
}

// device is somebody's device with a secret of RFC 6238.
type device []byte

func (d device) shows(at time.Time) string {
	mac := hmac.New(sha1.New, d)
	var step [8]byte
	binary.BigEndian.PutUint64(step[:], uint64(at.Unix()/30))
	mac.Write(step[:])
	sum := mac.Sum(nil)
	n := binary.BigEndian.Uint32(sum[sum[19]&15:]) & 0x7fffffff
	return fmt.Sprintf("%06d", n%1_000_000)
}

var adasDevice = device("12345678901234567890")

func deviced(v *vault) { v.list.entries[adasCard].TOTP = adasDevice }

func TestAOneTimePasswordOpensOnceOverARestartToo(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{}, []string{"badge+totp"}, deviced)
		now := adasDevice.shows(time.Now())
		v.swipe(adasCard)
		v.expect("show ask_pin")
		v.types(now + "#")
		v.passes()
		b.answered("granted ada granted")
		d := b.newest(visitorlog.DecisionGranted)
		name := totpName(b.secrets, "ada")
		if len(d.Used) != 1 || d.Used[0] != fmt.Sprintf("totp:%s:%d", name, stepAt(time.Now())) || !slices.Equal(d.Factors, []string{"badge", "totp"}) {
			t.Errorf("data %+v", d)
		}
		b.restart()
		v = b.door(access.Door{}, []string{"badge+totp"}, deviced)
		v.swipe(adasCard)
		synctest.Wait()
		v.types(now + "#")
		v.expect("show try_again")
		time.Sleep(time.Minute)
		b.answered("denied ada factor_mismatch")
		v.swipe(adasCard)
		synctest.Wait()
		v.types(adasDevice.shows(time.Now()) + "#")
		b.answered("granted ada granted")
		if strings.Contains(v.printed.String(), now) {
			t.Error("it stands in the program's own log")
		}
	})
}

func TestOfTwoDoorsOneTakesAOneTimePassword(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		front, back := b.door(access.Door{Name: "front"}, []string{"badge+totp"}, deviced), b.door(access.Door{Name: "back"}, []string{"badge+totp"}, deviced)
		front.swipe(adasCard)
		back.swipe(adasCard)
		synctest.Wait()
		code := adasDevice.shows(time.Now())
		front.types(code)
		back.types(code)
		synctest.Wait()
		enter, err := badge.ParseFrame("1011")
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range []*vault{front, back} {
			go func() { v.in <- badge.Read{Frame: enter, At: time.Now(), Keypad: true} }()
		}
		synctest.Wait()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(b.data(visitorlog.DecisionGranted)); n != 1 {
			t.Errorf("%d doors opened", n)
		}
	})
}

func TestAPINAndAOneTimePasswordAreBothTried(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{}, []string{"badge+pin", "badge+totp"}, deviced)
		for _, digits := range []string{adasPIN, adasDevice.shows(time.Now())} {
			v.swipe(adasCard)
			synctest.Wait()
			v.take()
			v.types("999999#") // is neither, and nobody is told which
			v.expect("show try_again")
			v.types(digits + "#")
			v.passes()
		}
		b.answered("granted ada granted", "granted ada granted")
		all := b.data(visitorlog.DecisionGranted)
		if !slices.Equal(all[0].Factors, []string{"badge", "pin"}) || !slices.Equal(all[1].Factors, []string{"badge", "totp"}) || all[1].Outcomes[1].Factor != "pin" {
			t.Errorf("factors %v and %v", all[0].Factors, all[1].Factors)
		}
	})
}

func TestAOneTimePasswordIsRefusedWhileTheClockIsUnset(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		b.clock.unset.Store(true)
		v := b.door(access.Door{}, []string{"badge+totp"}, deviced)
		v.swipe(adasCard)
		synctest.Wait()
		v.types(adasDevice.shows(time.Now()) + "#")
		time.Sleep(time.Minute)
		b.answered("denied ada factor_unavailable")
	})
}

func TestADamagedStepTakesNoPasswordOfNow(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		b.change(totpStates+totpName(b.secrets, "ada"), []byte("x"))
		v := b.door(access.Door{}, []string{"badge+totp"}, deviced)
		v.swipe(adasCard)
		synctest.Wait()
		v.types(adasDevice.shows(time.Now()) + "#")
		time.Sleep(time.Minute)
		b.answered("denied ada factor_mismatch")
	})
}

func TestWhatTheCRMKnowsWasUsedUpStaysSo(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		now := stepAt(time.Now())
		name := totpName(b.secrets, "ada")
		used := []string{"code:c-1", fmt.Sprintf("totp:%s:%d", name, now+1), fmt.Sprintf("totp:%s:%d", name, now-5), "totp:x", "totp:x:y", "totp:x:7", "what:else", ""}
		left := func() []string {
			left, err := NotUsed(func(key string) ([]byte, error) { return b.book.Log.State(t.Context(), key) }, b.secrets, used)
			if err != nil {
				t.Fatal(err)
			}
			return left
		}
		if got := left(); !slices.Equal(got, used[:3]) {
			t.Errorf("not known to be used up: %q", got)
		}
		_, err := b.book.Log.Append(t.Context(), func(tx *visitorlog.Tx) (visitorlog.Draft, error) {
			return visitorlog.Draft{Type: visitorlog.OperatorAction}, RestoreUsed(tx, b.secrets, used)
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := left(); len(got) > 0 {
			t.Errorf("kept, and not known to be used up: %q", got)
		}
		v := b.door(access.Door{}, []string{"code", "badge+totp"}, coded, deviced)
		v.types(viasCode + "#")
		v.swipe(adasCard)
		synctest.Wait()
		v.types(adasDevice.shows(time.Now()) + "#")
		time.Sleep(time.Minute)
		b.answered("denied via code_used", "denied ada factor_mismatch")
	})
}

func TestABadgeIsAskedForWhereACodeIsNotEnough(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{}, codeOrBadge, coded)
		v.comes(v.in, badge.Credential{Format: "H10301", Facility: 1, Number: 1})
		v.types("1")
		v.comes(v.in, adasCard) // while somebody types
		v.types(viasCode + "#") // and the digit before is part of what was typed
		b.answered("denied unknown", "granted ada granted", "denied unknown (a code was typed that nobody has)")
	})
}

func TestACodeThatWasGivenIsUsedUpThoughABadgeOpened(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{}, []string{"badge+pin", "code+pin"}, coded, func(v *vault) {
			via := *v.list.codes[viasCode]
			via.Code = nil
			v.list.entries[viasCard] = &via
			v.list.codes[viasCode].PIN, via.PIN = []byte("8080"), []byte("8080")
		})
		v.types(viasCode + "#")
		synctest.Wait()
		v.swipe(viasCard)
		synctest.Wait()
		v.types("8080#")
		v.passes()
		b.answered("granted via granted")
		if d := b.newest(visitorlog.DecisionGranted); !slices.Equal(d.Used, []string{"code:c-1"}) || !slices.Contains(d.Factors, "code") {
			t.Errorf("data %+v", d)
		}
		v.types(viasCode + "#")
		b.answered("denied via code_used")
	})
}
