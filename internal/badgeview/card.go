package badgeview

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/gatehouse-acs/gatehouse/badge"
)

// card is what Decode prints and ReadCard reads.
type card struct {
	Format   string `json:"format"`
	Bits     int    `json:"bits"`
	Facility uint64 `json:"facility"`
	Number   uint64 `json:"number"`
	Issue    uint64 `json:"issue"`
	OEM      uint64 `json:"oem"`
}

// PrintFrame writes the frame of a card, as 0 and 1 or in hexadecimal.
func PrintFrame(w io.Writer, f *badge.Format, c badge.Credential, hex bool) error {
	frame, err := f.Encode(c)
	if err != nil {
		return err
	}
	text := frame.Bits()
	if hex {
		text = frame.Hex()
	}
	_, err = fmt.Fprintln(w, text)
	return err
}

// ReadCard reads what Decode prints. Fields that are left out have the format's
// own values.
func ReadCard(table *badge.Table, line string) (*badge.Format, badge.Credential, error) {
	var in struct {
		Format                       string
		Bits                         *int
		Facility, Number, Issue, OEM *uint64
	}
	d := json.NewDecoder(strings.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return nil, badge.Credential{}, fmt.Errorf("it is not a card as decode prints one: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, badge.Credential{}, errors.New("something follows the card's JSON object")
	}
	if in.Format == "" {
		return nil, badge.Credential{}, errors.New("the card has no format")
	}
	formats, err := Find(table, []string{in.Format})
	switch {
	case err != nil:
		return nil, badge.Credential{}, err
	case in.Number == nil:
		return nil, badge.Credential{}, errors.New("the card has no number")
	case in.Bits != nil && *in.Bits != formats[0].Bits():
		return nil, badge.Credential{}, fmt.Errorf("%s has %d bits, not %d", formats[0].Name(), formats[0].Bits(), *in.Bits)
	}
	c := formats[0].New()
	for _, v := range []struct{ to, from *uint64 }{{&c.Facility, in.Facility}, {&c.Number, in.Number}, {&c.Issue, in.Issue}, {&c.OEM, in.OEM}} {
		if v.from != nil {
			*v.to = *v.from
		}
	}
	return formats[0], c, nil
}
