package books

// Opened is how many connections the Store has opened so far.
func (s *Store) Opened() int64 { return s.opened.Load() }
