package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/config"
	"github.com/gatehouse-acs/gatehouse/internal/metrics"
	"github.com/gatehouse-acs/gatehouse/internal/systemd"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

const defaultConfig = "/etc/gatehouse/gatehouse.toml"

func configFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "config", defaultConfig, "configuration `file`")
	cobra.CheckErr(cmd.MarkFlagFilename("config", "toml"))
}

func demoFlag(cmd *cobra.Command, demo *bool) {
	cmd.Flags().BoolVar(demo, "demo", false, "allow drivers that move no real door")
}

func newRunCmd() *cobra.Command {
	var file string
	var demo bool
	var logs cli.LogOptions
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the controller's doors",
		Long: `Run the controller's doors until SIGTERM or Ctrl-C. Every door is locked before
the first badge is read and when the program ends, however it ends.`,
		Example: "  gatehouse run --config /etc/gatehouse/gatehouse.toml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			syscall.Umask(0o077) // whatever is created here is nobody else's
			return runController(cmd, file, demo, logs)
		},
	}
	configFlag(cmd, &file)
	demoFlag(cmd, &demo)
	logs.Flags(cmd)
	return cmd
}

func newCheckCmd() *cobra.Command {
	var file string
	var demo bool
	cmd := &cobra.Command{
		Use:     "check",
		Short:   "Check a configuration, and tell every fault with its line",
		Example: "  gatehouse check --config gatehouse.toml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.LoadController(file, config.Options{Demo: demo})
			if err != nil {
				return cli.ReportFaults(cmd.ErrOrStderr(), err)
			}
			readers, scanners := 0, 0
			for _, d := range cfg.Doors {
				readers += len(d.Readers)
				scanners += len(d.Scanners)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "ok: controller %s, doors: %d, readers: %d, scanners: %d\n", cfg.Name, len(cfg.Doors), readers, scanners)
			return nil
		},
	}
	configFlag(cmd, &file)
	demoFlag(cmd, &demo)
	return cmd
}

// gcPercent is how much garbage there may be beside what is in use, in
// percent, unless GOGC says otherwise. Some 3 MB are in use: at Go's 100 one
// swipe in a hundred met a collection, and a backlog one for every four
// batches. It costs 5 MB.
const gcPercent = 200

func runController(cmd *cobra.Command, file string, demo bool, logs cli.LogOptions) error {
	configuration, err := config.Read(file)
	if err != nil {
		return err
	}
	cfg, err := config.ParseController(file, configuration, config.Options{Demo: demo})
	if err != nil {
		return cli.ReportFaults(cmd.ErrOrStderr(), err)
	}
	log, err := logs.Logger(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	log = log.With("controller", cfg.Name)
	log.Info("starting", "version", cli.Version(), "configuration", file, "data", cfg.Data)

	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	ctx := cmd.Context()
	c, err := newController(ctx, cfg, []byte(configuration), log)
	if err != nil {
		return err
	}
	registry := metrics.NewRegistry(cli.Version())
	registry.MustRegister(metrics.Collector(c.collect))
	server, err := metrics.Listen(metrics.Options{
		Listen:   cfg.HTTP.Listen,
		Registry: registry,
		Health:   c.Faults,
		Status:   func(ctx context.Context) (any, error) { return c.Status(ctx) },
		Logger:   log,
	})
	if err != nil {
		return errors.Join(err, c.Close())
	}

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.Run(ctx) })
	g.Go(func() error { return server.Run(ctx) })
	g.Go(func() error { return systemd.Watchdog(ctx, c.Alive, log) })
	g.Go(func() error {
		ready, cancel := context.WithTimeout(ctx, readyWithin)
		defer cancel()
		if err := c.Ready(ready); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("the doors do not answer: %w", err)
		}
		log.Info("ready", "doors", len(c.doors), "http", server.Addr())
		return systemd.Ready(fmt.Sprintf("%d doors", len(c.doors)))
	})
	context.AfterFunc(ctx, func() {
		if err := systemd.Stopping(); err != nil {
			log.Debug("the service manager was not told", "error", err)
		}
	})
	err = errors.Join(g.Wait(), c.Close())
	if err == nil {
		log.Info("stopped, all doors locked")
	}
	return err
}

// readyWithin bounds the start of the doors.
const readyWithin = 10 * time.Second
