package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"github.com/gatehouse-acs/gatehouse/access/registry"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/config"
	"github.com/gatehouse-acs/gatehouse/internal/control"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/metrics"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/internal/systemd"
	"github.com/gatehouse-acs/gatehouse/sync/allowlist/publisher"
	"github.com/gatehouse-acs/gatehouse/sync/broker"
	"github.com/gatehouse-acs/gatehouse/sync/command/sender"
	"github.com/gatehouse-acs/gatehouse/sync/ingest"
	"github.com/gatehouse-acs/gatehouse/sync/mqtt"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
	"github.com/gatehouse-acs/gatehouse/visitorlog/central"
	"github.com/gatehouse-acs/gatehouse/web/api"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const defaultConfig = "/etc/gatehouse/gatehouse-crm.toml"

func configFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "config", defaultConfig, "configuration `file`")
	cobra.CheckErr(cmd.MarkFlagFilename("config", "toml"))
}

func newRunCmd() *cobra.Command {
	var file string
	var logs cli.LogOptions
	cmd := &cobra.Command{
		Use:     "run",
		Short:   "Receive, verify, store and countersign records",
		Long:    "Receive, verify, store and countersign records until SIGTERM or Ctrl-C.",
		Example: "  gatehouse-crm run --config /etc/gatehouse/gatehouse-crm.toml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			syscall.Umask(0o077) // whatever is created here is nobody else's
			cfg, err := config.LoadCRM(file)
			if err != nil {
				return cli.ReportFaults(cmd.ErrOrStderr(), err)
			}
			log, err := logs.Logger(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			log.Info("starting", "version", cli.Version(), "configuration", file, "data", cfg.Data)
			return runCRM(cmd.Context(), cfg, log)
		},
	}
	configFlag(cmd, &file)
	logs.Flags(cmd)
	return cmd
}

func newCheckCmd() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:     "check",
		Short:   "Check a configuration, and tell every fault with its line",
		Example: "  gatehouse-crm check --config gatehouse-crm.toml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.LoadCRM(file)
			if err != nil {
				return cli.ReportFaults(cmd.ErrOrStderr(), err)
			}
			where := "broker inside on " + cfg.MQTT.Listen
			if cfg.MQTT.Broker != "" {
				where = "broker " + cfg.MQTT.Broker
			}
			fmt.Fprintf(cmd.OutOrStdout(), "ok: data in %s, %s\n", cfg.Data, where)
			return nil
		},
	}
	configFlag(cmd, &file)
	return cmd
}

// crm is the daemon: broker, connection, ingester and store, wired.
type crm struct {
	cfg       *config.CRM
	log       *slog.Logger
	site      *pki.Site
	keys      *keys.CRMKeys
	store     *central.Store
	broker    *broker.Broker // nil: it runs elsewhere
	conn      *mqtt.Conn
	ingester  *ingest.Ingester
	registry  *registry.Registry
	publisher *publisher.Publisher
	policy    *policyDesk // the publisher, for the API
	api       *api.API    // nil: it is off
	commands  *sender.Sender
	socket    *control.Server
	renewals  chan request // for certificates
}

// gcPercent is how much garbage there may be beside what is in use, in
// percent, unless GOGC says otherwise. What the CRM keeps in memory is a few
// megabytes, and batches pass through: at Go's 100 a fifth of the time of a
// large backlog went into collecting them.
const gcPercent = 400

func runCRM(ctx context.Context, cfg *config.CRM, log *slog.Logger) (err error) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	c := &crm{cfg: cfg, log: log}
	if c.site, c.keys, err = openRegistryKeys(cfg.Data); err != nil {
		return err
	}
	release, err := lock(cfg.Data)
	if err != nil {
		return err
	}
	defer release()
	log.Info("keys", "provider", "file", "cosigner", c.site.Cosigner.VKey())
	if c.keys.PolicyRoot != nil {
		log.Warn("the policy root key is on this machine: move policy-root.key to one that is not on a network")
	}
	c.store, err = openCentral(ctx, cfg.Data, central.Options{
		Cosigner:    c.keys.Cosigner.Note(),
		SilentAfter: cfg.Alarms.SilentAfter,
		Alarm:       c.alarm,
		Logger:      log,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.store.Close()) }()
	if err := c.connect(); err != nil {
		return err
	}
	c.ingester = ingest.New(ingest.Options{
		Store: c.store, Publisher: c.conn, Receipts: c.keys.Cosigner.Receipts(), Logger: log,
	})
	if c.registry, err = openRegistry(ctx, cfg.Data, c.keys); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.registry.Close()) }()
	if err := c.openPolicy(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.publisher.Close()) }()
	if err := c.openCommands(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.socket.Close()) }()
	apiServer, closeAPI, err := c.openAPI(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAPI()) }()
	collectors := metrics.NewRegistry(cli.Version())
	collectors.MustRegister(metrics.Collector(c.collect))
	server, err := metrics.Listen(metrics.Options{
		Listen:   cfg.HTTP.Listen,
		Registry: collectors,
		Health:   c.Faults,
		Status:   func(ctx context.Context) (any, error) { return c.Status(ctx) },
		Logger:   log,
	})
	if err != nil {
		return err
	}
	return c.run(ctx, server, apiServer)
}

// lock makes sure that one daemon works in a folder: two would countersign
// beside each other.
func lock(data string) (release func() error, err error) {
	path := filepath.Join(data, "crm.lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another gatehouse-crm works in %s", data)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f.Close, nil
}

// connect opens the broker, or the way to the one elsewhere.
func (c *crm) connect() error {
	url := c.cfg.MQTT.Broker
	verify := url // the broker's certificate names it
	if c.cfg.MQTT.Listen != "" {
		if err := c.listen(); err != nil {
			return err
		}
		url, verify = "tls://"+reach(c.broker.Addr()), c.site.Broker
	}
	tlsConfig := func() (*tls.Config, error) { return pki.CRMTLS(c.cfg.Data, c.keys.CRM, verify, time.Now) }
	if _, err := tlsConfig(); err != nil {
		return err
	}
	var err error
	c.conn, err = mqtt.New(mqtt.Config{
		Broker:        url,
		ClientID:      wire.CRM,
		TLS:           tlsConfig,
		Subscriptions: []string{wire.UpFilter()},
		OnConnect:     func(context.Context) { c.publisher.Connected() },
		Logger:        c.log,
		Queue:         messageQueue,
	})
	return err
}

// reach is an address at which this machine reaches its own listener.
func reach(listening net.Addr) string {
	a, ok := listening.(*net.TCPAddr)
	if !ok || !a.IP.IsUnspecified() {
		return listening.String()
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(a.Port))
}

// messageQueue is how many messages may wait for the ingester, which queues
// for each controller in turn.
const messageQueue = 4096

func (c *crm) listen() error {
	if c.keys.Broker == nil {
		return errors.New("there is no broker.key, so no broker inside: name another in [mqtt], or run gatehouse-crm pki init")
	}
	tlsConfig, err := pki.BrokerTLS(c.cfg.Data, c.keys.Broker, time.Now)
	if err != nil {
		return err
	}
	c.broker, err = broker.Listen(broker.Config{
		Listen: c.cfg.MQTT.Listen,
		TLS:    tlsConfig,
		Revoked: func(name string) bool {
			if name == wire.CRM {
				return false
			}
			ctx, cancel := context.WithTimeout(context.Background(), revokedWithin)
			defer cancel()
			err := c.store.May(ctx, name)
			return errors.Is(err, central.ErrRevoked) || errors.Is(err, central.ErrUnknownController)
		},
		Logger: c.log,
	})
	return err
}

const revokedWithin = 2 * time.Second

// alarm tells of an alarm in the log; it stands in the store.
func (c *crm) alarm(a central.Alarm) {
	c.log.Warn("alarm", "kind", string(a.Kind), "alarm_controller", a.Controller, "epoch", a.Epoch, "detail", a.Detail, "count", strconv.Itoa(a.Count))
}

func (c *crm) run(ctx context.Context, server *metrics.Server, apiServer *api.Server) error {
	g, ctx := errgroup.WithContext(ctx)
	if c.broker != nil {
		g.Go(func() error { return c.broker.Run(ctx) })
		c.log.Info("broker inside", "address", c.broker.Addr().String())
	}
	g.Go(func() error { return c.conn.Run(ctx) })
	g.Go(func() error { return c.store.Run(ctx) })
	g.Go(func() error { return c.ingester.Run(ctx) })
	g.Go(func() error { return c.publisher.Run(ctx) })
	g.Go(func() error { return server.Run(ctx) })
	g.Go(func() error { return c.tend(ctx) })
	g.Go(func() error { return c.serveCommands(ctx) })
	g.Go(func() error { return c.renew(ctx) })
	if apiServer != nil {
		g.Go(func() error { return apiServer.Run(ctx) })
	}
	g.Go(func() error { return systemd.Watchdog(ctx, c.Alive, c.log) })
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case m := <-c.conn.Messages():
				c.handle(ctx, m)
			}
		}
	})
	c.log.Info("ready", "http", server.Addr())
	if err := systemd.Ready("receiving records"); err != nil {
		c.log.Warn("the service manager was not told", "error", err)
	}
	context.AfterFunc(ctx, func() {
		if err := systemd.Stopping(); err != nil {
			c.log.Debug("the service manager was not told", "error", err)
		}
	})
	err := g.Wait()
	if err == nil {
		c.log.Info("stopped")
	}
	return err
}
