package outgrow

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
	"example.com/penny/internal/scratch"
	"example.com/penny/internal/skip"
)

// settling bounds how long a test waits for the cluster to become whole.
const settling = 2 * time.Minute

// A cluster is three nodes with etcd, Patroni and PostgreSQL each, and HAProxy in front, on addresses 127.a.b.1 to 127.a.b.4
// of this computer. Linux lets everybody listen at all of 127.0.0.0/8.
type cluster struct {
	t           *testing.T // the programs end with it
	folder      string
	network     string // "127.a.b."
	password    string
	bin         string // the folder with PostgreSQL's programs
	nodes       []*node
	haproxy     *program
	synchronous bool // a commit waits for a standby
}

// A node is one of the cluster's machines, so to speak.
type node struct {
	c             *cluster
	name, address string
	folder        string // its data and its logs
	etcd, patroni *program
}

// A program is a running process that the cluster started.
type program struct {
	pid  int
	done chan struct{} // closed when it has ended
}

// startCluster starts a cluster with the books in it. It is removed when the test ends, or when the test process is killed.
func startCluster(t *testing.T) *cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: it takes a cluster")
	}
	for _, name := range []string{"etcd", "patroni", "haproxy"} {
		if _, err := command(name); err != nil {
			skip.Test(t, "there is no "+name+" here: sudo apt install etcd-server patroni haproxy python3-etcd")
		}
	}
	c := &cluster{t: t, bin: localpg.Installed(), password: rand.Text(), network: freeNetwork(t)}
	if c.bin == "" {
		skip.Test(t, "there is no PostgreSQL here: sudo apt install postgresql")
	}
	c.watch(t)
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
	for i := range 3 {
		n := &node{c: c, name: fmt.Sprint("n", i+1), address: fmt.Sprint(c.network, i+1)}
		n.folder = filepath.Join(c.folder, n.name)
		if err := os.Mkdir(n.folder, 0o700); err != nil {
			t.Fatal(err)
		}
		if account := account(); account != nil {
			if err := os.Chown(n.folder, int(account.Uid), int(account.Gid)); err != nil {
				t.Fatal(err)
			}
		}
		c.nodes = append(c.nodes, n)
	}
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
	c.haproxy = c.start(t, "haproxy", env, "haproxy", "-db", "-f", filepath.Join(c.folder, "haproxy.cfg"))
	c.settle(t)
	pgtest.LoadBooks(t, c.url("primary"))
	return c
}

// url is the address of the books by one of the ways into the cluster.
func (c *cluster) url(way string) string {
	host, settings := c.network+"4:5432", ""
	switch way {
	case "primary": // by HAProxy
	case "any": // by HAProxy
		host = c.network + "4:5433"
	default: // by the nodes' own addresses
		host, settings = fmt.Sprintf("%[1]s1:5432,%[1]s2:5432,%[1]s3:5432", c.network), "&target_session_attrs="+way
	}
	return fmt.Sprintf("postgres://postgres:%s@%s/postgres?sslmode=disable%s", c.password, host, settings)
}

// freeNetwork returns a network "127.a.b." in which nobody listens at the cluster's ports.
func freeNetwork(t *testing.T) string {
	t.Helper()
	for range 50 {
		network := fmt.Sprintf("127.%d.%d.", 1+mathrand.N(250), 1+mathrand.N(250))
		free := true
		for _, at := range []string{"1:2379", "1:2380", "1:5432", "1:8008", "2:5432", "3:5432", "4:5432", "4:5433"} {
			listener, err := net.Listen("tcp", network+at)
			if free = err == nil; !free {
				break
			}
			listener.Close()
		}
		if free {
			return network
		}
	}
	skip.Test(t, "no address 127.a.b.c is free for a cluster")
	return ""
}

// command returns the path of a program. Debian keeps some where only root looks for them.
func command(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + name)
	}
	return path, err
}

// account is the user who runs the cluster, as PostgreSQL refuses to run as root. It is nil if that is our own user.
func account() *syscall.Credential {
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil // PostgreSQL will say what is wrong
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32) // Linux has numbers here
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// start starts a program, which appends what it says to the log of the given name. The system kills it if we are killed.
func (c *cluster) start(t *testing.T, name string, env []string, args ...string) *program {
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
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: account(), Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p := &program{done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // Pdeathsig comes when the thread ends that started the program.
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			_ = cmd.Wait() // we killed it, or its log says why it ended
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	c.t.Cleanup(p.kill) // not with a test inside of it that starts a node again
	return p
}

// kill ends a program, which gets no chance to say goodbye.
func (p *program) kill() {
	select {
	case <-p.done:
		return // its number may be another's now
	default:
	}
	_ = syscall.Kill(p.pid, syscall.SIGKILL) // it may end by itself
	<-p.done
}

// startEtcd starts the node's etcd, which keeps the lease of the primary together with the other two.
func (n *node) startEtcd(t *testing.T) {
	t.Helper()
	var all []string
	for _, other := range n.c.nodes {
		all = append(all, fmt.Sprintf("%s=http://%s:2380", other.name, other.address))
	}
	client, peer := "http://"+n.address+":2379", "http://"+n.address+":2380"
	n.etcd = n.c.start(t, n.name+"-etcd", nil, "etcd", "--name", n.name, "--data-dir", filepath.Join(n.folder, "etcd"),
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
	n.patroni = n.c.start(t, n.name+"-patroni", []string{
		"PATRONI_NAME=" + n.name,
		"PATRONI_ETCD3_HOSTS=" + strings.Join(etcd, ","),
		"PATRONI_RESTAPI_LISTEN=" + n.address + ":8008",
		"PATRONI_RESTAPI_CONNECT_ADDRESS=" + n.address + ":8008",
		"PATRONI_POSTGRESQL_LISTEN=" + n.address + ":5432",
		"PATRONI_POSTGRESQL_CONNECT_ADDRESS=" + n.address + ":5432",
		"PATRONI_POSTGRESQL_DATA_DIR=" + filepath.Join(n.folder, "data"),
		"PATRONI_POSTGRESQL_PGPASS=" + filepath.Join(n.folder, "pgpass"),
		"PATRONI_POSTGRESQL_BIN_DIR=" + n.c.bin,
		"PATRONI_SUPERUSER_USERNAME=postgres", "PATRONI_SUPERUSER_PASSWORD=" + n.c.password,
		"PATRONI_REPLICATION_USERNAME=replicator", "PATRONI_REPLICATION_PASSWORD=" + n.c.password,
		"PATRONI_REWIND_USERNAME=rewinder", "PATRONI_REWIND_PASSWORD=" + n.c.password,
	}, "patroni", filepath.Join(n.c.folder, "patroni.yml"))
}

// postgres returns the processes of the node's PostgreSQL, the first one first.
func (n *node) postgres() []int { return postgresOf(filepath.Join(n.folder, "data")) }

// postgresOf returns the processes of the PostgreSQL with a data folder. It is not our child, nor Patroni's.
func postgresOf(data string) []int {
	text, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return nil
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !bytes.Contains(line, []byte(data)) {
		return nil // the file is older than the process of that number
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

// kill kills all of the node, as if somebody pulled its plug.
func (n *node) kill() {
	n.patroni.kill() // else it would start PostgreSQL again
	killAll(n.postgres())
	n.etcd.kill()
}

// freeze stops all of the node's processes where they are. They keep their connections, and say nothing.
func (n *node) freeze() {
	for _, pid := range append([]int{n.patroni.pid, n.etcd.pid}, n.postgres()...) {
		_ = syscall.Kill(pid, syscall.SIGSTOP) // it may have ended
	}
}

// client asks Patroni and etcd. It keeps no connection, because their processes die.
var client = http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// answers reports whether the node's Patroni answers a path with 200.
func (n *node) answers(path string) bool {
	response, err := client.Get("http://" + n.address + ":8008" + path)
	if err != nil {
		return false
	}
	response.Body.Close()
	return response.StatusCode == 200
}

// etcdHealthy reports whether the node's etcd knows who leads the three.
func (n *node) etcdHealthy() bool {
	response, err := client.Get("http://" + n.address + ":2379/health")
	if err != nil {
		return false
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return err == nil && bytes.Contains(body, []byte(`"true"`))
}

// tell sends JSON to the node's Patroni, and waits until it has done what the path says.
func (n *node) tell(t *testing.T, method, path, json string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settling)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://"+n.address+":8008"+path, strings.NewReader(json))
	if err != nil {
		t.Fatal(err)
	}
	response, err := (&http.Client{Transport: client.Transport}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, _ := io.ReadAll(response.Body); response.StatusCode/100 != 2 {
		t.Fatalf("%s %s: %s: %s", method, path, response.Status, body)
	}
}

// primary returns the node that is the primary, by what its Patroni says, but not the node that is given; nil if there is none.
func (c *cluster) primary(but *node) *node {
	for _, n := range c.nodes {
		if n != but && n.answers("/primary") {
			return n
		}
	}
	return nil
}

// settle waits until the cluster is whole: etcd on all nodes, one primary that two standbys follow, none of them behind, and
// HAProxy knows it.
func (c *cluster) settle(t *testing.T) {
	t.Helper()
	var reason error
	deadline := time.Now().Add(settling)
	for tick := time.NewTicker(100 * time.Millisecond); ; <-tick.C {
		if reason = c.whole(t.Context()); reason == nil {
			tick.Stop()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %v the cluster is not whole: %v", settling, reason)
		}
	}
}

// whole returns nil if the cluster is whole, else what is missing.
func (c *cluster) whole(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	primary := c.primary(nil)
	if primary == nil {
		return errors.New("there is no primary")
	}
	for _, n := range c.nodes {
		if !n.etcdHealthy() || !n.answers("/readiness") {
			return fmt.Errorf("%s is not ready", n.name)
		}
	}
	response, err := client.Get("http://" + primary.address + ":8008/cluster")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var state struct {
		Members []struct {
			Name, Role, State string
			Timeline          int
			Lag               any // 0, or "unknown"
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&state); err != nil {
		return err
	}
	var roles []string
	for _, m := range state.Members {
		roles = append(roles, m.Role)
		if m.State != "running" && m.State != "streaming" || m.Timeline != state.Members[0].Timeline || m.Role != "leader" && m.Lag != float64(0) {
			return fmt.Errorf("the members are %v", state.Members)
		}
	}
	slices.Sort(roles)
	want, wantSync := []string{"leader", "replica", "replica"}, 0
	if c.synchronous {
		want, wantSync = []string{"leader", "replica", "sync_standby"}, 1
	}
	if !slices.Equal(roles, want) {
		return fmt.Errorf("the roles are %v", roles)
	}
	// Those that HAProxy sends to the primary write; those that it sends to any node read.
	for way, writes := range map[string]bool{"primary": true, "any": false} {
		conn, err := pgx.Connect(ctx, c.url(way))
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		var address string
		var following, synchronous int
		err = conn.QueryRow(ctx, `SELECT host(inet_server_addr()), count(*) FILTER (WHERE state = 'streaming'),
			count(*) FILTER (WHERE sync_state = 'sync') FROM pg_stat_replication`).Scan(&address, &following, &synchronous)
		if err != nil {
			return err
		}
		if writes && (address != primary.address || following != 2 || synchronous != wantSync) {
			return fmt.Errorf("HAProxy leads to %s, which %d standbys follow, %d of them synchronously", address, following, synchronous)
		}
	}
	return nil
}

// sweepVariable in the environment makes the test program the process that cleans up; it names the cluster's folder.
const sweepVariable = "PENNY_CLUSTER_FOLDER"

// watch makes the cluster's folder, and starts a process that ends the nodes' PostgreSQL and removes the folder when this
// process has ended, however that came.
func (c *cluster) watch(t *testing.T) {
	t.Helper()
	folder, err := scratch.New("", "cluster")
	if err != nil {
		t.Fatal(err)
	}
	c.folder = folder.Path
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), sweepVariable+"="+folder.Path)
	cmd.Dir = os.TempDir()
	cmd.ExtraFiles = []*os.File{folder.Lock} // until it ends, nobody else removes the folder
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the cluster's folder is left: %v", err)
		}
		folder.Lock.Close()
	})
}

func init() {
	folder := os.Getenv(sweepVariable)
	if folder == "" {
		return
	}
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	_, _ = io.Copy(io.Discard, os.Stdin)
	var err error
	for range 100 { // a PostgreSQL that is about to die may still write
		data, _ := filepath.Glob(filepath.Join(folder, "*", "data"))
		for _, one := range data {
			killAll(postgresOf(one))
		}
		if err = os.RemoveAll(folder); err == nil {
			os.Exit(0)
		}
		time.Sleep(50 * time.Millisecond)
	}
	fmt.Println(err)
	os.Exit(1)
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
		t.Logf("%s\n%s", filepath.Base(file), strings.Join(lines[max(0, len(lines)-25):], "\n"))
	}
}
