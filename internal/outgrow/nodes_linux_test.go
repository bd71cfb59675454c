package outgrow

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
	"example.com/penny/internal/scratch"
	"example.com/penny/internal/skip"
)

// settling bounds how long a test waits for the cluster to become whole.
const settling = 2 * time.Minute

// A cluster is three nodes with etcd, Patroni and PostgreSQL each, at the addresses 1 to 3 of a network. HAProxy is at 4.
type cluster struct {
	t           *testing.T // the programs end with it
	folder      string
	network     string // such as "10.0.0."
	password    string
	bin         string // the folder with PostgreSQL's programs
	uid, gid    int    // the user that runs the programs
	nodes       []*node
	synchronous bool // a commit waits for a standby
}

// A node is one of the cluster's machines.
type node struct {
	c             *cluster
	name, address string
	folder        string
	network       *os.File // its side of a cable; nil if all nodes share this computer's network
	etcd, patroni *exec.Cmd
}

// ownNetwork is an environment variable that says that this process has a network of its own.
const ownNetwork = "PENNY_CLUSTER_NETWORK"

// runInOwnNetwork runs the test again in a process with a network of its own, in which nodes can be cut off, and reports
// whether it did. Root may do so, and on most systems everybody may.
func runInOwnNetwork(t *testing.T) bool {
	t.Helper()
	if os.Getenv(ownNetwork) != "" {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin) // it ends when the outer test does, even if that is killed
			os.Exit(1)
		}()
		return false
	}
	args := []string{"--net"}
	if os.Geteuid() != 0 {
		args = append(args, "--user", "--map-current-user", "--keep-caps")
	}
	if out, err := exec.Command("unshare", append(args, "sh", "-c", "ip link add type veth && ip link add type bridge")...).CombinedOutput(); err != nil {
		t.Logf("no node is cut off, because this system does not allow another network: %v: %s", err, out)
		return false
	}
	args = append(args, os.Args[0], "-test.run=^TestCluster$", "-test.v", fmt.Sprint("-record=", *record))
	cmd := exec.Command("unshare", args...)
	cmd.Env = append(os.Environ(), ownNetwork+"=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	out, err := cmd.CombinedOutput()
	t.Logf("in a network of its own:\n%s", out)
	if err != nil {
		t.Errorf("%v; in short:\n%s", err, bytes.Join(reasons.FindAll(out, -1), []byte("\n")))
	}
	return true
}

// reasons matches what a test says in one line: not the reports and logs, which begin with a new line.
var reasons = regexp.MustCompile(`(?m)^ +\w+_test\.go:\d+: .+$`)

// startCluster starts a cluster with the books in it. It is removed when the test ends.
func startCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, bin: localpg.Installed(), password: rand.Text(), synchronous: true}
	c.uid, c.gid = ids(t, "postgres")
	folder, err := scratch.New("", "cluster")
	if err != nil {
		t.Fatal(err)
	}
	c.folder = folder.Path
	t.Cleanup(func() {
		pgtest.Eventually(t, settling, "the cluster is removed", func() bool {
			for _, n := range c.nodes {
				killAll(n.postgres()) // Patroni has ended, and may just have started it
			}
			return folder.Remove() == nil
		})
	})
	t.Cleanup(func() {
		if t.Failed() {
			c.logs(t)
		}
	})
	for _, name := range []string{"patroni.yml", "haproxy.cfg"} {
		text, err := os.ReadFile(filepath.Join("cluster", name))
		if err != nil {
			t.Fatal(err)
		}
		// The user postgres may not be allowed to read the repository.
		if err := os.WriteFile(filepath.Join(c.folder, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c.layNetwork(t)
	for _, n := range c.nodes {
		n.startEtcd(t)
	}
	for _, n := range c.nodes {
		pgtest.Eventually(t, settling, n.name+"'s etcd is healthy", n.etcdHealthy)
	}
	// The first makes the database, and the others copy it.
	c.nodes[0].startPatroni(t)
	pgtest.Eventually(t, settling, "the first node is the primary", func() bool { return c.nodes[0].answers("/primary") })
	for _, n := range c.nodes[1:] {
		n.startPatroni(t)
	}
	env := []string{"HAPROXY_ADDRESS=" + c.network + "4"}
	for i, n := range c.nodes {
		env = append(env, fmt.Sprintf("N%d_ADDRESS=%s", i+1, n.address))
	}
	c.start(t, nil, "haproxy", env, "haproxy", "-db", "-f", filepath.Join(c.folder, "haproxy.cfg"))
	c.settle(t)
	pgtest.LoadBooks(t, c.url("primary"))
	return c
}

// layNetwork makes the nodes, and lays a cable from each to a hub if this process has its own network. Otherwise the nodes
// are at addresses 127.a.b.c of this computer, where Linux lets everybody listen.
func (c *cluster) layNetwork(t *testing.T) {
	t.Helper()
	own := os.Getenv(ownNetwork) != ""
	if c.network = "10.0.0."; own {
		run(t, "ip link set lo up")
		run(t, "ip link add name hub address 02:00:00:00:00:04 type bridge") // else the address changes with the cables
		run(t, "ip addr add %s4/24 dev hub", c.network)
		run(t, "ip link set hub up")
	} else {
		c.network = fmt.Sprintf("127.%d.%d.", 1+mathrand.N(250), 1+mathrand.N(250))
		listener, err := net.Listen("tcp", c.network+"4:5432")
		if err != nil {
			skip.Test(t, err) // a server that listens at every address
		}
		listener.Close()
	}
	for i := range 3 {
		n := &node{c: c, name: fmt.Sprint("n", i+1), address: fmt.Sprint(c.network, i+1)}
		n.folder = filepath.Join(c.folder, n.name)
		if err := os.Mkdir(n.folder, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(n.folder, c.uid, c.gid); err != nil {
			t.Fatal(err)
		}
		if own {
			n.layCable(t)
		}
		c.nodes = append(c.nodes, n)
	}
}

// layCable gives the node a network, and a cable to the hub.
func (n *node) layCable(t *testing.T) {
	t.Helper()
	err := inNetwork(nil, func() (err error) {
		n.network, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.network.Close() })
	run(t, "ip link add %s type veth peer name eth0 netns /proc/%d/fd/%d", n.name, os.Getpid(), n.network.Fd())
	err = inNetwork(n.network, func() error {
		run(t, "ip link set lo up")
		run(t, "ip addr add %s/24 dev eth0", n.address)
		run(t, "ip link set eth0 up")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	n.join(t)
}

// run runs a command.
func run(t *testing.T, format string, a ...any) {
	t.Helper()
	words := strings.Fields(fmt.Sprintf(format, a...))
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(words, " "), err, out)
	}
}

// url is the address of the books by one of the ways into the cluster.
func (c *cluster) url(way string) string {
	host, settings := fmt.Sprintf("%[1]s1:5432,%[1]s2:5432,%[1]s3:5432", c.network), ""
	switch way {
	case "primary":
		host = c.network + "4:5432"
	case "any":
		host = c.network + "4:5433"
	case "any host":
		settings = "&load_balance_hosts=random&connect_timeout=5"
	default:
		settings = "&target_session_attrs=" + way
	}
	return fmt.Sprintf("postgres://postgres:%s@%s/postgres?sslmode=disable%s", c.password, host, settings)
}

// asUser makes a command run as another user, unless uid is -1, and end when this process ends for whatever reason.
func asUser(cmd *exec.Cmd, uid, gid int) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if uid >= 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
}

// inNetwork calls f in a network, or in a new one if that is nil.
func inNetwork(network *os.File, f func() error) error {
	runtime.LockOSThread() // a network is the thread's
	defer runtime.UnlockOSThread()
	ours, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer ours.Close()
	if network == nil {
		err = unix.Unshare(unix.CLONE_NEWNET)
	} else {
		err = unix.Setns(int(network.Fd()), unix.CLONE_NEWNET)
	}
	if err != nil {
		return err
	}
	defer func() {
		if err := unix.Setns(int(ours.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(err)
		}
	}()
	return f()
}

// start starts a program in a network, or in ours if that is nil. What it says is appended to the log of the given name.
// The program ends if this process is killed, and a Patroni stops its PostgreSQL then.
func (c *cluster) start(t *testing.T, network *os.File, name string, env []string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := command(args[0])
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.OpenFile(filepath.Join(c.folder, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(path, args[1:]...)
	cmd.Dir = c.folder
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "HOME=" + c.folder}, env...)
	cmd.Stdout, cmd.Stderr = log, log
	asUser(cmd, c.uid, c.gid)
	if network != nil {
		err = inNetwork(network, cmd.Start)
	} else {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	c.t.Cleanup(func() { kill(cmd) }) // not the subtest's, which may start a node again
	return cmd
}

// kill kills a program, which cannot clean up.
func kill(cmd *exec.Cmd) {
	_ = cmd.Process.Kill() // it may have ended, or have been killed before
	_ = cmd.Wait()
}

// startEtcd starts the node's etcd, which keeps the lease of the primary together with the other two.
func (n *node) startEtcd(t *testing.T) {
	t.Helper()
	var all []string
	for _, other := range n.c.nodes {
		all = append(all, fmt.Sprintf("%s=http://%s:2380", other.name, other.address))
	}
	client, peer := "http://"+n.address+":2379", "http://"+n.address+":2380"
	n.etcd = n.c.start(t, n.network, n.name+"-etcd", nil, "etcd", "--name", n.name, "--data-dir", filepath.Join(n.folder, "etcd"),
		"--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer,
		"--initial-advertise-peer-urls", peer, "--initial-cluster", strings.Join(all, ","), "--initial-cluster-state", "new", "--pre-vote")
}

// startPatroni starts the node's Patroni, which starts its PostgreSQL.
func (n *node) startPatroni(t *testing.T) {
	t.Helper()
	var etcd []string
	for _, other := range n.c.nodes {
		etcd = append(etcd, other.address+":2379")
	}
	n.patroni = n.c.start(t, n.network, n.name+"-patroni", []string{
		"PATRONI_NAME=" + n.name,
		"PATRONI_ETCD3_HOSTS=" + strings.Join(etcd, ","),
		"PATRONI_RESTAPI_LISTEN=" + n.address + ":8008",
		"PATRONI_RESTAPI_CONNECT_ADDRESS=" + n.address + ":8008",
		"PATRONI_POSTGRESQL_LISTEN=" + n.address + ":5432",
		"PATRONI_POSTGRESQL_CONNECT_ADDRESS=" + n.address + ":5432",
		"PATRONI_POSTGRESQL_DATA_DIR=" + n.data(),
		"PATRONI_POSTGRESQL_PGPASS=" + filepath.Join(n.folder, "pgpass"),
		"PATRONI_POSTGRESQL_BIN_DIR=" + n.c.bin,
		"PATRONI_SUPERUSER_USERNAME=postgres", "PATRONI_SUPERUSER_PASSWORD=" + n.c.password,
		"PATRONI_REPLICATION_USERNAME=replicator", "PATRONI_REPLICATION_PASSWORD=" + n.c.password,
		"PATRONI_REWIND_USERNAME=rewinder", "PATRONI_REWIND_PASSWORD=" + n.c.password,
	}, "patroni", filepath.Join(n.c.folder, "patroni.yml"))
}

// data is the folder of the node's PostgreSQL.
func (n *node) data() string { return filepath.Join(n.folder, "data") }

// postgres returns the processes of the node's PostgreSQL, the main one first. It is neither our child nor Patroni's.
func (n *node) postgres() []int {
	text, err := os.ReadFile(filepath.Join(n.data(), "postmaster.pid"))
	if err != nil {
		return nil
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !bytes.Contains(line, []byte(n.data())) {
		return nil // the file is old: another process has that number
	}
	all := []int{pid}
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	for _, child := range strings.Fields(string(children)) {
		if pid, err := strconv.Atoi(child); err == nil {
			all = append(all, pid)
		}
	}
	return all
}

// killAll kills processes.
func killAll(pids []int) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
	}
}

// kill kills all of the node's programs, as if it lost power.
func (n *node) kill() {
	kill(n.patroni) // else it would start PostgreSQL again
	killAll(n.postgres())
	kill(n.etcd)
}

// silence pulls the node's cable out of the hub: nobody gets an error, but packets do not arrive. If the node has no network of
// its own, all its processes stop where they are, which looks the same to the others.
func (n *node) silence(t *testing.T) {
	t.Helper()
	if n.network != nil {
		run(t, "ip link set %s nomaster", n.name)
		return
	}
	for _, pid := range append([]int{n.patroni.Process.Pid, n.etcd.Process.Pid}, n.postgres()...) {
		_ = syscall.Kill(pid, syscall.SIGSTOP) // it may have ended
	}
}

// join puts the node's cable into the hub.
func (n *node) join(t *testing.T) {
	t.Helper()
	if n.network != nil {
		run(t, "ip link set %s master hub up", n.name)
	}
}

// client asks Patroni and etcd. It keeps no connection, because their processes die.
var client = http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// get returns the answer to a request if it is 200, else nil.
func get(url string) []byte {
	response, err := client.Get(url)
	if err != nil {
		return nil
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != 200 {
		return nil
	}
	return append(body, '\n') // not nil, even if the answer is empty
}

// answers reports whether the node's Patroni answers a path with 200.
func (n *node) answers(path string) bool { return get("http://"+n.address+":8008"+path) != nil }

// etcdHealthy reports whether the node's etcd knows who leads the three.
func (n *node) etcdHealthy() bool {
	return bytes.Contains(get("http://"+n.address+":2379/health"), []byte(`"true"`))
}

// tell sends JSON to the node's Patroni, and waits until it has done what the path says. It asks again if Patroni is busy, or
// has not done it within Patroni's own time. If it then says 412, a planned switchover has happened in the meantime.
func (n *node) tell(t *testing.T, method, path, json string) {
	t.Helper()
	refusal := ""
	pgtest.Eventually(t, settling, n.name+"'s Patroni does "+path, func() bool {
		request, err := http.NewRequestWithContext(t.Context(), method, "http://"+n.address+":8008"+path, strings.NewReader(json))
		if err != nil {
			t.Fatal(err)
		}
		response, err := (&http.Client{Transport: client.Transport, Timeout: settling}).Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		if response.StatusCode/100 == 2 || refusal != "" && response.StatusCode == http.StatusPreconditionFailed {
			return true
		}
		if says := response.Status + ": " + string(body); says != refusal {
			t.Logf("%s %s: %s", method, path, says)
			refusal = says
		}
		return false
	})
}

// primary returns the node, other than but, whose Patroni says that it is the primary, or nil.
func (c *cluster) primary(but *node) *node {
	for _, n := range c.nodes {
		if n != but && n.answers("/primary") {
			return n
		}
	}
	return nil
}

// leader waits until a node is the primary, and returns it.
func (c *cluster) leader(t *testing.T) (primary *node) {
	t.Helper()
	pgtest.Eventually(t, settling, "a node is the primary", func() bool {
		primary = c.primary(nil)
		return primary != nil
	})
	return primary
}

// ask asks the cluster a question whose answer is one row, and stores its columns in what into points to.
func (c *cluster) ask(ctx context.Context, way, question string, argument []any, into ...any) error {
	ctx, cancel := context.WithTimeout(ctx, oneTry)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.url(way))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return conn.QueryRow(ctx, question, argument...).Scan(into...)
}

// synchronize makes each commit wait for a standby, or not.
func (c *cluster) synchronize(t *testing.T, on bool) {
	t.Helper()
	if c.synchronous == on {
		return
	}
	c.synchronous = on
	c.leader(t).tell(t, "PATCH", "/config", fmt.Sprintf(`{"synchronous_mode": %v}`, on))
	c.settle(t)
}

// settle waits until the cluster has been whole for three rounds of the primary's Patroni. A single look is not enough: after
// a restart, Patroni takes until its next round to withdraw a standby's right to take over, and to give it back.
func (c *cluster) settle(t *testing.T) {
	t.Helper()
	var reason error
	defer func() {
		if reason != nil {
			t.Logf("the cluster is not whole: %v", reason)
		}
	}()
	rounds := make(map[string]bool)
	pgtest.Eventually(t, settling, "the cluster is whole", func() bool {
		var round string
		if round, reason = c.whole(t.Context()); reason != nil {
			clear(rounds)
			return false
		}
		rounds[round] = true
		return len(rounds) == 3
	})
}

// round matches what a Patroni answers about the time of its last round.
var round = regexp.MustCompile(`"dcs_last_seen": *\d+`)

// whole returns the round of the primary's Patroni if the cluster is whole, else what is missing: each node is ready, two
// standbys follow the primary, one of them synchronously if that is on, and HAProxy knows.
func (c *cluster) whole(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	want, synchronous := 0, 0
	if c.synchronous {
		want = 1
	}
	for _, n := range c.nodes {
		if !n.etcdHealthy() || !n.answers("/readiness") {
			return "", fmt.Errorf("%s is not ready", n.name)
		}
		if n.answers("/synchronous") {
			synchronous++
		}
	}
	primary := c.primary(nil)
	if primary == nil || synchronous != want {
		return "", fmt.Errorf("there are %d synchronous standbys, or no primary", synchronous)
	}
	var address string
	var following int
	for _, way := range []string{"any", "primary"} {
		err := c.ask(ctx, way, `SELECT host(inet_server_addr()), count(*) FILTER (WHERE state = 'streaming'),
			count(*) FILTER (WHERE sync_state = 'sync') FROM pg_stat_replication`, nil, &address, &following, &synchronous)
		if err != nil {
			return "", err
		}
	}
	if address != primary.address || following != 2 || synchronous != want {
		return "", fmt.Errorf("HAProxy leads to %s with %d standbys, %d of them synchronous", address, following, synchronous)
	}
	return string(round.Find(get("http://" + primary.address + ":8008/patroni"))), nil
}

// logs shows the end of each log.
func (c *cluster) logs(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join(c.folder, "*.log"))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Log(err)
		}
		lines := strings.Split(strings.ReplaceAll(string(text), c.password, "*****"), "\n")
		t.Logf("\n%s\n%s", filepath.Base(file), strings.Join(lines[max(0, len(lines)-25):], "\n"))
	}
}
