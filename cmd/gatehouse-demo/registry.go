package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// change runs a command that changes the CRM's registry.
func (s *site) change(ctx context.Context, stdin string, args ...string) (string, error) {
	return toolWith(ctx, stdin, "gatehouse-crm", append(args, "--data", s.crmDir(), "--by", "the-demo", "--why", "the demo")...)
}

// register fills the registry of the CRM, from where the doors learn who may
// enter. The visitor has a visit, and a badge that was lent at the gate.
func (s *site) register(ctx context.Context) error {
	commands := [][]string{{"areas", "add", "server-rooms"}}
	for _, room := range []string{roomA, roomB, roomC, roomD} {
		add := []string{"doors", "add", room, "--controller", controllerName, "--into", "server-rooms"}
		if room == roomB {
			add = append(add, "--rule", "always=badge,code", "--together", companyWithin.String())
		}
		commands = append(commands, add)
	}
	commands = append(commands, append([]string{"schedules", "add", "later"}, later(time.Now().UTC())...),
		[]string{"groups", "add", inServerRooms, "--right", "area:server-rooms@always"},
		[]string{"groups", "add", inThemLater, "--right", "area:server-rooms@later"},
		[]string{"groups", "add", inRoomB, "--right", roomB + "@always"},
	)
	var staff []person
	for _, p := range people {
		switch {
		case p.group != "":
			staff = append(staff, p)
		case p.kind == "visitor":
			commands = append(commands, []string{"people", "add", p.id, "--name", p.name, "--kind", p.kind})
		}
	}
	for _, c := range commands {
		if _, err := s.change(ctx, "", c...); err != nil {
			return err
		}
	}
	if err := s.hire(ctx, staff...); err != nil {
		return err
	}
	visitor, _ := byKey('3')
	if _, err := s.change(ctx, fmt.Sprintf("%s:%d:%d\n", format, facility, visitor.card), "credentials", "add", "--visitors", "--id", "b-1"); err != nil {
		return err
	}
	now := time.Now().UTC()
	for _, c := range [][]string{
		{"people", "change", "p-1001", "--may-escort"},
		{"people", "change", "p-1003", "--operator"},
		{"people", "change", "p-1004", "--operator"},
		{"visits", "add", "visit-1", "--visitor", visitor.id, "--organisation", "Bombe Cooling Ltd", "--host", "p-1001", "--authoriser", "p-1003", "--purpose", "replace a fan",
			"--from", now.Add(-time.Hour).Format(minute), "--until", now.Add(30 * 24 * time.Hour).Format(minute), "--door", roomA, "--door", roomB},
		{"visits", "check-in", "visit-1", "--id-form", "passport", "--notice", "2026-01", "--signed", visitor.name, "--badge", "b-1"},
	} {
		if _, err := s.change(ctx, "", c...); err != nil {
			return err
		}
	}
	return nil
}

const minute = "2006-01-02T15:04"

// later are the flags of a schedule that now is not in: it begins in some hours,
// on every day.
func later(now time.Time) []string {
	begin := now.Add(8 * time.Hour).Hour()
	hours := fmt.Sprintf("%02d:00-%02d:00", begin, begin+1)
	return []string{"--on", "mon-sun=" + hours, "--on", "holiday=" + hours}
}

// hire brings people into the registry.
func (s *site) hire(ctx context.Context, all ...person) error {
	var b strings.Builder
	b.WriteString("person,name,kind,groups,format,facility,number,state\n")
	for _, p := range all {
		fmt.Fprintf(&b, "%s,%s,%s,%s,%s,%d,%d,%s\n", p.id, p.name, p.kind, p.group, format, facility, p.card, p.state)
	}
	path := filepath.Join(s.dir, "people.csv")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		return err
	}
	_, err := s.change(ctx, "", "registry", "import", path)
	return errors.Join(err, os.Remove(path)) // it has names and cards in clear
}

// turnover hires somebody, who can enter a moment later, and lets them go again.
func (s *site) turnover(ctx context.Context) error {
	began := time.Now()
	newcomer.id, newcomer.card = fmt.Sprintf("p-%d", began.Unix()), uint64(10_000+began.Unix()%50_000)
	if err := s.hire(ctx, newcomer); err != nil {
		return err
	}
	if err := s.known(ctx); err != nil {
		return err
	}
	s.screen.note("%s was added at the CRM, and the door knew it %.1f s later", newcomer, time.Since(began).Seconds())
	if err := s.swipe(ctx, newcomer.key, "a-in", entered); err != nil {
		return err
	}
	said, err := s.change(ctx, "", "people", "remove", newcomer.id)
	if err != nil {
		return err
	}
	if !strings.Contains(said, "door "+roomA+": applied") {
		return fmt.Errorf("the door does not know that somebody has left: %s", said)
	}
	s.screen.note("%s has left, and every door says that it knows", newcomer)
	return s.swipe(ctx, newcomer.key, "a-in", denied("revoked"))
}

// lockdown orders one, in which nobody is let in, and ends it.
func (s *site) lockdown(ctx context.Context) error {
	if _, err := s.change(ctx, "", "command", "lockdown", "--all"); err != nil {
		return err
	}
	s.screen.note("a lockdown was ordered at the CRM")
	if err := s.swipe(ctx, '1', "a-in", denied("lockdown")); err != nil {
		return err
	}
	if _, err := s.change(ctx, "", "command", "clear", "--all"); err != nil {
		return err
	}
	s.screen.note("the lockdown was ended at the CRM")
	return s.swipe(ctx, '1', "a-in", entered)
}
