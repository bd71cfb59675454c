package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/schollz/progressbar/v3"

	"example.com/penny"
	"example.com/penny/internal/dburl"
)

// lockTimeout is how long lab load waits for others who use the books table.
var lockTimeout = 5 * time.Second

type postgresShop struct{ conn *pgx.Conn }

func (s *postgresShop) open(ctx context.Context, address string) (err error) {
	dsn, err := dburl.PGX(address)
	if err != nil {
		return err
	}
	if s.conn, err = pgx.Connect(ctx, dsn); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return nil
}

func (s *postgresShop) close() { s.conn.Close(context.Background()) }

func (s *postgresShop) fill(ctx context.Context, books int, index bool, bar *progressbar.ProgressBar, agreed func([]string) bool) error {
	watched, stop := s.watch(ctx)
	defer stop()
	err := s.fillWatched(watched, books, index, bar, agreed)
	if hangs := context.Cause(watched); err != nil && hangs != nil && ctx.Err() == nil {
		return hangs
	}
	return err
}

// watchEvery is how often a second connection is made while the first works, and how long that may take.
const watchEvery = 3 * time.Second

// watch returns a context that ends if the server hangs. A long statement and a server that hangs look alike on one connection,
// so watch makes a second one from time to time.
func (s *postgresShop) watch(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	config := s.conn.Config()
	go func() {
		for {
			select {
			case <-time.After(watchEvery):
			case <-ctx.Done():
				return
			}
			brief, done := context.WithTimeout(ctx, watchEvery)
			conn, err := pgx.ConnectConfig(brief, config)
			if err == nil {
				conn.Close(brief)
			} else if _, answered := errors.AsType[*pgconn.PgError](err); !answered && ctx.Err() == nil {
				cancel(fmt.Errorf("load penny.sql: %w", err))
			}
			done()
		}
	}()
	return ctx, func() { cancel(nil) }
}

func (s *postgresShop) fillWatched(ctx context.Context, books int, index bool, bar *progressbar.ProgressBar, agreed func([]string) bool) error {
	tx, err := s.conn.Begin(ctx)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer tx.Rollback(context.Background())
	// One lab load at a time: the second would wait for a table that the first has dropped.
	if _, err = tx.Exec(ctx, fmt.Sprintf(`SET LOCAL lock_timeout = %d; SELECT pg_advisory_xact_lock(hashtext('penny.sql'))`,
		lockTimeout.Milliseconds()), pgx.QueryExecModeSimpleProtocol); err != nil {
		return fmt.Errorf("wait for another lab load: %w", err)
	}
	place, err := find(ctx, tx)
	if err == nil {
		err = replace(ctx, tx, place, books, index, bar, agreed)
	}
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok && refused.Code == "55P03" { // the wait for a lock was too long
		_ = tx.Rollback(ctx)
		return s.held(ctx, place, err)
	}
	if err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if books > 0 || index {
		if _, err := s.conn.Exec(ctx, `VACUUM ANALYZE `+place.table); err != nil {
			return fmt.Errorf("the books are loaded, but VACUUM ANALYZE failed: %w", err)
		}
	}
	return nil
}

// A place is where the books are, or will be.
type place struct {
	schema string
	table  string // books with its schema, quoted
	exists bool
}

// find returns the place of the books, or an error that says why they cannot be loaded there.
func find(ctx context.Context, tx pgx.Tx) (p place, err error) {
	var user, quotedUser, searchPath, kind, owner string
	var schema, table *string
	var standby, readOnly, mayCreate, owns bool
	err = tx.QueryRow(ctx, `
		SELECT current_user, quote_ident(current_user), current_setting('search_path'), pg_is_in_recovery(), current_setting('transaction_read_only') = 'on',
			n.nspname, quote_ident(n.nspname) || '.books', COALESCE(has_schema_privilege(n.oid, 'CREATE'), false),
			c.oid IS NOT NULL, COALESCE(c.relkind::text, ''), COALESCE(pg_get_userbyid(c.relowner), ''), COALESCE(pg_has_role(c.relowner, 'USAGE'), false)
		FROM (SELECT to_regclass('books')::oid AS books) AS found
		LEFT JOIN pg_class c ON c.oid = books
		LEFT JOIN pg_namespace n ON n.oid = c.relnamespace OR c.oid IS NULL AND n.nspname = current_schema()`).
		Scan(&user, &quotedUser, &searchPath, &standby, &readOnly, &schema, &table, &mayCreate, &p.exists, &kind, &owner, &owns)
	if err != nil {
		return p, fmt.Errorf("look for the books table: %w", err)
	}
	if schema != nil {
		p.schema, p.table = *schema, *table
	}
	switch {
	case standby:
		return p, &hinted{errors.New("this server is a standby, which cannot be written to"), "use the address of the primary"}
	case readOnly:
		return p, &hinted{errors.New("the database is read-only: default_transaction_read_only is on"),
			"if that is not on purpose, add default_transaction_read_only=off to the settings behind the ? of DATABASE_URL"}
	case schema == nil:
		return p, &hinted{fmt.Errorf("the user %s may use no schema of the search_path %q", user, searchPath),
			"add search_path=public, or a schema of your own, to the settings behind the ? of DATABASE_URL"}
	case notTables[kind] != "":
		_, noun, _ := strings.Cut(notTables[kind], " ")
		return p, &hinted{fmt.Errorf("%s is %s, not a table", p.table, notTables[kind]),
			fmt.Sprintf("use another database, or rename it: ALTER %s %s RENAME TO another_name;", strings.ToUpper(noun), p.table)}
	case p.exists && !owns:
		return p, &hinted{fmt.Errorf("the table %s belongs to %s, and the user %s may not replace it", p.table, owner, user),
			"use the address of its owner, or another database"}
	case !mayCreate:
		return p, &hinted{fmt.Errorf("the user %s may not create tables in the schema %s", user, p.schema),
			fmt.Sprintf("as the owner of the database: GRANT CREATE ON SCHEMA %s TO %s;", strings.TrimSuffix(p.table, ".books"), quotedUser)}
	}
	return p, nil
}

// notTables names what can be called books and is not a table, by PostgreSQL's relkind.
var notTables = map[string]string{
	"v": "a view", "m": "a materialized view", "f": "a foreign table", "S": "a sequence", "i": "an index", "I": "an index", "c": "a type",
}

func replace(ctx context.Context, tx pgx.Tx, p place, books int, index bool, bar *progressbar.ProgressBar, agreed func([]string) bool) error {
	// penny.sql drops the first books table of the search_path: that must not be one of another schema.
	if _, err := tx.Exec(ctx, `SELECT set_config('search_path', quote_ident($1), true)`, p.schema); err != nil {
		return fmt.Errorf("choose the schema: %w", err)
	}
	if p.exists {
		// A table that stays is not locked against those who use it; one that goes does not change after the last look.
		for _, mode := range []string{"ACCESS SHARE", "ACCESS EXCLUSIVE"} {
			if _, err := tx.Exec(ctx, `LOCK TABLE `+p.table+` IN `+mode+` MODE`); err != nil {
				return fmt.Errorf("lock the books table: %w", err)
			}
			lost, err := postgresLost(ctx, tx, p.table)
			if err != nil {
				return err
			}
			if !agreed(lost) {
				return errNotAgreed
			}
		}
		if _, err := tx.Exec(ctx, `DROP TABLE `+p.table+` CASCADE`); err != nil {
			return fmt.Errorf("drop the books table: %w", err)
		}
	}
	if _, err := tx.Exec(ctx, penny.SQL, pgx.QueryExecModeSimpleProtocol); err != nil {
		return fmt.Errorf("load penny.sql: %w", err)
	}
	i := 0
	if _, err := tx.CopyFrom(ctx, pgx.Identifier{p.schema, "books"}, []string{"isbn", "author", "title"}, pgx.CopyFromFunc(func() ([]any, error) {
		if i == books {
			return nil, nil
		}
		i++
		if i%1000 == 0 {
			_ = bar.Set(i)
		}
		isbn, author, title := madeUp(i)
		return []any{isbn, author, title}, nil
	})); err != nil {
		return fmt.Errorf("copy the made-up books: %w", err)
	}
	if !index {
		return nil
	}
	var operators string
	_, err := tx.Exec(ctx, `CREATE EXTENSION IF NOT EXISTS pg_trgm`)
	if err == nil {
		err = tx.QueryRow(ctx, `SELECT quote_ident(nspname) || '.gin_trgm_ops' FROM pg_extension
			JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'pg_trgm'`).Scan(&operators)
	}
	if err == nil {
		_, err = tx.Exec(ctx, `CREATE INDEX books_author ON books USING gin (author `+operators+`)`)
	}
	if err != nil {
		return &hinted{fmt.Errorf("make the index: %w", err),
			"the index needs PostgreSQL's extension pg_trgm: load without -index, or as an administrator: CREATE EXTENSION pg_trgm;"}
	}
	return nil
}

// postgresLost returns what is lost with the table, a line each: books, columns and settings that penny.sql's table has
// not, and all that depends on them.
func postgresLost(ctx context.Context, tx pgx.Tx, table string) ([]string, error) {
	lines := func(query string) ([]string, error) {
		found, err := tx.Query(ctx, query, table)
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(found, pgx.RowTo[string])
	}
	columns, err := lines(otherColumns)
	if err != nil {
		return nil, fmt.Errorf("compare the columns: %w", err)
	}
	others, err := lines(otherThings)
	if err != nil {
		return nil, fmt.Errorf("look for what depends on the books table: %w", err)
	}
	count := countOthers
	if len(columns) > 0 { // it may lack a column
		count = countAll
	}
	var books int
	if err := tx.QueryRow(ctx, count).Scan(&books); err != nil {
		return nil, fmt.Errorf("count the books: %w", err)
	}
	return append(append(otherBooks(books), columns...), others...), nil
}

// otherColumns compares the columns of the table $1 with those of penny.sql, in their order.
const otherColumns = `
SELECT CASE WHEN want IS NULL THEN 'another column: ' || have WHEN have IS NULL THEN 'no column ' || want
	ELSE 'column ' || n || ': ' || have || ', not ' || want END
FROM (VALUES (1, 'isbn text NOT NULL'), (2, 'author text'), (3, 'title text')) AS penny (n, want)
FULL JOIN (
	SELECT row_number() OVER (ORDER BY attnum) AS n,
		quote_ident(attname) || ' ' || format_type(atttypid, atttypmod)
		|| COALESCE((SELECT ' COLLATE ' || quote_ident(collname) FROM pg_collation c WHERE c.oid = attcollation AND collname <> 'default'), '')
		|| CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END
		|| COALESCE((SELECT CASE attgenerated WHEN '' THEN ' DEFAULT ' ELSE ' GENERATED ' END || pg_get_expr(adbin, adrelid)
			FROM pg_attrdef d WHERE d.adrelid = attrelid AND d.adnum = attnum), '')
		|| CASE attidentity WHEN '' THEN '' ELSE ' IDENTITY' END AS have
	FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped
) AS books USING (n)
WHERE have IS DISTINCT FROM want ORDER BY n`

// otherThings lists what belongs to the table $1, or depends on it, and is not made by penny.sql or lab load -index. Each
// thing is in PostgreSQL's own words. A view depends on a table by its rule _RETURN, so the view is listed in its place.
const otherThings = `
WITH RECURSIVE books AS (SELECT * FROM pg_class WHERE oid = $1::text::regclass),
gone (class, object, part, internal) AS (
	SELECT 'pg_class'::regclass::oid, oid, 0, true FROM books
	UNION
	SELECT CASE WHEN v.oid IS NULL THEN d.classid ELSE 'pg_class'::regclass END, COALESCE(v.ev_class, d.objid), d.objsubid, d.deptype = 'i'
	FROM gone JOIN pg_depend d ON d.refclassid = class AND d.refobjid = object AND part IN (0, d.refobjsubid)
	LEFT JOIN pg_rewrite v ON d.classid = 'pg_rewrite'::regclass AND v.oid = d.objid AND v.rulename = '_RETURN'
	LEFT JOIN pg_class t ON d.classid = 'pg_class'::regclass AND t.oid = d.objid
	WHERE t.relkind IS DISTINCT FROM 't' -- TOAST
),
penny (class, object) AS (
	SELECT 'pg_constraint'::regclass::oid, c.oid FROM pg_constraint c JOIN books ON conrelid = books.oid
	WHERE contype = 'n' OR pg_get_constraintdef(c.oid) = 'PRIMARY KEY (isbn)' -- n is NOT NULL, since PostgreSQL 18
	UNION ALL
	SELECT 'pg_class'::regclass, c.oid FROM pg_class c JOIN pg_index i ON indexrelid = c.oid JOIN books ON indrelid = books.oid
	JOIN pg_opclass o ON o.oid = indclass[0]
	WHERE c.relname = 'books_author' AND opcname = 'gin_trgm_ops' AND indnatts = 1 AND indpred IS NULL
	AND pg_get_indexdef(c.oid, 1, false) = 'author' AND c.reloptions IS NULL
	UNION ALL
	SELECT 'pg_attrdef'::regclass, d.oid FROM pg_attrdef d JOIN books ON adrelid = books.oid -- among the columns
)
SELECT 'the owner ' || quote_ident(pg_get_userbyid(relowner)) FROM books WHERE pg_get_userbyid(relowner) <> current_user
UNION ALL SELECT 'it is unlogged' FROM books WHERE relpersistence = 'u'
UNION ALL SELECT 'it is partitioned' FROM books WHERE relkind = 'p'
UNION ALL SELECT 'row-level security' FROM books WHERE relrowsecurity
UNION ALL SELECT 'the replica identity' FROM books WHERE relreplident NOT IN ('d', 'n')
UNION ALL SELECT 'the tablespace ' || quote_ident(spcname) FROM books JOIN pg_tablespace t ON t.oid = reltablespace
UNION ALL SELECT 'the settings ' || array_to_string(reloptions, ', ') FROM books WHERE reloptions IS NOT NULL
UNION ALL SELECT 'no PRIMARY KEY (isbn)' FROM books
	WHERE NOT EXISTS (SELECT FROM penny p JOIN pg_constraint c ON p.class = 'pg_constraint'::regclass AND c.oid = object AND contype = 'p')
UNION ALL SELECT 'its parent ' || inhparent::regclass FROM books JOIN pg_inherits ON inhrelid = oid
UNION ALL SELECT 'the grant of ' || string_agg(privilege_type, ', ' ORDER BY privilege_type) || ' to '
	|| CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
	FROM (
		SELECT grantee, privilege_type FROM books, aclexplode(relacl) WHERE grantee <> relowner
		EXCEPT -- what a new table is granted by default
		SELECT grantee, privilege_type FROM books, pg_default_acl, aclexplode(defaclacl)
		WHERE pg_get_userbyid(defaclrole) = current_user AND defaclobjtype = 'r' AND defaclnamespace IN (0, relnamespace)
	) AS grants GROUP BY grantee
UNION ALL SELECT 'the grants on its column ' || quote_ident(attname) FROM books JOIN pg_attribute ON attrelid = oid WHERE attacl <> '{}'
UNION ALL SELECT 'the comment on ' || pg_describe_object(classoid, objoid, objsubid)
	FROM books JOIN pg_description ON classoid = 'pg_class'::regclass AND objoid = oid
UNION ALL (
	SELECT DISTINCT pg_describe_object(class, object, part) FROM gone
	WHERE NOT internal AND (class, object) NOT IN (SELECT class, object FROM penny) ORDER BY 1
)`

// held returns an error that says who holds the books table, as far as the server tells.
func (s *postgresShop) held(ctx context.Context, p place, err error) error {
	var who, end *string
	if s.conn.QueryRow(ctx, `
		SELECT string_agg(CASE WHEN pid IS NULL THEN 'a prepared transaction' ELSE 'process ' || pid
				|| COALESCE(' of the user ' || usename, '') || COALESCE(', application ' || NULLIF(application_name, ''), '')
				|| COALESCE(', in a transaction for ' || date_trunc('second', clock_timestamp() - xact_start), '') END, '; '),
			string_agg('pg_terminate_backend(' || pid || ')', ', ')
		FROM (SELECT DISTINCT pid FROM pg_locks
			WHERE granted AND relation = to_regclass($1) AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS holders
		LEFT JOIN pg_stat_activity USING (pid)`, p.table).Scan(&who, &end) != nil || who == nil {
		return &hinted{fmt.Errorf("another session has locked the books table, or what depends on it: %w", err), "try again"}
	}
	held := fmt.Errorf("the table %s is in use by %s", p.table, *who)
	if end == nil {
		return &hinted{held, "SELECT * FROM pg_prepared_xacts; shows it, and ROLLBACK PREPARED ends it"}
	}
	return &hinted{held, "end its transaction, or close that program; as the same user or an administrator: SELECT " + *end + ";"}
}

// loadWhereEmpty loads penny.sql at address if there is nothing called books, and reports whether it did.
func loadWhereEmpty(ctx context.Context, address string) (loaded bool, err error) {
	s := &postgresShop{}
	if err := s.open(ctx, address); err != nil {
		return false, err
	}
	defer s.close()
	var exists bool
	if err := s.conn.QueryRow(ctx, `SELECT to_regclass('books') IS NOT NULL`).Scan(&exists); err != nil || exists {
		return false, err
	}
	err = s.fill(ctx, 0, false, progressbar.DefaultSilent(0), func([]string) bool { return true })
	return err == nil, err
}
