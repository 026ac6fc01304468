package badge

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// parsePositions reads a position list such as "1-8", "9,4,6" or "16-9" (a
// range that counts down), in the order written. Every position is below bits.
func parsePositions(list string, bits int) ([]int, error) {
	if strings.TrimSpace(list) == "" {
		return nil, fmt.Errorf("the position list is empty")
	}
	var all []int
	seen := make([]bool, bits)
	for item := range strings.SplitSeq(list, ",") {
		item = strings.TrimSpace(item)
		from, to, isRange := strings.Cut(item, "-")
		if !isRange {
			to = from
		}
		a, err := parsePosition(from, bits)
		if err != nil {
			return nil, err
		}
		b, err := parsePosition(to, bits)
		if err != nil {
			return nil, err
		}
		step := 1
		if b < a {
			step = -1
		}
		for p := a; ; p += step {
			if seen[p] {
				return nil, fmt.Errorf("bit %d stands twice in %q", p, list)
			}
			seen[p] = true
			all = append(all, p)
			if p == b {
				break
			}
		}
	}
	return all, nil
}

func parsePosition(s string, bits int) (int, error) {
	s = strings.TrimSpace(s)
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, fmt.Errorf(`%q is not a bit position: write a list such as "1-8" or "9,4,6"`, s)
		}
	}
	p, err := strconv.Atoi(s)
	if err != nil {
		return 0, fmt.Errorf(`%q is not a bit position: write a list such as "1-8" or "9,4,6"`, s)
	}
	if p >= bits {
		return 0, fmt.Errorf("bit %d is outside the frame: its bits are 0-%d", p, bits-1)
	}
	return p, nil
}

// formatPositions writes a set of positions as an ascending list.
func formatPositions(positions []int) string {
	ps := slices.Sorted(slices.Values(positions))
	var b strings.Builder
	for i := 0; i < len(ps); {
		j := i
		for j+1 < len(ps) && ps[j+1] == ps[j]+1 {
			j++
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(ps[i]))
		if j > i {
			b.WriteString("-" + strconv.Itoa(ps[j]))
		}
		i = j + 1
	}
	return b.String()
}

// bitsWord is "bit 3" or "bits 3-5".
func bitsWord(positions []int) string {
	if len(positions) == 1 {
		return "bit " + strconv.Itoa(positions[0])
	}
	return "bits " + formatPositions(positions)
}
