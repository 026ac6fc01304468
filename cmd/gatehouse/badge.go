package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/internal/badgeview"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/config"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// formatSource is where the formats of a badge command come from.
type formatSource struct{ config string }

func (s *formatSource) table() (*badge.Table, error) {
	if s.config == "" {
		return badge.Builtin(), nil
	}
	// A badge is looked at on any machine: a virtual device in the file is
	// no reason to refuse it.
	c, err := config.LoadController(s.config, config.Options{Demo: true})
	if err != nil {
		return nil, err
	}
	return c.Table, nil
}

func newBadgeCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "badge",
		Short: "Find out what a card's frame says, and make frames",
		Long: `Find out what a card's frame says, and make frames.

A reader sends a card as a frame of bits. The frame does not say which format
it has, so each reader is configured with its formats; these commands show the
formats, find those that fit a frame, and write the frame of a card.`,
		Args: cobra.NoArgs,
	}
	var source formatSource
	cmd.PersistentFlags().StringVar(&source.config, "config", "", "a controller's configuration `FILE`, for the [[format]] tables in it")
	cmd.AddCommand(newBadgeFormatsCmd(&source), newBadgeDecodeCmd(&source), newBadgeEncodeCmd(&source))
	return cmd
}

// completeFormat offers the formats' names to the shell.
func completeFormat(source *formatSource) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		table, err := source.table()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var names []cobra.Completion
		for _, f := range table.Formats() {
			names = append(names, cobra.CompletionWithDesc(f.Name(), f.Note()))
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func newBadgeFormatsCmd(source *formatSource) *cobra.Command {
	var asJSON bool
	var bits int
	cmd := &cobra.Command{
		Use:   "formats [NAME…]",
		Short: "List the card formats, or describe some bit by bit",
		Long: `List the card formats, or describe those named bit by bit.

Bits are numbered from 0, the first on the wire; a field's list begins with its
most significant bit. E@0(1-12) is even parity at bit 0 over bits 1 to 12, O odd
parity. UNPROTECTED formats have no check: any frame of their length fits them,
a misread one too.

A format that is not listed can be added to the configuration in the same words:

  [[format]]
  name = "campus"
  bits = 32
  facility = "1-10"
  number = "11-30"
  parity = ["E@0(1-15)", "O@31(16-30)"]

Further words: issue and oem (fields), ones and zeros (bits that are always the
same), xor = 8 (the last 8 bits are the exclusive or of the bytes before them),
reverse_bytes = true (the number's bytes come last first), ignore_unused = true
(take frames whose other bits are not 0), fixed = { facility = 217 } and
default = { oem = 900 } (values).`,
		Example: `  gatehouse badge formats --bits 26
  gatehouse badge formats H10301 C1k35s`,
		RunE: func(cmd *cobra.Command, args []string) error {
			table, err := source.table()
			if err != nil {
				return err
			}
			formats := table.Formats()
			if len(args) > 0 {
				if formats, err = badgeview.Find(table, args); err != nil {
					return err
				}
			}
			if cmd.Flags().Changed("bits") {
				formats = slices.DeleteFunc(formats, func(f *badge.Format) bool { return f.Bits() != bits })
				if len(formats) == 0 {
					return fmt.Errorf("no format has %d bits", bits)
				}
			}
			w := cmd.OutOrStdout()
			switch {
			case asJSON:
				return badgeview.FormatsJSON(w, formats)
			case len(args) > 0:
				return badgeview.Describe(w, formats)
			}
			return badgeview.List(w, formats)
		},
	}
	cmd.ValidArgsFunction = completeFormat(source)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line, in the words of a [[format]]")
	cmd.Flags().IntVar(&bits, "bits", 0, "only the formats of `N` bits")
	return cmd
}

func newBadgeDecodeCmd(source *formatSource) *cobra.Command {
	var formats []string
	var bits int
	var printed string
	cmd := &cobra.Command{
		Use:   "decode [FRAME…]",
		Short: "Say what card a frame is, or why it is none",
		Long: `Say what card each frame is, or why it is none.

A frame is written as 0 and 1, the first bit on the wire first, or as a hexadecimal
number with its length: 0x2F623AE/26. Spaces and _ : - . in it are left out. Each
format that fits is printed as one JSON object a line. A frame that fits none is
explained on stderr, with what is wrong in each format of its length and what the
usual cause is; the others are still decoded, and the exit status is 1.

Without FRAME, frames are read from standard input, one a line; empty lines and
those that begin with # are skipped. Prefer that for real cards: a command line can be
seen by every user of the machine and stays in the shell's history, and a
frame is all that is needed to copy a card.

Many formats share their length and parity, so several may fit, and only one is
right. The number printed on the card tells which: give it with --printed. Where
no format has it, decode looks for it in the frame and says which bits hold it.`,
		Example: `  gatehouse badge decode 10111101100010001110101110
  gatehouse badge decode --printed 123,4567 10111101100010001110101110
  gatehouse badge decode --format H10301 --format H10306 < frames.txt
  gatehouse badge decode --bits 32 04:A1:B2:C3`,
		RunE: func(cmd *cobra.Command, args []string) error {
			table, err := source.table()
			if err != nil {
				return err
			}
			d := &badgeview.Decoder{Stdout: cmd.OutOrStdout(), Stderr: cmd.ErrOrStderr(), All: table}
			if len(formats) > 0 {
				asked, err := badgeview.Find(table, formats)
				if err != nil {
					return err
				}
				d.Asked = badge.Only(asked...)
			}
			if cmd.Flags().Changed("bits") {
				if bits < 1 || bits > badge.MaxBits {
					return fmt.Errorf("--bits %d: a frame has 1 to %d bits", bits, badge.MaxBits)
				}
				d.Bits = bits
			}
			if cmd.Flags().Changed("printed") {
				if d.Printed, err = badgeview.ParsePrinted(printed); err != nil {
					return err
				}
			}
			for i, text := range args {
				if err := d.Decode(fmt.Sprintf("frame %d", i+1), text); err != nil {
					return err
				}
			}
			if len(args) == 0 {
				if err := eachLine(cmd, "frames", d.Decode); err != nil {
					return err
				}
			}
			if d.Failed() {
				return cli.ErrReported
			}
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&formats, "format", nil, "only this `FORMAT`, such as those of one reader; may be given several times")
	cmd.Flags().IntVar(&bits, "bits", 0, "length of the frames; what is not `N` times 0 or 1 is hexadecimal")
	cmd.Flags().StringVar(&printed, "printed", "", "the `NUMBER` printed on the card, or FACILITY,NUMBER: only the formats that read it so")
	noCompletionError(cmd.RegisterFlagCompletionFunc("format", completeFormat(source)))
	return cmd
}

// noCompletionError is for a flag that was defined the line before: there is
// no other way for it to be missing.
func noCompletionError(err error) {
	if err != nil {
		panic(err)
	}
}

// eachLine gives the lines of standard input to do, with a name for each.
func eachLine(cmd *cobra.Command, what string, do func(label, line string) error) error {
	in := cmd.InOrStdin()
	if f, ok := in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprintf(cmd.ErrOrStderr(), "Type %s, one a line; Ctrl-D ends.\n", what)
	}
	lines := bufio.NewScanner(in)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := do(fmt.Sprintf("line %d", n), line); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("reading standard input: %w", err)
	}
	return nil
}

func newBadgeEncodeCmd(source *formatSource) *cobra.Command {
	var name string
	var facility, number, issue, oem uint64
	var hex bool
	cmd := &cobra.Command{
		Use:   "encode --format FORMAT --number N",
		Short: "Write the frame of a card",
		Long: `Write the frame of a card as 0 and 1, the first bit on the wire first.

Without --format and --number, cards are read from standard input, one JSON object a line as
"gatehouse badge decode" prints them. Prefer that for real cards: a command line
can be seen by every user of the machine and stays in the shell's history.`,
		Example: `  gatehouse badge encode --format H10301 --facility 123 --number 4567
  echo '{"format":"H10301","facility":123,"number":4567}' | gatehouse badge encode`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			table, err := source.table()
			if err != nil {
				return err
			}
			given := cmd.Flags().Changed
			if !slices.ContainsFunc([]string{"format", "facility", "number", "issue", "oem"}, given) {
				return encodeLines(cmd, table, hex)
			}
			if !given("format") || !given("number") {
				return errors.New("say the card's format with --format and its number with --number")
			}
			formats, err := badgeview.Find(table, []string{name})
			if err != nil {
				return err
			}
			c := formats[0].New()
			c.Number = number
			if given("facility") {
				c.Facility = facility
			}
			if given("issue") {
				c.Issue = issue
			}
			if given("oem") {
				c.OEM = oem
			}
			return badgeview.PrintFrame(cmd.OutOrStdout(), formats[0], c, hex)
		},
	}
	cmd.Flags().StringVar(&name, "format", "", "the card's `FORMAT`")
	cmd.Flags().Uint64Var(&facility, "facility", 0, "facility (site) `code`")
	cmd.Flags().Uint64Var(&number, "number", 0, "card `number`")
	cmd.Flags().Uint64Var(&issue, "issue", 0, "issue `level`")
	cmd.Flags().Uint64Var(&oem, "oem", 0, "maker's `code`")
	cmd.Flags().BoolVar(&hex, "hex", false, "write a hexadecimal number with its length, such as 0x2F623AE/26")
	noCompletionError(cmd.RegisterFlagCompletionFunc("format", completeFormat(source)))
	return cmd
}

func encodeLines(cmd *cobra.Command, table *badge.Table, hex bool) error {
	failed := false
	err := eachLine(cmd, "cards as JSON objects", func(label, line string) error {
		f, c, err := badgeview.ReadCard(table, line)
		if err == nil {
			err = badgeview.PrintFrame(cmd.OutOrStdout(), f, c, hex)
		}
		if err != nil {
			failed = true
			fmt.Fprintf(cmd.ErrOrStderr(), "%s: %v\n", label, err)
		}
		return nil
	})
	if err == nil && failed {
		err = cli.ErrReported
	}
	return err
}
