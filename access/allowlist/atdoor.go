package allowlist

import "github.com/gatehouse-acs/gatehouse/access"

// Site is what is asked at a door beside factors; nil: nothing. It may not be
// changed.
func (l *List) Site(door string) *access.Door { return l.sites[door] }

// Code finds a one-time code by its digits; nil and errors are as of Lookup.
func (l *List) Code(digits []byte) (*access.Entry, error) {
	s, err := l.findKey(codeKey(l.keys.Index, digits))
	if s == nil || err != nil {
		return nil, err
	}
	return l.entry(s), nil
}

// FindCode is Code with all that the allowlist holds.
func (l *List) FindCode(digits []byte) (*Listed, error) {
	s, err := l.findKey(codeKey(l.keys.Index, digits))
	if s == nil || err != nil {
		return nil, err
	}
	return l.listed(s), nil
}
