package dburl

import (
	"cmp"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A Target is where an address leads and what it asks for there, with what the environment and the defaults add.
type Target struct {
	File string // a SQLite file; if it is set, the rest is empty

	Hosts                    []Host // in the order in which a driver tries them
	User, Password, Database string
	Settings                 map[string]string // the rest, by libpq's names
}

// A Host is a computer and a port, or the folder of a Unix socket.
type Host struct{ Name, Port string }

// Network returns the host as net.Dial takes it.
func (h Host) Network() (network, address string) {
	if isFolder(h.Name) {
		return "unix", filepath.Join(h.Name, ".s.PGSQL."+h.Port)
	}
	return "tcp", net.JoinHostPort(h.Name, h.Port)
}

func isFolder(name string) bool { return strings.HasPrefix(name, "/") || filepath.IsAbs(name) }

// String returns host:port, or the path of the socket.
func (h Host) String() string {
	_, address := h.Network()
	return address
}

// Server returns the hosts with commas between them.
func (t *Target) Server() string {
	var all []string
	for _, h := range t.Hosts {
		all = append(all, h.String())
	}
	return strings.Join(all, ", ")
}

// String returns the address as a URL that lib/pq, pgx and Parse read alike.
func (t *Target) String() string {
	if t.File != "" {
		return "sqlite:///" + t.File
	}
	host, hosts := "", ""
	if network, address := t.Hosts[0].Network(); len(t.Hosts) == 1 && network == "tcp" {
		host = strings.ReplaceAll(address, "%", "%25") // the zone of fe80::1%eth0
	} else { // lib/pq does not split several hosts before the path, and sockets are not allowed there
		var names, ports []string
		for _, h := range t.Hosts {
			names, ports = append(names, h.Name), append(ports, h.Port)
		}
		hosts = "&host=" + escape(strings.Join(names, ",")) + "&port=" + strings.Join(ports, ",")
	}
	login := url.User(t.User)
	if t.Password != "" {
		login = url.UserPassword(t.User, t.Password)
	}
	var settings []string
	for name, value := range t.Settings {
		if name == "timezone" {
			name = "Timezone" // GORM's driver looks for timezone= and TimeZone=, and then wants the zone on this computer
		}
		settings = append(settings, name+"="+escape(value))
	}
	slices.Sort(settings)
	return "postgres://" + login.String() + "@" + host + "/" + strings.ReplaceAll(url.QueryEscape(t.Database), "+", "%20") + "?" + strings.Join(settings, "&") + hosts
}

// escape writes a setting's value so that all parsers agree on it: not with + for a space, as url.Values does.
func escape(value string) string {
	return strings.NewReplacer("+", "%20", "%2F", "/", "%2C", ",", "%3A", ":").Replace(url.QueryEscape(value))
}

var (
	// scheme finds where an address begins, also if it begins twice. Schemes are those of libpq, SQLAlchemy, Django and JDBC.
	scheme      = regexp.MustCompile(`(?i)((postgres|postgresql|pgsql|psql|sqlite|sqlite3)(\+[a-z0-9_]+)?://)+`)
	otherScheme = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]{0,30})://`)
	nothing     = regexp.MustCompile(`^$|` + Variable + `[=: ]*$`)
	unseen      = regexp.MustCompile(`[\p{Cc}\p{Cf}]`) // such as line breaks and zero-width spaces
	spaces      = regexp.MustCompile(`\p{Zs}`)         // such as a no-break space

	// setting is the first setting with the question mark before it.
	setting = regexp.MustCompile(`\?[A-Za-z_][A-Za-z0-9_.]*=`)
	// joint is a question mark where & is meant: people add ?sslmode=... to an address that has settings already.
	joint = regexp.MustCompile(`\?(ssl[a-z]*=|[a-z]+_[a-z_]+=)`)
	// placeholder is what hosts and manuals show instead of a password.
	placeholder = regexp.MustCompile(`(?i)^(\[[a-z _-]*\]|<[a-z _-]*>|\$?\{+[a-z _-]*\}+|\*{3,}|•+|x{3,}|your[ _-]?password)$`)

	// These are more likely to be a slip than to be meant. Encoded, as in %20, they are allowed.
	strayInName    = regexp.MustCompile("[\"'`“”„‘’‚«»‹›<>{}\\\\|^ #?]")
	strayInHost    = regexp.MustCompile(`[^\pL\pN._-]`)
	strayInSetting = regexp.MustCompile(`^[^a-z_]|[^a-z0-9_.]`)
)

// around are the characters that people copy along with an address.
const around = " \t\"'`“”„‘’‚«»‹›;,()<>"

// Parse reads an address as people paste it, and one in any of the forms that this package writes.
func Parse(raw string) (*Target, error) {
	if name, found := strings.CutPrefix(raw, "file:"); found {
		return parseFile(name)
	}
	text := strings.Trim(spaces.ReplaceAllString(unseen.ReplaceAllString(raw, ""), " "), around)
	at := scheme.FindStringIndex(text)
	if at == nil {
		other := otherScheme.FindStringSubmatch(text)
		switch {
		case nothing.MatchString(text):
			return nil, empty
		case other != nil:
			return nil, unknownScheme.with(other[1])
		}
		return nil, notURL
	}
	rest := text[at[1]:]
	if strings.HasPrefix(strings.ToLower(text[at[0]:]), "sqlite") {
		return parseSQLite(rest)
	}
	t := &Target{Settings: make(map[string]string)}
	err := t.parsePostgres(rest)
	if err == nil {
		err = t.addDefaults()
	}
	if err == nil {
		err = t.resolveHosts()
	}
	if err == nil {
		err = t.normalise()
	}
	return t, err
}

// parseFile parses an address that the function SQLite returned; name is the part after file:.
func parseFile(name string) (*Target, error) {
	name, _, _ = strings.Cut(name, "?")
	path, err := url.PathUnescape(name)
	if err != nil || path == "" {
		return nil, badSQLite
	}
	if rest := strings.TrimPrefix(path, "/"); filepath.VolumeName(rest) != "" {
		path = rest
	}
	return &Target{File: path}, nil
}

func parseSQLite(rest string) (*Target, error) {
	path, found := strings.CutPrefix(rest, "/")
	if !found || path == "" || path == ":memory:" || setting.MatchString(path) {
		return nil, badSQLite
	}
	return &Target{File: path}, nil
}

// parsePostgres reads the rest of an address, after its postgres://. Like libpq, it takes a password as it is, up to the last @
// before the path.
func (t *Target) parsePostgres(rest string) error {
	login, _, _ := strings.Cut(rest, "/")
	if first := strings.Index(login, "@"); first >= 0 {
		if at := setting.FindStringIndex(login[first:]); at != nil { // an @ after it is in a setting
			login = login[:first+at[0]]
		}
		login = login[:strings.LastIndex(login, "@")]
		rest = rest[len(login)+1:]
		name, password, _ := strings.Cut(login, ":")
		if err := cmp.Or(stray(name, strayInName), t.decode("user", name), t.decode("password", password)); err != nil {
			return err
		}
		if strings.Contains(t.Settings["user"], ":") {
			return encodedColon
		}
	}
	place, query, _ := strings.Cut(rest, "?")
	hosts, database, _ := strings.Cut(place, "/")
	if strings.Contains(database, "@") {
		return slash
	}
	names, ports := splitHosts(hosts)
	if err := cmp.Or(stray(database, strayInName), t.decode("dbname", database), t.decode("host", names), t.decode("port", ports)); err != nil {
		return err
	}
	return t.parseSettings(query)
}

// stray returns an error if a part of an address has a character that it should not have.
func stray(part string, pattern *regexp.Regexp) error {
	switch c := pattern.FindString(part); c {
	case "":
		return nil
	case " ":
		return strayCharacter.with("a space")
	default:
		return strayCharacter.with(c)
	}
}

// decode keeps a part of the address, unless it is empty. It refuses a % without two hexadecimal digits, a zero byte, which
// no server takes, and what is not UTF-8, which lib/pq would change.
func (t *Target) decode(name, text string) error {
	value, err := url.PathUnescape(text)
	if err != nil || !utf8.ValidString(value) || strings.Contains(value, "\x00") {
		return percent
	}
	if name == "password" && placeholder.MatchString(value) {
		return isPlaceholder
	}
	if value != "" {
		t.Settings[name] = value
	}
	return nil
}

// splitHosts splits host:port,host:port into the hosts and the ports.
func splitHosts(text string) (hosts, ports string) {
	for i, one := range strings.Split(text, ",") {
		host, port, err := net.SplitHostPort(one)
		if err != nil {
			host, _, err = net.SplitHostPort(one + ":") // without a port
		}
		if err != nil {
			host = one // an IPv6 address without brackets, or a slip
		}
		if i > 0 {
			hosts, ports = hosts+",", ports+","
		}
		hosts, ports = hosts+host, ports+port
	}
	if strings.Trim(ports, ",") == "" {
		ports = ""
	}
	return hosts, ports
}

func (t *Target) parseSettings(query string) error {
	query = joint.ReplaceAllString(strings.ReplaceAll(query, "&amp;", "&"), "&$1")
	for _, one := range strings.Split(query, "&") {
		if one == "" {
			continue
		}
		name, raw, found := strings.Cut(one, "=")
		name = strings.ToLower(strings.Trim(name, around))
		name = cmp.Or(synonyms[name], name)
		switch {
		case strings.Contains(query, "@") && !slices.Contains(ours, name):
			return slash
		case !found && !slices.Contains(ours, name) || name == "":
			return loneWord
		case !found:
			return badSetting.with(name)
		case name == "options":
			raw = strings.ReplaceAll(raw, "+", " ") // as web programs write a space
		}
		if err := cmp.Or(stray(name, strayInSetting), t.decode(name, strings.TrimSpace(raw))); err != nil {
			return err
		}
	}
	return nil
}

// addDefaults adds what the address leaves open: from the service file, from the environment, and libpq's defaults.
func (t *Target) addDefaults() error {
	environment := environment()
	if service := cmp.Or(t.Settings["service"], environment["service"]); service != "" {
		settings, err := readService(cmp.Or(t.Settings["servicefile"], environment["servicefile"]), service)
		if err != nil {
			return err
		}
		t.add(settings)
	}
	if t.Settings["host"] != "" || t.Settings["hostaddr"] != "" { // the environment's host is another server
		delete(environment, "host")
		delete(environment, "hostaddr")
	}
	t.add(environment)
	t.User, t.Password, t.Database = t.take("user"), t.take("password"), t.take("dbname")
	if t.User == "" {
		if u, err := user.Current(); err == nil {
			t.User = u.Username[strings.LastIndex(u.Username, `\`)+1:] // without Windows' domain
		}
	}
	t.Database = cmp.Or(t.Database, t.User)
	return nil
}

// add adds the settings that are not set yet.
func (t *Target) add(settings map[string]string) {
	for name, value := range settings {
		t.Settings[name] = cmp.Or(t.Settings[name], value)
	}
}

// take returns a setting, and takes it out of the settings.
func (t *Target) take(name string) string {
	defer delete(t.Settings, name)
	return t.Settings[name]
}

func (t *Target) resolveHosts() error {
	host, addr, port := t.take("host"), t.take("hostaddr"), t.take("port")
	if addr != "" && (host == "" || t.Settings["sslmode"] != "verify-full") { // that mode needs the name
		host = addr
	}
	names, ports := strings.Split(host, ","), strings.Split(port, ",")
	if len(ports) > 1 && len(ports) != len(names) {
		return badPort
	}
	for i, name := range names {
		port := cmp.Or(ports[min(i, len(ports)-1)], "5432")
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strconv.Itoa(int(n)) != port {
			return badPort
		}
		name = cmp.Or(name, defaultHost(port))
		if _, err := netip.ParseAddr(name); err != nil && !isFolder(name) {
			if err := stray(name, strayInHost); err != nil {
				return err
			}
		}
		t.Hosts = append(t.Hosts, Host{name, port})
	}
	return nil
}

// defaultHost returns the folder of the server's socket if there is one, as psql does, and otherwise localhost.
func defaultHost(port string) string {
	for _, folder := range []string{"/var/run/postgresql", "/tmp", "/private/tmp"} {
		if _, err := os.Stat(Host{folder, port}.String()); err == nil {
			return folder
		}
	}
	return "localhost"
}
