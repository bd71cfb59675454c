package dburl

import (
	"cmp"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

var (
	pgxOnly = strings.Fields(`default_query_exec_mode statement_cache_capacity description_cache_capacity channel_binding sslpassword sslcertmode require_auth`)
	pqOnly  = strings.Fields(`binary_parameters disable_prepared_binary_result load_balance_hosts ssl_min_protocol_version ssl_max_protocol_version`)

	// dropped are settings of psql and of other programs, which neither driver knows or needs.
	dropped = strings.Fields(`client_encoding datestyle fallback_application_name gssencmode gssdelegation gsslib keepalives keepalives_idle
		keepalives_interval keepalives_count krbsrvname krbspn min_protocol_version max_protocol_version oauth_client_id
		oauth_client_secret oauth_issuer oauth_scope replication requirepeer requiressl scram_client_key scram_server_key service
		servicefile ssl sslcompression sslcrl sslcrldir sslinline sslkeylogfile tcp_user_timeout pool_max_conns pool_min_conns
		pool_min_idle_conns pool_max_conn_lifetime pool_max_conn_lifetime_jitter pool_max_conn_idle_time pool_health_check_period
		pgbouncer connection_limit pool_timeout schema sslaccept sslidentity socket_timeout prepared_statement_cache_size
		preparethreshold uselibpqcompat supa workaround`)

	// synonyms are other programs' names of a setting.
	synonyms = map[string]string{
		"pwd": "password", "passwd": "password", "pass": "password", "username": "user", "database": "dbname", "time_zone": "timezone",
	}

	// values are the allowed values of the settings that do not allow every text. # is a number.
	values = map[string]string{
		"ssl":                      "true false 1 0",
		"sslmode":                  "disable allow prefer require verify-ca verify-full",
		"sslnegotiation":           "postgres direct",
		"sslsni":                   "0 1",
		"sslcertmode":              "disable allow require",
		"target_session_attrs":     "any read-write read-only primary standby prefer-standby",
		"load_balance_hosts":       "disable random",
		"ssl_min_protocol_version": "TLSv1.0 TLSv1.1 TLSv1.2 TLSv1.3",
		"ssl_max_protocol_version": "TLSv1.0 TLSv1.1 TLSv1.2 TLSv1.3",
		"channel_binding":          "disable prefer require",
		"default_query_exec_mode":  "cache_statement cache_describe describe_exec exec simple_protocol",
		"require_auth":             "none password md5 gss sspi scram-sha-256 !none !password !md5 !gss !sspi !scram-sha-256",
		"binary_parameters":        "yes no on off true false 1 0", "disable_prepared_binary_result": "yes no on off true false 1 0",
		"connect_timeout": "#", "statement_cache_capacity": "#", "description_cache_capacity": "#",
	}

	// variables are libpq's, each with the setting that it is the default of. Those without one are for other programs.
	variables = pairs(`PGHOST=host PGHOSTADDR=hostaddr PGPORT=port PGDATABASE=dbname PGUSER=user PGPASSWORD=password PGPASSFILE=passfile
		PGSERVICE=service PGSERVICEFILE=servicefile PGOPTIONS=options PGAPPNAME=application_name PGCONNECT_TIMEOUT=connect_timeout
		PGSSLMODE=sslmode PGSSLCERT=sslcert PGSSLKEY=sslkey PGSSLROOTCERT=sslrootcert PGSSLPASSWORD=sslpassword PGSSLSNI=sslsni
		PGSSLCERTMODE=sslcertmode PGSSLNEGOTIATION=sslnegotiation PGSSLMINPROTOCOLVERSION=ssl_min_protocol_version
		PGSSLMAXPROTOCOLVERSION=ssl_max_protocol_version PGTARGETSESSIONATTRS=target_session_attrs PGLOADBALANCEHOSTS=load_balance_hosts
		PGMINPROTOCOLVERSION= PGMAXPROTOCOLVERSION= PGCHANNELBINDING=channel_binding
		PGREQUIREAUTH=require_auth PGTZ=timezone PGDATESTYLE= PGCLIENTENCODING= PGGEQO= PGREQUIRESSL= PGSSLCOMPRESSION= PGREALM=
		PGGSSENCMODE= PGGSSDELEGATION= PGGSSLIB= PGSSLCRL= PGSSLCRLDIR= PGREQUIREPEER= PGKRBSRVNAME=`)
)

func pairs(text string) map[string]string {
	all := make(map[string]string)
	for _, pair := range strings.Fields(text) {
		name, value, _ := strings.Cut(pair, "=")
		all[name] = value
	}
	return all
}

// ours are the settings that this package knows by name. Others are the server's, such as statement_timeout.
var ours = slices.Concat(pgxOnly, pqOnly, dropped, slices.Collect(maps.Values(variables)))

// taken are the variables that are not in the environment any more, with their values.
var taken sync.Map

// environment returns the settings of libpq's variables. It takes the variables out of this program's environment, because
// the drivers would read them again, each in its own way: lib/pq fails if it does not know one.
func environment() map[string]string {
	settings := make(map[string]string)
	for name, setting := range variables {
		if value, set := os.LookupEnv(name); set {
			taken.Store(name, value)
			os.Unsetenv(name)
		}
		if value, was := taken.Load(name); was && value != "" && setting != "" {
			settings[setting] = value.(string)
		}
	}
	return settings
}

// readService returns the settings of a section of the file pg_service.conf.
func readService(file, service string) (map[string]string, error) {
	if file == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, noService.with(service)
		}
		file = filepath.Join(home, ".pg_service.conf")
	}
	text, err := os.ReadFile(file)
	_, section, found := strings.Cut("\n"+string(text), "\n["+service+"]")
	if err != nil || !found {
		return nil, noService.with(service)
	}
	section, _, _ = strings.Cut(section, "\n[")
	settings := make(map[string]string)
	for line := range strings.Lines(section) {
		if name, value, _ := strings.Cut(line, "="); !strings.HasPrefix(line, "#") {
			settings[strings.ToLower(strings.TrimSpace(name))] = strings.TrimSpace(value)
		}
	}
	delete(settings, "") // of empty lines
	return settings, nil
}

// implied is what some settings of other programs mean to the drivers. It never replaces what the address says.
var implied = []struct{ name, value, means, as string }{
	{"ssl", "true", "sslmode", "require"}, // JDBC's
	{"ssl", "1", "sslmode", "require"},
	{"sslnegotiation", "direct", "sslmode", "require"},
	{"pgbouncer", "true", "default_query_exec_mode", "exec"}, // Prisma's
	{"pgbouncer", "true", "binary_parameters", "yes"},
}

// normalise checks the settings and changes them so that both drivers accept them and read them alike.
func (t *Target) normalise() error {
	s := t.Settings
	for _, i := range implied {
		if s[i.name] == i.value {
			s[i.means] = cmp.Or(s[i.means], i.as)
		}
	}
	if s["sslrootcert"] == "system" {
		s["sslmode"] = "verify-full" // no other mode goes with it
	}
	// The drivers' own defaults differ: lib/pq's is require.
	s["sslmode"] = cmp.Or(s["sslmode"], "prefer")
	t.add(map[string]string{"application_name": s["fallback_application_name"], "search_path": s["schema"]}) // the latter is Prisma's
	for name, value := range s {
		_, err := strconv.ParseInt(value, 10, 32)
		switch allowed := values[name]; {
		case allowed == "" || value == "" || allowed == "#" && err == nil || slices.Contains(strings.Fields(allowed), value):
		case name == "sslmode":
			return badSSLMode
		default:
			return badSetting.with(name)
		}
	}
	maps.DeleteFunc(s, func(name, value string) bool { return slices.Contains(dropped, name) || value == "" })
	if s["sslnegotiation"] == "direct" && slices.Contains([]string{"disable", "allow", "prefer"}, s["sslmode"]) {
		return badSetting.with("sslnegotiation")
	}
	s["client_encoding"] = "UTF8" // pgx sets none, and a database may have another
	seconds, _ := strconv.Atoi(s["connect_timeout"])
	if seconds <= 0 {
		seconds = 5
	}
	if n := len(t.Hosts); n > 1 { // a host that swallows packets must not use up the time that the next one needs
		seconds = min(seconds, max(4/n, 1))
	}
	s["connect_timeout"] = strconv.Itoa(min(seconds, 60))
	return nil
}
