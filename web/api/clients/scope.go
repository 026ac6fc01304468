package clients

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse-acs/gatehouse/internal/spelling"
)

// Scope is a right to read or to write one kind of thing, such as people:read.
// Writing does not include reading.
type Scope string

// The scopes.
const (
	ReadPeople       Scope = "people:read"
	WritePeople      Scope = "people:write"
	ReadCredentials  Scope = "credentials:read"
	WriteCredentials Scope = "credentials:write"
	ReadGroups       Scope = "groups:read"
	WriteGroups      Scope = "groups:write"
	ReadSite         Scope = "site:read" // schedules, holidays, areas and doors
	WriteSite        Scope = "site:write"
	ReadVisits       Scope = "visits:read"
	WriteVisits      Scope = "visits:write"
	ReadAudit        Scope = "audit:read"
	ReadPolicy       Scope = "policy:read"
	WritePolicy      Scope = "policy:write"
)

// Scopes are all scopes there are.
var Scopes = []Scope{
	ReadPeople, WritePeople, ReadCredentials, WriteCredentials, ReadGroups, WriteGroups, ReadSite, WriteSite,
	ReadVisits, WriteVisits, ReadAudit, ReadPolicy, WritePolicy,
}

// ParseScopes reads the names of scopes. They come back sorted, each once.
func ParseScopes(names []string) ([]Scope, error) {
	known := make([]string, len(Scopes))
	for i, s := range Scopes {
		known[i] = string(s)
	}
	var list []Scope
	for _, name := range names {
		if !slices.Contains(known, name) {
			if like := spelling.Nearest(name, known); like != "" {
				return nil, fmt.Errorf("there is no scope %q: did you mean %q?", name, like)
			}
			return nil, fmt.Errorf("there is no scope %q: use %s", name, strings.Join(known, ", "))
		}
		list = append(list, Scope(name))
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("no scope is given: use %s", strings.Join(known, ", "))
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}
