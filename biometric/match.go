package biometric

// Outcome is how a comparison ended. The zero Outcome is none, and lets nobody
// in.
type Outcome string

// The outcomes.
const (
	Matched  Outcome = "matched"
	NoMatch  Outcome = "no_match"  // somebody else's
	Fake     Outcome = "fake"      // the scanner found that it does not live
	Nobody   Outcome = "nobody"    // none came while the scanner waited
	TryAgain Outcome = "try_again" // too little was seen of it
)

// Reference is one thing that was enrolled of a person at a scanner: the slot
// in which the scanner keeps it, or, where the scanner keeps nothing, a
// template.
type Reference struct {
	Part     Part
	Slot     uint32
	Template Template
	Duress   bool // the person gives it only under a threat
}

// Clear clears the templates of references.
func Clear(references []Reference) {
	for _, r := range references {
		r.Template.Clear()
	}
}

// Match is how a comparison with references, or with everybody that the
// scanner keeps, ended.
type Match struct {
	Outcome Outcome
	Slot    uint32 // of Matched, where the scanner keeps what was enrolled
	Part    Part   // of Matched, where there were references
	Duress  bool   // of Matched: it was a reference of that kind, or the scanner says so
}
