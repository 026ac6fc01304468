package access

// Reason is a stable code that says why a decision fell as it did. Codes are
// never renamed and never used again for something else.
type Reason string
