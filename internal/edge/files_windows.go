package edge

// MostConnections returns how many visitors may be connected at once. Windows sets no limit of its own.
func MostConnections() int64 { return 10_000 }
