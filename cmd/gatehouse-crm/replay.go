package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/access/allowlist"
	"github.com/gatehouse-acs/gatehouse/access/registry"
	"github.com/gatehouse-acs/gatehouse/access/replay"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/logview"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"github.com/gatehouse-acs/gatehouse/visitorlog/central"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

// newPolicyReplayCmd is a command of `policy`.
func newPolicyReplayCmd() *cobra.Command {
	var f registryFlags
	var from, until, controller string
	cmd := &cobra.Command{
		Use:   "replay",
		Short: "Decide the recorded history again by what the registry says now",
		Long: `Decide the recorded history again by what the registry says now, published or not,
and list each decision that would fall otherwise. Nothing is changed.

What a record does not say is taken as it was: a factor that was refused, a
lock-out, a door that was disabled, who came along. Decisions of which too little
is recorded (unknown cards, one-time codes, visits that are over) are counted and
not listed. A door that has no rules in the registry is taken to ask for the badge. Where a decision would have waited for
another factor, or for company, the list says for what: the person might have had
it.`,
		Example: `  gatehouse-crm policy replay --from 30d
  gatehouse-crm policy replay --from 2026-01-01 --until 2026-03-31 --controller north-1 --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.with(cmd, func(s *registrySession) error {
				logs := logFlags{data: f.data, controller: controller, zone: s.zone.String()}
				return logs.with(cmd.Context(), func(l *logSession) error {
					filter := central.Filter{Controller: controller, Types: replay.Types}
					var err error
					if filter.From, filter.Until, err = logview.Span(from, until, time.Now(), s.zone); err != nil {
						return err
					}
					return s.replay(cmd.Context(), l.Store, filter, cmd.ErrOrStderr())
				})
			})
		},
	}
	f.register(cmd)
	p := cmd.Flags()
	p.StringVar(&from, "from", "30d", "from this `time` on: 2006-01-02, \"2006-01-02 15:04\", RFC 3339, or an age such as 90m or 7d")
	p.StringVar(&until, "until", "", "before this `time`, in the same forms; a bare date means its end")
	p.StringVar(&controller, "controller", "", "only this `controller`")
	return cmd
}

// changeJSON is a decision that would fall otherwise, as programs read it.
type changeJSON struct {
	At         time.Time        `json:"at"`
	Controller string           `json:"controller"`
	Door       string           `json:"door"`
	Direction  access.Direction `json:"direction"`
	Person     string           `json:"person"`
	Was        access.Reason    `json:"was"`
	Would      access.Reason    `json:"would"`
	Granted    bool             `json:"would_be_granted"`
	More       []string         `json:"would_ask_for,omitempty"`
	Together   bool             `json:"would_wait_for_company,omitempty"`
}

func (s *registrySession) replay(ctx context.Context, store *central.Store, f central.Filter, progress io.Writer) error {
	policies, err := s.policies(ctx, f.Controller)
	if err != nil {
		return err
	}
	total, err := store.Count(ctx, f)
	if err != nil {
		return err
	}
	bar := cli.NewProgress(progress, "deciding again", total)
	r := replay.New(policies, s.zone)
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	err = history(ctx, store, f, func(page []historic) error {
		defer bar.Add(int64(len(page)))
		for i := range page {
			_, c := r.Add(page[i].controller, &page[i].record)
			if c == nil {
				continue
			}
			if err := s.tellChange(w, page[i].controller, c); err != nil {
				return err
			}
		}
		return nil
	})
	bar.Done()
	if err := errors.Join(err, w.Flush()); err != nil {
		return err
	}
	return s.tellCounts(r.Counts())
}

// policies are what the doors of controllers would be told, by the controllers'
// names.
func (s *registrySession) policies(ctx context.Context, controller string) (map[string]replay.Policy, error) {
	names := []string{controller}
	if controller == "" {
		names = nil
		if err := doorSort.each(s, nil, func(row registry.Row[registry.Door]) error {
			names = append(names, row.Value.Controller)
			return nil
		}); err != nil {
			return nil, err
		}
		slices.Sort(names)
		names = slices.Compact(names)
	}
	policies := make(map[string]replay.Policy, len(names))
	for _, name := range names {
		book := allowlist.NewBook(s.pepper)
		words, _, err := s.Publish(ctx, name, 0, book.Add)
		if err == nil {
			err = book.Close(words)
		}
		if err != nil {
			return nil, err
		}
		policies[name] = book
	}
	return policies, nil
}

func (s *registrySession) tellChange(w io.Writer, controller string, c *replay.Change) error {
	if s.json {
		return cli.PrintJSON(s.out, changeJSON{c.At, controller, c.Door, c.Direction, c.Person, c.Was.Reason, c.Would.Reason, c.Would.Granted, c.Would.More.Names(), c.Would.Together})
	}
	would := string(c.Would.Reason)
	switch {
	case c.Would.More != 0:
		would = "would wait for " + strings.Join(c.Would.More.Names(), " or ")
	case c.Would.Together:
		would = "would wait for company (" + would + ")"
	case c.Would.Granted:
		would = "would be " + would
	default:
		would = "would be denied: " + would
	}
	_, err := fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\twas %s\t%s\n", c.At.In(s.zone).Format(time.DateTime), controller, c.Door, c.Direction, c.Person,
		cmp.Or(string(c.Was.Reason), "denied"), would)
	return err
}

func (s *registrySession) tellCounts(c replay.Counts) error {
	if s.json {
		return cli.PrintJSON(s.out, map[string]int64{
			"decisions": c.Decisions, "same": c.Same, "untold": c.Untold, "now_granted": c.NowGranted, "now_denied": c.NowDenied,
			"now_asked": c.NowAsked, "now_other_reason": c.NowOtherReason,
		})
	}
	_, err := fmt.Fprintf(s.out, "%d decisions: %d as they were, %d would be granted, %d denied, %d asked for more, %d denied for another reason; of %d too little is recorded.\n",
		c.Decisions, c.Same, c.NowGranted, c.NowDenied, c.NowAsked, c.NowOtherReason, c.Untold)
	return err
}

// historic is a record of the past.
type historic struct {
	controller string
	record     visitorlog.Record
}

// historyPage is how many records are read at once.
const historyPage = 4096

// history gives all records of a filter, in the order in which they arrived. They
// are read and parsed ahead: both take longer than deciding again.
func history(ctx context.Context, store *central.Store, f central.Filter, visit func([]historic) error) error {
	f.Limit = historyPage
	g, ctx := errgroup.WithContext(ctx)
	raw, parsed := make(chan []central.Record, 1), make(chan []historic, 1)
	send := func(page []central.Record) error {
		select {
		case raw <- page:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	g.Go(func() error {
		defer close(raw)
		for {
			page, err := store.Records(ctx, f)
			if err != nil || len(page) == 0 {
				return err
			}
			f.After = page[len(page)-1].Position()
			if err := send(page); err != nil {
				return err
			}
		}
	})
	g.Go(func() error {
		defer close(parsed)
		for page := range raw {
			out := make([]historic, len(page))
			for i, r := range page {
				out[i].controller = r.Controller
				// It was checked when it came: what cannot be read now has rotted.
				payload, err := visitorlog.Payload(r.JWS)
				if err == nil {
					err = json.Unmarshal(payload, &out[i].record)
				}
				if err != nil {
					return fmt.Errorf("record %d of %s cannot be read (see gatehouse-crm log verify): %w", r.Sequence, r.Controller, err)
				}
			}
			select {
			case parsed <- out:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	g.Go(func() error {
		for page := range parsed {
			if err := visit(page); err != nil {
				return err
			}
		}
		return nil
	})
	return g.Wait()
}
