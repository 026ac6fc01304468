package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/door"
	"github.com/gatehouse-acs/gatehouse/internal/control"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/sync/command/sender"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
)

// The request of gatehouse-crm command, and its arguments.
const (
	doCommand = "command"

	argAction     = "action"
	argController = "controller"
	argDoor       = "door"
	argBy         = "by"
	argWhy        = "why"
	argLevel      = "level"
	argPerson     = "person"
	argKind       = "kind"
	argHost       = "host"
	argArea       = "area"
	argCount      = "count"
	argDigits     = "digits"
)

const (
	minDigits = 6
	maxDigits = 8
)

// openCommands makes what sends commands, and the socket on which they are asked
// for.
func (c *crm) openCommands() (err error) {
	c.commands = sender.New(sender.Options{
		Store: c.store, Publisher: c.conn, Logger: c.log,
		Authority: func() (*sender.Authority, error) {
			p, err := pki.OpenPolicy(c.cfg.Data, time.Now())
			if err != nil {
				return nil, err
			}
			signer, err := p.Signer.As(keys.TypeCommand)
			if err != nil {
				return nil, err
			}
			return &sender.Authority{JWS: p.Authority, Commands: signer}, nil
		},
	})
	c.renewals = make(chan request, renewals)
	c.socket, err = control.Listen(filepath.Join(c.cfg.Data, control.SocketName))
	return err
}

// serveCommands answers gatehouse-crm command until ctx ends. Records are received
// without it, too.
func (c *crm) serveCommands(ctx context.Context) error {
	if err := c.socket.Serve(ctx, c.serveCommand); err != nil {
		c.log.Error("gatehouse-crm command cannot be used any more", "error", err)
	}
	return nil
}

func (c *crm) serveCommand(ctx context.Context, r control.Request, t *control.Conn) error {
	if r.Do != doCommand {
		return fmt.Errorf("the daemon knows no %q: is it of another version than this command?", r.Do)
	}
	command, err := commandOf(r.Args)
	if err != nil {
		return err
	}
	a := answered{Controller: command.Controller, Door: command.Door}
	if command.Action == wire.ActionCode {
		if a.Code, command.Code, err = c.guardCode(&command, r.Args[argDigits]); err != nil {
			return err
		}
	}
	id, done, err := c.commands.Send(ctx, command)
	a.ID = id
	switch {
	case err == nil:
		a.Time = &done.Time
		a.Outcome, a.Detail = outcomeDone, ""
		if why, refused := strings.CutPrefix(done.Result, "refused: "); refused {
			a.Outcome, a.Detail = outcomeRefused, why
		}
	case errors.Is(err, sender.ErrOffline):
		a.Outcome, a.Detail = outcomeOffline, err.Error()
	case errors.Is(err, sender.ErrNoAnswer):
		a.Outcome, a.Detail = outcomeUnknown, err.Error()
	default:
		a.Outcome, a.Detail = outcomeFailed, err.Error()
	}
	if a.Outcome != outcomeDone {
		a.Code = "" // whether the door knows it or not: nobody is to try
	}
	return t.Result(a)
}

// commandOf reads the arguments of a request.
func commandOf(args map[string]string) (wire.Command, error) {
	c := wire.Command{
		Controller: args[argController], Action: wire.Action(args[argAction]), Door: args[argDoor],
		Operator: args[argBy], Why: args[argWhy],
		Person: args[argPerson], Kind: access.Kind(args[argKind]), Host: args[argHost], Area: args[argArea],
	}
	if level := args[argLevel]; level != "" {
		n, err := strconv.ParseUint(level, 10, 8)
		if err != nil || access.Threat(n) > access.MaxThreat {
			return c, fmt.Errorf("--level %q: want 0 to %d", level, access.MaxThreat)
		}
		c.Threat = access.Threat(n)
	}
	if count := args[argCount]; count != "" {
		n, err := strconv.ParseUint(count, 10, 31)
		if err != nil {
			return c, fmt.Errorf("--count %q: want how many people", count)
		}
		c.Count = int(n)
	}
	return c, nil
}

// guardCode draws a code for a door, and gives what is sent of it: the keyed hash,
// with the pepper of that controller alone.
func (c *crm) guardCode(command *wire.Command, digits string) (code, hash string, err error) {
	n, err := strconv.Atoi(digits)
	if err != nil || n < minDigits || n > maxDigits {
		return "", "", fmt.Errorf("--digits %q: want %d to %d", digits, minDigits, maxDigits)
	}
	pepper, err := pki.ReadPepper(c.cfg.Data, command.Controller)
	if err != nil {
		return "", "", err
	}
	bound := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil)
	drawn, err := rand.Int(rand.Reader, bound)
	if err != nil {
		return "", "", err
	}
	code = fmt.Sprintf("%0*d", n, drawn)
	index := door.CodeIndex(pepper, command.Door, []byte(code))
	return code, hex.EncodeToString(index[:]), nil
}
