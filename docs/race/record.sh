#!/bin/sh
# Records the runs and the pictures in docs again, on the PostgreSQL at DATABASE_URL, whose books it replaces, and on a
# temporary one. It takes some ten minutes. Close other programs first: each record names the load of the machine.
set -eu
cd "$(dirname "$0")/../.."
lab=$(mktemp -d)
trap 'rm -rf "$lab"' EXIT
go build -o "$lab" ./internal/cmd/lab ./database3
about() {
	echo "# $(date +%Y-%m-%d), $(uname -s) on $(nproc) cores, $(go env GOVERSION), PostgreSQL $(psql -At "$DATABASE_URL" -c 'SHOW server_version'), load $(uptime | sed 's/.*average[s]*: //')"
	echo "# $*"
	echo
}
"$lab/lab" load -yes
{ about go tool lab race -rtt 30ms -n 400; "$lab/lab" race -rtt 30ms -n 400; } > docs/race/race-30ms.txt
{ about go tool lab race -n 2000; "$lab/lab" race -n 2000; } > docs/race/race.txt
"$lab/lab" demo -pictures docs/pictures
{
	about go tool lab break, with each of its names
	for name in injection full-server leak dead-connections failed-transaction restart failover no-index transaction-pooler; do
		echo "\$ go tool lab break $name"
		"$lab/lab" break "$name" 2>/dev/null
		echo
	done
} > docs/race/break.txt
{
	about go tool lab load -books 1000000, then go run ./database3 -n 20, without and with -index
	for index in "" -index; do
		echo "\$ go tool lab load -yes -books 1000000 $index"
		"$lab/lab" load -yes -books 1000000 $index
		echo "\$ go run ./database3 -n 20"
		"$lab/database3" -n 20 2>&1 >/dev/null
	done
} > docs/race/million.txt
docs/race/million.sh < docs/race/million.txt > docs/pictures/million.svg
"$lab/lab" load -yes
{ about go test -run '^$' -bench . -count 3 ./database3/pool; go test -run '^$' -bench . -count 3 ./database3/pool; } > docs/race/pool.txt
{ about go test -run '^$' -bench . -count 3 ./pennyapp; go test -run '^$' -bench . -count 3 ./pennyapp; } > docs/race/pennyapp.txt
{
	about CI=1 go test -v ./database3/pool/pooltest, all pools side by side, and of it the promises that were not kept
	CI=1 go test -count 1 -v ./database3/pool/pooltest | sed -n 's/^ *pooltest.go:[0-9]*: \(Test.*: not kept: \)/\1/p; s/^ *pooltest.go:[0-9]*: \([A-Za-z]*: [0-9]* of [0-9]* kept\)/\1/p' | cut -c 1-300 | sort
} > docs/race/faults.txt
# These need the cluster's programs: apt install patroni etcd-server haproxy python3-etcd pgbouncer
go test -count 1 -timeout 15m ./internal/outgrow -record
