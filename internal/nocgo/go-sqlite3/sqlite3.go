// Package sqlite3 is empty, and that is its purpose. gorm.io/driver/sqlite imports github.com/mattn/go-sqlite3 even
// when it is told to use another driver, and with a C compiler about, the first go run ./database4 would compile all
// of SQLite's C code for nothing. A replace line in go.mod puts this package in its place; the driver that Penny uses
// is modernc.org/sqlite, which is SQLite in Go.
package sqlite3
