package cli

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// LogOptions say how a daemon logs.
type LogOptions struct {
	Level  string
	Format string
}

// Flags adds --log-level and --log-format to a command.
func (o *LogOptions) Flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.Level, "log-level", "info", "debug, info, warn or error")
	cmd.Flags().StringVar(&o.Format, "log-format", "", "text or json (default: text on a terminal, else json)")
}

// Logger is a structured log on w.
func (o *LogOptions) Logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.Level)); err != nil {
		return nil, fmt.Errorf("--log-level %q: use debug, info, warn or error", o.Level)
	}
	format := o.Format
	if format == "" {
		format = "json"
		if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			format = "text"
		}
	}
	options := &slog.HandlerOptions{Level: level}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, fmt.Errorf("--log-format %q: use text or json", o.Format)
}

// version is set when a release is built.
var version = ""

// Version is what the program calls itself: the release, or the revision that
// it was built from.
func Version() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	var revision, modified string
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value[:min(len(s.Value), 12)]
		case "vcs.modified":
			if s.Value == "true" {
				modified = "+changes"
			}
		}
	}
	if revision == "" {
		return "development"
	}
	return revision + modified
}

// ReportFaults writes an error of many lines as they are, and returns
// ErrReported.
func ReportFaults(w io.Writer, err error) error {
	fmt.Fprintln(w, err)
	return ErrReported
}
