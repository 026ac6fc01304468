package visitorlog

import "io"

// Hold keeps every other process from writing to the log in dir until it is
// closed. It fails while one does: the daemon holds its log while it runs.
func Hold(dir string) (io.Closer, error) { return lockDir(dir) }
