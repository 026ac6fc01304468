package visitorlog

import (
	"errors"
	"fmt"
)

// VerifyRecord opens the JWS of the record at a place in a log and says what
// is wrong with it: its signature, its content, or that it names another
// place. Its link to the record before it is left to Follows.
func VerifyRecord(jws, controller, epoch string, seq uint64, v Verifier) (Record, error) {
	payload, err := v.Verify(jws)
	if err != nil {
		return Record{}, errors.New("its signature is wrong: " + err.Error())
	}
	r, err := ParseRecord(payload)
	if err != nil {
		return Record{}, err
	}
	if err := r.placed(controller, epoch, seq); err != nil {
		return Record{}, err
	}
	if (r.Type == EpochStarted) != (seq == 0) {
		return Record{}, fmt.Errorf("it is of type %s: an epoch starts at record 0 and nowhere else", r.Type)
	}
	return r, nil
}

// placed says whether the record names the place at which it stands.
func (r *Record) placed(controller, epoch string, seq uint64) error {
	switch {
	case r.Data.Epoch != epoch:
		return fmt.Errorf("it says that it belongs to epoch %s", r.Data.Epoch)
	case r.Data.Controller != controller:
		return fmt.Errorf("it says that it belongs to controller %q", r.Data.Controller)
	case r.Data.Sequence != seq:
		return fmt.Errorf("it says that it is record %d", r.Data.Sequence)
	}
	return nil
}

// Follows says whether the record is linked to the one before it, whose leaf
// hash is previous, in base64; empty for the first record.
func (r *Record) Follows(previous string) error {
	if r.Data.Previous != previous {
		return fmt.Errorf("its link names %q as the record before it, not %q", r.Data.Previous, previous)
	}
	return nil
}
