package pgtest

import (
	"os"
	"strings"
	"testing"
)

func TestEachTestHasADatabaseOfItsOwnWhichIsDroppedAfterIt(t *testing.T) {
	var name string
	t.Run("inside", func(t *testing.T) {
		first, second := BooksURL(t), URL(t)
		Exec(t, first, "DELETE FROM books")
		books, tables := -1, -1
		Query(t, BooksURL(t), "SELECT count(*) FROM books", &books)
		Query(t, second, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", &tables)
		if books != 3 || tables != 0 {
			t.Errorf("another test's database has %d books, an empty one %d tables", books, tables)
		}
		Query(t, first, "SELECT current_database()", &name)
	})
	left := -1
	Query(t, Admin(t), "SELECT count(*) FROM pg_database WHERE datname = '"+name+"'", &left)
	if left != 0 {
		t.Errorf("the database %s is left", name)
	}
}

func TestTheUsersOwnSettingsAreForgotten(t *testing.T) {
	for _, setting := range os.Environ() {
		if strings.HasPrefix(setting, "PG") {
			t.Errorf("%.6s… is still set", setting)
		}
	}
}
