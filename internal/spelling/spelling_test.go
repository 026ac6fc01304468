package spelling

import "testing"

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "abc", 3}, {"abc", "abc", 0}, {"abc", "abd", 1}, {"abc", "ac", 1}, {"ac", "abc", 1}, {"kitten", "sitting", 3}, {"ab", "ba", 2},
	} {
		if got, back := Distance(c.a, c.b), Distance(c.b, c.a); got != c.want || back != c.want {
			t.Errorf("%q and %q: %d and %d, want %d", c.a, c.b, got, back, c.want)
		}
	}
}

func TestOnlyAWordThatIsLikeItIsSuggested(t *testing.T) {
	known := []string{"timezone", "unlock", "http"}
	for word, want := range map[string]string{"time_zone": "timezone", "unlok": "unlock", "https": "http", "colour": "", "": "", "x": ""} {
		if got := Nearest(word, known); got != want {
			t.Errorf("%q: %q is suggested, want %q", word, got, want)
		}
	}
}

func TestPrintableTextStaysOnItsLine(t *testing.T) {
	for text, want := range map[string]string{
		"Zoë Ångström":    "Zoë Ångström",
		"a\nb\tc\x1b[2Jd": "a?b?c?[2Jd",
		"\u202etxt.exe":   "?txt.exe",
		"a\xffb":          "a\ufffdb",
	} {
		if got := Printable(text); got != want {
			t.Errorf("%q is shown as %q, want %q", text, got, want)
		}
	}
}
