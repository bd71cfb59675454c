package books

// Opened is how many connections the Store has opened so far, but for those that broke.
func (s *Store) Opened() int64 {
	stats := s.pool.Stats()
	return int64(stats.OpenConnections) + stats.MaxIdleClosed + stats.MaxIdleTimeClosed + stats.MaxLifetimeClosed
}
