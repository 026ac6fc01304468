package logview

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

const (
	pageSize    = 256                    // records read at once
	followEvery = 250 * time.Millisecond // how often a list that is followed looks for new records
)

// ListFlags are the flags of a command that lists records.
type ListFlags struct {
	Filter Flags
	JSON   bool
	Follow bool
	Last   uint64 // look only at so many; 0: at all
}

// Register adds the flags to a command.
func (f *ListFlags) Register(cmd *cobra.Command) {
	f.Filter.Register(cmd.Flags())
	JSONFlag(cmd, &f.JSON)
	cmd.Flags().BoolVarP(&f.Follow, "follow", "f", false, "go on with new records as they come, until interrupted")
	cmd.Flags().Uint64VarP(&f.Last, "last", "n", 0, "look only at the last `N` records (0: at all)")
}

// JSONFlag adds --json to a command.
func JSONFlag(cmd *cobra.Command, asJSON *bool) {
	cmd.Flags().BoolVar(asJSON, "json", false, "print JSON, one object a line")
}

// OutFlag adds --out to a command.
func OutFlag(cmd *cobra.Command, out *string) {
	cmd.Flags().StringVarP(out, "out", "o", "", "`file` to write; it must not be there yet")
}

// ProofHelp says what a proof of a record is, after a verb.
const ProofHelp = `, without showing any other: the
signed record, the hashes that lead from it to the root of the tree, and the
checkpoint of that root with the log's signature and the CRM's.

"gatehouse-crm verify" checks it, as does docs/verify/proof.py. It holds the
record in clear.`

// ParseSequence reads the sequence of a record as a person types it.
func ParseSequence(text string) (uint64, error) {
	seq, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("%q is not a sequence: a number from 0 on", text)
	}
	return seq, nil
}

// Pages gives the rows of a log, a page at a time.
type Pages interface {
	// Next returns the rows after those of the last call; none where there
	// are no more at present.
	Next(context.Context) ([]Row, error)
	Close() error
}

// List prints the rows that the filter chooses, and damaged ones always,
// because nobody can say what they were; it returns how many those are. With
// follow it goes on until ctx ends.
func List(ctx context.Context, p *Printer, f Filter, pages Pages, follow bool) (damaged int, err error) {
	for {
		page, err := pages.Next(ctx)
		if ctx.Err() != nil {
			return damaged, nil // an interrupt is no fault
		}
		if err != nil {
			return damaged, err
		}
		for _, row := range page {
			if row.Damaged {
				damaged++
			} else if !f.Match(&row.Record) {
				continue
			}
			if err := p.Print(row); err != nil {
				return damaged, err
			}
		}
		if len(page) > 0 {
			continue
		}
		if !follow {
			return damaged, nil
		}
		select {
		case <-ctx.Done():
			return damaged, nil
		case <-time.After(followEvery):
		}
	}
}
