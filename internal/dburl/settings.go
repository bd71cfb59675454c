package dburl

import (
	"bufio"
	"cmp"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// set returns the words of a text.
func set(text string) map[string]bool {
	all := make(map[string]bool)
	for _, word := range strings.Fields(text) {
		all[word] = true
	}
	return all
}

var (
	// both drivers know these, and names that are not in a list are the server's own, such as statement_timeout.
	both = set(`user password dbname host hostaddr port service servicefile passfile connect_timeout sslmode sslcert sslkey sslrootcert sslsni
		sslnegotiation target_session_attrs min_protocol_version max_protocol_version krbsrvname krbspn application_name options timezone`)
	pgxOnly = set(`default_query_exec_mode statement_cache_capacity description_cache_capacity channel_binding sslpassword sslcertmode require_auth`)
	pqOnly  = set(`binary_parameters disable_prepared_binary_result load_balance_hosts ssl_min_protocol_version ssl_max_protocol_version`)

	// dropped are settings of psql and of other programs that neither driver knows.
	dropped = set(`client_encoding datestyle fallback_application_name gssencmode gssdelegation gsslib keepalives keepalives_idle
		keepalives_interval keepalives_count oauth_client_id oauth_client_secret oauth_issuer oauth_scope replication requirepeer requiressl
		scram_client_key scram_server_key service servicefile ssl sslcompression sslcrl sslcrldir sslinline sslkeylogfile tcp_user_timeout
		pool_max_conns pool_min_conns pool_min_idle_conns pool_max_conn_lifetime pool_max_conn_lifetime_jitter pool_max_conn_idle_time
		pool_health_check_period pgbouncer connection_limit pool_timeout schema sslaccept sslidentity socket_timeout
		prepared_statement_cache_size preparethreshold uselibpqcompat supa workaround`)

	// synonyms are other programs' names of a setting.
	synonyms = map[string]string{
		"pwd": "password", "passwd": "password", "pass": "password", "username": "user", "database": "dbname", "time_zone": "timezone",
	}

	// values are what a setting may be, if it is not any text. # is a number.
	values = map[string]string{
		"sslmode":                  "disable allow prefer require verify-ca verify-full",
		"sslnegotiation":           "postgres direct",
		"sslsni":                   "0 1",
		"sslcertmode":              "disable allow require",
		"target_session_attrs":     "any read-write read-only primary standby prefer-standby",
		"load_balance_hosts":       "disable random",
		"min_protocol_version":     "3.0 3.2 latest",
		"max_protocol_version":     "3.0 3.2 latest",
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
		PGMINPROTOCOLVERSION=min_protocol_version PGMAXPROTOCOLVERSION=max_protocol_version PGCHANNELBINDING=channel_binding
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

// known reports whether a setting is in a list of this package. Others are left to the server.
func known(name string) bool {
	return both[name] || pgxOnly[name] || pqOnly[name] || dropped[name]
}

var (
	takenMu sync.Mutex
	taken   = make(map[string]string) // the variables that are not in the environment any more
)

// environment returns the settings of libpq's variables. It takes the variables out of this program's environment, because
// the drivers would read them again, each in its own way: lib/pq fails if it does not know one.
func environment() map[string]string {
	takenMu.Lock()
	defer takenMu.Unlock()
	settings := make(map[string]string)
	for name, setting := range variables {
		if value, set := os.LookupEnv(name); set {
			taken[name] = value
			os.Unsetenv(name)
		}
		if value := taken[name]; value != "" && setting != "" {
			settings[setting] = value
		}
	}
	return settings
}

// inEnvironment reports whether a variable is set, or was until environment took it.
func inEnvironment(name string) bool {
	takenMu.Lock()
	defer takenMu.Unlock()
	_, set := os.LookupEnv(name)
	_, was := taken[name]
	return set || was
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
	data, err := os.Open(file)
	if err != nil {
		return nil, noService.with(service)
	}
	defer data.Close()
	var settings map[string]string // nil until the section begins
	for lines := bufio.NewScanner(data); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		if strings.HasPrefix(line, "[") {
			if settings != nil {
				break
			}
			if strings.TrimSpace(strings.Trim(line, "[]")) == service {
				settings = make(map[string]string)
			}
		} else if name, value, found := strings.Cut(line, "="); found && settings != nil && !strings.HasPrefix(line, "#") {
			settings[strings.ToLower(strings.TrimSpace(name))] = strings.TrimSpace(value)
		}
	}
	if settings == nil {
		return nil, noService.with(service)
	}
	return settings, nil
}

// normalise checks the settings and changes them so that both drivers take them and mean the same.
func (t *Target) normalise() error {
	s := t.Settings
	if s["ssl"] == "true" || s["ssl"] == "1" { // as JDBC writes it
		s["sslmode"] = cmp.Or(s["sslmode"], "require")
	}
	if s["sslrootcert"] == "system" {
		s["sslmode"] = "verify-full" // no other mode goes with it
	}
	if s["sslnegotiation"] == "direct" {
		s["sslmode"] = cmp.Or(s["sslmode"], "require")
	}
	s["sslmode"] = cmp.Or(s["sslmode"], "prefer") // lib/pq's default would be require
	if s["min_protocol_version"] != "" {
		s["max_protocol_version"] = cmp.Or(s["max_protocol_version"], "latest")
	}
	if name := s["fallback_application_name"]; name != "" {
		s["application_name"] = cmp.Or(s["application_name"], name)
	}
	if schema := s["schema"]; schema != "" { // as Prisma writes it
		s["search_path"] = cmp.Or(s["search_path"], schema)
	}
	if s["pgbouncer"] == "true" { // as Prisma writes it
		s["default_query_exec_mode"] = cmp.Or(s["default_query_exec_mode"], "exec")
		s["binary_parameters"] = cmp.Or(s["binary_parameters"], "yes")
	}
	maps.DeleteFunc(s, func(name, _ string) bool { return dropped[name] })
	for name, value := range s {
		_, err := strconv.ParseInt(value, 10, 32)
		switch allowed := values[name]; {
		case allowed == "" || allowed == "#" && err == nil || slices.Contains(strings.Fields(allowed), value):
		case name == "sslmode":
			return badSSLMode
		default:
			return badSetting.with(name)
		}
	}
	if s["sslnegotiation"] == "direct" && slices.Contains([]string{"disable", "allow", "prefer"}, s["sslmode"]) {
		return badSetting.with("sslnegotiation")
	}
	if s["max_protocol_version"] != "" && s["min_protocol_version"] > s["max_protocol_version"] {
		return badSetting.with("max_protocol_version")
	}
	s["client_encoding"] = "UTF8" // pgx sets none, and a database may have another
	// A host that swallows packets must not use up the time that the next one needs.
	seconds, _ := strconv.Atoi(s["connect_timeout"])
	most := map[int]int{1: 60, 2: 2}[len(t.Hosts)]
	if seconds <= 0 {
		seconds = 5
	}
	s["connect_timeout"] = strconv.Itoa(min(seconds, cmp.Or(most, 1)))
	return nil
}
