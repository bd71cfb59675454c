package edge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"example.com/penny"
	"example.com/penny/internal/dburl"
)

// Knock returns a store that asks once whether the server at address is PostgreSQL before it asks for books. lib/pq takes
// the first bytes of any other answer for a length, and allocates more than a gigabyte for what a web server sends.
func Knock(store penny.Store, address string) penny.Store {
	target, err := dburl.Parse(address)
	if err != nil || len(target.Hosts) != 1 { // the driver tries several hosts in turn, and knows best which
		return store
	}
	k := &knocking{Store: store}
	k.network, k.address = target.Hosts[0].Network()
	return k
}

type knocking struct {
	penny.Store
	network, address string
	known            atomic.Bool // that it is PostgreSQL
}

// ByAuthor returns the store's books, or an error if the server is not PostgreSQL.
func (k *knocking) ByAuthor(ctx context.Context, prefix string, limit int) ([]penny.Book, error) {
	if !k.known.Load() {
		if err := knock(ctx, k.network, k.address); err != nil {
			return nil, fmt.Errorf("connect: %w", err)
		}
		k.known.Store(true)
	}
	return k.Store.ByAuthor(ctx, prefix, limit)
}

// knock asks a server whether it can encrypt. PostgreSQL answers with one letter. SSH also begins with an S, but sends more.
func knock(ctx context.Context, network, address string) error {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })()
	if _, err := conn.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47}); err != nil { // SSLRequest
		return err
	}
	answer := make([]byte, 2)
	n, err := conn.Read(answer)
	if err != nil {
		return err
	}
	if a := string(answer[:n]); a != "S" && a != "N" && a[0] != 'E' { // yes, no, or an error
		return errors.New("unexpected response to SSLRequest: this is not PostgreSQL")
	}
	return nil
}
