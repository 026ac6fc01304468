package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/spf13/cobra"
)

func TestTheFirstSignalEndsInOrderAndASecondCtrlCAtOnce(t *testing.T) {
	stuck := func(ctx context.Context, free <-chan struct{}) error {
		<-ctx.Done()
		<-free
		return errors.New("stuck")
	}
	inOrder := func(ctx context.Context, _ <-chan struct{}) error {
		<-ctx.Done()
		return nil
	}
	for name, tt := range map[string]struct {
		program func(context.Context, <-chan struct{}) error
		signals []os.Signal
		want    int // -1: it goes on
		says    string
	}{
		"nobody asks":                   {inOrder, nil, -1, ""},
		"Ctrl-C":                        {inOrder, []os.Signal{os.Interrupt}, 0, ""},
		"SIGTERM":                       {inOrder, []os.Signal{syscall.SIGTERM}, 0, ""},
		"Ctrl-C, and it is stuck":       {stuck, []os.Signal{os.Interrupt}, -1, ""},
		"Ctrl-C twice, and it is stuck": {stuck, []os.Signal{os.Interrupt, os.Interrupt}, 130, "program: interrupted again: ending at once"},
		"SIGTERM, then Ctrl-C":          {stuck, []os.Signal{syscall.SIGTERM, os.Interrupt}, 130, "ending at once"},
		"SIGTERM twice":                 {stuck, []os.Signal{syscall.SIGTERM, syscall.SIGTERM}, -1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				signals, free, status := make(chan os.Signal), make(chan struct{}), make(chan int, 1)
				var said bytes.Buffer
				root := &cobra.Command{Use: "program", RunE: func(cmd *cobra.Command, _ []string) error { return tt.program(cmd.Context(), free) }}
				go func() { status <- run(signals, root, nil, &said, &said) }()
				for _, s := range tt.signals {
					signals <- s
					synctest.Wait()
				}
				synctest.Wait()
				got := -1
				select {
				case got = <-status:
				default:
				}
				if got != tt.want || !strings.Contains(said.String(), tt.says) {
					t.Errorf("status %d, want %d; it says %q, want %q", got, tt.want, said.String(), tt.says)
				}
				close(free)
				if len(tt.signals) == 0 {
					signals <- os.Interrupt
				}
				if got < 0 {
					<-status
				}
			})
		})
	}
}

// A real signal reaches the program by Main.
func TestMainHearsSignals(t *testing.T) {
	root := &cobra.Command{Use: "program", Args: cobra.ArbitraryArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
			return err
		}
		<-cmd.Context().Done()
		return nil
	}}
	args := os.Args
	defer func() { os.Args = args }()
	os.Args = []string{"program"}
	if got := Main(root); got != 0 {
		t.Errorf("status %d", got)
	}
}
