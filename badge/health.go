package badge

import "time"

// Health is what a reader's wires have shown since it was opened.
type Health struct {
	Frames  uint64            `json:"frames"`        // delivered, those refused by the formats among them
	Refused map[string]uint64 `json:"refused"`       // frames that were refused, by the reason
	Ghosts  uint64            `json:"ghosts"`        // bits that belong to no frame
	Foreign uint64            `json:"foreign"`       // frames whose timing was not this reader's
	Last    time.Time         `json:"last,omitzero"` // of the last frame that was not refused; zero: none
	Spacing []Bucket          `json:"spacing"`       // of the bits of a frame, rising
	// Likely is what is probably wrong with the wires, in words for the installer;
	// empty: nothing is.
	Likely string `json:"likely,omitempty"`
}

// Bucket counts the bits that followed the one before them within Below, and
// not within the Below of the bucket before. The last has math.MaxInt64, which
// is no bound.
type Bucket struct {
	Below time.Duration `json:"below_ns"`
	Count uint64        `json:"count"`
}
