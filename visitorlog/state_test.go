package visitorlog

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStatesAreReadByWhatTheirKeysBeginWith(t *testing.T) {
	l := open(t, t.TempDir(), shared().options())
	_, err := l.Append(context.Background(), func(tx *Tx) (Draft, error) {
		var errs []error
		for key, value := range map[string]string{"a/b/1": "x", "a/b/ü": "y", "a/b/gone": "", "a/b": "no", "a/bc": "no", "a/": "no", "b": "no"} {
			errs = append(errs, tx.Set(key, []byte(value)))
		}
		return granted(0), errors.Join(errs...)
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := l.States(context.Background(), "a/b/")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string][]byte{"a/b/1": []byte("x"), "a/b/ü": []byte("y")}, got); d != "" {
		t.Errorf("- wanted + got:\n%s", d)
	}
}
