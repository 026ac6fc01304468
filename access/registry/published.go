package registry

import "context"

const actionPublish = "publish"

// Published adds a line to the audit that says who published to controllers by
// command, and why. It changes nothing that Changes counts.
func (r *Registry) Published(ctx context.Context, c Change, controllers []string) error {
	return r.write(ctx, c, func(t *tx) error {
		for _, name := range controllers {
			if err := t.line(Line{Action: actionPublish, Kind: kindController, ID: name}); err != nil {
				return err
			}
		}
		return nil
	})
}
