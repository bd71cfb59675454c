// Package pool lends out connections to PostgreSQL, so that a program opens few of them and uses each many times.
//
// The pool in many a first project is a queue: take a connection out or, when the queue is empty, open one; put it back
// when done. It works on the first day. Then a burst of callers opens more connections than the server allows; then the
// server restarts and its dead connections go round for ever; then one comes back inside a failed transaction and spoils
// the next caller's query; and nobody ever closes any. What each line here has over that queue is one of these: a bound,
// a wait in turn, a look at what comes back and at what has lain idle, another try at connecting, and an end.
//
// Much of it was learnt from others. That a connection is reused only if it is open, idle and outside a transaction is
// pgxpool's rule, and so is the check of what has lain idle for a second. That the end of one connection makes all older
// ones stale is SQLAlchemy's. Larger pools also keep connections in reserve, retire them by age, and tend to both from a
// goroutine in the background. This one does all its work in its callers' calls: it is short enough to be read in one
// sitting, and a small shop needs no more.
//
// Two mistakes no pool can mend. A call that borrows a connection and then a second one waits for ever once every
// connection is held by such a call. And a connection that is not released is lost to the others, so defer the Release:
//
//	conn, err := p.Acquire(ctx)
//	if err != nil {
//		return err
//	}
//	defer p.Release(conn)
package pool
