package wire

import (
	"strings"
	"testing"
)

func TestATopicThatIsMadeIsTheOneThatIsParsed(t *testing.T) {
	for _, kind := range Kinds() {
		for _, name := range []string{"a", "0", "north-1", "a-", strings.Repeat("x", MaxController)} {
			topic, err := Topic(name, kind)
			if err != nil {
				t.Fatal(err)
			}
			c, k, err := ParseTopic(topic)
			if c != name || k != kind || err != nil {
				t.Errorf("ParseTopic(%q) = %q, %q, %v", topic, c, k, err)
			}
		}
	}
}

func TestNamesThatCouldEscapeTheirTopicAreRefused(t *testing.T) {
	for _, name := range []string{
		"", "/", "a/b", "+", "#", "a+", "a#", "north/up", "North", "nörth", "a b", "a.b", "a_b", "-a", "a\x00", "a\n", CRM,
		strings.Repeat("x", MaxController+1), "$share", "..",
	} {
		if _, err := Topic(name, KindRecords); err == nil {
			t.Errorf("Topic(%q) was made", name)
		}
		if _, err := DownFilter(name); err == nil {
			t.Errorf("DownFilter(%q) was made", name)
		}
		if _, _, err := ParseTopic("gatehouse/" + name + "/up/records"); err == nil {
			t.Errorf("topic of %q was parsed", name)
		}
	}
}

func TestOtherTopicsAreRefused(t *testing.T) {
	for _, topic := range []string{
		"", "gatehouse", "gatehouse/", "gatehouse/a", "gatehouse/a/", "gatehouse/a/up", "gatehouse/a/up/", "gatehouse/a/up/record",
		"gatehouse/a/up/records/", "gatehouse/a/up/records/x", "gatehouse/a/down/records", "gatehouse/a/up/receipt",
		"/gatehouse/a/up/records", "gatehouse//up/records", "gatehouse/a//up/records", "Gatehouse/a/up/records",
		"gatehouse/a/up/#", "gatehouse/+/up/records", "other/a/up/records", "gatehouse/a/up/Records",
	} {
		if c, k, err := ParseTopic(topic); err == nil {
			t.Errorf("ParseTopic(%q) = %q, %q", topic, c, k)
		}
	}
	if _, err := Topic("a", "up/other"); err == nil {
		t.Error("a topic of an unknown kind was made")
	}
}

// Nothing that could move a strike may wait at the broker.
func TestOnlyStateAndManifestAreRetained(t *testing.T) {
	for _, k := range Kinds() {
		if want := k == KindState || k == KindManifest; k.Retained() != want {
			t.Errorf("%s retained: %v", k, k.Retained())
		}
		if want := strings.HasPrefix(string(k), "up/"); k.Up() != want {
			t.Errorf("%s up: %v", k, k.Up())
		}
	}
}

func FuzzParseTopic(f *testing.F) {
	for _, s := range []string{"gatehouse/north-1/up/records", "gatehouse/a/down/receipt", "gatehouse/+/up/#", "gatehouse/a/up", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, topic string) {
		c, k, err := ParseTopic(topic)
		if err != nil {
			return
		}
		if again, err := Topic(c, k); err != nil || again != topic {
			t.Errorf("%q parses, and is made as %q (%v)", topic, again, err)
		}
		if strings.ContainsAny(c, "/+#") {
			t.Errorf("%q gives the controller %q", topic, c)
		}
	})
}
