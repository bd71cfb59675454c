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
	"unicode"
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
		host = address
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

// scheme finds where an address begins. Schemes are those of libpq, SQLAlchemy, Django and JDBC.
var scheme = regexp.MustCompile(`(?i)(postgres|postgresql|pgsql|psql|sqlite|sqlite3)(\+[a-z0-9_]+)?://`)

// otherScheme is one for another program.
var otherScheme = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]{0,30}://`)

// around are the characters that people copy along with an address.
const around = " \t\"'`“”„‘’‚«»‹›;,()<>"

// Parse reads an address as people paste it, and one in any of the forms that this package writes.
func Parse(raw string) (*Target, error) {
	if name, found := strings.CutPrefix(raw, "file:"); found { // as SQLite writes it
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
	text := visible(raw)
	at := scheme.FindStringIndex(text)
	switch bare := strings.Trim(text, around); {
	case bare == "" || strings.TrimRight(bare, " =:") == Variable || strings.HasSuffix(bare, Variable+"="):
		return nil, empty
	case otherScheme.MatchString(bare) && !scheme.MatchString(otherScheme.FindString(bare)):
		name, _, _ := strings.Cut(bare, "://")
		return nil, unknownScheme.with(name)
	case at == nil:
		return nil, notURL
	}
	rest := strings.TrimRight(text[at[1]:], around)
	for again := scheme.FindStringIndex(rest); again != nil && again[0] == 0; again = scheme.FindStringIndex(rest) {
		rest = rest[again[1]:]
	}
	if strings.HasPrefix(strings.ToLower(text[at[0]:]), "sqlite") {
		return parseSQLite(rest)
	}
	t, err := parsePostgres(rest)
	if err != nil {
		return nil, err
	}
	return t, t.resolve()
}

// visible takes the characters out of a text that nobody sees, such as line breaks and zero-width spaces.
func visible(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.In(r, unicode.Cc, unicode.Cf):
			return -1
		case unicode.In(r, unicode.Zs): // such as a space that does not break the line
			return ' '
		}
		return r
	}, text)
}

func parseSQLite(rest string) (*Target, error) {
	path, found := strings.CutPrefix(rest, "/")
	_, settings, _ := strings.Cut(path, "?")
	if !found || path == "" || path == ":memory:" || setting.MatchString(settings) {
		return nil, badSQLite
	}
	return &Target{File: path}, nil
}

var (
	setting     = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*=`)
	settingName = regexp.MustCompile(`^[a-z_][a-z0-9_.]*$`)
	joint       = regexp.MustCompile(`\?(ssl[a-z]*=|[a-z]+_[a-z_]+=)`)
	placeholder = regexp.MustCompile(`(?i)^(\[[a-z _-]*\]|<[a-z _-]*>|\$?\{+[a-z _-]*\}+|\*{3,}|•+|x{3,}|your[ _-]?password)$`)
)

// parsePostgres takes an address apart, from behind postgres:// on. Like libpq it takes a password as it is, up to the @.
func parsePostgres(rest string) (*Target, error) {
	t := &Target{Settings: make(map[string]string)}
	login, _, _ := strings.Cut(rest, "/")
	if first := strings.Index(login, "@"); first >= 0 {
		for i, r := range login[first:] {
			if r == '?' && setting.MatchString(rest[first+i+1:]) { // an @ after it is in a setting
				login = login[:first+i]
				break
			}
		}
		login = login[:strings.LastIndex(login, "@")]
		rest = rest[len(login)+1:]
		if err := t.parseLogin(login); err != nil {
			return nil, err
		}
	}
	place, query, _ := strings.Cut(rest, "?")
	hosts, database, _ := strings.Cut(place, "/")
	if strings.Contains(database, "@") {
		return nil, slash
	}
	if c := stray(database, "#"); c != "" {
		return nil, strayCharacter.with(c)
	}
	var ok bool
	if t.Database, ok = unescape(database); !ok {
		return nil, percent
	}
	names, ports, err := splitHosts(hosts)
	if err != nil {
		return nil, err
	}
	if strings.Trim(names, ",") != "" {
		t.Settings["host"] = names
	}
	if strings.Trim(ports, ",") != "" {
		t.Settings["port"] = ports
	}
	return t, t.parseSettings(query)
}

func (t *Target) parseLogin(login string) error {
	name, password, _ := strings.Cut(login, ":")
	if c := stray(name, "#?/"); c != "" {
		return strayCharacter.with(c)
	}
	if placeholder.MatchString(password) {
		return isPlaceholder.with(password)
	}
	var ok, ok2 bool
	t.User, ok = unescape(name)
	t.Password, ok2 = unescape(password)
	if !ok || !ok2 {
		return percent
	}
	return nil
}

// splitHosts splits host:port,host:port into the names and the ports.
func splitHosts(text string) (names, ports string, err error) {
	for i, one := range strings.Split(text, ",") {
		name, port, _ := strings.Cut(one, ":")
		if inside, ipv6 := strings.CutPrefix(one, "["); ipv6 {
			var found bool
			if name, port, found = strings.Cut(inside, "]"); !found {
				return "", "", strayCharacter.with("[")
			}
			port = strings.TrimPrefix(port, ":")
		} else if _, err := netip.ParseAddr(one); err == nil {
			name, port = one, ""
		}
		name, ok := unescape(name)
		if !ok {
			return "", "", percent
		}
		if i > 0 {
			names, ports = names+",", ports+","
		}
		names, ports = names+name, ports+port
	}
	return names, ports, nil
}

// stray returns the first character of a part of an address that is more likely to be a slip than to be meant. Encoded, as
// in %20, it is allowed. It returns "" if there is none.
func stray(part, also string) string {
	if i := strings.IndexAny(part, "\"'`“”„‘’‚«»‹›<>{}\\|^ "+also); i >= 0 {
		c := []rune(part[i:])[0]
		if c == ' ' {
			return "a space"
		}
		return string(c)
	}
	return ""
}

// unescape decodes %41 to A. It refuses a % without two hexadecimal digits, a zero byte, which no server takes, and what is
// not UTF-8, which lib/pq would change.
func unescape(text string) (string, bool) {
	decoded, err := url.PathUnescape(text)
	return decoded, err == nil && utf8.ValidString(decoded) && !strings.Contains(decoded, "\x00")
}

func (t *Target) parseSettings(query string) error {
	query = joint.ReplaceAllString(strings.ReplaceAll(query, "&amp;", "&"), "&$1") // people add ?sslmode=... to what has a ? already
	for _, one := range strings.Split(query, "&") {
		if one == "" {
			continue
		}
		name, raw, found := strings.Cut(one, "=")
		name = strings.ToLower(strings.Trim(name, around))
		name = cmp.Or(synonyms[name], name)
		value, ok := unescape(raw)
		switch {
		case !settingName.MatchString(name) || strings.Contains(query, "@") && !known(name):
			if strings.Contains(query, "@") {
				return slash
			}
			return strayCharacter.with(cmp.Or(stray(one, "#?/:,;-+()!$%[]*~="), "&"))
		case !found || !ok || name == "ssl" && !slices.Contains([]string{"", "true", "false", "1", "0"}, value):
			return badSetting.with(name)
		}
		if name == "options" {
			value = strings.ReplaceAll(value, "+", " ") // as web programs write a space
		}
		if value = strings.TrimSpace(value); name == "password" && placeholder.MatchString(value) {
			return isPlaceholder.with(value)
		}
		if value != "" {
			t.Settings[name] = value
		}
	}
	return nil
}

// resolve adds to an address what it leaves open: from the service file, from the environment, and libpq's defaults.
func (t *Target) resolve() error {
	t.move("user", &t.User)
	t.move("password", &t.Password)
	t.move("dbname", &t.Database)
	environment := environment()
	add := func(settings map[string]string) {
		for name, value := range settings {
			if _, set := t.Settings[name]; !set {
				t.Settings[name] = value
			}
		}
	}
	if service := cmp.Or(t.Settings["service"], environment["service"]); service != "" {
		settings, err := readService(cmp.Or(t.Settings["servicefile"], environment["servicefile"]), service)
		if err != nil {
			return err
		}
		add(settings)
	}
	if t.Settings["host"] != "" || t.Settings["hostaddr"] != "" { // then the environment's is another server's
		delete(environment, "host")
		delete(environment, "hostaddr")
	}
	add(environment)
	for name, value := range map[string]*string{"user": &t.User, "password": &t.Password, "dbname": &t.Database} {
		if *value == "" {
			t.move(name, value)
		}
		delete(t.Settings, name)
	}
	if t.User == "" {
		if u, err := user.Current(); err == nil {
			t.User = u.Username[strings.LastIndex(u.Username, `\`)+1:] // without Windows' domain
		}
	}
	t.Database = cmp.Or(t.Database, t.User)
	if err := t.resolveHosts(); err != nil {
		return err
	}
	return t.normalise()
}

// move moves a setting to where else the address may have it.
func (t *Target) move(name string, to *string) {
	if value, set := t.Settings[name]; set {
		*to = value
		delete(t.Settings, name)
	}
}

func (t *Target) resolveHosts() error {
	host, addr, port := t.Settings["host"], t.Settings["hostaddr"], t.Settings["port"]
	if addr != "" && (host == "" || t.Settings["sslmode"] != "verify-full") { // that mode needs the name
		host = addr
	}
	delete(t.Settings, "host")
	delete(t.Settings, "hostaddr")
	delete(t.Settings, "port")
	names, ports := strings.Split(host, ","), strings.Split(port, ",")
	if len(ports) > 1 && len(ports) != len(names) {
		return badPort
	}
	for i, name := range names {
		port := cmp.Or(ports[min(i, len(ports)-1)], "5432")
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strconv.Itoa(int(n)) != port {
			return badPort
		}
		if name == "" {
			name = defaultHost(port)
		}
		if c := strayInHost(name); c != "" {
			return strayCharacter.with(c)
		}
		t.Hosts = append(t.Hosts, Host{name, port})
	}
	return nil
}

func isFolder(name string) bool { return strings.HasPrefix(name, "/") || filepath.IsAbs(name) }

func strayInHost(name string) string {
	if _, err := netip.ParseAddr(name); err == nil || isFolder(name) && !strings.ContainsFunc(name, unicode.IsControl) {
		return ""
	}
	for _, r := range name {
		if r != '.' && r != '-' && r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			return cmp.Or(stray(string(r), ""), string(r))
		}
	}
	return ""
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
