package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"

	"example.com/penny"
	"example.com/penny/internal/dburl"
)

// The index needs the operators of pg_trgm, whose schema is often not in the search_path.
var postgresShop = shop{
	open:  openPostgres,
	clear: clearPostgres,
	insert: `INSERT INTO books SELECT '9' || lpad(i::text, 12, '0'), 'Author ' || lpad(i::text, 7, '0'), 'The Collected Works, volume ' || i
		FROM generate_series($1::int, $2::int) AS i`,
	index: `CREATE EXTENSION IF NOT EXISTS pg_trgm;
		DO $$ BEGIN EXECUTE (SELECT format('CREATE INDEX books_author ON books USING gin (author %I.gin_trgm_ops)', nspname)
			FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'pg_trgm'); END $$`,
	after: `VACUUM ANALYZE books`,
}

func openPostgres(address string) (*sql.DB, error) {
	dsn, err := dburl.PGX(address)
	if err != nil {
		return nil, err
	}
	return sql.Open("pgx", dsn)
}

// lockTimeout is how long lab load waits for others that use the books table.
const lockTimeout = 5 * time.Second

// clearPostgres drops the books table of the first schema in the search_path, with all that depends on it.
func clearPostgres(ctx context.Context, db *sql.DB, tx *sql.Tx, agreed func([]string) bool) error {
	// One lab load at a time: the second would wait for a table that the first has dropped. It waits as long as the first works.
	if _, err := tx.ExecContext(ctx, fmt.Sprintf(`SELECT pg_advisory_xact_lock(hashtext('penny.sql')); SET LOCAL lock_timeout = %d`,
		lockTimeout.Milliseconds())); err != nil {
		return fmt.Errorf("wait for another lab load: %w", err)
	}
	schema, table, exists, err := findBooks(ctx, tx)
	if err != nil {
		return err
	}
	// penny.sql drops the first books table of the search_path: that must not be one of another schema.
	if _, err := tx.ExecContext(ctx, `SELECT set_config('search_path', quote_ident($1), true)`, schema); err != nil || !exists {
		return err
	}
	err = dropBooks(ctx, tx, table, agreed)
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok && refused.Code == "55P03" { // the wait for a lock was too long
		_ = tx.Rollback() // so that we hold no lock ourselves
		return holders(ctx, db, table, err)
	}
	return err
}

// dropBooks drops the table if the user agrees to what is lost. It looks twice: first without locking others out, because the
// table may stay, then with a lock, so that nobody changes the table until it is gone.
func dropBooks(ctx context.Context, tx *sql.Tx, table string, agreed func([]string) bool) error {
	for _, mode := range []string{"ACCESS SHARE", "ACCESS EXCLUSIVE"} {
		if _, err := tx.ExecContext(ctx, `LOCK TABLE `+table+` IN `+mode+` MODE`); err != nil {
			return fmt.Errorf("lock the books table: %w", err)
		}
		lost, err := lostWith(ctx, tx, table)
		if err != nil {
			return err
		}
		if !agreed(lost) {
			return errNotAgreed
		}
	}
	if _, err := tx.ExecContext(ctx, `DROP TABLE `+table+` CASCADE`); err != nil {
		return fmt.Errorf("drop the books table: %w", err)
	}
	return nil
}

// findBooks returns the schema of the books, the table's quoted name, and whether it exists. If the books cannot be loaded
// there, its error says why.
func findBooks(ctx context.Context, tx *sql.Tx) (schema, table string, exists bool, err error) {
	var user, searchPath, other, owner string
	var readOnly, mayCreate, owns bool
	if err := tx.QueryRowContext(ctx, `
		SELECT current_user, current_setting('search_path'), current_setting('transaction_read_only') = 'on',
			COALESCE(n.nspname, ''), COALESCE(quote_ident(n.nspname) || '.books', ''), COALESCE(has_schema_privilege(n.oid, 'CREATE'), false), c.oid IS NOT NULL,
			CASE WHEN c.relkind IN ('r', 'p') THEN '' ELSE COALESCE(pg_describe_object('pg_class'::regclass, c.oid, 0), '') END,
			COALESCE(pg_get_userbyid(c.relowner), ''), COALESCE(pg_has_role(c.relowner, 'USAGE'), true)
		FROM (SELECT to_regclass('books')::oid AS books) AS found
		LEFT JOIN pg_class c ON c.oid = books
		LEFT JOIN pg_namespace n ON n.oid = c.relnamespace OR c.oid IS NULL AND n.nspname = current_schema()`).
		Scan(&user, &searchPath, &readOnly, &schema, &table, &mayCreate, &exists, &other, &owner, &owns); err != nil {
		return "", "", false, fmt.Errorf("look for the books table: %w", err)
	}
	switch {
	case readOnly:
		err = &hinted{errors.New("the database is read-only: the server is a standby, or default_transaction_read_only is on"),
			"use the address of the primary; or, if the setting is not on purpose, add default_transaction_read_only=off after the ? of DATABASE_URL"}
	case schema == "":
		err = &hinted{fmt.Errorf("the user %s may use no schema of the search_path %s", user, searchPath),
			fmt.Sprintf("if it is wrong, add search_path=public after the ? of DATABASE_URL; otherwise, as the owner of the database: "+
				"CREATE SCHEMA IF NOT EXISTS public; GRANT USAGE, CREATE ON SCHEMA public TO %s;", pgx.Identifier{user}.Sanitize())}
	case other != "":
		err = &hinted{fmt.Errorf("there is a %s, which is not a table", other), "use another database, or rename it"}
	case !owns:
		err = &hinted{fmt.Errorf("the table %s belongs to %s, and the user %s may not replace it", table, owner, user),
			"use the address of its owner, or another database"}
	case !mayCreate:
		err = &hinted{fmt.Errorf("the user %s may not create tables in the schema %s", user, schema),
			fmt.Sprintf("as the owner of the database: GRANT CREATE ON SCHEMA %s TO %s;", pgx.Identifier{schema}.Sanitize(), pgx.Identifier{user}.Sanitize())}
	}
	return schema, table, exists, err
}

// lostWith returns what is lost with the table, a line each: the books, columns and settings that penny.sql's table does not
// have, and all that depends on the table.
func lostWith(ctx context.Context, tx *sql.Tx, table string) ([]string, error) {
	columns, err := lines(ctx, tx, otherColumns, table)
	if err != nil {
		return nil, fmt.Errorf("compare the columns: %w", err)
	}
	things, err := lines(ctx, tx, otherThings, table)
	if err != nil {
		return nil, fmt.Errorf("look for what depends on the books table: %w", err)
	}
	books, err := otherBooks(ctx, tx, len(columns) == 0)
	return append(append(books, columns...), things...), err
}

// lines returns the answers to a query about a table.
func lines(ctx context.Context, tx *sql.Tx, query, table string) (all []string, err error) {
	rows, err := tx.QueryContext(ctx, query, table)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return nil, err
		}
		all = append(all, line)
	}
	return all, rows.Err()
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
	SELECT 'pg_class'::regclass, indexrelid FROM pg_index JOIN books ON indrelid = oid
	WHERE pg_get_indexdef(indexrelid) ~ '^CREATE INDEX books_author ON [^ ]+ USING gin [(]author ([^ ]+[.])?gin_trgm_ops[)]$'
	UNION ALL
	SELECT 'pg_attrdef'::regclass, d.oid FROM pg_attrdef d JOIN books ON adrelid = books.oid -- among the columns
)
SELECT 'its ' || setting || ' is ' || COALESCE(value, 'NULL') FROM books, jsonb_each_text(to_jsonb(books)
	|| jsonb_build_object('owner', pg_get_userbyid(relowner))) AS have (setting, value)
JOIN (VALUES ('owner', current_user::text), ('relkind', 'r'), ('relpersistence', 'p'), ('relrowsecurity', 'false'), ('relforcerowsecurity', 'false'), ('relreplident', 'd'),
	('reltablespace', '0'), ('reloptions', NULL)) AS penny (setting, want) USING (setting) WHERE value IS DISTINCT FROM want
UNION ALL SELECT 'no PRIMARY KEY (isbn)' FROM books
	WHERE NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = books.oid AND pg_get_constraintdef(oid) = 'PRIMARY KEY (isbn)')
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
	FROM (SELECT DISTINCT class, object, part FROM gone) AS things
	JOIN pg_description ON classoid = class AND objoid = object AND part IN (0, objsubid)
UNION ALL (
	SELECT DISTINCT pg_describe_object(class, object, part) FROM gone
	WHERE NOT internal AND (class, object) NOT IN (SELECT class, object FROM penny) ORDER BY 1
)`

// holders returns an error that says who holds the books table, as far as the server tells.
func holders(ctx context.Context, db *sql.DB, table string, err error) error {
	var who, end *string
	if db.QueryRowContext(ctx, `
		SELECT string_agg('process ' || pid || COALESCE(' of the user ' || usename, '') || COALESCE(', application ' || NULLIF(application_name, ''), '')
				|| COALESCE(', in a transaction for ' || date_trunc('second', clock_timestamp() - xact_start), ''), '; '),
			string_agg('pg_terminate_backend(' || pid || ')', ', ')
		FROM pg_stat_activity WHERE pid IN (SELECT pid FROM pg_locks WHERE granted AND relation = to_regclass($1)
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))`, table).Scan(&who, &end) != nil || who == nil {
		return &hinted{fmt.Errorf("another session has locked the books table, or what depends on it: %w", err), "try again"}
	}
	return &hinted{fmt.Errorf("the table %s is in use by %s", table, *who),
		"end its transaction, or close that program; as the same user or an administrator: SELECT " + *end + ";"}
}

// loadIfMissing loads penny.sql at address if there is nothing called books, and reports whether it did.
func loadIfMissing(ctx context.Context, address string) (loaded bool, err error) {
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		return false, fmt.Errorf("load penny.sql: %w", err)
	}
	defer conn.Close(context.Background())
	if err = conn.QueryRow(ctx, `SELECT to_regclass('books') IS NULL`).Scan(&loaded); err == nil && loaded {
		_, err = conn.Exec(ctx, penny.SQL)
	}
	if err != nil {
		return false, fmt.Errorf("load penny.sql: %w", err)
	}
	return loaded, nil
}
