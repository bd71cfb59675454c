package books

import (
	"strings"

	"github.com/libtnb/sqlite"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
)

// A dialect is what differs between the two databases: the driver, and the SQL that GORM does not write.
type dialect struct {
	dialector   gorm.Dialector
	like, order string
}

// dialectOf returns SQLite's dialect if url names a file, and PostgreSQL's otherwise.
func dialectOf(url string) dialect {
	if strings.HasPrefix(url, "file:") {
		return dialect{sqlite.Open(url), `author LIKE ? ESCAPE '\'`, "isbn"}
	}
	return dialect{postgres.Open(url), `author ILIKE ? ESCAPE '\'`, `isbn COLLATE "C"`}
}
