package api

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/access/registry"
	"github.com/gatehouse-acs/gatehouse/internal/fields"
	"github.com/gatehouse-acs/gatehouse/web/api/clients"
)

const (
	defaultLimit = 100
	maxLimit     = 500
)

// table is what all tables of the registry can do.
type table[T any] interface {
	Get(ctx context.Context, id string) (registry.Row[T], error)
	List(ctx context.Context, p registry.Page) ([]registry.Row[T], error)
	Create(ctx context.Context, c registry.Change, v T) (registry.Row[T], error)
	Update(ctx context.Context, c registry.Change, id string, version uint64, f func(*T) error) (registry.Row[T], error)
	Remove(ctx context.Context, c registry.Change, id string, version uint64) error
}

// resource is one kind of object, as it is listed, read, made, changed and
// removed.
type resource[T any] struct {
	plural      string // in paths
	registry    *registry.Registry
	table       table[T]
	id          func(*T) *string
	prefix      string                   // of the ids that are made up; "": the caller names it
	shown       []string                 // fields that nobody writes
	names       map[string]registry.Kind // queries for those that name another
	read, write clients.Scope
	stays       bool          // it is not removed
	guided      bool          // it is made and changed by actions alone
	viewed      registry.Kind // whose reading stands in the audit; "": it tells of nobody
	// decode makes an object of a body; nil: by its fields.
	decode func(body map[string]any, v *T) error
}

func (k resource[T]) routes() []route {
	all, single := "/v1/"+k.plural, "/v1/"+k.plural+"/{id}"
	routes := []route{
		{method: http.MethodGet, path: all, scopes: []clients.Scope{k.read}, query: k.queries(), do: k.list},
		{method: http.MethodGet, path: single, scopes: []clients.Scope{k.read}, do: k.get},
	}
	if k.guided {
		return routes
	}
	routes = append(routes,
		route{method: http.MethodPost, path: all, scopes: []clients.Scope{k.write}, changes: true, media: []string{typeJSON}, do: k.create},
		route{method: http.MethodPatch, path: single, scopes: []clients.Scope{k.write}, changes: true, media: []string{typePatch}, do: k.change})
	if !k.stays {
		routes = append(routes, route{method: http.MethodDelete, path: single, scopes: []clients.Scope{k.write}, changes: true, do: k.remove})
	}
	return routes
}

func (k resource[T]) queries() []string {
	list := []string{"cursor", "limit"}
	for name := range k.names {
		list = append(list, name)
	}
	return list
}

// viewed puts into the audit who looks at something that tells of people.
func (c *call) viewed(r *registry.Registry, v registry.View) error {
	if v.Kind == "" {
		return nil
	}
	v.By = c.client.Name
	return r.Viewed(c.Context(), v)
}

// filter is which part of a list a query asks for, page or no page, by names.
func filter(query url.Values) (string, error) {
	asked := maps.Clone(query)
	asked.Del("cursor")
	asked.Del("limit")
	for name := range asked {
		if !fields.IsName(asked.Get(name)) {
			return "", problem("malformed", "%s: %s", name, fields.NameRule)
		}
	}
	return asked.Encode(), nil
}

// ofRow is the answer that is an object.
func ofRow[T any](row registry.Row[T]) *answer {
	return &answer{status: http.StatusOK, header: http.Header{"Etag": {row.ETag()}}, body: row}
}

// Written is what a change is answered with. What the object says is for those
// who may read it, whose reading stands in the audit.
type Written struct {
	ID      string    `json:"id"`
	Version uint64    `json:"version"`
	Changed time.Time `json:"changed"`
}

// wrote is the answer to a change; where there is an error, it is that.
func wrote[T any](id string, row registry.Row[T], err error) (*answer, error) {
	if err != nil {
		return nil, err
	}
	return &answer{status: http.StatusOK, header: http.Header{"Etag": {row.ETag()}}, body: Written{id, row.Version, row.Changed}}, nil
}

// made is wrote for what is new, and says where it is.
func made[T any](plural, id string, row registry.Row[T], err error) (*answer, error) {
	a, err := wrote(id, row, err)
	if err != nil {
		return nil, err
	}
	a.status = http.StatusCreated
	a.header.Set("Location", "/v1/"+plural+"/"+url.PathEscape(id))
	return a, nil
}

func (k resource[T]) get(c *call) (*answer, error) {
	id := c.PathValue("id")
	row, err := k.table.Get(c.Context(), id)
	if err != nil {
		return nil, err
	}
	if err := c.viewed(k.registry, registry.View{Kind: k.viewed, ID: id}); err != nil {
		return nil, err
	}
	if matches(c.Header.Get("If-None-Match"), row.ETag()) {
		return &answer{status: http.StatusNotModified, header: http.Header{"Etag": {row.ETag()}}}, nil
	}
	return ofRow(row), nil
}

// matches says whether a header of If-None-Match names a tag.
func matches(header, tag string) bool {
	for one := range strings.SplitSeq(header, ",") {
		if one = strings.TrimPrefix(strings.TrimSpace(one), "W/"); one == "*" || one == tag {
			return true
		}
	}
	return false
}

// listed is a part of a list.
type listed[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"` // the cursor of the next part; "": this was the last
}

func (k resource[T]) list(c *call) (*answer, error) {
	query := c.URL.Query()
	after, limit, err := page(query)
	if err != nil {
		return nil, err
	}
	p := registry.Page{After: after, Limit: limit + 1}
	for name, kind := range k.names {
		if !query.Has(name) {
			continue
		}
		if p.Names != nil {
			return nil, problem("malformed", "ask by one of these: %s", strings.Join(slices.Sorted(maps.Keys(k.names)), ", "))
		}
		p.Names = &registry.Reference{Kind: kind, ID: query.Get(name)}
	}
	asked, err := filter(query)
	if err != nil {
		return nil, err
	}
	rows, err := k.table.List(c.Context(), p)
	if err != nil {
		return nil, err
	}
	if err := c.viewed(k.registry, registry.View{Kind: k.viewed, Filter: asked}); err != nil {
		return nil, err
	}
	next := ""
	if len(rows) > limit {
		rows = rows[:limit]
		next = *k.id(&rows[limit-1].Value)
	}
	return paged(c, rows, next), nil
}

// page reads which part of a list is wanted.
func page(query url.Values) (after string, limit int, err error) {
	limit = defaultLimit
	if text := query.Get("limit"); query.Has("limit") {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > maxLimit {
			return "", 0, problem("malformed", "limit is not a number from 1 to %d", maxLimit)
		}
	}
	if text := query.Get("cursor"); query.Has("cursor") {
		b, err := base64.RawURLEncoding.Strict().DecodeString(text)
		if err != nil || !fields.IsName(string(b)) {
			return "", 0, problem("malformed", "the cursor is none that was given out")
		}
		after = string(b)
	}
	return after, limit, nil
}

// paged is a part of a list; after its last element, next, there is more unless
// it is "".
func paged[T any](c *call, items []T, next string) *answer {
	out := listed[T]{Items: items}
	if items == nil {
		out.Items = []T{}
	}
	a := &answer{status: http.StatusOK}
	if next != "" {
		out.Next = base64.RawURLEncoding.EncodeToString([]byte(next))
		query := c.URL.Query()
		query.Set("cursor", out.Next)
		a.header = http.Header{"Link": {fmt.Sprintf(`<%s?%s>; rel="next"`, c.URL.EscapedPath(), query.Encode())}}
	}
	a.body = out
	return a
}

func (k resource[T]) create(c *call) (*answer, error) {
	object, err := k.fields(c)
	if err != nil {
		return nil, err
	}
	var v T
	decode := k.decode
	if decode == nil {
		decode = func(object map[string]any, v *T) error { return decodeTree(object, v) }
	}
	if err := decode(object, &v); err != nil {
		return nil, errBody(err)
	}
	id := k.id(&v)
	ours := *id == "" && k.prefix != ""
	if ours {
		*id = c.newID(k.prefix)
	}
	row, err := k.table.Create(c.Context(), c.change, v)
	if ours && c.again && errors.Is(err, registry.ErrExists) {
		// Only this request makes an object of this id.
		if was, errGet := k.table.Get(c.Context(), *id); errGet == nil {
			row, err = was, nil
		}
	}
	return made(k.plural, *id, row, err)
}

// fields are those of a body, of which some cannot be written.
func (k resource[T]) fields(c *call) (map[string]any, error) {
	object, err := tree(c.body)
	if err != nil {
		return nil, errBody(err)
	}
	for _, name := range k.shown {
		if _, ok := object[name]; ok {
			return nil, errBody(&fault{name, "is not written by hand"})
		}
	}
	return object, nil
}

func (k resource[T]) change(c *call) (*answer, error) {
	version, err := c.ifMatch(true)
	if err != nil {
		return nil, err
	}
	change, err := k.fields(c)
	if err != nil {
		return nil, err
	}
	id := c.PathValue("id")
	row, err := k.table.Update(c.Context(), c.change, id, version, func(v *T) error {
		if err := patch(v, change); err != nil {
			return errBody(err)
		}
		return nil
	})
	return wrote(id, row, err)
}

func (k resource[T]) remove(c *call) (*answer, error) {
	version, err := c.ifMatch(true)
	if err != nil {
		return nil, err
	}
	if err := k.table.Remove(c.Context(), c.change, c.PathValue("id"), version); err != nil {
		return nil, err
	}
	return &answer{status: http.StatusNoContent}, nil
}

// ifMatch is the version that a change is meant for; 0: whichever. Where it is
// needed, only If-Match: * says so.
func (c *call) ifMatch(needed bool) (uint64, error) {
	text, err := one(c.Header, "If-Match")
	switch {
	case err != nil:
		return 0, err
	case text == "" && needed:
		return 0, problem("if-match", "send the ETag of what you read as If-Match, or * for whatever is there")
	case text == "", text == "*":
		return 0, nil
	}
	inner := strings.TrimSuffix(strings.TrimPrefix(text, `"`), `"`)
	version, err := strconv.ParseUint(inner, 10, 63)
	if err != nil || version == 0 || text != strconv.Quote(strconv.FormatUint(version, 10)) {
		return 0, problem("changed", "it is not of the version that If-Match names: send one ETag, as it was given")
	}
	return version, nil
}
