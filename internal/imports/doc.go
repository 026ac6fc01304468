// Package imports holds the architecture: a test parses every Go file of the
// module and compares what it imports with one table.
package imports
