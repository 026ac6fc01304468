package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/gatehouse-acs/gatehouse/badge"
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

func findFormats(table *badge.Table, names []string) ([]*badge.Format, error) {
	var formats []*badge.Format
	var faults []error
	for _, name := range names {
		f, err := table.Find(name)
		if err != nil {
			faults = append(faults, fmt.Errorf("%w (\"gatehouse badge formats\" lists all)", err))
			continue
		}
		if !slices.Contains(formats, f) {
			formats = append(formats, f)
		}
	}
	return formats, errors.Join(faults...)
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
				if formats, err = findFormats(table, args); err != nil {
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
				return printFormatsJSON(w, formats)
			case len(args) > 0:
				return describeFormats(w, formats)
			}
			return listFormats(w, formats)
		},
	}
	cmd.ValidArgsFunction = completeFormat(source)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line, in the words of a [[format]]")
	cmd.Flags().IntVar(&bits, "bits", 0, "only the formats of `N` bits")
	return cmd
}

func printFormatsJSON(w io.Writer, formats []*badge.Format) error {
	for _, f := range formats {
		err := cli.PrintJSON(w, struct {
			badge.Spec
			Protected bool   `json:"protected"`
			Unchecked string `json:"unchecked,omitempty"`
			Layout    string `json:"layout"`
		}{f.Spec(), f.Protected(), f.Unchecked(), f.Layout()})
		if err != nil {
			return err
		}
	}
	return nil
}

func listFormats(out io.Writer, formats []*badge.Format) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tBITS\tFIELDS\tCHECK\tOF")
	for _, f := range formats {
		var fields []string
		for _, d := range f.Fields() {
			fields = append(fields, d.Name+" "+shorten(d.Positions))
		}
		switch s := f.Spec(); {
		case s.Codec != "":
			fields = []string{"facility, number, issue, oem in decimal digits"}
		case s.ReverseBytes:
			fields = append(fields, "bytes reversed")
		}
		checks := checksOf(f)
		for i, c := range checks {
			if head, mask, ok := strings.Cut(c, "("); ok {
				checks[i] = head + "(" + shorten(strings.TrimSuffix(mask, ")")) + ")"
			}
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", f.Name(), f.Bits(), strings.Join(fields, ", "), cmp.Or(strings.Join(checks, " "), "UNPROTECTED"), f.Note())
	}
	return w.Flush()
}

// shorten keeps a position list short enough for a column.
func shorten(list string) string {
	const most = 14
	if len(list) <= most {
		return list
	}
	return list[:strings.LastIndexByte(list[:most], ',')+1] + "…"
}

// checksOf is what a format has against misreads; none if it is unprotected.
func checksOf(f *badge.Format) []string {
	s := f.Spec()
	checks := s.Parity
	if s.XOR > 0 {
		checks = append(checks, fmt.Sprintf("XOR of %d bits", s.XOR))
	}
	if s.Codec != "" {
		checks = append(checks, "odd parity and LRC")
	}
	return checks
}

func describeFormats(w io.Writer, formats []*badge.Format) error {
	for i, f := range formats {
		if i > 0 {
			fmt.Fprintln(w)
		}
		s := f.Spec()
		fmt.Fprintf(w, "%s: %d bits. %s\n\n", f.Name(), f.Bits(), f.Note())
		const width = 50
		for at := 0; at < f.Bits(); at += width {
			fmt.Fprintf(w, "  %4d  %s\n", at, f.Layout()[at:min(at+width, f.Bits())])
		}
		fmt.Fprintln(w)
		for _, d := range f.Fields() {
			values := fmt.Sprintf("0 to %d", d.Max)
			switch {
			case d.Fixed:
				values = fmt.Sprintf("always %d", d.Initial)
			case d.Initial != 0:
				values += fmt.Sprintf(", %d unless said otherwise", d.Initial)
			}
			fmt.Fprintf(w, "  %-9s %s: %s\n", d.Name, d.Positions, values)
		}
		if s.ReverseBytes {
			fmt.Fprintf(w, "  %-9s the number's bytes come last first\n", "bytes")
		}
		if s.IgnoreUnused {
			fmt.Fprintf(w, "  %-9s bits that belong to nothing may be 1\n", "unused")
		}
		checks := checksOf(f)
		for _, c := range checks {
			fmt.Fprintf(w, "  %-9s %s\n", "check", c)
		}
		switch open := f.Unchecked(); {
		case len(checks) == 0:
			fmt.Fprintf(w, "  %-9s none: UNPROTECTED, a misread frame fits too\n", "check")
		case open != "":
			fmt.Fprintf(w, "  %-9s nothing covers bits %s: a misread there goes unnoticed\n", "unchecked", open)
		}
	}
	_, err := fmt.Fprintln(w, "\nF facility, N number, I issue, M maker's code (oem), E and O even and odd parity,\nX check, 0 and 1 always so, . unused. The first bit on the wire is bit 0.")
	return err
}

// decoded is what decode prints and encode reads.
type decoded struct {
	Format   string `json:"format"`
	Bits     int    `json:"bits"`
	Facility uint64 `json:"facility"`
	Number   uint64 `json:"number"`
	Issue    uint64 `json:"issue"`
	OEM      uint64 `json:"oem"`
}

// frameDecoder is one run of decode.
type frameDecoder struct {
	stdout, stderr io.Writer
	all            *badge.Table
	asked          *badge.Table // only the formats asked for; nil: all
	bits           int
	printed        *printedNumber
	failed         bool
	noted          map[string]bool
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
			d := &frameDecoder{stdout: cmd.OutOrStdout(), stderr: cmd.ErrOrStderr(), all: table, noted: map[string]bool{}}
			if len(formats) > 0 {
				asked, err := findFormats(table, formats)
				if err != nil {
					return err
				}
				d.asked = badge.Only(asked...)
			}
			if cmd.Flags().Changed("bits") {
				if bits < 1 || bits > badge.MaxBits {
					return fmt.Errorf("--bits %d: a frame has 1 to %d bits", bits, badge.MaxBits)
				}
				d.bits = bits
			}
			if cmd.Flags().Changed("printed") {
				if d.printed, err = parsePrinted(printed); err != nil {
					return err
				}
			}
			for i, text := range args {
				if err := d.decode(fmt.Sprintf("frame %d", i+1), text); err != nil {
					return err
				}
			}
			if len(args) == 0 {
				if err := eachLine(cmd, "frames", d.decode); err != nil {
					return err
				}
			}
			if d.failed {
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

// decode prints what one frame is. The error is that of standard output; a
// frame at fault is only noted.
func (d *frameDecoder) decode(label, text string) error {
	frame, err := badge.ParseText(text, d.bits)
	if err != nil {
		d.fail("%s: %v", label, err)
		return nil
	}
	table := cmp.Or(d.asked, d.all)
	report := table.Identify(frame)
	fits := report.Fits
	if d.printed != nil {
		fits = slices.DeleteFunc(slices.Clone(fits), func(c badge.Credential) bool { return !d.printed.matches(c) })
	}
	for _, c := range fits {
		err := cli.PrintJSON(d.stdout, decoded{c.Format, frame.Len(), c.Facility, c.Number, c.Issue, c.OEM})
		if err != nil {
			return err
		}
	}
	switch {
	case len(report.Fits) == 0:
		d.explain(label, frame, report)
		return nil
	case len(fits) == 0:
		d.fail("%s (%d bits) fits %s, but not with the number that is printed", label, frame.Len(), names(report.Fits))
		d.locate(frame)
	default:
		d.note(table, fits)
	}
	for _, hint := range report.Hints {
		fmt.Fprintf(d.stderr, "%s: %s\n", label, hint)
	}
	return nil
}

func (d *frameDecoder) fail(format string, args ...any) {
	d.failed = true
	fmt.Fprintf(d.stderr, format+"\n", args...)
}

// explain says why a frame fits nothing.
func (d *frameDecoder) explain(label string, frame badge.Frame, report badge.Report) {
	say := func(text string) { fmt.Fprintf(d.stderr, "  %s\n", text) }
	if d.asked == nil {
		d.fail("%s (%d bits) fits no format", label, frame.Len())
		for _, miss := range report.Misses {
			say(miss.Error())
		}
		if report.Nearest != "" {
			say(report.Nearest)
		}
	} else {
		d.fail("%s (%d bits) does not fit", label, frame.Len())
		for _, f := range d.asked.Formats() {
			if _, err := f.Decode(frame); err != nil {
				say(err.Error())
			}
		}
		if others := d.all.Identify(frame).Fits; len(others) > 0 {
			say("It fits " + names(others) + ", not asked for here.")
			report.Advice = ""
		}
	}
	d.locate(frame)
	for _, hint := range report.Hints {
		say(hint)
	}
	if report.Advice != "" {
		say(report.Advice)
	}
}

// locate says where the printed number stands in a frame.
func (d *frameDecoder) locate(frame badge.Frame) {
	if d.printed == nil {
		return
	}
	found := badge.Locate(frame, d.printed.number)
	for _, list := range found {
		fmt.Fprintf(d.stderr, "  The printed number stands in bits %s; a [[format]] with number = %q reads it, or a longer list if zeros lead.\n", list, list)
	}
	if found == nil {
		fmt.Fprintln(d.stderr, "  The printed number does not stand in the frame as such: it may be shortened, or the maker's own.")
	}
}

// note says once of each set of formats what a person should know of them.
func (d *frameDecoder) note(table *badge.Table, fits []badge.Credential) {
	once := func(text string) {
		if !d.noted[text] {
			d.noted[text] = true
			fmt.Fprintln(d.stderr, "note:", text)
		}
	}
	if len(fits) > 1 {
		once(fmt.Sprintf("%s fit alike: the frame cannot tell them apart. Give the number on the card with --printed, or the reader's format with --format.", names(fits)))
	}
	var open []badge.Credential
	for _, c := range fits {
		if f, ok := table.Format(c.Format); ok && !f.Protected() {
			open = append(open, c)
		}
	}
	if len(open) > 0 {
		once(fmt.Sprintf("unprotected, so a misread frame fits too: %s", names(open)))
	}
}

func names(credentials []badge.Credential) string {
	list := make([]string, len(credentials))
	for i, c := range credentials {
		list[i] = c.Format
	}
	return strings.Join(list, ", ")
}

// printedNumber is what stands on a card.
type printedNumber struct {
	facility    uint64
	hasFacility bool
	number      uint64
}

func parsePrinted(s string) (*printedNumber, error) {
	p := &printedNumber{}
	facility, number, both := strings.Cut(s, ",")
	if !both {
		number = s
	}
	var err error
	if p.number, err = strconv.ParseUint(strings.TrimSpace(number), 10, 64); err == nil && both {
		p.hasFacility = true
		p.facility, err = strconv.ParseUint(strings.TrimSpace(facility), 10, 64)
	}
	if err != nil {
		return nil, errors.New("--printed takes the number on the card, or facility code and number as in 123,4567")
	}
	return p, nil
}

func (p *printedNumber) matches(c badge.Credential) bool {
	return c.Number == p.number && (!p.hasFacility || c.Facility == p.facility)
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
			formats, err := findFormats(table, []string{name})
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
			return printFrame(cmd.OutOrStdout(), formats[0], c, hex)
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

func printFrame(w io.Writer, f *badge.Format, c badge.Credential, hex bool) error {
	frame, err := f.Encode(c)
	if err != nil {
		return err
	}
	text := frame.Bits()
	if hex {
		text = frame.Hex()
	}
	_, err = fmt.Fprintln(w, text)
	return err
}

func encodeLines(cmd *cobra.Command, table *badge.Table, hex bool) error {
	failed := false
	err := eachLine(cmd, "cards as JSON objects", func(label, line string) error {
		f, c, err := readCard(table, line)
		if err == nil {
			err = printFrame(cmd.OutOrStdout(), f, c, hex)
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

// readCard reads what decode prints. Fields that are left out have the
// format's own values.
func readCard(table *badge.Table, line string) (*badge.Format, badge.Credential, error) {
	var card struct {
		Format                       string
		Bits                         *int
		Facility, Number, Issue, OEM *uint64
	}
	d := json.NewDecoder(strings.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&card); err != nil {
		return nil, badge.Credential{}, fmt.Errorf("it is not a card as decode prints one: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, badge.Credential{}, errors.New("something follows the card's JSON object")
	}
	if card.Format == "" {
		return nil, badge.Credential{}, errors.New("the card has no format")
	}
	formats, err := findFormats(table, []string{card.Format})
	switch {
	case err != nil:
		return nil, badge.Credential{}, err
	case card.Number == nil:
		return nil, badge.Credential{}, errors.New("the card has no number")
	case card.Bits != nil && *card.Bits != formats[0].Bits():
		return nil, badge.Credential{}, fmt.Errorf("%s has %d bits, not %d", formats[0].Name(), formats[0].Bits(), *card.Bits)
	}
	c := formats[0].New()
	for _, v := range []struct{ to, from *uint64 }{{&c.Facility, card.Facility}, {&c.Number, card.Number}, {&c.Issue, card.Issue}, {&c.OEM, card.OEM}} {
		if v.from != nil {
			*v.to = *v.from
		}
	}
	return formats[0], c, nil
}
